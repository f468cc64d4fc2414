"""Boxes of a data set: read from its files, and moved with the view that is cut from a picture."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError, LimitError
from ..readers.boxes import parse_coco_boxes
from ..readers.coco import SLACK, is_coco
from ..readers.content import decode_text, parse_json, parse_number, read_bytes
from ..readers.texts import parse_boxes
from ..tasks.coco import CocoImage, read_annotations, read_categories, read_images
from .augment import View
from .samples import Boxes, TransferSample

MAX_BOXES = 256
"""Boxes of one picture; COCO has 93 at most."""

_MAX_FILE_BYTES = 2**22
_RAW = "det"


def with_boxes(source: Path | Mapping[str, Path], samples: Sequence[TransferSample]) -> list[TransferSample]:
    """The samples with their boxes.

    Args:
        source: a folder with `a.det.json` beside `a.jpg`, or `det/a.json` for `rgb/a.jpg`; or one place per
            kind of file, of which `det` is a folder of such files or one file in COCO's format for all.
        samples: pictures found there. One without a file has no boxes; of COCO's file, those that it lists.

    Raises:
        InputError: no boxes at all, a file that is damaged or of another layout, a listed picture that is
            not there.
        LimitError: too many boxes in one picture.
    """
    if isinstance(source, Mapping) and _RAW not in source:
        raise InputError(f"No place is named for {_RAW}; named are {', '.join(source)}.")
    place = source[_RAW] if isinstance(source, Mapping) else source
    if place.is_file():
        assert isinstance(source, Mapping)
        found = _of_data_set(place, source["rgb"], samples)
    else:
        found = [_beside(source, sample) for sample in samples]
    require_few(found)
    if not any(sample.boxes.labels for sample in found):
        raise InputError(
            f"{place} holds no boxes. Expected DIR/a.det.json beside DIR/a.jpg, DIR/det/a.json for "
            "DIR/rgb/a.jpg, or {rgb: DIR, det: FILE.json} with COCO's file of all pictures."
        )
    return found


def require_few(samples: Iterable[TransferSample]) -> None:
    """Raises LimitError where a picture has too many boxes."""
    for sample in samples:
        if len(sample.boxes.labels) > MAX_BOXES:
            raise LimitError(
                f"{sample.files['rgb']}: {len(sample.boxes.labels)} boxes, the limit is {MAX_BOXES}."
            )


def placed(boxes: Boxes, view: View, width: int, height: int) -> np.ndarray:
    """Corners float32 (N, 4) in pixels of the square; what a view cuts off is gone, the rest is empty.

    Args:
        boxes: of the picture.
        view: of it.
        width, height: of the picture.
    """
    left, top, right, bottom = view.box
    corners = boxes.corners * np.array([width, height] * 2, np.float32) - [left, top, left, top]
    corners *= np.array([view.width / (right - left), view.height / (bottom - top)] * 2)
    if view.mirrored:
        corners[:, [0, 2]] = view.width - corners[:, [2, 0]]
    return corners.clip(0, [view.width, view.height] * 2).astype(np.float32)


def require_places(
    samples: Iterable[TransferSample], places: Iterable[Path], path: Path
) -> dict[Path, TransferSample]:
    """Samples by their picture's place without suffix. Raises InputError where one that a file lists is not
    among them."""
    found = {sample.files["rgb"].with_suffix(""): sample for sample in samples}
    lacking = [place for place in places if place.with_suffix("") not in found]
    if lacking:
        raise InputError(f"{path}: lists {len(lacking):,} pictures that are not there, first {lacking[0]}.")
    return found


def require_listed(
    annotation: Mapping[str, Any], images: Container[int], categories: Container[int], where: str
) -> tuple[int, int]:
    """An annotation's `image_id` and `category_id`. Raises InputError where its file does not list them."""
    image, category = annotation.get("image_id"), annotation.get("category_id")
    if not isinstance(image, int) or image not in images:
        raise InputError(f"{where} is of image {str(image)[:40]}, which is not listed.")
    if not isinstance(category, int) or category not in categories:
        raise InputError(f"{where} has category_id {str(category)[:40]}, which is not listed.")
    return image, category


