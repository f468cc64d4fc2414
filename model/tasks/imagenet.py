"""ImageNet-1K (arXiv 1409.0575) by nearest neighbours among predicted embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..values import Value
from .folders import PICTURES
from .neighbors import rank_classes
from .task import Sample, Task, read_square

LAYOUT = """\
DIR/train/n01440764/n01440764_10026.JPEG ...
DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG ...
(one folder per class in both; image-net.org's val pictures have to be sorted into them first)"""

NEIGHBORS, TEMPERATURE = 20, 0.07
"""As DINOv2 and 4M-21 measure (arXiv 2406.09406, F.3)."""

_SPLITS = ("train", "val")


class ImageNetNeighbors(Task[tuple[int, int]]):
    """Classification of the `val` pictures by the embeddings of the `train` pictures (`rank_classes`).

    Both are predicted from the picture alone. Classes are the folders of `train`. Embeddings of `train` are
    kept as float16: 2 GB for all of ImageNet.

    Args:
        folder: in the layout above.
        size: side of the square in pixels.

    Raises:
        InputError: another layout, or classes in `val` that `train` lacks.
    """

    target = "dinov2_global"

    def __init__(self, folder: Path, size: int) -> None:
        classes, samples = {}, list[tuple[Path, int, int]]()
        for split, name in enumerate(_SPLITS):
            found = _classes(folder / name)
            classes = classes or {one.name: label for label, one in enumerate(found)}
            unknown = [one.name for one in found if one.name not in classes]
            if unknown:
                raise InputError(f"{folder}: val has the class {unknown[0]}, which train lacks.")
            for one in found:
                files = sorted(path for path in one.iterdir() if path.suffix.lower() in PICTURES)
                samples += [(path, split, classes[one.name]) for path in files]
        if {split for _, split, _ in samples} != {0, 1}:
            raise InputError(f"{folder} holds no pictures in both splits. Expected:\n{LAYOUT}")
        self._samples = samples
        self.names = [str(path.relative_to(folder)) for path, _, _ in samples]
        self._num_classes = len(classes)
        self._size = size
        self._labels: tuple[list[int], list[int]] = ([], [])
        self._vectors: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def read(self, index: int) -> Sample[tuple[int, int]]:
        """Picture, and its split (0 train, 1 val) and class."""
        path, split, label = self._samples[index]
        return Sample({"rgb": read_square(path, self._size)}, (split, label))

    def add(self, sample: Sample[tuple[int, int]], answers: Sequence[Value | None]) -> None:
        """Keep one vector."""
        split, label = sample.truth
        vector = np.asarray(answers[0], np.float32)
        self._labels[split].append(label)
        self._vectors[split].append((vector / max(np.linalg.norm(vector), 1e-12)).astype(np.float16))

    def metrics(self) -> dict[str, float]:
        """`top1` and `top5`: shares of val pictures whose class is the first, or among the first five."""
        if not self._labels[0] or not self._labels[1]:
            raise InputError("No picture of one of the splits train and val could be used; raise the limit.")
        keys, queries = (np.stack(vectors) for vectors in self._vectors)
        ranked = rank_classes(
            queries,
            keys,
            np.array(self._labels[0]),
            num_classes=self._num_classes,
            k=NEIGHBORS,
            temperature=TEMPERATURE,
        )
        right = ranked == np.array(self._labels[1])[:, None]
        return {"top1": float(right[:, 0].mean()), "top5": float(right.any(1).mean())}

    def notes(self) -> dict[str, Any]:
        """How many pictures of each split, and of how many classes, were used."""
        counts = {f"num_{name}": len(labels) for name, labels in zip(_SPLITS, self._labels, strict=True)}
        return counts | {"num_classes": self._num_classes}


def _classes(split: Path) -> list[Path]:
    if not split.is_dir():
        raise InputError(f"{split} is not there. Expected:\n{LAYOUT}")
    return sorted(path for path in split.iterdir() if path.is_dir())
