"""A model of scenes as a folder: weights, tokenizers, card, log of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import save_checkpoint
from ..fourm import FourM
from ..scenes import SEMSEG_CLASSES
from ..sources import BUNDLE_FILE
from .curves import CURVES, draw_curves
from .evaluate import Fitted
from .scene_masking import TEXTS

_DESCRIPTION = "Small 4M model of rendered 3D scenes ({size} px). Good for scenes, not for photos."


def write_bundle(
    folder: Path,
    model: FourM,
    tokenizers: Mapping[str, Path],
    text_tokenizer: Path,
    *,
    channels: Mapping[str, int],
    fitted: Mapping[str, Fitted],
    size: int,
    logs: Mapping[str, Path],
) -> None:
    """Write what `load_model` reads, the 4M model in 8 bits, and the curves of its training.

    Args:
        folder: made if missing.
        model: whole, with every input and target.
        tokenizers: files by modality, to copy; some may share one.
        text_tokenizer: file to copy.
        channels: of features and vectors.
        fitted: how a search by each modality ranks.
        size: of pictures, in pixels.
        logs: by name, JSON lines of the run to keep beside the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model, folder / "fourm.safetensors", dtype=torch.int8)
    for path in {*tokenizers.values(), text_tokenizer}:
        shutil.copyfile(path, folder / path.name)
    for name, path in logs.items():
        shutil.copyfile(path, folder / f"log_{name}.jsonl")
    draw_curves(logs).savefig(folder / CURVES, dpi=80)
    content = {
        "name": "scenes",
        "license": "Apache-2.0",
        "description": _DESCRIPTION.format(size=size),
        "text_tokenizer": text_tokenizer.name,
        "tokenizers": {raw: path.name for raw, path in tokenizers.items()},
        "semseg_classes": SEMSEG_CLASSES,
        "channels": channels,
        "space_weights": {raw: each.space_weights for raw, each in fitted.items()},
        "likelihood_shares": {raw: each.likelihood_share for raw, each in fitted.items()},
        "fourm": "fourm.safetensors",
    }
    # Last: it is what makes the folder a model.
    (folder / BUNDLE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_card(
    folder: Path,
    report: Mapping[str, Any],
    predictions: Mapping[str, Any],
    teachers: Mapping[str, Any],
    recipe: Mapping[str, Any],
    codes: Mapping[str, str],
) -> None:
    """Write measurements.json and README.md beside the weights.

    Args:
        folder: of the bundle.
        report: of `benchmark`.
        predictions: of `prediction_benchmark`.
        teachers: recalls by teacher.
        recipe: values of the `ScenesRecipe`.
        codes: of each tokenizer, in words.
    """
    content = {"retrieval": report, "predictions": predictions, "teachers": teachers, "recipe": recipe}
    (folder / "measurements.json").write_text(
        json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8"
    )
    (folder / "README.md").write_text(_card(content, codes), encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}  # pyright: ignore
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value  # pyright: ignore


def _card(measured: Mapping[str, Any], codes: Mapping[str, str]) -> str:
    recipe = measured["recipe"]
    steps = {kind: teacher["steps"] for kind, teacher in recipe["teachers"].items()}
    return _TEXT.format(
        **{key: f"{value:,}" for key, value in recipe.items() if isinstance(value, int)},
        table=_retrieval_table(measured["retrieval"]),
        predictions=_prediction_table(measured["predictions"]),
        teachers=_teacher_table(measured["teachers"]),
        tokenizers="\n".join(f"| {raw} | {words} |" for raw, words in codes.items()),
        texts=", ".join(raw for raw in recipe["modalities"] if raw in TEXTS and raw not in codes),
        **{f"{run}_samples": _samples(recipe, run) for run in ("start", "embed", "fourm")},
        teacher_steps=", ".join(f"{kind} {num}" for kind, num in steps.items()),
    )


def _samples(recipe: Mapping[str, Any], run: str) -> str:
    how = recipe[run]
    return f"{how['steps']:,} steps of {how['parts'] * recipe['batch_size']} samples"


def _retrieval_table(report: Mapping[str, Any]) -> str:
    others = [ranking for ranking in report if ranking != "both"]
    rows = [
        "| query | asked | R@1 | 95 % | R@5 | R@10 | median rank | R@1 " + " | R@1 ".join(others) + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(others),
    ]
    for query, row in report["both"].items():
        r1 = " | ".join(f"{report[ranking][query]['r1']:.3f}" for ranking in others)
        rows.append(
            f"| {query} | {row['num']} | **{row['r1']:.3f}** "
            f"| {row['r1_low']:.3f}-{row['r1_high']:.3f} | {row['r5']:.3f} | {row['r10']:.3f} "
            f"| {row['median_rank']:.0f} | {r1} |"
        )
    return "\n".join(rows)


def _prediction_table(predictions: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [
        "| from RGB | metric | predicted | its tokens' limit | mean of each picture |",
        "|---|---|---|---|---|",
    ]
    for raw, found in predictions.items():
        for metric in found["predicted"]:
            kinds = ("predicted", "tokens", "mean")
            cells = [f"{found[kind][metric]:.3f}" if kind in found else "" for kind in kinds]
            rows.append(f"| {raw} | {metric} | **{cells[0]}** | {cells[1]} | {cells[2]} |")
    return "\n".join(rows)


def _teacher_table(teachers: Mapping[str, Mapping[str, float]]) -> str:
    rows = ["| | " + " | ".join(teachers) + " |", "|---|" + "---|" * len(teachers)]
    for key in dict.fromkeys(key for row in teachers.values() for key in row):
        cells = " | ".join(f"{row[key]:.3f}" if key in row else "" for row in teachers.values())
        rows.append(f"| {key} | {cells} |")
    return "\n".join(rows)


_TEXT = """# scenes: a model of rendered scenes

A small 4M model (arXiv 2406.09406) of **rendered 3D scenes**: rooms and places outdoors with objects,
people and clutter. It knows nothing else: use 4M-21 for photos. Licence: Apache-2.0; no outside data or
weights went into it.

- Pictures are {size} px. It predicts everything that it reads, a picture as tokens.
- `dinov2_global` and `imagebind_global` stand for the embeddings of these names in 4M-21, as do `dinov2` and
  `imagebind` for their dense features: the first teacher is self-supervised on images, the second is aligned
  with captions, depth, normals, segmentation and edges. They are not DINOv2 and ImageBind.
- Transformer: {encoder_depth} + {decoder_depth} blocks, width {dim}, {num_heads} heads, SwiGLU, no biases.
- Text ({texts}): a WordPiece vocabulary of the words that captions use.
- Weights are stored in 8 bits with a scale per row.

| tokenizer of | codes |
|---|---|
{tokenizers}

## How it was made

`model/training/scenes.py` renders {num_scenes} training scenes with two renderings each (camera moved by 20
to 50 degrees, light changed), trains two convolutional teachers ({teacher_steps} steps), the tokenizers,
then 4M in three runs, each from the weights of the one before: pictures and captions for both global
embeddings ({start_samples}), each modality alone and some together for these embeddings ({embed_samples}),
everything for everything ({fourm_samples}). Logs of the runs lie beside this card (`log_*.jsonl`), settings
and all measurements in `measurements.json`.

![Curves of the run](curves.webp)

What was chosen on purpose:

- The self-supervised target of a scene is the mean over both renderings and their mirror images: what one
  rendering adds is noise to a search for scenes. The aligned one is that of the rendering itself: maps tell
  what is where, and little else.
- The model learns the tokenizer's whole distribution over codes, not only its mode: tokens are drawn eight
  times.
- What tells most about a scene goes first: shown everything from its first step on, a model of this size
  stays for long at how frequent each token is.
- A batch follows one component of the mixture (all of the image; all of the caption; one modality at a time;
  two or three; mixes without the image; parts of everything), see `model/training/scene_masking.py`.

## How good it is

Among {num_benchmark} unseen scenes (those of `anyseek demo`'s default seed), rendered, written, read and
embedded as users do it (`model/training/benchmark.py`). The gallery is predicted from each scene's pixels
alone. `rgb` asks with another rendering of the scene, everything else with what is known of the rendering in
the gallery. Captions leave out about a seventh of what there is to say, `whole caption` nothing; only scenes
where people or boxes are seen are asked for by them. Ranking: cosine and likelihood of
the item's tokens, in both spaces, as `space_weights` and `likelihood_shares` in `model.json` say for what is
asked by (fitted on the validation scenes); or one measure, or one space, alone.

{table}

Maps predicted from the pixels of these scenes, as `anyseek predict` does
(`model/training/prediction_benchmark.py`), beside the truth encoded and decoded by the tokenizer alone, which
is the best that any prediction of tokens can do. Depth is compared after scale and shift are fitted to each
picture, without the sky.

{predictions}

![Truth and predictions for unseen scenes](predictions.webp)

What limits retrieval: that by the teachers' own embeddings (no 4M involved, complete captions).

{teachers}

## Limits

Sixteen kinds of objects and people in six poses, eight colours, four textures, three materials, five grounds
outdoors and rooms with four floors. Captions follow a few templates; other words are spelt letter by letter
and mean nothing to it. No left and right: the camera moves. Scenes drawn by `Scene.sample` with the default
split are unseen by construction: training and validation draw from streams of their own.
"""
