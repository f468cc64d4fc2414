"""Samples of aligned modalities, tokenized once and read back without decoding anything.

A folder holds `tokens.json` and one `.npy` per modality, mapped into memory:

- ids of grids and sequences int16 `(N, R, W, n)`; a grid that a sample lacks is -1 throughout, sequences are
  padded with 0 behind, and one of length 0 is missing;
- pixels uint8 `(N, R, S, S, 3)`; a black picture is missing;
- vectors (`t5_caption`) float16 `(N, R, W, L, C)`; zero vectors are padding or missing.

N are samples. R are renderings or crops: one is drawn and used for all modalities of a sample. W are variants
of one and the same (wordings, orders, draws from a tokenizer's distribution): each modality draws its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

INDEX = "tokens.json"
MAX_SAMPLES = 2**31

_DIMS: Mapping[str, tuple[int, ...]] = {"int16": (4,), "uint8": (5,), "float16": (5,)}
"""Number types that a column may have, and their dimensions."""


@dataclass(frozen=True)
class TokenData:
    """N samples.

    Attributes:
        columns: by checkpoint name of the modality, the arrays described above.
    """

    columns: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def num_renderings(self) -> int:
        """R."""
        return max(column.shape[1] for column in self.columns.values())

    def only(self, names: Iterable[str]) -> TokenData:
        """The same samples with some of their modalities. Raises InputError for names they do not have."""
        return TokenData({name: self._column(name) for name in names})

    def part(self, start: int, stop: int) -> TokenData:
        """Samples `start` to `stop`, without a copy; negative numbers count from the end, as in slices."""
        return TokenData({name: column[start:stop] for name, column in self.columns.items()})

    def save(self, folder: Path) -> None:
        """Write one file per column and the index."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, column in self.columns.items():
            np.save(folder / f"{name}.npy", column)
        write_index(folder, list(self.columns))

    @classmethod
    def load(cls, folder: Path) -> TokenData:
        """Map a folder into memory. Raises InputError where it is not what `save` wrote."""
        try:
            names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["modalities"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{folder} holds no tokenized data ({error}); `anyseek train tokenize` makes some."
            ) from error
        if not isinstance(names, list) or not names or not all(_is_file_name(name) for name in names):
            raise InputError(f"{folder / INDEX} must list the modalities of the folder.")
        columns = {str(name): _map(folder / f"{name}.npy") for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{folder}: modalities differ in their number of samples: {lengths}.")
        if not lengths[next(iter(lengths))]:
            raise InputError(f"{folder} holds no sample.")
        return cls(columns)

    def _column(self, name: str) -> NDArray[np.generic]:
        if name not in self.columns:
            raise InputError(f"The data has no modality {name!r}; it has {', '.join(self.columns)}.")
        return self.columns[name]


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and not set(name) & set("/\\\0") and not name.startswith(".")


def _map(path: Path) -> NDArray[np.generic]:
    try:
        column = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be mapped into memory: {error}.") from error
    if not isinstance(column, np.ndarray) or column.ndim not in _DIMS.get(column.dtype.name, ()):
        shape = getattr(column, "shape", None)
        raise InputError(
            f"{path} holds {getattr(column, 'dtype', type(column).__name__)} {shape}; expected ids int16 "
            "(N, R, W, n), pixels uint8 (N, R, S, S, 3) or vectors float16 (N, R, W, L, C)."
        )
    if 0 in column.shape[1:3] or len(column) > MAX_SAMPLES:
        raise InputError(f"{path}: {column.shape} has no renderings or variants, or too many samples.")
    return column


def write_index(folder: Path, names: Sequence[str]) -> None:
    """Say which modalities a folder holds; written last, it makes the folder complete."""
    temporary = folder / f".{INDEX}.tmp"
    temporary.write_text(json.dumps({"modalities": list(names)}) + "\n", encoding="utf-8")
    temporary.replace(folder / INDEX)


def padded(rows: Sequence[Sequence[int]], limit: int) -> NDArray[np.int16]:
    """Sequences as one int16 array (n, longest), cut at `limit`."""
    longest = min(max(map(len, rows), default=0), limit)
    out = np.zeros((len(rows), longest), np.int16)
    for target, row in zip(out, rows, strict=True):
        target[: min(len(row), longest)] = row[:longest]
    return out
