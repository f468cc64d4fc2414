"""The five tasks: what is read of a sample, which head answers, what its loss is, how it is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ..tasks.coco import require_pycocotools
from .augment import View, central, cut, jittered, random_area, random_square, whole
from .backbone import TransferEncoder
from .boxes import MAX_BOXES, placed, with_boxes
from .config import TransferConfig
from .cuboids import placed_camera, placed_cuboids, with_cuboids
from .detector import DetectionHead, detection_loss, detections
from .detector3d import CuboidHead, cuboid_detections, cuboid_loss, measured
from .heads import ClassHead, ConvNeXtHead
from .measures import Accuracy, AveragePrecision, CuboidPrecision, DepthError, Measure, Overlap
from .reading import IGNORED, read_arrays
from .samples import TransferSample, find_samples, with_labels

_TRUTHS = {"segmentation": ("semseg",), "depth": ("depth",)}
_BERHU_SHARE = 0.2
_NUM_MEASURED = 200
"""Training samples whose depths give the mean and deviation that a head starts from."""


class Goal(Protocol):
    """A task of a run.

    Attributes:
        metric: the one that decides which weights are kept; larger is better.
    """

    @property
    def metric(self) -> str:
        """Name of a metric."""
        ...

    def head(self, encoder: TransferEncoder) -> nn.Module:
        """An untrained head on its features."""
        ...

    def view(self, rng: np.random.Generator | None, width: int, height: int) -> View:
        """The part of a picture that is looked at; without `rng` the one of evaluation."""
        ...

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """What the head should say."""
        ...

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """To be minimised, a scalar."""
        ...

    def answer(self, output: Tensor) -> Tensor:
        """The head's output as the measure and users want it."""
        ...

    def measure(self) -> Measure:
        """A fresh one."""
        ...


@dataclass(frozen=True)
class Classification:
    """One class per picture.

    Args:
        config: of the run.
        classes: names, those of the training samples.
    """

    config: TransferConfig
    classes: tuple[str, ...]
    metric: str = "top1"

    def head(self, encoder: TransferEncoder) -> ClassHead:
        """Logits (B, K)."""
        return ClassHead(encoder.dim, len(self.classes))

    def view(self, rng: np.random.Generator | None, width: int, height: int) -> View:
        """Inception's crop, or the central square."""
        size, augment = self.config.image_size, self.config.augment
        if rng is None:
            return central(width, height, size, augment.center_share)
        return random_area(rng, width, height, size, augment.areas)

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """The class, int64 ()."""
        del arrays, view
        return torch.tensor(self.label(sample))

    def label(self, sample: TransferSample) -> int:
        """The number of a sample's class. Raises InputError where training has none of it."""
        return _number(self.classes, sample.label, sample)

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Cross entropy with smoothed labels; truth int64 (B,), or shares (B, K) of mixed pictures."""
        return functional.cross_entropy(
            output.float(), truth, label_smoothing=self.config.augment.label_smoothing
        )

    def answer(self, output: Tensor) -> Tensor:
        """Logits."""
        return output

    def measure(self) -> Accuracy:
        """top-1, top-5."""
        return Accuracy()


@dataclass(frozen=True)
class Segmentation:
    """One class per pixel."""

    config: TransferConfig
    metric: str = "mean_iou"

    def head(self, encoder: TransferEncoder) -> ConvNeXtHead:
        """Logits (B, K, S, S)."""
        assert self.config.data.num_classes is not None
        return _convnext(self.config, encoder.dim, self.config.data.num_classes)

    def view(self, rng: np.random.Generator | None, width: int, height: int) -> View:
        """Large-scale jitter, or the whole picture, padded."""
        return _jittered_or_whole(self.config, rng, width, height)

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """Labels int64 (S, S), IGNORED at padding."""
        del sample
        return torch.from_numpy(cut(arrays["semseg"], view, self.config.image_size, IGNORED)).long()

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Mean cross entropy of the pixels that count; 0 where none does."""
        losses = functional.cross_entropy(output, truth, ignore_index=IGNORED, reduction="sum")
        return losses / (truth != IGNORED).sum().clamp(min=1)

    def answer(self, output: Tensor) -> Tensor:
        """Logits."""
        return output

    def measure(self) -> Overlap:
        """mIoU."""
        assert self.config.data.num_classes is not None
        return Overlap(self.config.data.num_classes)


