"""A first training with nothing at hand: scenes are rendered, written as files and learnt from.

| in the output folder | what |
|---|---|
| `scenes/` | scenes that the model never sees, each with the files of all its modalities |
| `bundle/` | the model, its card and measurements |
| everything else | results of single stages (`scenes.py`), from which an interrupted run goes on |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..scenes import write_scenes
from .run_files import write_whole
from .scene_recipe import ScenesRecipe, tiny_recipe
from .scenes import Progress, ScenesRun

SCENES, MARKER = "scenes", "run.json"


def run_scenes(
    out: Path,
    num_scenes: int = 500,
    *,
    seed: int = 0,
    workers: int = 2,
    progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
    recipe: ScenesRecipe | None = None,
) -> dict[str, Any]:
    """Render scenes and train a small model that finds them, or go on with a run that was interrupted.

    Args:
        out: folder of all results.
        num_scenes: to be searched.
        seed: which ones. Training scenes are others, whatever the seed.
        workers: processes that render, threads that train.
        progress: told as the run goes on.
        recipe: what to train; `tiny_recipe` where None.

    Returns:
        `scenes` and `bundle`, the folders, and `retrieval`: by query, recalls of unseen scenes.

    Raises:
        ConfigError: the folder holds a run of other scenes.
    """
    _claim(out, {"scenes": num_scenes, "seed": seed})
    folder = out / SCENES
    if not (folder / f"{num_scenes:04d}.json").exists():  # written last
        write_scenes(
            folder,
            num_scenes,
            seed=seed,
            workers=workers,
            progress=lambda done: progress("write scenes", done, num_scenes),
        )
    bundle = ScenesRun(out, recipe or tiny_recipe(num_scenes), workers=workers, progress=progress).run()
    report = json.loads((bundle / "measurements.json").read_text(encoding="utf-8"))["retrieval"]["both"]
    return {"scenes": str(folder), "bundle": str(bundle), "retrieval": report}


def _claim(out: Path, wanted: dict[str, int]) -> None:
    marker = out / MARKER
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) == wanted:
            return
        raise ConfigError(f"{out} holds a run of other scenes; name another output, or remove the folder.")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(marker, json.dumps(wanted).encode())
