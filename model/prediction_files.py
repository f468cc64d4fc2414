"""Predictions of several items as files in one folder, and a sheet of what was given and predicted."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, ModelError
from .files import make_folder, replace_file, write_value
from .inputs import Content
from .modalities import raw_name
from .pictures import draw_overview
from .pictures.overview import Row
from .showing import shown_value
from .values import Predicted

if TYPE_CHECKING:
    from .registry import Model

Items = Mapping[str, Mapping[str, Content]]
"""By the name that its files get, what is known of each item by the user's names."""

OVERVIEW = "overview.png"
MAX_DRAWN = 24
"""Items on an overview."""
_BATCH = 8


@dataclass(frozen=True)
class PredictedFiles:
    """What `predict_files` wrote.

    Attributes:
        files: of each item, by modality.
        problems: of those items that have some, what was wrong with generated texts, by modality.
        errors: items that could not be read, and why.
        overview: the sheet, of the first 24 items.
    """

    overview: Path
    files: dict[str, dict[str, Path]] = field(default_factory=dict[str, dict[str, Path]])
    problems: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    errors: dict[str, InputError] = field(default_factory=dict[str, InputError])


def predict_files(
    model: "Model",
    items: Items,
    to: Sequence[str],
    out: Path,
    *,
    seed: int = 0,
    super_resolution: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> PredictedFiles:
    """Predict modalities of items and write them: `beach` gives `beach.depth.png`.

    Items go through the model in batches; one that cannot be read does not stop the others.

    Args:
        model: predicts; `load_model(name, spaces=())` opens one that does no more.
        items: what is given.
        to: what to predict, by any words for it.
        out: folder for the files; made when missing.
        seed, super_resolution: as for `ModalityPredictor.predict`.
        overwrite: replace files that are there; never those given.
        progress: told stage, steps done and how many there are; `items` is the stage of all.

    Raises:
        ModelError: nothing to predict, or what the model does not predict.
        InputError: a file is there already or would replace one that is given (code `output.taken`), cannot
            be written, or no item can be read.
        QueryError, CheckpointError: as `ModalityPredictor.predict`.
    """
    to = list(dict.fromkeys(map(raw_name, to)))
    missing = [raw for raw in to if raw not in model.targets]
    if missing or not to:
        raise ModelError(
            f"Model {model.name!r} cannot predict {', '.join(missing) or 'nothing'}; it predicts "
            f"{', '.join(model.targets)}. The 4M-21 models predict everything (`anyseek models`)."
        )
    _require_free(out, items, to, overwrite)
    make_folder(out)
    report = PredictedFiles(out / OVERVIEW)
    rows: dict[str, Row] = {}
    names = list(items)
    for start in range(0, len(names), _BATCH):
        values = _read(model, {name: items[name] for name in names[start : start + _BATCH]}, report)
        predicted = model.predictor.predict(
            list(values.values()), to, seed=seed, super_resolution=super_resolution, progress=progress
        )
        for name, targets in zip(values, predicted, strict=True):
            _write(model, name, targets, report)
            if len(rows) < MAX_DRAWN:
                shown = {raw: shown_value(model, raw, content) for raw, content in items[name].items()}
                rows[name] = {raw: value for raw, value in shown.items() if value is not None} | targets
        if progress is not None:
            progress("items", min(start + _BATCH, len(names)), len(names))
    if not rows and report.errors:
        raise next(iter(report.errors.values()))
    picture = io.BytesIO()
    draw_overview(list(rows.values()), names=list(rows), classes=model.parts.classes).save(picture, "PNG")
    replace_file(report.overview, picture.getvalue())
    return report


def _require_free(out: Path, items: Items, to: Sequence[str], overwrite: bool) -> None:
    """Refuse to replace what is given, and without `overwrite` anything."""
    if not out.is_dir():
        return
    written = {f"{name}.{raw}" for name in items for raw in to}
    given = {path.resolve() for item in items.values() for path in item.values() if isinstance(path, Path)}
    taken = [path for path in sorted(out.iterdir()) if path.stem in written or path.name == OVERVIEW]
    for path in taken:
        if path.resolve() in given:
            raise InputError(
                f"{path} is given, and would be replaced; name another folder.", code="output.taken"
            )
    if taken and not overwrite:
        raise InputError(
            f"{taken[0]} is there already; overwrite it (--overwrite), or name another folder.",
            code="output.taken",
        )


def _read(model: "Model", items: Items, report: PredictedFiles) -> dict[str, dict[str, np.ndarray]]:
    """Values of those items that can be read."""
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, contents in items.items():
        try:
            values[name] = model.read(contents)
        except InputError as error:
            report.errors[name] = error
    return values


def _write(model: "Model", name: str, targets: Mapping[str, Predicted], report: PredictedFiles) -> None:
    stem = report.overview.with_name(name)
    report.files[name] = {
        raw: write_value(raw, one.value, stem, classes=model.parts.classes)
        for raw, one in targets.items()
        if one.value is not None
    }
    if problems := {raw: one.problem for raw, one in targets.items() if one.problem}:
        report.problems[name] = problems