@dataclass(frozen=True)
class Depth:
    """A depth in a unit per pixel; the head's numbers are standardised.

    Args:
        config: of the run.
        mean, deviation: of the depths of training samples.
    """

    config: TransferConfig
    mean: float
    deviation: float
    metric: str = "delta1"

    def head(self, encoder: TransferEncoder) -> ConvNeXtHead:
        """Numbers (B, 1, S, S)."""
        return _convnext(self.config, encoder.dim, 1)

    def view(self, rng: np.random.Generator | None, width: int, height: int) -> View:
        """A square at any place, or the central one."""
        size = self.config.image_size
        return central(width, height, size) if rng is None else random_square(rng, width, height, size)

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """Depth float32 (S, S), 0 where it is unknown or too far to count."""
        del sample
        depth = cut(arrays["depth"], view, self.config.image_size, 0.0)
        limit = self.config.data.max_depth
        return torch.from_numpy(depth if limit is None else np.where(depth < limit, depth, np.float32(0)))

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Reverse Huber (arXiv 1606.00373): L1, but L2 beyond a fifth of the largest error; valid pixels."""
        valid = truth > 0
        error = (output[:, 0].float() - (truth - self.mean) / self.deviation)[valid].abs()
        if not error.numel():
            return output.sum() * 0
        bend = (_BERHU_SHARE * error.detach().max()).clamp(min=1e-5)
        return torch.where(error < bend, error, (error.square() + bend.square()) / (2 * bend)).mean()

    def answer(self, output: Tensor) -> Tensor:
        """Depths in the unit."""
        return output.float() * self.deviation + self.mean

    def measure(self) -> DepthError:
        """delta1 and its like."""
        return DepthError()


@dataclass(frozen=True)
class Detection:
    """Boxes with classes.

    Args:
        config: of the run.
        classes: names, those of the training samples.
    """

    config: TransferConfig
    classes: tuple[str, ...]
    metric: str = "ap"

    def head(self, encoder: TransferEncoder) -> DetectionHead:
        """Answers of all cells (B, L, 8 + K)."""
        return DetectionHead(encoder, len(self.classes), self.config.head)

    def view(self, rng: np.random.Generator | None, width: int, height: int) -> View:
        """Large-scale jitter, or the whole picture, padded."""
        return _jittered_or_whole(self.config, rng, width, height)

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """float32 (MAX_BOXES, 6): corners in pixels of the square, class (-1 where none is), crowd or not."""
        height, width = arrays["rgb"].shape[:2]
        nothing = np.zeros((len(sample.boxes.labels), 0), np.float32)
        return self._rows(sample, view, (width, height), nothing, np.zeros(0, np.float32))

    def _rows(
        self,
        sample: TransferSample,
        view: View,
        size: tuple[int, int],
        more: np.ndarray,
        constant: np.ndarray,
    ) -> Tensor:
        """What is true of each box, then `more` (N, C) of it, then a constant (D,) of the picture."""
        boxes = sample.boxes
        corners = placed(boxes, view, *size)
        rest = [
            (self.number(label, sample), crowd)
            for label, crowd in zip(boxes.labels, boxes.crowds, strict=True)
        ]
        rows = np.concatenate([corners, np.array(rest, np.float32).reshape(-1, 2), more], axis=1)
        rows = rows[(corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])]
        truth = torch.full((MAX_BOXES, rows.shape[1] + len(constant)), -1.0)
        truth[:, rows.shape[1] :] = torch.from_numpy(constant)
        truth[: len(rows), : rows.shape[1]] = torch.from_numpy(rows)
        return truth

    def number(self, label: str, sample: TransferSample) -> int:
        """Of a class. Raises InputError where training has none of it."""
        return _number(self.classes, label, sample)

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Of FCOS: classes, boxes, centres."""
        return detection_loss(output, truth)

    def answer(self, output: Tensor) -> Tensor:
        """Boxes (B, NUM_FOUND, 6), see `detections`."""
        return detections(output, self.config.image_size)

    def measure(self) -> Measure:
        """COCO's AP."""
        return AveragePrecision(len(self.classes))


@dataclass(frozen=True)
class Detection3d(Detection):
    """Cuboids with classes, each with its box.

    Args:
        config, classes: as `Detection`.
        start: mean logarithms of depth and sides of the training samples, see `CuboidHead`.
    """

    start: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    metric: str = "ap3d"

    def head(self, encoder: TransferEncoder) -> CuboidHead:
        """Answers of all cells (B, L, 12 + 8 + K)."""
        return CuboidHead(encoder, len(self.classes), self.config.head, self.start)

    def truth(self, sample: TransferSample, arrays: dict[str, np.ndarray], view: View) -> Tensor:
        """float32 (MAX_BOXES, 34): box, class and crowd as `Detection`, corners in metres, the camera."""
        height, width = arrays["rgb"].shape[:2]
        corners = placed_cuboids(sample.cuboids, view).reshape(-1, 24)
        camera = placed_camera(sample.cuboids.camera * np.array([width, height] * 2), view)
        return self._rows(sample, view, (width, height), corners, camera)

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Of boxes and cuboids."""
        return cuboid_loss(output, truth, self.config.image_size)

    def answer(self, output: Tensor) -> Tensor:
        """Boxes with cuboids (B, NUM_FOUND, 18), see `cuboid_detections`."""
        return cuboid_detections(output, self.config.image_size)

    def measure(self) -> Measure:
        """Omni3D's AP3D."""
        return CuboidPrecision(len(self.classes), self.config.image_size)


