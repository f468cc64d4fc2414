"""Values of one modality, read once from ordinary files and kept as one array that is mapped into memory.

Files go through the same readers as queries and documents, so a tokenizer learns from what it will be
given.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ..encoding import TO_TOKENIZER
from ..inputs import InputLimits, InputReader
from ..modalities import Modality, get_modality
from ..readers.arrays import read_array
from .run_files import write_whole

FEATURES = ("clip", "dinov2", "imagebind")
VECTORS = ("dinov2_global", "imagebind_global")
_HALF_MAX = 60_000.0
_THREADS = 4
_AT_ONCE = 64
_FIELDS = {"human_poses": "pose", "sam_instance": "mask"}
"""Of people and instances, what their tokenizer sees."""


@dataclass(frozen=True)
class ValueArray:
    """Values of one modality.

    Attributes:
        raw: the user's name of the modality.
        values: (N, ...), each as `values.py` lists it, depth and features in float16; of people the pose
            (23, 3, 3), of instances the mask (64, 64).
        names: of the item behind each value.
        failures: by item that could not be read, why.
    """

    raw: str
    values: NDArray[Any]
    names: tuple[str, ...]
    failures: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.values)

    def part(self, rows: Sequence[int] | NDArray[np.int64]) -> ValueArray:
        """Some of them, copied."""
        return replace(self, values=self.values[rows], names=tuple(self.names[row] for row in rows))

    def split(self, items: frozenset[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of all other items, and rows of `items`."""
        held = np.asarray([name in items for name in self.names], bool)
        return np.flatnonzero(~held), np.flatnonzero(held)


def prepared(raw: str, values: NDArray[Any]) -> Tensor:
    """Values (B, ...) of a `ValueArray` as the tokenizer of the modality encodes them."""
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return torch.from_numpy(np.stack([TO_TOKENIZER[raw](value) for value in values]))


def reader_row(raw: str, size: int, first: Path, channels: int | None = None) -> Modality:
    """What the reader has to know of a modality.

    Args:
        raw: the user's name of the modality.
        size: side in pixels of pictures and maps.
        first: a file of it, which says how wide features are and how many.
        channels: of features and vectors, where the file should not say it.
    """
    if raw in FEATURES:
        shape = _shape(first)
        if len(shape) != 3:
            raise InputError(f"{first}: shape {shape}; features are (channels, rows, columns).")
        row = get_modality(f"tok_{raw}@224")
        return replace(row, channels=channels or shape[0], grid=(shape[1], shape[2]))
    if raw in VECTORS:
        shape = _shape(first)
        return replace(get_modality(f"tok_{raw}"), channels=channels or max(shape, default=0))
    if raw in _FIELDS:
        return get_modality(raw)
    return get_modality(f"{'' if raw == 'rgb' else 'tok_'}{raw}@{size}", patch_size=1)


def load_values(
    files: Mapping[str, Path],
    row: Modality,
    cache: Path,
    *,
    classes: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> ValueArray:
    """Read files, or take what an earlier call kept of the same files.

    Args:
        files: by item.
        row: the modality, with its size or its channels.
        cache: folder of the array; made when missing.
        classes: names of the classes of segmentations.
        progress: told how many files are read, of how many.

    Raises:
        InputError: not one file can be used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path, index = cache / f"{row.raw}.values", cache / f"{row.raw}.json"
    key = _fingerprint(files, row, classes)
    known: dict[str, Any] = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    if known.get("key") != key:
        known = {"key": key} | _write(files, row, classes, path, progress)
        write_whole(index, json.dumps(known).encode())
    if not known["names"]:
        name, reason = next(iter(known["failures"].items()))
        raise InputError(f"None of {len(files)} files of {row.raw} can be used; {name}: {reason}")
    shape = (len(known["names"]), *known["shape"])
    values = np.memmap(path, np.dtype(known["dtype"]), "r", shape=shape)
    return ValueArray(row.raw, values, tuple(known["names"]), known["failures"])


def _write(
    files: Mapping[str, Path],
    row: Modality,
    classes: tuple[str, ...],
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Values one after another into a file, as they come: nobody knows yet how many there are."""
    names: list[str] = []
    failures: dict[str, str] = {}
    dtype, shape = "", ()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            for done, (name, found) in enumerate(_read_all(files, row, classes), 1):
                if isinstance(found, str):
                    failures[name] = found
                else:
                    out.write(np.ascontiguousarray(found).tobytes())
                    names += [name] * len(found)
                    dtype, shape = found.dtype.str, found.shape[1:]
                if progress is not None:
                    progress(done, len(files))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return {"names": names, "dtype": dtype, "shape": list(shape), "failures": failures}


def _read_all(
    files: Mapping[str, Path], row: Modality, classes: tuple[str, ...]
) -> Iterator[tuple[str, NDArray[Any] | str]]:
    """In order, of each file its values, or why there are none."""
    reader = InputReader({row.raw: row}, None, InputLimits(), classes)

    def read(item: tuple[str, Path]) -> tuple[str, NDArray[Any] | str]:
        try:
            return item[0], _rows(row.raw, reader.read(row.raw, item[1]))
        except InputError as error:
            return item[0], str(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        items = list(files.items())
        for start in range(0, len(items), _AT_ONCE):  # else all values would wait in memory
            yield from pool.map(read, items[start : start + _AT_ONCE])


def _rows(raw: str, value: NDArray[Any]) -> NDArray[Any]:
    """What is kept of one item: (n, ...)."""
    if raw in _FIELDS:
        rows = value[_FIELDS[raw]]
        return rows[rows.any(axis=(1, 2))] if raw == "sam_instance" else rows
    if raw == "depth" or raw in FEATURES:
        value = np.clip(value, -_HALF_MAX, _HALF_MAX).astype(np.float16)
    return value[None]


def _fingerprint(files: Mapping[str, Path], row: Modality, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((row.raw, row.image_size, row.channels, row.grid, classes)).encode())
    for name, path in files.items():
        stat = path.stat()
        digest.update(repr((name, str(path), stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def _shape(path: Path) -> tuple[int, ...]:
    array = read_array(path, name=str(path), max_bytes=InputLimits().max_data_bytes)
    return tuple(n for i, n in enumerate(array.shape) if n != 1 or i >= array.ndim - 3)
