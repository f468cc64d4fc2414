"""Semantic segmentation against ground truth: intersection over union per class."""

from collections.abc import Sequence

import numpy as np

NOTHING = 0
"""Label of pixels that have no class: in the ground truth they do not count, predicted they are wrong."""


def vote(samples: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    """The label that most of several predictions uint8 (H, W) give to each pixel; of equals the lowest."""
    if len(samples) == 1:
        return samples[0]
    labels = range(num_classes + 1)
    votes = np.stack([np.sum([one == label for one in samples], axis=0) for label in labels])
    return votes.argmax(0).astype(np.uint8)


class ClassOverlap:
    """Confusion of classes over a data set.

    Args:
        num_classes: labels run from 1 to this; 0 is nothing.
    """

    def __init__(self, num_classes: int) -> None:
        self._size = num_classes + 1
        self.confusion = np.zeros((self._size, self._size), np.int64)  # (truth, predicted)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count one map: labels (H, W) of any integer type, both 0..num_classes."""
        counts = truth != NOTHING
        cells = truth[counts].astype(np.int64) * self._size + predicted[counts]
        self.confusion += np.bincount(cells, minlength=self._size**2).reshape(self._size, self._size)

    def per_class(self) -> np.ndarray:
        """Intersection over union, float64 (num_classes,); NaN for classes that no ground truth shows."""
        right, true = np.diagonal(self.confusion)[1:], self.confusion.sum(1)[1:]
        union = true + self.confusion.sum(0)[1:] - right
        return np.where(true > 0, right / np.maximum(union, 1), np.nan)

    def metrics(self) -> dict[str, float]:
        """`mean_iou` over the classes that the ground truth shows, and `pixel_accuracy`."""
        seen = self.per_class()[self.confusion.sum(1)[1:] > 0]
        right = int(np.diagonal(self.confusion).sum())
        return {
            "mean_iou": float(seen.mean()) if len(seen) else 0.0,
            "pixel_accuracy": right / max(int(self.confusion.sum()), 1),
        }
