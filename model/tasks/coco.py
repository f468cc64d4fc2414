"""COCO 2017 (arXiv 1405.0312): its JSON files, checked as far as the tasks read them, and its metric.

Omni3D's of cuboids is the same with another overlap.
"""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, ModelError
from ..readers.content import decode_text, parse_json, read_bytes

_MAX_JSON_BYTES = 2**31
_MAX_SIDE = 20_000


@dataclass(frozen=True)
class CocoImage:
    """One picture of the data set."""

    id: int
    file: Path
    width: int
    height: int


def find(folder: Path, *names: str, layout: str) -> Path:
    """The first of several files or folders that is there. Raises InputError, which shows the layout."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder} holds no {names[0]}. Expected:\n{layout}")


def read_annotations(path: Path, *lists: str) -> dict[str, list[Mapping[str, Any]]]:
    """The lists of objects that an annotation file must have. Raises InputError."""
    content = parse_json(decode_text(read_bytes(path, _MAX_JSON_BYTES, str(path)), str(path)), str(path))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name in lists:
        values = content.get(name) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise InputError(f"{path}: expected a list of objects under {name!r}.")
        found[name] = values
    return found


def read_images(images: list[Mapping[str, Any]], folder: Path, path: Path) -> dict[int, CocoImage]:
    """The pictures by id. Raises InputError."""
    found: dict[int, CocoImage] = {}
    for image in images:
        match image:
            case {"id": int(key), "file_name": str(name), "width": int(width), "height": int(height)} if (
                0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE and Path(name).name == name
            ):
                found[key] = CocoImage(key, folder / name, width, height)
            case _:
                raise InputError(
                    f"{path}: an image must have id, file_name, width and height, got {str(image)[:100]}."
                )
    return found


def read_categories(categories: list[Mapping[str, Any]], path: Path) -> dict[int, str]:
    """Names of the categories by id. Raises InputError."""
    found: dict[int, str] = {}
    for category in categories:
        match category:
            case {"id": int(key), "name": str(name)}:
                found[key] = name
            case _:
                raise InputError(f"{path}: a category must have id and name, got {str(category)[:100]}.")
    return found


def require_pycocotools(what: str) -> Any:
    """Its module of masks. Raises ModelError, saying what needs it, where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ModelError(f'{what} is measured by pycocotools: pip install "anyseek[eval]".') from error
    return mask


def average_precision(
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    kind: Literal["segm", "bbox"],
    num_classes: int | None = None,
) -> dict[str, float]:
    """COCO's `ap` over IoU 0.5 to 0.95, `ap50` and `ap75`.

    Args:
        truth, found: in the form of pycocotools; what is found has a `score`.
        kind: what is compared.
        num_classes: `category_id` is 1 to this; None compares whatever the class.
    """
    names = ("ap", "ap50", "ap75")
    if not truth or not found:
        return dict.fromkeys(names, 0.0)
    evaluation = _evaluation(truth, found, kind, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation.params.useCats = int(num_classes is not None)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: max(float(value), 0.0) for name, value in zip(names, evaluation.stats, strict=False)}


def average_precision_3d(
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    overlaps: Callable[[NDArray[np.floating], NDArray[np.floating]], NDArray[np.floating]],
    num_classes: int,
) -> dict[str, float]:
    """Omni3D's `ap3d` (arXiv 2207.10660) over IoU 0.05 to 0.5 of volumes, `ap3d_25` and `ap3d_50`.

    Args:
        truth, found: as of boxes, each also with its `corners` (8, 3). What lies in the box of a crowd is
            neither right nor wrong.
        overlaps: IoU (N, M) of corners (N, 8, 3) and (M, 8, 3).
        num_classes: `category_id` is 1 to this.
    """
    names = ("ap3d", "ap3d_25", "ap3d_50")
    if not truth or not found:
        return dict.fromkeys(names, 0.0)
    evaluation = _evaluation(truth, found, "bbox", num_classes)
    thresholds = np.linspace(0.05, 0.5, 10)
    evaluation.params.iouThrs = thresholds

    def compare(image: int, category: int) -> NDArray[np.floating] | list[Any]:
        wanted, told = (rows[image, category] for rows in (evaluation._gts, evaluation._dts))
        if not wanted or not told:
            return []
        # In the order that the evaluation itself has.
        order = np.argsort([-one["score"] for one in told], kind="mergesort")
        told = [told[i] for i in order[: evaluation.params.maxDets[-1]]]
        result = overlaps(*(np.stack([one["corners"] for one in rows]) for rows in (told, wanted)))
        for column, one in enumerate(wanted):
            if one["iscrowd"]:
                result[:, column] = [_share_inside(other["bbox"], one["bbox"]) for other in told]
        return result

    evaluation.computeIoU = compare
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    # IoU, recall, class, all areas, most answers; -1 for classes that are not there
    precision = evaluation.eval["precision"][..., 0, -1]
    there = precision[..., (precision > -1).any((0, 1))]
    if not there.size:
        return dict.fromkeys(names, 0.0)
    rows = (slice(None), int(np.argmin(np.abs(thresholds - 0.25))), -1)
    return {name: float(there[row].mean()) for name, row in zip(names, rows, strict=True)}


def _share_inside(box: Sequence[float], other: Sequence[float]) -> float:
    """Of the area of a box x, y, width, height, what lies in another."""
    across, down = (
        max(min(box[i] + box[i + 2], other[i] + other[i + 2]) - max(box[i], other[i]), 0.0) for i in (0, 1)
    )
    area = box[2] * box[3]
    return across * down / area if area > 0 else 0.0


def _evaluation(
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    kind: Literal["segm", "bbox"],
    num_classes: int | None,
) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images: dict[int, dict[str, int]] = {}
    for one in (*truth, *found):
        height, width = one["segmentation"]["size"] if kind == "segm" else (0, 0)
        images[one["image_id"]] = {"id": one["image_id"], "height": height, "width": width}
    categories = [{"id": 1 + number} for number in range(num_classes or 1)]
    coco: list[Any] = []
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        for annotations in (truth, found):
            coco.append(COCO())
            coco[-1].dataset = {
                "images": list(images.values()),
                "annotations": annotations,
                "categories": categories,
            }
            coco[-1].createIndex()
        return COCOeval(*coco, iouType=kind)
