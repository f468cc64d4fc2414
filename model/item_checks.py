"""Values on their way into the model: what readers give passes, anything else is refused by name."""

from typing import Any

import numpy as np

from ..errors import InputError
from .modalities import Modality
from .values import INSTANCE, PERSON

_BYTES, _FLOAT = np.dtype(np.uint8), np.dtype(np.float32)
_STRUCTURES = {"human_poses": PERSON, "sam_instance": INSTANCE}
_MOST_ROWS = 10_000  # people or instances; a text holds a handful, and the first ones are taken


def check_input(value: object, row: Modality, where: str, num_classes: int) -> np.ndarray:
    """Let a value pass as one of a modality that the model takes.

    Args:
        value: as in `values.py`, texts as token ids.
        row: the modality as the model has it.
        where: what messages call it.
        num_classes: labels of segmentations, without the one for nothing.

    Raises:
        InputError: what reading would not give: another shape or type, ids or labels that the model lacks,
            numbers that are not finite.
    """
    if not isinstance(value, np.ndarray):
        raise InputError(f"{where}: expected an array from read(), got {type(value).__name__}.")
    if row.kind == "seq" and row.reads_as not in _STRUCTURES:
        return _check_text(value, row, where)
    dtype, shape = _array_of(row)
    fits = value.ndim == len(shape) and all(
        n in size if isinstance(size, range) else n == size
        for n, size in zip(value.shape, shape, strict=True)
    )
    if value.dtype != dtype or not fits:
        sizes = ", ".join(f"{n[0]}..{n[-1]}" if isinstance(n, range) else str(n) for n in shape)
        raise InputError(
            f"{where}: expected {_name(dtype)} ({sizes}) from read(), got {_name(value.dtype)} {value.shape}."
        )
    for part in [value[name] for name in dtype.names] if dtype.names else [value]:
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError(f"{where}: holds numbers that are not finite; take it from read().")
    if row.reads_as == "semseg" and value.max() > num_classes:
        raise InputError(f"{where}: labels must lie in 0..{num_classes}, got {value.max()}.")
    return value


def _array_of(row: Modality) -> tuple[np.dtype[Any], tuple[int | range, ...]]:
    """Type and shape of a value; a range where several sizes fit."""
    size, channels = row.image_size or 0, row.channels or 0
    if row.reads_as in _STRUCTURES:
        return _STRUCTURES[row.reads_as], (range(_MOST_ROWS + 1),)
    if row.kind == "emb":
        return _FLOAT, (range(1, row.max_tokens + 1), channels)
    if row.positions == "learned":
        return _FLOAT, (channels,)
    if row.reads_as in ("rgb", "normal"):
        return _BYTES, (size, size, 3)
    if row.reads_as == "depth":
        return _FLOAT, (size, size)
    if row.reads_as in ("semseg", "canny_edge", "sam_edge"):
        return _BYTES, (size, size)
    assert row.grid is not None
    return _FLOAT, (channels, *row.grid)


def _name(dtype: np.dtype[Any]) -> str:
    return {PERSON: "PERSON", INSTANCE: "INSTANCE"}.get(dtype, str(dtype))


def _check_text(value: np.ndarray, row: Modality, where: str) -> np.ndarray:
    assert row.vocab_size is not None
    if value.ndim != 1 or value.dtype.kind not in "iu" or not 0 < len(value) <= row.max_tokens:
        raise InputError(
            f"{where}: expected 1 to {row.max_tokens} token ids from read(), got {value.dtype} {value.shape}."
        )
    if value.min() < 0 or value.max() >= row.vocab_size:
        raise InputError(f"{where}: token ids must lie in 0..{row.vocab_size - 1}; take them from read().")
    return value