def _beside(source: Path | Mapping[str, Path], sample: TransferSample) -> TransferSample:
    picture = sample.files["rgb"]
    if isinstance(source, Path) and (source / "rgb").is_dir():
        source = {"rgb": source / "rgb", _RAW: source / _RAW}
    if isinstance(source, Path):
        path = picture.with_suffix(f".{_RAW}.json")
    else:
        path = source[_RAW] / picture.relative_to(source["rgb"]).with_suffix(".json")
    return replace(sample, boxes=_read(path, picture)) if path.exists() else sample


def _read(path: Path, picture: Path) -> Boxes:
    """The boxes of one picture's file, in any spelling that `det` has elsewhere."""
    name = str(path)
    value = parse_json(decode_text(read_bytes(path, _MAX_FILE_BYTES, name), name), name)
    if is_coco(value):
        value = parse_coco_boxes(value, name)
    if isinstance(value, Mapping) and "width" in value:
        value = value.get("instances")  # fractions of the whole picture
    else:
        _require_square(picture, name)
    try:
        found = parse_boxes(value, name)
    except InputError as error:
        if error.code != "input.empty":
            raise
        found = []
    corners = np.array([box[:4] for box in found], np.float32).reshape(-1, 4)
    return Boxes(corners, tuple(box.label for box in found), (False,) * len(found))


def _require_square(picture: Path, name: str) -> None:
    try:
        with Image.open(picture) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{picture}: cannot be read as a picture ({error}).") from error
    if width != height:
        raise InputError(
            f"{name}: a list of boxes tells of the central square alone, and the picture has {width} x "
            f'{height} pixels; give {{"instances": [...], "width": {width}, "height": {height}}}, or COCO\'s '
            "format."
        )


def _of_data_set(path: Path, colors: Path, samples: Sequence[TransferSample]) -> list[TransferSample]:
    """Those of the samples that a file in COCO's format lists."""
    content = read_annotations(path, "images", "annotations", "categories")
    images = read_images(content["images"], colors, path)
    names = read_categories(content["categories"], path)
    rows: dict[int, list[tuple[list[float], str, bool]]] = {key: [] for key in images}
    for one in content["annotations"]:
        where = f"{path}: annotation {str(one.get('id'))[:40]}"
        key, number = require_listed(one, images, names, where)
        corners = _corners(one, images[key], where)
        if corners[2] > corners[0] and corners[3] > corners[1]:  # COCO has some without area
            rows[key].append((corners, names[number], bool(one.get("iscrowd"))))
    by_picture = require_places(samples, [image.file for image in images.values()], path)
    found: list[TransferSample] = []
    for key, image in images.items():
        corners = np.array([row[0] for row in rows[key]], np.float32).reshape(-1, 4)
        boxes = Boxes(corners, tuple(row[1] for row in rows[key]), tuple(row[2] for row in rows[key]))
        found.append(replace(by_picture[image.file.with_suffix("")], boxes=boxes))
    return found


def _corners(annotation: Mapping[str, Any], image: CocoImage, where: str) -> list[float]:
    """x0, y0, x1, y1 as fractions of the picture."""
    numbers = annotation.get("bbox")
    if not isinstance(numbers, list) or len(numbers) != 4:
        raise InputError(f'{where}: expected "bbox": [x, y, width, height] in pixels.')
    x, y, w, h = (parse_number(number, f"{where}: bbox") for number in numbers)
    if min(w, h) < 0 or min(x, y) < -SLACK or x + w > image.width + SLACK or y + h > image.height + SLACK:
        raise InputError(
            f"{where}: bbox [{x:g}, {y:g}, {w:g}, {h:g}] (x, y, width, height) reaches outside the "
            f"{image.width} x {image.height} pixels of its picture."
        )
    fractions = (x / image.width, y / image.height, (x + w) / image.width, (y + h) / image.height)
    return [min(max(number, 0.0), 1.0) for number in fractions]
