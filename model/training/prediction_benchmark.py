"""How well a model predicts the maps of scenes that it has never seen from their pixels, and what its tokens
alone would allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..pictures import draw_overview
from ..predictor import Kept
from ..registry import Model, load_model
from ..scenes import SEMSEG_CLASSES, Scene, SceneRecord, Split, describe_scene
from ..tasks.depth import depth_errors
from ..tasks.normals import AngularError, unit_normals
from ..tasks.segmentation import ClassOverlap
from ..values import Predicted, Value
from .benchmark import Progress, read_item

PREDICTED = ("depth", "semseg", "normal")
SHEET = "predictions.webp"
_SHOWN = (*PREDICTED, "canny_edge")
_NUM_SHOWN = 4
_BATCH = 50
_SKY = 65535

Report = dict[str, dict[str, dict[str, float]]]
"""Modality, then `predicted` from RGB, `tokens` (the truth through its tokenizer) or, of depth, `mean` (that
of each picture's own depth, the best that one number can do); then the metric."""


class _Errors:
    """Errors of one kind of map over many scenes."""

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self._depth: list[dict[str, float]] = []
        self._overlap, self._angles = ClassOverlap(len(SEMSEG_CLASSES)), AngularError()

    def add(self, found: Value, record: SceneRecord) -> None:
        predicted, truth = np.asarray(found), np.asarray(record.values[self._raw])
        if self._raw == "semseg":
            self._overlap.add(predicted, truth)
        elif self._raw == "depth":
            self._depth.append(depth_errors(predicted, truth.astype(np.float64), _seen(record)))
        else:
            self._angles.add(unit_normals(predicted), unit_normals(truth), _seen(record))

    def metrics(self) -> dict[str, float]:
        if self._raw == "semseg":
            return self._overlap.metrics()
        if self._raw == "depth":
            return {key: float(np.mean([one[key] for one in self._depth])) for key in self._depth[0]}
        return self._angles.metrics()


def prediction_benchmark(
    folder: Path,
    num: int,
    *,
    seed: int = 0,
    split: Split = "unseen",
    size: int = 128,
    progress: Progress | None = None,
) -> Report:
    """Predict depth, segmentation and normals of scenes from their pixels, as `anyseek predict` does.

    Depth has no unit: scale and shift are fitted to each picture's truth (`tasks/depth.py`). Sky is left out
    of depth and normals.

    Args:
        folder: a bundle.
        num: scenes.
        seed, split: which scenes.
        size: of their pictures.
        progress: told the stage, what is done, of how much.
    """
    model = load_model(folder, spaces=())
    known = [raw for raw in PREDICTED if raw in model.targets]
    errors = {(raw, kind): _Errors(raw) for raw in known for kind in ("predicted", "tokens")}
    mean = _Errors("depth")
    for start in range(0, num, _BATCH):
        numbers = range(start, min(start + _BATCH, num))
        records = [describe_scene(Scene.sample(seed, i, split=split), size) for i in numbers]
        for raw in known:
            for kind, found in _found(model, records, raw):
                for value, record in zip(found, records, strict=True):
                    errors[raw, kind].add(value, record)
        for record in records if "depth" in known else ():
            mean.add(np.zeros((size, size)), record)
        if progress is not None:
            progress("predictions", numbers.stop, num)
    report: Report = {raw: {} for raw in known}
    for (raw, kind), sums in errors.items():
        report[raw][kind] = sums.metrics()
    if "depth" in known:
        report["depth"]["mean"] = mean.metrics()
    return report


def draw_predictions(folder: Path, *, seed: int = 0, size: int = 128) -> Image.Image | None:
    """A sheet of the first unseen scenes: what is true, and below it what the model predicts from the pixels.

    None where the model predicts none of it.
    """
    model = load_model(folder, spaces=())
    known = [raw for raw in _SHOWN if raw in model.targets]
    if not known:
        return None
    rows: list[Mapping[str, Value | Predicted]] = []
    names: list[str] = []
    for number in range(_NUM_SHOWN):
        record = describe_scene(Scene.sample(seed, number), size)
        item = read_item(model.embedder, record, ("rgb",))
        truth = {raw: record.values[raw] for raw in known}
        if "depth" in truth:
            truth["depth"] = np.asarray(truth["depth"]).astype(np.float32)
        (found,) = model.predictor.predict([item], known)
        rows += [{"rgb": record.values["rgb"], **truth}, {"rgb": record.values["rgb"], **found}]
        names += [f"Scene {number + 1}", f"Scene {number + 1}, from its RGB alone"]
    return draw_overview(rows, names=names, classes=SEMSEG_CLASSES, size=200)


def _found(model: Model, records: list[SceneRecord], raw: str) -> Iterator[tuple[str, list[Value]]]:
    """Values predicted from pixels, then the truth through its tokenizer."""
    items = [read_item(model.embedder, record, ("rgb", raw)) for record in records]
    given = [{"rgb": item["rgb"]} for item in items]
    yield "predicted", _values(model.predictor.predict(given, [raw]), raw)
    grid = model.parts.targets[raw].grid
    assert grid is not None
    keep = [{raw: Kept(item[raw], np.zeros(grid, bool))} for item in items]
    yield "tokens", _values(model.predictor.predict(given, [raw], keep=keep), raw)


def _values(found: list[dict[str, Predicted]], raw: str) -> list[Value]:
    values = [one[raw].value for one in found]
    assert all(value is not None for value in values)
    return [value for value in values if value is not None]


def _seen(record: SceneRecord) -> np.ndarray:
    return np.asarray(record.values["depth"]) < _SKY
