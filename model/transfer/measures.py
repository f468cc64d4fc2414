"""How good predictions are: classes, maps of classes, depths in a unit, boxes, cuboids."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..tasks.coco import average_precision, average_precision_3d
from ..tasks.segmentation import ClassOverlap
from .cuboids import overlaps
from .detector3d import BOX, CAMERA, CORNERS, lifted
from .reading import IGNORED

MIN_DEPTH = 1e-3
"""Depths below count as this: ratios divide by them. In the unit of the ground truth."""


class Measure(Protocol):
    """Counts predictions, then says how good they were."""

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Count a batch: the head's output and what it should be."""
        ...

    def result(self) -> dict[str, float]:
        """Metrics over all that was counted."""
        ...


class Accuracy:
    """`top1` and `top5`: shares of pictures whose class is the first, or among the first five."""

    def __init__(self) -> None:
        self._ranks: list[Tensor] = []

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Logits (B, K) and classes int64 (B,)."""
        right = output.gather(1, truth[:, None])
        # Of equal logits the true one counts as last: a head that says nothing is never right by chance.
        self._ranks.append(((output >= right).sum(1) - 1).cpu())

    def result(self) -> dict[str, float]:
        """Shares in 0..1."""
        ranks = torch.cat(self._ranks)
        return {"top1": float((ranks < 1).float().mean()), "top5": float((ranks < 5).float().mean())}


class Overlap:
    """`mean_iou` over the classes that the ground truth shows, and `pixel_accuracy`, over all pixels."""

    def __init__(self, num_classes: int) -> None:
        self._overlap = ClassOverlap(num_classes)

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Logits (B, K, S, S) and labels int64 (B, S, S), IGNORED where none counts."""
        predicted, wanted = (output.argmax(1) + 1).cpu().numpy(), (truth + 1).cpu().numpy()
        assert IGNORED + 1 == 0
        self._overlap.add(predicted, wanted)

    def result(self) -> dict[str, float]:
        """Shares in 0..1."""
        return self._overlap.metrics()


class DepthError:
    """Errors of depths in a unit, each a mean over the pixels of a picture, then over pictures.

    `delta1`, `delta2`, `delta3`: shares with max(d / t, t / d) below 1.25, its square and its cube;
    `abs_rel`: |d - t| / t; `rmse`: root of the mean square, in the unit.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Depths (B, 1, S, S), and truth (B, S, S) with 0 where it is unknown."""
        for found, wanted in zip(output[:, 0].double(), truth.double(), strict=True):
            valid = wanted > 0
            if not bool(valid.any()):
                continue
            d, t = found[valid].clamp(min=MIN_DEPTH), wanted[valid]
            ratio = torch.maximum(d / t, t / d)
            deltas = [(ratio < 1.25**k).double().mean() for k in (1, 2, 3)]
            rest = [((d - t).abs() / t).mean(), (d - t).square().mean().sqrt()]
            self._rows.append(torch.stack([*deltas, *rest]).cpu().numpy())

    def result(self) -> dict[str, float]:
        """By name; NaN where no picture had any ground truth."""
        means = np.mean(self._rows, axis=0) if self._rows else np.full(5, np.nan)
        names = ("delta1", "delta2", "delta3", "abs_rel", "rmse")
        return {name: float(value) for name, value in zip(names, means, strict=True)}


class AveragePrecision:
    """COCO's `ap` (mean over IoU 0.5 to 0.95 and over classes), `ap50` and `ap75`, by pycocotools."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes, self._num_pictures = num_classes, 0
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Boxes (B, n, 6) with score and class, and (B, M, 6) with class and whether a crowd; class -1 for
        none."""
        for found, wanted in zip(output.double().cpu(), truth.double().cpu(), strict=True):
            self._num_pictures += 1
            for x0, y0, x1, y1, number, crowd in wanted[wanted[:, 4] >= 0].tolist():
                row = _row((x0, y0, x1, y1), number, self._num_pictures, len(self._truth))
                self._truth.append(row | {"iscrowd": int(crowd)})
            for x0, y0, x1, y1, score, number in found[found[:, 5] >= 0].tolist():
                row = _row((x0, y0, x1, y1), number, self._num_pictures, len(self._found))
                self._found.append(row | {"score": score})

    def result(self) -> dict[str, float]:
        """Shares in 0..1; 0 where nothing was found."""
        return average_precision(self._truth, self._found, "bbox", self._num_classes)


class CuboidPrecision:
    """Omni3D's `ap3d` (arXiv 2207.10660; mean over volume IoU 0.05 to 0.5 and over classes), pycocotools.

    `ap3d_25` and `ap3d_50` are those at IoU 0.25 and 0.5.

    Args:
        num_classes: K.
        size: side of the square.
    """

    def __init__(self, num_classes: int, size: int) -> None:
        self._num_classes, self._size, self._num_pictures = num_classes, size, 0
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, output: Tensor, truth: Tensor) -> None:
        """Answers (B, n, 18) of `cuboid_detections`, and truth (B, M, 34)."""
        for found, wanted in zip(output.double().cpu(), truth.double().cpu(), strict=True):
            self._num_pictures += 1
            camera = wanted[0, CAMERA]
            for row in wanted[wanted[:, 4] >= 0]:
                x0, y0, x1, y1, number, crowd = row[BOX].tolist()
                one = _row((x0, y0, x1, y1), number, self._num_pictures, len(self._truth))
                corners = row[CORNERS].unflatten(-1, (8, 3)).numpy()
                self._truth.append(one | {"iscrowd": int(crowd), "corners": corners})
            found = found[found[:, 5] >= 0]
            for row, corners in zip(found, lifted(found[:, 6:], camera, self._size), strict=True):
                x0, y0, x1, y1, score, number = row[:6].tolist()
                one = _row((x0, y0, x1, y1), number, self._num_pictures, len(self._found))
                self._found.append(one | {"score": score, "corners": corners.numpy()})

    def result(self) -> dict[str, float]:
        """Shares in 0..1; 0 where nothing was found."""
        return average_precision_3d(self._truth, self._found, overlaps, self._num_classes)


def _row(box: tuple[float, float, float, float], number: float, picture: int, before: int) -> dict[str, Any]:
    """In the form of pycocotools."""
    x0, y0, x1, y1 = box
    numbers = {"id": before + 1, "image_id": picture, "category_id": int(number) + 1}
    return numbers | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
