"""Scenes to a folder of ordinary files."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..conversions import main_colors
from .describe import attributes, boxes, caption, metadata
from .render import MAX_DEPTH, Rendering, render
from .scene import Scene, Split

CAPTION_DETAIL = 0.85
"""Chance that a caption mentions a thing or one of its properties. People leave out what goes without saying;
a caption that says everything would leave nothing for another modality to add."""

# Starting a process costs about a second: not worth it for less.
_MIN_PER_WORKER = 50


@dataclass(frozen=True)
class SceneRecord:
    """A rendering and all that its files say."""

    rendering: Rendering
    caption: str
    boxes: list[dict[str, object]]
    palette: list[str]
    metadata: dict[str, float | int]
    attributes: dict[str, object]


def describe_scene(scene: Scene, size: int = 96, rendering: int = 0) -> SceneRecord:
    """Render a scene and gather everything known about the result."""
    image = render(scene, size, rendering)
    return SceneRecord(
        rendering=image,
        caption=caption(scene, scene.rng(f"words{rendering}"), detail=CAPTION_DETAIL),
        boxes=boxes(scene, image),
        palette=main_colors(image.rgb),
        metadata=metadata(scene, image),
        attributes=attributes(scene),
    )


def write_scenes(
    folder: Path,
    num: int,
    *,
    seed: int = 0,
    size: int = 96,
    rendering: int = 0,
    split: Split = "unseen",
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write scenes 0 to num - 1 of a seed as images with side files; return their names ("0001", ...).

    Beside `0001.png` lie `0001.depth.png` (uint16, 65535 = `MAX_DEPTH` or sky), `.normal.png` (uint8, -1..1
    to 0..255), `.semseg.png` (uint8 indices into `SEMSEG_CLASSES`), `.caption.txt`, `.det.json`,
    `.color_palette.json`, `.metadata.json`, and the attributes in `0001.json`.

    Args:
        folder: made if it does not exist; files of the same names are replaced.
        num: how many scenes.
        seed: equal seeds give equal files.
        size: pixels along each side.
        rendering: 0 for the scenes themselves; 1, 2, ... for the same with camera moved and light changed.
        split: leave it at "unseen" for scenes that the shipped model has not been trained on.
        workers: processes; few scenes are rendered in this one.
        progress: called with the number of finished scenes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(num)))
    names = [f"{index + 1:0{digits}d}" for index in range(num)]
    write = partial(_write_one, folder, seed, size, rendering, split)
    workers = min(workers, max(1, num // _MIN_PER_WORKER))
    if workers == 1:
        for index, name in enumerate(names):
            write(index, name)
            if progress is not None:
                progress(index + 1)
        return names
    # A forked child of a process with threads (torch, FAISS) may hang: start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done, _ in enumerate(pool.map(write, range(num), names, chunksize=20), start=1):
            if progress is not None:
                progress(done)
    return names


def _write_one(
    folder: Path, seed: int, size: int, rendering: int, split: Split, index: int, name: str
) -> None:
    record = describe_scene(Scene.sample(seed, index, split=split), size, rendering)
    image = record.rendering
    _write_image(folder / f"{name}.png", image.rgb)
    _write_image(folder / f"{name}.depth.png", encode_depth(image.depth))
    _write_image(folder / f"{name}.normal.png", np.round((image.normal + 1) * 127.5).astype(np.uint8))
    _write_image(folder / f"{name}.semseg.png", image.semseg)
    (folder / f"{name}.caption.txt").write_text(record.caption + "\n", encoding="utf-8")
    for suffix, value in (
        ("det.json", record.boxes),
        ("color_palette.json", record.palette),
        ("metadata.json", record.metadata),
        ("json", record.attributes),
    ):
        (folder / f"{name}.{suffix}").write_text(json.dumps(value) + "\n", encoding="utf-8")


def encode_depth(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Scale depth in scene units to 0..65535; `MAX_DEPTH`, all beyond and sky give 65535."""
    return np.round(np.minimum(depth / MAX_DEPTH, 1) * 65535).astype(np.uint16)


def _write_image(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    Image.fromarray(pixels).save(path, compress_level=3)
