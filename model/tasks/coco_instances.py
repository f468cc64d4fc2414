"""Instance segmentation on COCO: masks of things whose boxes are given, as for SAM.

The paper's model "is queried on the bounding boxes": the text that it completes holds the box of one instance
and lacks its mask (arXiv 2406.09406, F.2). Masks are compared in the 224 x 224 frame of the central square.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..images import nearest_square
from ..instances import paste
from ..readers.rle import decode_rle, is_rle
from ..tokenizers.instances import FRAME
from ..values import INSTANCE, Value
from .coco import CocoImage, average_precision, find, read_annotations, read_images, require_pycocotools
from .task import Sample, Task, read_square

LAYOUT = """\
DIR/val2017/000000000139.jpg ...
DIR/annotations/instances_val2017.json
(val2017.zip and annotations_trainval2017.zip of cocodataset.org)"""

_WHAT = "Instance segmentation"


class CocoInstances(Task[np.ndarray]):
    """Instance segmentation: how well the mask in each given box is found, whatever its class.

    Crowds and instances outside the central square are left out.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.

    Raises:
        InputError: another layout.
        ModelError: pycocotools is not installed.
    """

    target = "sam_instance"

    def __init__(self, folder: Path, size: int) -> None:
        require_pycocotools(_WHAT)
        path = find(folder, "annotations/instances_val2017.json", "instances_val2017.json", layout=LAYOUT)
        content = read_annotations(path, "images", "annotations")
        images = read_images(content["images"], find(folder, "val2017", layout=LAYOUT), path)
        self._of_image: dict[int, list[Mapping[str, Any]]] = {key: [] for key in images}
        for one in content["annotations"]:
            key = one.get("image_id")
            if not isinstance(key, int) or key not in images:
                raise InputError(f"{path}: an annotation is of image {str(key)[:40]}, which is not listed.")
            if not one.get("iscrowd"):
                self._of_image[key].append(one)
        self._images = [image for key, image in images.items() if self._of_image[key]]
        if not self._images:
            raise InputError(f"{path}: no picture has an instance.")
        self.names = [image.file.name for image in self._images]
        self._size = size
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._overlaps: list[float] = []
        self._num_pictures = 0

    def read(self, index: int) -> Sample[np.ndarray]:
        """Picture with the boxes to fill, and their masks bool (K, 224, 224)."""
        image = self._images[index]
        masks = [_mask(one, image) for one in self._of_image[image.id]]
        squares = [square for mask in masks if (square := nearest_square(mask, FRAME)).any()]
        prompts = np.zeros(len(squares), INSTANCE)
        prompts["box"] = np.reshape([_box(square) for square in squares], (-1, 4))
        item = {"rgb": read_square(image.file, self._size), self.target: prompts}
        return Sample(item, np.reshape(squares, (-1, FRAME, FRAME)))

    def add(self, sample: Sample[np.ndarray], answers: Sequence[Value | None]) -> None:
        """Count one picture: as many instances, in the order of the boxes."""
        (answer,) = answers
        assert isinstance(answer, np.ndarray)
        self._num_pictures += 1
        for mask, instance in zip(sample.truth, answer, strict=True):
            found = paste(instance["mask"].astype(np.float32), instance["box"])
            union = int((mask | found).sum())
            self._overlaps.append(int((mask & found).sum()) / union)
            self._truth.append(_entry(len(self._truth) + 1, self._num_pictures, mask) | {"iscrowd": 0})
            if found.any():
                self._found.append(_entry(len(self._found) + 1, self._num_pictures, found) | {"score": 1.0})

    def metrics(self) -> dict[str, float]:
        """`mean_iou` over instances; `ap` and `ap50`, mask average precision without classes as COCO does it
        (IoU 0.5 to 0.95; 0.5), all masks having the same score."""
        count = max(len(self._overlaps), 1)
        precision = average_precision(self._truth, self._found, "segm")
        return {"mean_iou": sum(self._overlaps) / count, "ap": precision["ap"], "ap50": precision["ap50"]}

    def notes(self) -> dict[str, Any]:
        """`num_instances`: boxes that were asked for."""
        return {"num_instances": len(self._overlaps)}


def _entry(key: int, image: int, mask: np.ndarray) -> dict[str, Any]:
    """A mask as an annotation of pycocotools."""
    coded = require_pycocotools(_WHAT).encode(np.asfortranarray(mask, np.uint8))
    return {"id": key, "image_id": image, "category_id": 1, "segmentation": coded, "area": int(mask.sum())}


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around a mask, the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _mask(annotation: Mapping[str, Any], image: CocoImage) -> np.ndarray:
    """The mask bool (H, W) of an annotation: polygons, or run lengths plain or compressed."""
    name = f"{image.file.name}: annotation {annotation.get('id')}"
    value = annotation.get("segmentation")
    if isinstance(value, list) and value and all(_is_polygon(one) for one in value):
        coder = require_pycocotools(_WHAT)
        value = coder.merge(coder.frPyObjects(value, image.height, image.width))
    if not isinstance(value, Mapping) or not is_rle(value):
        raise InputError(f"{name} has neither polygons nor run lengths.")
    mask = decode_rle(value, name)
    if mask.shape != (image.height, image.width):
        raise InputError(f"{name} has run lengths of another size than its picture, {mask.shape}.")
    return mask


def _is_polygon(value: object) -> bool:
    """Whether it is x, y, x, y, ... of three corners or more."""
    return (
        isinstance(value, list)
        and len(value) >= 6
        and len(value) % 2 == 0
        and all(isinstance(number, int | float) and abs(number) < 1e6 for number in value)
    )
