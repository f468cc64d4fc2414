"""Surface normals against ground truth: the angle between them."""

from collections.abc import Iterable
from itertools import product

import numpy as np

Signs = tuple[int, int, int]
"""+1 or -1 for each axis: what turns a data set's normals into the model's axes."""

AS_THEY_ARE: Signs = (1, 1, 1)
ALL_SIGNS: tuple[Signs, ...] = tuple((x, y, z) for x, y, z in product((1, -1), repeat=3))

_THRESHOLDS = (11.25, 22.5, 30.0)


def unit_normals(colors: np.ndarray) -> np.ndarray:
    """Normals as colours uint8 (H, W, 3) to unit vectors float32 (H, W, 3); grey has no direction: 0."""
    vectors = colors.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 0.1, vectors / np.maximum(length, 0.1), 0)


def mean_normals(samples: Iterable[np.ndarray]) -> np.ndarray:
    """The mean direction float32 (H, W, 3) of several predictions uint8 (H, W, 3)."""
    total = np.sum([unit_normals(one) for one in samples], axis=0)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-6)


class AngularError:
    """Angles between predicted and true normals over all valid pixels of a data set.

    Args:
        signs: the conventions that the ground truth may follow. Each is tried on the whole data set, and the
            one with the smallest mean error counts: three bits that are the same for every pixel.
    """

    def __init__(self, signs: Iterable[Signs] = (AS_THEY_ARE,)) -> None:
        self.signs = tuple(signs)
        self._sum = np.zeros(len(self.signs))
        self._below = np.zeros((len(self.signs), len(_THRESHOLDS)))
        self._count = 0

    def add(self, predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count one map.

        Args:
            predicted: unit vectors float (H, W, 3).
            truth: vectors float (H, W, 3) of any length above 0 where valid.
            valid: bool (H, W).
        """
        ours = predicted[valid].astype(np.float64)
        theirs = truth[valid].astype(np.float64)
        theirs /= np.linalg.norm(theirs, axis=-1, keepdims=True)
        products = ours * theirs
        for i, signs in enumerate(self.signs):
            degrees = np.degrees(np.arccos(np.clip(products @ np.asarray(signs, np.float64), -1, 1)))
            self._sum[i] += degrees.sum()
            self._below[i] += [(degrees < limit).sum() for limit in _THRESHOLDS]
        self._count += len(ours)

    @property
    def best(self) -> Signs:
        """The convention with the smallest mean error."""
        return self.signs[int(self._sum.argmin())]

    def metrics(self) -> dict[str, float]:
        """`mean_degrees`, and shares of pixels `below_11_25`, `below_22_5`, `below_30`."""
        best, count = int(self._sum.argmin()), max(self._count, 1)
        shares = (self._below[best] / count).tolist()
        names = (f"below_{limit:g}".replace(".", "_") for limit in _THRESHOLDS)
        return {"mean_degrees": float(self._sum[best] / count)} | dict(zip(names, shares, strict=True))
