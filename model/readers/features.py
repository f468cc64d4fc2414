"""Features of other models as they save them: grids (CLIP, DINOv2, ImageBind), single vectors, T5 states."""

import math
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..modalities import Modality
from .arrays import is_numpy, read_array, read_arrays
from .content import Content, read_bytes


def read_features(content: Content, *, name: str, row: Modality, max_bytes: int) -> np.ndarray:
    """Read the patch features of a picture.

    Args:
        content: .npy or .npz file, or array: real numbers (C, h, w), (h, w, C) or (h*w, C) with the rows and
            columns of the modality's grid, also with leading axes of one. No class token.
        name: what messages call it.
        row: the modality: its channels C and its grid.
        max_bytes: limit of the file and of the array.

    Returns:
        float32 (C, h, w).

    Raises:
        LimitError: larger than `max_bytes`.
        InputError: other channels or another grid, integers, NaN, zero vectors, or no array at all.
    """
    assert row.grid is not None
    height, width = row.grid
    values = _real(read_array(content, name=name, max_bytes=max_bytes), name, row)
    values = _squeezed(values, 2 if values.shape[-1:] == (row.channels,) else 3)
    if values.shape == (row.channels, height, width):
        grid = values
    elif values.shape == (height, width, row.channels):
        grid = values.transpose(2, 0, 1)
    elif values.shape == (height * width, row.channels):
        grid = values.T.reshape(-1, height, width)
    else:
        raise InputError(f"{name}: {_mismatch(values.shape, row)}")
    _check_vectors(grid.reshape(len(grid), -1).T, name)
    return np.ascontiguousarray(grid)


def read_vector(content: Content, *, name: str, row: Modality, max_bytes: int) -> np.ndarray:
    """Read the one vector of a picture; only its direction matters.

    Args:
        content: .npy or .npz file, array or list: real numbers (C,), also with further axes of one.
        name: what messages call it.
        row: the modality: its channels C.
        max_bytes: limit of the file and of the array.

    Returns:
        float32 (C,).

    Raises:
        LimitError: larger than `max_bytes`.
        InputError: another length, integers, NaN, only zeros, or no array at all.
    """
    values = _real(read_array(content, name=name, max_bytes=max_bytes), name, row)
    if values.size != row.channels or max(values.shape, default=0) != row.channels:
        raise InputError(f"{name}: shape {values.shape}; {row.raw} is one vector ({row.channels},).")
    vector = values.reshape(-1)
    _check_vectors(vector[None], name)
    return vector


def read_t5(content: Content, *, name: str, row: Modality, max_bytes: int) -> np.ndarray:
    """Read the T5 encoder's states of a caption.

    Args:
        content: .npy file or array (L, C); or .npz archive with `emb` (L, C) and, where it is padded,
            `mask_valid` (L,), true on the states to use.
        name: what messages call it.
        row: the modality: its channels C and its longest caption, at which others are cut.
        max_bytes: limit of the file and of the array.

    Returns:
        float32 (L, C).

    Raises:
        LimitError: larger than `max_bytes`.
        InputError: another width, integers, NaN, zero vectors, no states, or no array at all.
    """
    values, valid = _states(content, name, max_bytes)
    values = _squeezed(_real(values, name, row), 2)
    if values.ndim != 2 or values.shape[1] != row.channels:
        raise InputError(
            f"{name}: shape {values.shape}; {row.raw} is (words, {row.channels}), the states of a T5 encoder "
            f"{row.channels} wide."
        )
    if valid is not None:
        if valid.size != len(values) or valid.dtype.kind not in "bui":
            raise InputError(
                f"{name}: mask_valid is {valid.dtype} {valid.shape}; expected true or false for each of the "
                f"{len(values)} states."
            )
        values = values[valid.reshape(-1) != 0]
    if not len(values):
        raise InputError(f"{name}: mask_valid leaves no state; leave {row.raw} out.", code="input.empty")
    values = values[: row.max_tokens]
    _check_vectors(values, name)
    return np.ascontiguousarray(values)


def _states(content: Content, name: str, max_bytes: int) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(content, Path | bytes):
        content = read_bytes(content, max_bytes, name)
        if is_numpy(content) and content.startswith(b"PK"):
            found = read_arrays(content, ("emb", "mask_valid"), name=name, max_bytes=max_bytes)
            if "emb" not in found:
                raise InputError(f"{name}: holds no array 'emb'; expected emb (L, C) and mask_valid (L,).")
            return found["emb"], found.get("mask_valid")
    return read_array(content, name=name, max_bytes=max_bytes), None


def _real(values: np.ndarray, name: str, row: Modality) -> np.ndarray:
    """Finite float32 numbers."""
    if values.dtype.kind != "f":
        raise InputError(
            f"{name}: an array of {values.dtype}; {row.raw} takes real numbers (16, 32 or 64 bits), "
            "no token ids or pixels."
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise InputError(f"{name}: {bad:,} of {values.size:,} numbers are NaN or infinite.")
    return values


def _squeezed(values: np.ndarray, ndim: int) -> np.ndarray:
    """Without leading axes of one, as batches of one item have, down to `ndim` axes."""
    while values.ndim > ndim and values.shape[0] == 1:
        values = values[0]
    return values


def _check_vectors(vectors: np.ndarray, name: str) -> None:
    zeros = int((~vectors.any(1)).sum())
    if zeros:
        where = "the vector is zero" if len(vectors) == 1 else f"{zeros} of {len(vectors)} vectors are zero"
        raise InputError(f"{name}: {where}, which has no direction; leave out padding and failed files.")


def _mismatch(shape: tuple[int, ...], row: Modality) -> str:
    """What is wrong with a shape: the channels, the grid, a class token, or everything."""
    assert row.grid is not None
    height, width = row.grid
    wanted = (
        f"({row.channels}, {height}, {width}), ({height}, {width}, {row.channels}) or "
        f"({height * width}, {row.channels})"
    )
    if shape == (height * width + 1, row.channels):
        reason = "one vector too many, the class token; drop it"
    elif len(shape) in (2, 3) and row.channels in (shape[0], shape[-1]):
        places = [n for n in shape if n != row.channels] or [row.channels]
        reason = f"a grid of {' x '.join(map(str, places))} in place of {height} x {width}"
    elif len(shape) == 3 and row.grid in (shape[1:], shape[:2]):
        channels = shape[0] if shape[1:] == row.grid else shape[2]
        reason = f"{channels} channels; those of {row.raw} are {row.channels}: these come from another model"
    elif len(shape) == 2 and shape[0] == math.prod(row.grid):
        reason = f"{shape[1]} channels; those of {row.raw} are {row.channels}: these come from another model"
    else:
        reason = "no layout that is known"
    return f"shape {shape} has {reason}. Expected {wanted}."
