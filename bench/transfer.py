"""Transfer to rendered scenes: the packaged encoder against an untrained one, RGB against RGB + depth.

    python bench/transfer.py --out /tmp/transfer-scenes

Writes scenes that the packaged model never saw (150 to train on, 100 to measure on), fine-tunes as
docs/transfer/scenes.yaml says, and prints a JSON line per run. docs/transfer.md has the result.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from anyseek.model.scenes import MAX_DEPTH, scene_file, write_cuboids, write_scenes
from anyseek.model.training.run_files import read_values
from anyseek.model.transfer import TransferConfig, TransferRun

SETTINGS = Path(__file__).parents[1] / "docs" / "transfer" / "scenes.yaml"
NUM_TRAIN, NUM_VAL = 150, 100
DETECTION: Mapping[str, Any] = {"task": "detection", "head": {"channels": 64, "depth": 1}}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "segmentation_rgb": {},
    "segmentation_rgbd": {"inputs": ["rgb", "depth"]},
    "depth_rgb": {
        "task": "depth",
        "data": {"depth_scale": MAX_DEPTH / 65535, "max_depth": 0.999 * MAX_DEPTH},  # the sky does not count
    },
    "detection_rgb": DETECTION,
    "detection_rgbd": DETECTION | {"inputs": ["rgb", "depth"]},
    "detection3d_rgb": DETECTION | {"task": "detection3d"},
    "detection3d_rgbd": DETECTION | {"task": "detection3d", "inputs": ["rgb", "depth"]},
    "main_color_rgb": {
        "task": "classification",
        "data": {"attribute": "main_color"},
        "augment": {"areas": [0.5, 1.0]},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=TASKS, action="append")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for number, (name, count) in enumerate((("train", NUM_TRAIN), ("val", NUM_VAL))):
        write(options.out / "scenes", name, count, seed=11 + number)
    for name in options.only or TASKS:
        for init in ("pretrained", "random"):
            result = TransferRun(settings(name, init, options.out), device=options.device).run()
            print(
                json.dumps({"run": f"{name}-{init}", **result["best"], "seconds": result["seconds"]}),
                flush=True,
            )


def write(scenes: Path, part: str, count: int, *, seed: int) -> None:
    """Scenes in the folder PART, their depth also in PART-depth, cuboids in PART.json."""
    if (scenes / f"{part}.json").is_file():
        return
    for name in write_scenes(scenes / part, count, seed=seed):
        target = scenes / f"{part}-depth" / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(scenes / part / scene_file(name, "depth"), target)
    write_cuboids(scenes / f"{part}.json", count, seed=seed)


def settings(name: str, init: str, out: Path) -> TransferConfig:
    """Those of the file with what the run changes."""
    values, changed = read_values(SETTINGS), TASKS[name]
    scenes, parts = out / "scenes", ("train", "val")
    folders: dict[str, Any] = {part: str(scenes / part) for part in parts}
    if name.startswith("detection3d"):
        folders = {
            part: {
                "rgb": str(scenes / part),
                "depth": str(scenes / f"{part}-depth"),
                "det3d": str(scenes / f"{part}.json"),
            }
            for part in parts
        }
    values |= {key: value for key, value in changed.items() if key not in ("data", "augment")}
    values["data"] = values["data"] | folders | changed.get("data", {})
    values["augment"] = values["augment"] | changed.get("augment", {})
    return TransferConfig.model_validate(values | {"init": init, "out": str(out / "runs" / f"{name}-{init}")})


if __name__ == "__main__":
    main()
