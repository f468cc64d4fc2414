"""Training of the teachers of scenes, and what they say of renderings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..scenes import MAX_DEPTH
from .evaluate import ranks
from .fit import LOG, Fit, FitRecipe, Progress
from .run_log import RunLog
from .scene_arrays import SceneArrays
from .scene_data import SceneShards
from .teachers import BOUND, Aligned, ImageTower, SelfSupervised, TeacherConfig

Teacher = SelfSupervised | Aligned
Bytes = NDArray[np.uint8]

NEAR = 2.0
"""Depth in scene units that is white to the depth tower; half as near is half as bright."""
_SHIFT = 8
_RECOLORED = 0.15
_CLASS_COLORS = np.random.default_rng(0).integers(256, size=(256, 3), dtype=np.uint8)


@dataclass(frozen=True)
class TeacherRecipe(FitRecipe):
    """How a teacher is trained; `batch_size` counts scenes."""

    model: TeacherConfig = field(default_factory=TeacherConfig)
    batch_size: int = 192
    learning_rate: float = 2e-3
    log_every: int = 50
    save_every: int = 200


class TeacherObjective:
    """A teacher and its contrast."""

    def __init__(self, teacher: Teacher) -> None:
        self.network = teacher

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Mapping[str, float]]:
        """Of what the teacher compares."""
        return self.network.loss(*batch), {}

    def update(self, step: int) -> Mapping[str, float]:
        """Nothing: all of it has a gradient."""
        del step
        return {}


class TeacherBatches:
    """Batch number n for a teacher, always the same one.

    Args:
        shards: maps of renderings.
        arrays: captions and attributes of the same scenes.
        recipe: batch size and seed.
    """

    def __init__(self, shards: SceneShards, arrays: SceneArrays, recipe: TeacherRecipe) -> None:
        self._maps, self._arrays, self._recipe = shards.maps, arrays, recipe

    def pairs(self, number: int) -> tuple[Tensor, Tensor]:
        """Two renderings each of half as many scenes, some in other colors."""
        rng = np.random.default_rng([self._recipe.seed, number])
        rows = rng.integers(len(self._maps["rgb"]), size=self._recipe.batch_size // 2)
        first, second = (recolored(changed(self._maps["rgb"][rows, view], rng), rng) for view in (0, 1))
        return torch.from_numpy(first), torch.from_numpy(second)

    def aligned(self, number: int) -> tuple[Tensor, ...]:
        """Images, captions, attributes and maps."""
        rng = np.random.default_rng([self._recipe.seed, number])
        size = self._recipe.batch_size
        rows = rng.integers(len(self._maps["rgb"]), size=size)
        views, wording = rng.integers(2, size=size), rng.integers(2, size=size)
        maps = [map_pictures(raw, self._maps[raw][rows, views]) for raw in BOUND]
        pictures = np.concatenate([self._maps["rgb"][rows, views], *maps], axis=-1)
        seen = changed(pictures, rng, signed=3 + 3 * BOUND.index("normal"))
        ids = self._arrays.captions[rows, views, wording]
        return (
            torch.from_numpy(np.ascontiguousarray(seen[..., :3])),
            torch.from_numpy(ids[:, : int((ids > 0).sum(1).max())].astype(np.int64)),
            torch.from_numpy(self._arrays.attributes[rows].astype(np.float32)),
            *(halved(seen[..., start : start + 3]) for start in range(3, seen.shape[-1], 3)),
        )


def train_teacher(
    kind: str,
    shards: SceneShards,
    arrays: SceneArrays,
    recipe: TeacherRecipe,
    folder: Path,
    vocab_size: int,
    progress: Progress | None = None,
) -> Teacher:
    """Train `self_supervised` or `aligned`; a run that was interrupted in `folder` goes on."""
    torch.manual_seed(recipe.seed)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = build_teacher(kind, recipe, vocab_size, arrays.attributes.shape[1])
    batches = TeacherBatches(shards, arrays, recipe)
    draw = batches.pairs if isinstance(teacher, SelfSupervised) else batches.aligned
    fit = Fit(TeacherObjective(teacher), draw, recipe, folder=folder, log=RunLog(folder / LOG))
    fit.run(progress=progress)
    trained = fit.averaged()
    torch.save(trained.state_dict(), folder / "teacher.pt")
    return trained


def build_teacher(kind: str, recipe: TeacherRecipe, vocab_size: int, num_attributes: int) -> Teacher:
    """Make a teacher with fresh weights."""
    if kind == "self_supervised":
        teacher: Teacher = SelfSupervised(recipe.model)
    else:
        teacher = Aligned(recipe.model, vocab_size, num_attributes)
    return teacher.to(memory_format=torch.channels_last)  # pyright: ignore


def load_teacher(
    kind: str, recipe: TeacherRecipe, folder: Path, vocab_size: int, num_attributes: int
) -> Teacher:
    """Read the weights that `train_teacher` left."""
    teacher = build_teacher(kind, recipe, vocab_size, num_attributes)
    teacher.load_state_dict(torch.load(folder / "teacher.pt", weights_only=True))
    return teacher.eval()


def changed(pictures: Bytes, rng: np.random.Generator, *, signed: int | None = None) -> Bytes:
    """Pictures `(B, S, S, C)`, mirrored half of the time and all shifted by up to 8 pixels; of the channel
    `signed`, which says how much a surface looks to the right, a mirror makes the opposite.
    """
    pictures = np.ascontiguousarray(pictures)
    mirrored = rng.random(len(pictures)) < 0.5
    pictures[mirrored] = pictures[mirrored, :, ::-1]
    if signed is not None:
        pictures[mirrored, ..., signed] = 255 - pictures[mirrored, ..., signed]
    size = pictures.shape[1]
    ys, xs = (np.clip(np.arange(size) + d, 0, size - 1) for d in rng.integers(-_SHIFT, _SHIFT + 1, size=2))
    return pictures[:, ys][:, :, xs]


def recolored(pictures: Bytes, rng: np.random.Generator) -> Bytes:
    """Some of the pictures with their channels exchanged, grey, or in other light."""
    for i in np.flatnonzero(rng.random(len(pictures)) < _RECOLORED):
        one = pictures[i][..., rng.permutation(3)].astype(np.float32)
        if rng.random() < 0.25:
            one = np.repeat(one.mean(-1, keepdims=True), 3, axis=-1)
        pictures[i] = np.clip(one * rng.uniform(0.6, 1.4, 3) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return pictures


def map_pictures(raw: str, maps: NDArray[Any]) -> Bytes:
    """Stored maps `(B, S, S[, 3])` as pictures `(B, S, S, 3)`: near is bright, a class has a color."""
    if raw == "depth":
        distance = np.maximum(maps.astype(np.float32) * (MAX_DEPTH / 65535), NEAR)
        maps = (255 * NEAR / distance).astype(np.uint8)
    elif raw == "semseg":
        maps = _CLASS_COLORS[maps]
    return maps if maps.ndim == 4 else np.repeat(maps[..., None], 3, axis=-1)


def halved(pictures: Bytes) -> Tensor:
    """Pictures `(B, S, S, C)` at half their size, of four pixels the brightest: thin lines stay."""
    num, size, _, channels = pictures.shape
    blocks = pictures.reshape(num, size // 2, 2, size // 2, 2, channels)
    return torch.from_numpy(blocks.max(axis=(2, 4)))


@torch.inference_mode()
def embed_images(tower: ImageTower, rgb: Bytes, batch_size: int = 200) -> NDArray[np.float32]:
    """Embed uint8 images `(N, S, S, 3)` as unit vectors `(N, dim)`."""
    out: list[NDArray[np.float32]] = []
    for start in range(0, len(rgb), batch_size):
        with torch.autocast("cpu", torch.bfloat16):
            part = tower(torch.from_numpy(np.ascontiguousarray(rgb[start : start + batch_size])))
        out.append(part.numpy())
    return np.concatenate(out)


@torch.inference_mode()
def dense_features(tower: ImageTower, rgb: Bytes) -> NDArray[np.float32]:
    """Features `(N, C, S / 16, S / 16)` of images, at each place with mean 0 and deviation 1."""
    with torch.autocast("cpu", torch.bfloat16):
        features = tower.features(torch.from_numpy(np.array(rgb)))
    return (
        torch.nn.functional.layer_norm(features.float().movedim(1, -1), features.shape[1:2])
        .movedim(-1, 1)
        .numpy()
    )


@torch.inference_mode()
def teacher_recall(
    teacher: Teacher, shards: SceneShards, arrays: SceneArrays, num: int = 1000
) -> dict[str, float]:
    """R@1 and R@10 over `num` scenes: other rendering, caption and maps find the first rendering."""
    rgb = shards.maps["rgb"]
    gallery = embed_images(teacher.images, rgb[:num, 0])
    out = recall(embed_images(teacher.images, rgb[:num, 1]), gallery, "rgb")
    if isinstance(teacher, Aligned):
        captions = torch.from_numpy(arrays.captions[:num, 0, 0].astype(np.int64))
        out |= recall(teacher.captions(captions).numpy(), gallery, "caption")
        for raw, tower in teacher.maps.items():
            assert isinstance(tower, ImageTower)
            pictures = halved(map_pictures(raw, shards.maps[raw][:num, 0])).numpy()
            out |= recall(embed_images(tower, pictures), gallery, raw)
    return out


def recall(queries: NDArray[np.float32], gallery: NDArray[np.float32], name: str) -> dict[str, float]:
    """R@1 and R@10 where query i belongs to gallery row i."""
    found = ranks(queries @ gallery.T)
    return {f"{name}.{key}": found[key] for key in ("r1", "r10")}
