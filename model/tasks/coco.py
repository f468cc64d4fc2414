"""COCO 2017 (arXiv 1405.0312): its JSON files, checked as far as the tasks read them, and its metric."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError, ModelError
from ..readers.content import decode_text, parse_json, read_bytes

_MAX_JSON_BYTES = 2**29
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
        evaluation = COCOeval(*coco, iouType=kind)
        evaluation.params.useCats = int(num_classes is not None)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: max(float(value), 0.0) for name, value in zip(names, evaluation.stats, strict=False)}