def _jittered_or_whole(
    config: TransferConfig, rng: np.random.Generator | None, width: int, height: int
) -> View:
    size = config.image_size
    if rng is None:
        return whole(width, height, size)
    return jittered(rng, width, height, size, config.augment.scales)


def _number(classes: Sequence[str], label: str, sample: TransferSample) -> int:
    if label not in classes:
        raise InputError(
            f"{sample.files['rgb']}: its class {label!r} is not among those of the training samples: "
            f"{', '.join(classes[:20])}."
        )
    return classes.index(label)


def _convnext(config: TransferConfig, dim: int, channels: int) -> ConvNeXtHead:
    head = config.head
    return ConvNeXtHead(
        dim,
        channels,
        config.image_size,
        readout=head.readout,
        width=head.width,
        cells=head.cells,
        depth=head.depth,
    )


def find_data(config: TransferConfig) -> tuple[Goal, list[TransferSample], list[TransferSample]]:
    """The goal of a run with its training and validation samples.

    Raises:
        InputError: folders in another layout, classes of validation that training lacks, no depth anywhere.
        LimitError: too many boxes in one picture.
        ModelError: what detections are measured with is not installed.
    """
    needed = {*config.inputs, *_TRUTHS.get(config.task, ())} - {"rgb"}
    maps = sorted(needed)
    train, val = (find_samples(source, maps) for source in (config.data.train, config.data.val))
    if config.task == "segmentation":
        return Segmentation(config), train, val
    if config.task == "depth":
        return Depth(config, *_depth_spread(config, train)), train, val
    if config.task in ("detection", "detection3d"):
        return _find_boxes(config, train, val)
    train, val = (with_labels(samples, config.data.attribute) for samples in (train, val))
    classes = tuple(sorted({sample.label for sample in train}))
    if len(classes) < 2:
        raise InputError(f"The training pictures are of one class ({', '.join(classes)}); two are needed.")
    goal = Classification(config, classes)
    for sample in val:
        goal.label(sample)
    return goal, train, val


def _find_boxes(
    config: TransferConfig, train: Sequence[TransferSample], val: Sequence[TransferSample]
) -> tuple[Goal, list[TransferSample], list[TransferSample]]:
    require_pycocotools("Detection")  # before hours of training
    read = with_boxes if config.task == "detection" else with_cuboids
    boxed = read(config.data.train, train), read(config.data.val, val)
    classes = tuple(sorted({label for sample in boxed[0] for label in sample.boxes.labels}))
    goal = Detection(config, classes)
    if config.task == "detection3d":
        goal = Detection3d(config, classes, start=_mean_cuboid(boxed[0]))
    for sample in boxed[1]:
        for label in sample.boxes.labels:
            goal.number(label, sample)
    return goal, *boxed


def _mean_cuboid(samples: Sequence[TransferSample]) -> tuple[float, ...]:
    """Mean logarithms of depth, for a camera whose focal length is the longer side, and of the sides."""
    found: list[Tensor] = []
    for sample in samples:
        counts = ~np.array(sample.boxes.crowds, bool)
        middle, sides, _ = measured(torch.from_numpy(sample.cuboids.corners[counts]))
        depth = middle[:, 2:] / float(sample.cuboids.camera[:2].min())
        found.append(torch.cat([depth, sides], dim=1).log())
    return tuple(torch.cat(found).mean(0).tolist())


def _depth_spread(config: TransferConfig, samples: Sequence[TransferSample]) -> tuple[float, float]:
    step = max(1, len(samples) // _NUM_MEASURED)
    limit = config.data.max_depth or np.inf
    found: list[np.ndarray] = []
    for sample in samples[::step]:
        depth = read_arrays(sample, config.data)["depth"]
        found.append(depth[(depth > 0) & (depth < limit)])
    values = np.concatenate(found).astype(np.float64)
    if len(values) == 0 or values.std() == 0:
        raise InputError(
            f"{samples[0].files['depth']} and others: no depths that differ between 0 and {limit:g}; look at "
            "data.depth_scale and data.max_depth."
        )
    return float(values.mean()), float(values.std())
