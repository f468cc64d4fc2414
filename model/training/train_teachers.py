"""Training of teachers, and the embeddings they give."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .learning_rate import warmup_cosine
from .scene_arrays import SceneArrays
from .teachers import CaptionAligned, ImageTower, SelfSupervised, TeacherConfig


@dataclass(frozen=True)
class TeacherRecipe:
    """How a teacher is trained; `batch_size` counts images."""

    model: TeacherConfig = field(default_factory=TeacherConfig)
    steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 100
    seed: int = 0


def train_teacher(
    kind: str,
    data: SceneArrays,
    validation: SceneArrays,
    recipe: TeacherRecipe,
    folder: Path,
    vocab_size: int,
) -> nn.Module:
    """Train `self_supervised` or `caption_aligned`; weights and `{kind}.jsonl` go to `folder`."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    teacher = build_teacher(kind, recipe.model, vocab_size, data.attributes.shape[1])
    teacher.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(
        teacher.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
    )
    log = (folder / f"{kind}.jsonl").open("a", encoding="utf-8")
    start, total = time.monotonic(), 0.0
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup_cosine(step, recipe.steps, recipe.warmup)
        with torch.autocast("cpu", torch.bfloat16):
            loss = _loss(teacher, data, rng, recipe.batch_size)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            entry: dict[str, float] = {"step": step + 1, "loss": total / 50, "s": time.monotonic() - start}
            if (step + 1) % 300 == 0 or step + 1 == recipe.steps:
                entry |= teacher_recall(teacher, validation)
                torch.save(teacher.state_dict(), folder / f"{kind}.pt")
            total = 0.0
            log.write(json.dumps({k: round(v, 4) for k, v in entry.items()}) + "\n")
            log.flush()
    log.close()
    return teacher


def build_teacher(
    kind: str, config: TeacherConfig, vocab_size: int, num_attributes: int
) -> SelfSupervised | CaptionAligned:
    """Make a teacher with fresh weights."""
    if kind == "self_supervised":
        return SelfSupervised(config)
    return CaptionAligned(config, vocab_size, num_attributes)


def load_teacher(
    kind: str, config: TeacherConfig, folder: Path, vocab_size: int, num_attributes: int
) -> SelfSupervised | CaptionAligned:
    """Read the weights that `train_teacher` left."""
    teacher = build_teacher(kind, config, vocab_size, num_attributes)
    teacher.load_state_dict(torch.load(folder / f"{kind}.pt", weights_only=True))
    return teacher.eval()


def _loss(
    teacher: SelfSupervised | CaptionAligned, data: SceneArrays, rng: np.random.Generator, batch_size: int
) -> Tensor:
    if isinstance(teacher, SelfSupervised):
        rows = rng.integers(len(data.rgb), size=batch_size // 2)
        pair = [_images(data, rows, which, rng) for which in (0, 1)]
        return teacher.loss(pair[0], pair[1])
    rows = rng.integers(len(data.rgb), size=batch_size)
    which = rng.integers(data.rgb.shape[1], size=batch_size)
    wording = rng.integers(2, size=batch_size)
    ids = data.captions[rows, which, wording]
    captions = torch.from_numpy(ids[:, : int((ids > 0).sum(1).max())].astype(np.int64))
    attributes = torch.from_numpy(data.attributes[rows].astype(np.float32))
    return teacher.loss(_images(data, rows, which, rng), captions, attributes)


def _images(
    data: SceneArrays, rows: NDArray[np.int64], which: NDArray[np.int64] | int, rng: np.random.Generator
) -> Tensor:
    """Gather renderings, mirrored half of the time and shifted by up to 6 pixels."""
    rgb = np.ascontiguousarray(data.rgb[rows, which])
    mirrored = rng.random(len(rgb)) < 0.5
    rgb[mirrored] = rgb[mirrored, :, ::-1]
    dy, dx = rng.integers(-6, 7, size=2)
    size = rgb.shape[1]
    ys, xs = (np.clip(np.arange(size) + d, 0, size - 1) for d in (dy, dx))
    return torch.from_numpy(rgb[:, ys][:, :, xs])


@torch.inference_mode()
def embed_images(tower: ImageTower, rgb: NDArray[np.uint8], batch_size: int = 250) -> NDArray[np.float32]:
    """Embed uint8 images `(N, S, S, 3)` as unit vectors `(N, dim)`."""
    out: list[NDArray[np.float32]] = []
    for start in range(0, len(rgb), batch_size):
        with torch.autocast("cpu", torch.bfloat16):
            part = tower(torch.from_numpy(np.ascontiguousarray(rgb[start : start + batch_size])))
        out.append(part.numpy())
    return np.concatenate(out)


@torch.inference_mode()
def teacher_recall(
    teacher: SelfSupervised | CaptionAligned, data: SceneArrays, num: int = 1000
) -> dict[str, float]:
    """Measure R@1 and R@10 over `num` scenes: other rendering, and caption, find the first rendering."""
    gallery = embed_images(teacher.images, data.rgb[:num, 0])
    out = recall(embed_images(teacher.images, data.rgb[:num, 1]), gallery, "rgb")
    if isinstance(teacher, CaptionAligned):
        captions = torch.from_numpy(data.captions[:num, 0, 0].astype(np.int64))
        out |= recall(teacher.captions(captions).numpy(), gallery, "caption")
    return out


def recall(queries: NDArray[np.float32], gallery: NDArray[np.float32], name: str) -> dict[str, float]:
    """R@1 and R@10 where query i belongs to gallery row i."""
    scores = queries @ gallery.T
    rank = (scores > np.diag(scores)[:, None]).sum(1)
    return {f"{name}.r1": float((rank < 1).mean()), f"{name}.r10": float((rank < 10).mean())}
