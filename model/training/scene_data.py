"""Training data of the scenes model: scenes with two renderings each, as arrays on disk and JSON lines.

A folder holds one `.npy` per map, `(scenes, renderings, size, size[, 3])`, that workers fill shard by shard,
and `records_000.jsonl` with one line per scene. A shard whose records exist is complete, so an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from ..conversions import main_colors
from ..scenes import (
    Rendering,
    Scene,
    Split,
    boxes,
    caption,
    encode_depth,
    encode_normal,
    metadata,
    render,
)

SCENES_PER_SHARD = 250
NUM_RENDERINGS = 2
MAPS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "rgb": (np.uint8, 3),
    "depth": (np.uint16, 1),
    "normal": (np.uint8, 3),
    "semseg": (np.uint8, 1),
    "instances": (np.uint8, 1),
    "sam_edge": (np.uint8, 1),
}
"""Maps of a rendering: type and channels."""


@dataclass(frozen=True)
class SceneShards:
    """Rendered scenes of one split.

    Attributes:
        maps: by name, `(scenes, renderings, size, size[, 3])`, mapped into memory.
        records: per scene `objects`, `place`, and per rendering in `views` the keys `captions` (two full
            wordings, one partial), `boxes`, `palette`, `metadata`.
    """

    maps: dict[str, NDArray[Any]]
    records: list[dict[str, Any]]


def render_shards(
    folder: Path,
    split: Split,
    num_scenes: int,
    *,
    seed: int = 0,
    size: int = 128,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Render the shards that are not there yet; `progress` is told how many are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (dtype, channels) in MAPS.items():
        if not (folder / f"{name}.npy").exists():
            shape = (num_scenes, NUM_RENDERINGS, size, size, *([channels] if channels > 1 else []))
            open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
    num_shards = -(-num_scenes // SCENES_PER_SHARD)
    missing = [n for n in range(num_shards) if not (folder / f"records_{n:03d}.jsonl").exists()]
    write = partial(_write_shard, folder, split, seed, size, num_scenes)
    if workers <= 1:
        for done, shard in enumerate(missing, start=num_shards - len(missing) + 1):
            write(shard)
            if progress is not None:
                progress(done)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(write, missing), start=num_shards - len(missing) + 1):
            if progress is not None:
                progress(done)


def load_shards(folder: Path) -> SceneShards:
    """Map a complete folder into memory."""
    records: list[dict[str, Any]] = []
    for path in sorted(folder.glob("records_*.jsonl")):
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in MAPS}
    assert len(records) == len(maps["rgb"]), f"{folder} is not complete"
    return SceneShards(maps, records)


def encoded(image: Rendering) -> dict[str, NDArray[Any]]:
    """The maps of a rendering as they are stored: depth in 65535ths of MAX_DEPTH, normals in bytes."""
    return {
        "rgb": image.rgb,
        "depth": encode_depth(image.depth),
        "normal": encode_normal(image.normal),
        "semseg": image.semseg,
        "instances": image.instances,
        "sam_edge": image.edges,
    }


def _write_shard(folder: Path, split: Split, seed: int, size: int, num_scenes: int, shard: int) -> None:
    maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in MAPS}
    first = shard * SCENES_PER_SHARD
    lines: list[str] = []
    for row in range(first, min(first + SCENES_PER_SHARD, num_scenes)):
        scene = Scene.sample(seed, row, split=split)
        views: list[dict[str, Any]] = []
        for rendering in range(NUM_RENDERINGS):
            view = scene.view(rendering)
            image = render(scene, size, view)
            for name, value in encoded(image).items():
                maps[name][row, rendering] = value
            whole = caption(scene, scene.rng(f"caption{rendering}"))
            rng = scene.rng(f"more captions{rendering}")
            views.append(
                {
                    "captions": [whole, caption(scene, rng), caption(scene, rng, detail=0.7)],
                    "boxes": boxes(scene, image),
                    "palette": main_colors(image.rgb),
                    "metadata": metadata(scene, image, whole),
                    "visible": image.visible,
                }
            )
        objects = [{**asdict(item), "pose": None} for item in scene.objects]
        lines.append(json.dumps({"objects": objects, "place": asdict(scene.place), "views": views}))
    for value in maps.values():
        value.flush()
    # Written last and renamed into place: it marks the shard as complete.
    temporary = folder / f"records_{shard:03d}.tmp"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.rename(folder / f"records_{shard:03d}.jsonl")
