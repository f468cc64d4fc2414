"""From generated token ids to values: grids and vectors through their tokenizers, texts by reading them.

A model may write anything. What can be read of it is given and what cannot is reported; nothing here raises
for ids, whatever they are.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .body import nearest_rotations
from .instances import Instance, merge_answers
from .modalities import Modality
from .parts import ModelParts
from .tokenizers.diffusion import Progress
from .tokenizers.image import Tokenizer
from .tokenizers.instances import PointInstances
from .tokenizers.parsed import parse_sequence
from .tokenizers.poses import Pose
from .tokenizers.sequences import Box
from .tokenizers.values import decoded_values
from .values import INSTANCE, PERSON, Predicted, Value

BATCH = 8
"""Items that are decoded at once."""

EDGE = 0.5
"""Brightness from which a decoded pixel is an edge. Models learn edges from black and white maps, and readers
take a picture with greys for a photo: cut, a predicted map can be given back as a query."""


class ValueDecoder:
    """Turns the ids of any target of a model into values as `values.py` describes them. Thread-safe.

    Args:
        parts: of the model; a tokenizer is opened when first needed, and only its decoder.
    """

    def __init__(self, parts: ModelParts) -> None:
        self._parts = parts

    def decode(
        self,
        row: Modality,
        tokens: Sequence[np.ndarray],
        *,
        seeds: Sequence[int],
        num_steps: int | None = None,
        progress: Progress | None = None,
    ) -> list[Predicted]:
        """Values of one target of several items.

        Args:
            row: the target, whose grid may be finer than the model's own.
            tokens: of each item, ids int64 (n,).
            seeds: of each item, what a diffusion decoder starts from.
            num_steps: of a diffusion decoder; by default its own.
            progress: told after each of its steps.

        Raises:
            ModelError, CheckpointError: the tokenizer cannot be opened.
            InputError: a useless number of steps.
        """
        if row.kind == "seq":
            return [self._read(row, ids) for ids in tokens]
        values: list[np.ndarray] = []
        for start in range(0, len(tokens), BATCH):
            batch = slice(start, start + BATCH)
            report = _part_of(progress, start, len(tokens[batch]), len(tokens))
            values.extend(self._draw(row, tokens[batch], seeds[batch], num_steps, report))
        shape = (-1,) if row.positions == "learned" or row.grid is None else row.grid
        return [
            Predicted(row.raw, value, ids.reshape(shape)) for value, ids in zip(values, tokens, strict=True)
        ]

    def _draw(
        self,
        row: Modality,
        tokens: Sequence[np.ndarray],
        seeds: Sequence[int],
        num_steps: int | None,
        progress: Progress | None,
    ) -> Iterable[np.ndarray]:
        tokenizer = self._parts.decoder(row.raw)
        ids = torch.from_numpy(np.stack(tokens)).to(tokenizer.codebook().device)
        if row.grid is not None and row.positions != "learned":
            ids = ids.unflatten(1, row.grid)
        decoded = tokenizer.decode(ids, seed=seeds, num_steps=num_steps, progress=progress)
        return _FINISH[row.reads_as](decoded_values(row.reads_as, decoded)).cpu().numpy()

    def _read(self, row: Modality, ids: np.ndarray) -> Predicted:
        parsed = parse_sequence(row.reads_as, ids, self._parts.text)
        value = parsed.value
        if value and row.reads_as in _OF_CODES:
            value = _OF_CODES[row.reads_as](value, self._parts.decoder(row.raw))
        elif value is not None and row.reads_as in _SPELT:
            value = _SPELT[row.reads_as](value)
        return Predicted(row.raw, cast("Value | None", value), np.asarray(ids, np.int64), parsed.problem)


def _part_of(progress: Progress | None, start: int, count: int, total: int) -> Progress | None:
    """What a batch tells of its steps, told as items of all: steps of a decoder, times its items."""
    if progress is None:
        return None
    return lambda done, num_steps: progress(start * num_steps + count * done, total * num_steps)


# --- grids and vectors: decoded values (B, ...) to those of `values.py`


def _picture(values: Tensor) -> Tensor:
    return _bytes(values).permute(0, 2, 3, 1)


def _bytes(values: Tensor) -> Tensor:
    return (values.float() * 255).round().byte()


def _depth(values: Tensor) -> Tensor:
    return values[:, 0].float()


def _edges(values: Tensor) -> Tensor:
    return (values[:, 0] >= EDGE).byte() * 255


def _labels(values: Tensor) -> Tensor:
    return values.byte()


def _features(values: Tensor) -> Tensor:
    return values.float()


def _direction(values: Tensor) -> Tensor:
    return functional.normalize(values.float(), dim=-1)


_FINISH: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "rgb": _picture,
        "normal": _picture,
        "depth": _depth,
        "semseg": _labels,
        "canny_edge": _edges,
        "sam_edge": _edges,
        "clip": _features,
        "dinov2": _features,
        "imagebind": _features,
        "dinov2_global": _direction,
        "imagebind_global": _direction,
    }
)


# --- texts: what `parse_sequence` gives to values of `values.py`


def _boxes(boxes: Iterable[Box]) -> list[dict[str, object]]:
    return [{"box": list(box[:4]), "label": box.label} for box in boxes]


def _hex(colors: Iterable[Sequence[int]]) -> list[str]:
    return ["#" + "".join(f"{channel:02x}" for channel in color) for color in colors]


def _nobody(_: object) -> np.ndarray:
    return np.zeros(0, PERSON)


def _nothing(_: object) -> np.ndarray:
    return np.zeros(0, INSTANCE)


def read_people(poses: Sequence[Pose], tokenizer: Tokenizer) -> np.ndarray:
    """People PERSON (N,), given one at least: joints decoded from their codes, all rotations made proper."""
    ids = torch.tensor([pose.codes for pose in poses], device=tokenizer.codebook().device)
    joints = decoded_values("human_poses", tokenizer.decode(ids)).float().cpu().numpy()
    people = np.zeros(len(poses), PERSON)
    people["pose"] = nearest_rotations(joints.reshape(-1, 23, 3, 3))
    people["rotation"] = nearest_rotations(np.asarray([pose.rotation for pose in poses]).reshape(-1, 3, 3))
    for name in ("box", "camera", "shape"):
        people[name] = [getattr(pose, name) for pose in poses]
    return people


def read_instances(answers: Sequence[PointInstances], tokenizer: Tokenizer) -> np.ndarray:
    """Instances INSTANCE (N,), those that several answers tell of once: see `merge_answers`."""
    return instance_rows(merge_answers(answers, tokenizer))


def instance_rows(found: Sequence[Instance]) -> np.ndarray:
    """Instances as INSTANCE (N,)."""
    rows = np.zeros(len(found), INSTANCE)
    for row, one in zip(rows, found, strict=True):
        row["point"], row["box"], row["mask"] = one.point, one.box, one.crop
    return rows


_SPELT: Mapping[str, Callable[..., object]] = MappingProxyType(
    {"det": _boxes, "color_palette": _hex, "human_poses": _nobody, "sam_instance": _nothing}
)
_OF_CODES: Mapping[str, Callable[..., object]] = MappingProxyType(
    {"human_poses": read_people, "sam_instance": read_instances}
)
