"""Rendered scenes as tokens: what 4M is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..tokenizers.image import VQVAE
from ..tokenizers.instances import FRAME, InstanceCode, PointInstances, instances_to_string
from ..tokenizers.poses import SECTION_NAMES, Pose, poses_to_string
from ..tokenizers.sequences import Box, boxes_to_string, metadata_to_string, palette_to_string
from ..tokenizers.text import TextTokenizer
from .scene_values import SceneValues
from .token_data import padded

Ids = NDArray[np.int16]
Progress = Callable[[int], None]

GLOBAL_DRAWS = 8
"""Tokens of a global vector are drawn so often from the tokenizer's distribution: its mode alone would have
the model learn by heart which of two near codes won."""

_PALETTES, _ORDERS, _QUESTIONS = 4, 2, 4
_BATCH = 64
_MAX_POINTS = 5
_LONGEST = {"det": 64, "metadata": 64, "color_palette": 32, "human_poses": 160, "sam_instance": 160}


def grid_tokens(values: SceneValues, raw: str, tokenizer: VQVAE, num_views: int) -> Ids:
    """Ids (N, R, 1, n) of an image-like modality."""
    places = [(row, view) for row in range(len(values)) for view in range(num_views)]
    found: list[NDArray[np.int16]] = []
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            rows, views = zip(*places[start : start + _BATCH], strict=True)
            ids = tokenizer.encode(values.batch(raw, rows, views))
            found.append(ids.flatten(1).numpy().astype(np.int16))
    return np.concatenate(found).reshape(len(values), num_views, 1, -1)


@torch.inference_mode()
def feature_tokens(features: Iterable[NDArray[np.float32]], tokenizer: VQVAE) -> Ids:
    """Ids (N, n) of dense features, given in batches (B, C, h, w)."""
    return np.concatenate(
        [tokenizer.encode(torch.from_numpy(one)).flatten(1).numpy() for one in features]
    ).astype(np.int16)


@torch.inference_mode()
def drawn_tokens(vectors: NDArray[np.float32], tokenizer: VQVAE, seed: int = 0) -> Ids:
    """Ids (N, R, W, heads) drawn for global vectors (N, R, C)."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.from_numpy(vectors).flatten(0, 1)
    probabilities = tokenizer.quantize.logits(tokenizer.latent(flat)).softmax(-1)
    ids = torch.multinomial(probabilities.flatten(0, 1), GLOBAL_DRAWS, replacement=True, generator=generator)
    heads_last = ids.unflatten(0, probabilities.shape[:2]).movedim(-1, 1)
    return heads_last.unflatten(0, vectors.shape[:2]).numpy().astype(np.int16)


def text_tokens(name: str, values: SceneValues, text: TextTokenizer, num_views: int) -> Ids:
    """Ids (N, R, W, L) of boxes, statistics or palettes (of 1 to 7 colours) that the records hold."""
    rng, spelt = np.random.default_rng(0), list[str]()
    for record in values.shards.records:
        for view in record["views"]:
            if name == "det":
                spelt.append(boxes_to_string(Box(*one["box"], label=one["label"]) for one in view["boxes"]))
            elif name == "metadata":
                spelt.append(metadata_to_string(view["metadata"]))
            else:
                colors = [tuple(bytes.fromhex(color[1:])) for color in view["palette"]]
                counts = [len(colors), len(colors), *rng.integers(1, 8, size=_PALETTES - 2).tolist()]
                spelt += [palette_to_string(colors[:count]) for count in counts]
    return _ids(spelt, text, len(values), num_views, name)


def people_tokens(values: SceneValues, text: TextTokenizer, tokenizer: VQVAE, num_views: int) -> Ids:
    """Ids (N, R, W, L) of people; `none` where nobody is seen."""
    rng, spelt = np.random.default_rng(1), list[str]()
    for row in range(len(values)):
        for view in range(num_views):
            found = values.people(row, view)
            codes = _codes(tokenizer, [one["pose"].reshape(-1) for one in found])
            people = [
                Pose(
                    tuple(one["box"].tolist()),
                    tuple(code),
                    tuple(one["rotation"].ravel().tolist()),
                    tuple(one["camera"].tolist()),
                    tuple(one["shape"].tolist()),
                )
                for one, code in zip(found, codes, strict=True)
            ]
            for _ in range(_ORDERS):
                orders = [[SECTION_NAMES[i] for i in rng.permutation(4)] for _ in people]
                spelt.append(poses_to_string(people, orders))
    return _ids(spelt, text, len(values), num_views, "human_poses")


def instance_tokens(values: SceneValues, text: TextTokenizer, tokenizer: VQVAE, num_views: int) -> Ids:
    """Ids (N, R, W, L) of what is at random points, as the model is asked for instances."""
    rng, spelt = np.random.default_rng(2), list[str]()
    for row in range(len(values)):
        for view in range(num_views):
            owner = np.asarray(values.shards.maps["instances"][row, view])
            drawn = values.instances(row, view)
            seen = [number for number, one in enumerate(drawn, start=1) if one is not None]
            codes = _codes(tokenizer, [one[1][None].astype(np.float32) for one in drawn if one is not None])
            known = {
                number: InstanceCode(tuple(map(float, one[0])), tuple(code))
                for number, one, code in zip(seen, [d for d in drawn if d is not None], codes, strict=True)
            }
            for _ in range(_QUESTIONS):
                spelt.append(instances_to_string(_answers(owner, known, rng)))
    return _ids(spelt, text, len(values), num_views, "sam_instance")


def _answers(
    owner: NDArray[np.uint8], known: dict[int, InstanceCode], rng: np.random.Generator
) -> list[PointInstances]:
    """Answers at 1 to 5 points, most of them on something."""
    answers: list[PointInstances] = []
    scale = FRAME / len(owner)
    for _ in range(int(rng.integers(1, _MAX_POINTS + 1))):
        if known and rng.random() < 0.7:
            places = np.argwhere(owner == list(known)[int(rng.integers(len(known)))])
            y, x = places[int(rng.integers(len(places)))]
        else:
            y, x = rng.integers(len(owner), size=2)
        here = known.get(int(owner[y, x]))
        at = (int((x + rng.random()) * scale), int((y + rng.random()) * scale))
        answers.append(PointInstances(*at, () if here is None else (here,)))
    return answers


@torch.inference_mode()
def _codes(tokenizer: VQVAE, values: Sequence[NDArray[Any]]) -> list[list[int]]:
    if not values:
        return []
    batch = torch.from_numpy(np.stack(values).astype(np.float32))
    return tokenizer.encode(batch).flatten(1).tolist()


def _ids(texts: Sequence[str], text: TextTokenizer, num: int, num_views: int, name: str) -> Ids:
    rows = [text.encode(one).tolist() for one in texts]
    found = padded(rows, _LONGEST[name])
    return found.reshape(num, num_views, -1, found.shape[1])


def mask_values(values: SceneValues, num: int, seed: int = 0) -> NDArray[np.float32]:
    """Masks (num, 1, 64, 64) of instances, for their tokenizer."""
    rng, found = np.random.default_rng(seed), list[NDArray[np.float32]]()
    while len(found) < num:
        row, view = int(rng.integers(len(values))), int(rng.integers(2))
        found += [one[1][None].astype(np.float32) for one in values.instances(row, view) if one is not None]
    return np.stack(found[:num])


def pose_values(values: SceneValues, num_views: int = 2) -> NDArray[np.float32]:
    """Poses (n, 207) of all people."""
    found = [values.people(row, view)["pose"] for row in range(len(values)) for view in range(num_views)]
    return np.concatenate(found).reshape(-1, 207)
