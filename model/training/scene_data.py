"""Training data of the scenes model: scenes with two renderings each, in shards of arrays and JSON lines.

A shard is `rgb_000.npy`, uint8 `(scenes, renderings, size, size, 3)`, and `records_000.jsonl` with one line
per scene. A shard whose records exist is complete, so an interrupted run goes on where it stopped.
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
from numpy.typing import NDArray

from ..scenes import Scene, caption, describe_scene, metadata
from ..scenes.scene import Split

SCENES_PER_SHARD = 250
NUM_RENDERINGS = 2


@dataclass(frozen=True)
class SceneShards:
    """Rendered scenes of one split.

    Attributes:
        rgb: uint8 `(scenes, renderings, size, size, 3)`.
        records: per scene `objects`, `ground`, `pattern`, `sky`, and per rendering in `views` the keys
            `captions` (two full wordings, one partial), `boxes`, `palette`, `metadata`.
    """

    rgb: NDArray[np.uint8]
    records: list[dict[str, Any]]


def render_shards(
    folder: Path,
    split: Split,
    num_scenes: int,
    *,
    seed: int = 0,
    size: int = 96,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Render the shards that are not there yet (`num_scenes` is rounded up to whole shards)."""
    folder.mkdir(parents=True, exist_ok=True)
    per_shard = min(SCENES_PER_SHARD, num_scenes)
    num_shards = -(-num_scenes // per_shard)
    missing = [n for n in range(num_shards) if not (folder / f"records_{n:03d}.jsonl").exists()]
    write = partial(_write_shard, folder, split, seed, size, per_shard)
    if workers <= 1:
        for done, shard in enumerate(missing, start=1):
            write(shard)
            if progress is not None:
                progress(done)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(write, missing), start=1):
            if progress is not None:
                progress(done)


def load_shards(folder: Path, num_scenes: int | None = None) -> SceneShards:
    """Read the complete shards of a folder, in order, up to `num_scenes`."""
    rgb: list[NDArray[np.uint8]] = []
    records: list[dict[str, Any]] = []
    for path in sorted(folder.glob("records_*.jsonl")):
        if num_scenes is not None and len(records) >= num_scenes:
            break
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rgb.append(np.load(folder / path.name.replace("records", "rgb").replace("jsonl", "npy")))
    pixels = np.concatenate(rgb)[:num_scenes]
    return SceneShards(pixels, records[:num_scenes])


def _write_shard(folder: Path, split: Split, seed: int, size: int, num_scenes: int, shard: int) -> None:
    rgb = np.empty((num_scenes, NUM_RENDERINGS, size, size, 3), dtype=np.uint8)
    lines: list[str] = []
    for row in range(num_scenes):
        scene = Scene.sample(seed, shard * num_scenes + row, split=split)
        views: list[dict[str, Any]] = []
        for rendering in range(NUM_RENDERINGS):
            record = describe_scene(scene, size, rendering)
            rgb[row, rendering] = record.rendering.rgb
            whole = caption(scene, scene.rng(f"caption{rendering}"))
            rng = scene.rng(f"more captions{rendering}")
            views.append(
                {
                    "captions": [whole, caption(scene, rng), caption(scene, rng, detail=0.7)],
                    "boxes": record.boxes,
                    "palette": record.palette,
                    "metadata": metadata(scene, record.rendering, whole),
                    "visible": record.rendering.visible,
                }
            )
        entry = {
            "objects": [asdict(item) for item in scene.objects],
            "ground": scene.ground,
            "pattern": scene.pattern,
            "sky": scene.sky,
            "views": views,
        }
        lines.append(json.dumps(entry))
    np.save(folder / f"rgb_{shard:03d}.npy", rgb)
    # Written last and renamed into place: it marks the shard as complete.
    temporary = folder / f"records_{shard:03d}.tmp"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.rename(folder / f"records_{shard:03d}.jsonl")
