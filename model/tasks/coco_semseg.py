"""Semantic segmentation on COCO: the 133 classes of the panoptic annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..images import nearest_square
from ..values import Value
from .coco import find, read_annotations, read_categories, read_images
from .segmentation import NOTHING, ClassOverlap, vote
from .task import Sample, Task, read_picture, read_square

LAYOUT = """\
DIR/val2017/000000000139.jpg ...
DIR/annotations/panoptic_val2017.json
DIR/annotations/panoptic_val2017/000000000139.png ...
(val2017.zip and panoptic_annotations_trainval2017.zip of cocodataset.org, and panoptic_val2017.zip in it)"""


class CocoSemseg(Task[np.ndarray]):
    """Semantic segmentation: intersection over union of each class over all pixels (`ClassOverlap`).

    A segment has the class of its category, crowds too; pixels without a segment do not count.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.
        classes: of the model, label k being `classes[k - 1]`.

    Raises:
        InputError: another layout, or categories that the model does not know.
    """

    target = "semseg"
    can_ensemble = True

    def __init__(self, folder: Path, size: int, classes: Sequence[str]) -> None:
        path = find(folder, "annotations/panoptic_val2017.json", "panoptic_val2017.json", layout=LAYOUT)
        self._maps = find(folder, "annotations/panoptic_val2017", "panoptic_val2017", layout=LAYOUT)
        content = read_annotations(path, "images", "annotations", "categories")
        self._images = read_images(content["images"], find(folder, "val2017", layout=LAYOUT), path)
        self._labels = _labels(read_categories(content["categories"], path), classes, path)
        self._annotations = [_annotation(one, path) for one in content["annotations"]]
        self.names = [file for _, file, _ in self._annotations]
        self._size = size
        self._num_classes = len(classes)
        self._overlap = ClassOverlap(len(classes))

    def read(self, index: int) -> Sample[np.ndarray]:
        """Picture, and labels uint8 (S, S)."""
        image_id, file, segments = self._annotations[index]
        image = self._images.get(image_id)
        if image is None:
            raise InputError(f"{file}: the annotation names image {image_id}, which is not in the list.")
        ids = _segment_ids(self._maps / file, (image.width, image.height))
        table = {0: NOTHING} | {key: self._label(category, file) for key, category in segments.items()}
        known, places = np.unique(ids, return_inverse=True)
        unknown = [int(key) for key in known if int(key) not in table]
        if unknown:
            raise InputError(f"{self._maps / file}: segment {unknown[0]} is not in the annotations.")
        labels = np.array([table[int(key)] for key in known], np.uint8)[places.reshape(ids.shape)]
        item = {"rgb": read_square(image.file, self._size)}
        return Sample(item, nearest_square(labels, self._size))

    def add(self, sample: Sample[np.ndarray], answers: Sequence[Value | None]) -> None:
        """Count one picture; of several predictions each pixel's most frequent label."""
        self._overlap.add(vote([np.asarray(answer) for answer in answers], self._num_classes), sample.truth)

    def metrics(self) -> dict[str, float]:
        """Over all pixels."""
        return self._overlap.metrics()

    def _label(self, category: int, file: str) -> int:
        if category not in self._labels:
            raise InputError(f"{file}: category {category} is not in the list of categories.")
        return self._labels[category]


def _labels(categories: Mapping[int, str], classes: Sequence[str], path: Path) -> dict[int, int]:
    places = {name: label for label, name in enumerate(classes, 1)}
    unknown = [name for name in categories.values() if name not in places]
    if unknown:
        raise InputError(
            f"{path}: the model does not know the classes {', '.join(unknown[:5])}"
            f"{', ...' if unknown[5:] else ''}; it knows {len(classes)}: {', '.join(classes[:5])}, ..."
        )
    return {key: places[name] for key, name in categories.items()}


def _annotation(one: Mapping[str, Any], path: Path) -> tuple[int, str, dict[int, int]]:
    """Image id, file of the map, and the category of each segment."""
    match one:
        case {"image_id": int(image), "file_name": str(file), "segments_info": [*segments]} if (
            Path(file).name == file
        ):
            found: dict[int, int] = {}
            for segment in segments:
                match segment:
                    case {"id": int(key), "category_id": int(category)}:
                        found[key] = category
                    case _:
                        raise InputError(f"{path}: {file} has a segment without id and category_id.")
            return image, file, found
        case _:
            raise InputError(
                f"{path}: an annotation must have image_id, file_name and segments_info, got {str(one)[:80]}."
            )


def _segment_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Ids int64 (H, W), spelt as red + 256 green + 256^2 blue."""
    picture = read_picture(path)
    if picture.size != size:
        raise InputError(f"{path}: {picture.size} pixels, but its picture has {size}.")
    return np.asarray(picture).astype(np.int64) @ np.array([1, 256, 65_536])
