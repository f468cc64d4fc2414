"""The packaged model as a folder: weights, tokenizers, card, log of the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import save_checkpoint
from ..fourm import FourM
from ..tokenizers.image import VQVAE

_DESCRIPTION = "Small 4M model of rendered 3D scenes (96 px). Good for scenes, not for photos."
_RANKINGS = {"cosine": "cosine", "likelihood": "token likelihood", "both": "both"}


def write_bundle(
    folder: Path,
    model: FourM,
    tokenizers: Mapping[str, VQVAE],
    text_tokenizer: Path,
    logs: Mapping[str, Path],
) -> None:
    """Write what `load_model` reads, in float16.

    Args:
        folder: made if missing.
        model: whole, with every input and target.
        tokenizers: by space.
        text_tokenizer: file to copy.
        logs: by name, JSON lines of the run to keep beside the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model, folder / "fourm.safetensors", dtype=torch.float16)
    files: dict[str, str] = {}
    for space, tokenizer in tokenizers.items():
        files[space] = f"tok_{space}.safetensors"
        save_checkpoint(tokenizer, folder / files[space], dtype=torch.float16)
    shutil.copyfile(text_tokenizer, folder / "text_tokenizer.json")
    for name, path in logs.items():
        shutil.copyfile(path, folder / f"log_{name}.jsonl")
    content = {
        "name": "scenes",
        "license": "Apache-2.0",
        "description": _DESCRIPTION,
        "text_tokenizer": "text_tokenizer.json",
        "tokenizers": files,
        "fourm": "fourm.safetensors",
    }
    (folder / "model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_card(
    folder: Path, report: Mapping[str, Any], ceilings: Mapping[str, Any], recipe: Mapping[str, Any]
) -> None:
    """Write README.md and measurements.json beside the weights."""
    content = {"retrieval": report, "ceilings": ceilings, "recipe": recipe}
    (folder / "measurements.json").write_text(
        json.dumps(_rounded(content), indent=1) + "\n", encoding="utf-8"
    )
    (folder / "README.md").write_text(_card(report, ceilings, recipe), encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}  # pyright: ignore
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value  # pyright: ignore


def _card(report: Mapping[str, Any], ceilings: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    table = [
        "| query | R@1 | R@5 | R@10 | median rank | R@1 cosine | R@1 likelihood |",
        "|---|---|---|---|---|---|---|",
    ]
    for query, row in report["both"].items():
        table.append(
            f"| {query} | **{row['r1']:.3f}** | {row['r5']:.3f} | {row['r10']:.3f} "
            f"| {row['median_rank']:.0f} "
            f"| {report['cosine'][query]['r1']:.3f} | {report['likelihood'][query]['r1']:.3f} |"
        )
    keys = list(dict.fromkeys(key for row in ceilings.values() for key in row))
    limits = ["| | " + " | ".join(ceilings) + " |", "|---|" + "---|" * len(ceilings)]
    for key in keys:
        cells = (f"{row[key]:.3f}" if key in row else "" for row in ceilings.values())
        limits.append(f"| {key} | " + " | ".join(cells) + " |")
    return _TEXT.format(
        table="\n".join(table),
        limits="\n".join(limits),
        num_scenes=recipe["num_scenes"],
        num_benchmark=recipe["num_benchmark"],
        size=recipe["size"],
        encoder=recipe["encoder_depth"],
        decoder=recipe["decoder_depth"],
        dim=recipe["dim"],
        heads=recipe["num_heads"],
        codes=recipe["tokenizer"]["codebook_size"],
        steps=recipe["fourm"]["steps"],
        parts=recipe["fourm"]["parts"],
        batch=recipe["batch_size"],
    )


_TEXT = """# scenes: the model that comes with anyseek

A small 4M model (arXiv 2406.09406) of **rendered 3D scenes**. It makes the demo and the tests work with no
download. It knows coloured shapes on a ground and nothing else: use 4M-21 for photos. Licence: Apache-2.0; no
outside data or weights went into it.

- Inputs, in any combination: `rgb` ({size} px), `caption`, `det`, `color_palette`, `metadata`.
- Targets: 16 tokens each of `dinov2_global` and `imagebind_global`, stand-ins of the same names as in 4M-21:
  the first teacher is self-supervised on images, the second is aligned with captions. They are not DINOv2 and
  ImageBind.
- Transformer: {encoder} + {decoder} blocks, width {dim}, {heads} heads, SwiGLU, no biases.
- MLP/Memcodes tokenizers with 16 x {codes} codes; a WordPiece vocabulary of the words that captions use. All
  stored as float16.

## How it was made

`python -m anyseek.model.training.scenes --out DIR` repeats it: {num_scenes} training scenes with two
renderings each (camera moved by 20 to 50 degrees, light changed), two convolutional teachers, two tokenizers,
then {steps} steps of {parts} x {batch} samples of masked multimodal training. Logs of the run lie beside
this card (`log_*.jsonl`), settings and all measurements in `measurements.json`. On two CPU cores
it takes about an hour and a half, a third of it 4M. What was chosen on purpose:

- A scene's target is the mean of its teacher embeddings over both renderings and their mirror images: what
  one rendering adds is noise to a search for scenes.
- The model learns the tokenizer's whole distribution over codes, not only its mode.
- A batch follows one component of the mixture (all of the image; all of the caption; one of boxes, palette,
  metadata; mixes without image; Dirichlet budgets over everything); from step 400 on, what says less than
  image and caption gets more of the batches.

## How good it is

Among {num_benchmark} unseen scenes (those of `anyseek demo`'s default seed), rendered, read and embedded as
users do it (`model/training/benchmark.py`). The gallery is predicted from each scene's pixels alone. `rgb`
asks with another rendering of the scene, everything else with what is known of the rendering in the gallery.
Captions leave out about a seventh of what there is to say. Ranking: cosine plus a quarter of the mean log
probability of the item's tokens, summed over both spaces.

{table}

What limits it: retrieval by the teachers' own embeddings (no 4M involved, complete captions), and what their
tokens keep.

{limits}

Image and caption are near what teachers and tokens allow: with complete captions the model's own R@1 is the
last `caption.r1` of `log_fourm.jsonl`, so what a shorter caption loses was not said. Boxes and metadata alone
are hardly better than chance, and so is their pair: both teachers look past camera and light, which is what
boxes and image statistics are about, and their share of the training was short. Beside another modality they
help.

## Limits

Shapes: sphere, cube, cylinder, cone, pyramid, torus. Eight colours, three materials, two sizes, six grounds
with three patterns, five skies. Captions follow a few templates; other words are spelt letter by letter and
mean nothing to it. No left and right: the camera moves. Scenes drawn by `Scene.sample` with the default split
are unseen by construction: training and validation draw from streams of their own.
"""
