"""A task: samples with ground truth, what is predicted for them, and how good the predictions are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from PIL import Image

from ...errors import InputError
from ..images import ImageLimits, crop_resize, decode_image
from ..readers.content import read_bytes
from ..values import Predicted, Value

Truth = TypeVar("Truth")

_MIN_VALID = 0.01  # share of the central square


class Predictor(Protocol):
    """What a task asks: `model/predictor.ModalityPredictor`, or anything that answers like it."""

    def predict(
        self,
        items: Sequence[Mapping[str, np.ndarray]],
        to: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
    ) -> Sequence[Mapping[str, Predicted]]:
        """Predict the modalities `to` of each item, all by the user's names; values as `values.py` says."""
        ...


@dataclass(frozen=True)
class Sample(Generic[Truth]):
    """What the model is given, what it is compared with, and which part of the data it is from."""

    item: Mapping[str, np.ndarray]
    truth: Truth
    group: str = ""


class Task(ABC, Generic[Truth]):
    """Samples of a data set and the metrics of predictions for them; one object for one run.

    Attributes:
        target: the modality that is predicted, by the user's name.
        names: of the samples, as messages call them.
        can_ensemble: whether several predictions of one sample can be made one.
    """

    target: str
    names: Sequence[str]
    can_ensemble: bool = False

    @abstractmethod
    def read(self, index: int) -> Sample[Truth]:
        """Read one sample; called in threads. Raises InputError where its files cannot be used."""

    @abstractmethod
    def add(self, sample: Sample[Truth], answers: Sequence[Value | None]) -> None:
        """Count the predictions for one sample, one per seed; None is a text that could not be read."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The result over all samples counted so far."""

    def notes(self) -> dict[str, Any]:
        """What else there is to know about the result."""
        return {}


class Means:
    """Means of metrics over samples, and over the samples of each group."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float], group: str = "") -> None:
        """Count the metrics of one sample."""
        for name, value in values.items():
            for key in dict.fromkeys((name, f"{name}_{group}" if group else name)):
                total, count = self._sums.get(key, (0.0, 0))
                self._sums[key] = (total + value, count + 1)

    def metrics(self) -> dict[str, float]:
        """`{metric}` over all and `{metric}_{group}`."""
        return {name: total / count for name, (total, count) in self._sums.items()}


def read_picture(path: Path) -> Image.Image:
    """A picture file, upright and in RGB. Raises InputError, LimitError."""
    limits = ImageLimits()
    return decode_image(read_bytes(path, limits.max_bytes, str(path)), name=str(path), limits=limits)


def read_square(path: Path, size: int) -> np.ndarray:
    """The central square of a picture as the model sees it, uint8 (size, size, 3)."""
    return crop_resize(read_picture(path), size)


def require_valid(valid: np.ndarray, name: str) -> None:
    """See that enough pixels (H, W) of a sample have ground truth. Raises InputError."""
    if valid.mean() < _MIN_VALID:
        raise InputError(f"{name}: only {int(valid.sum())} pixels of the central square have ground truth.")
