"""Samples of one shard to the columns of a `TokenData`: read, cut, tokenized in batches."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..encoding import ValueEncoder
from ..images import decode_image
from ..inputs import InputLimits, InputReader
from ..modalities import Modality
from ..parts import ModelParts
from ..readers.arrays import read_array
from ..readers.content import read_bytes
from ..tokenizers.sequences import boxes_to_string, string_to_boxes
from ..tokenizers.text import TextTokenizer
from .sample_crops import CROPPED, OVERSAMPLING, Crop, crop_boxes, crop_value, draw_crops, stored_crop
from .shards import CROP_SETTINGS, Sample, unzipped
from .token_data import TokenData

_THREADS = 4
_LIMITS = InputLimits()

Values = dict[str, list[np.ndarray]]
"""Of one sample, by checkpoint name, the value of each crop; one where it is the same for all."""


@dataclass(frozen=True)
class Failure:
    """A value that cannot be used.

    Attributes:
        sample, modality: which.
        message: why.
    """

    sample: str
    modality: str
    message: str


@dataclass(frozen=True)
class Made:
    """What became of a shard."""

    names: list[str] = field(default_factory=list[str])
    columns: dict[str, list[NDArray[np.generic]]] = field(
        default_factory=dict[str, list[NDArray[np.generic]]]
    )
    failures: list[Failure] = field(default_factory=list[Failure])

    @property
    def data(self) -> TokenData:
        """Its samples."""
        return TokenData({name: _joined(arrays) for name, arrays in self.columns.items()})


class SampleTokenizer:
    """Makes the columns of some modalities.

    Args:
        rows: the modalities, by checkpoint name.
        parts: has their tokenizers.
        text: tokenizer of texts.
        crops: of each sample.
        seed: of the crops; those of a sample depend on its name only.
    """

    def __init__(
        self,
        rows: Mapping[str, Modality],
        parts: ModelParts,
        text: TextTokenizer,
        *,
        crops: int,
        seed: int,
    ) -> None:
        self._rows, self._text, self._num_crops, self._seed = rows, text, crops, seed
        self._encoders = {name: ValueEncoder({row.raw: row}, parts) for name, row in rows.items()}
        self._readers = {name: _reader(row, text, parts.classes) for name, row in rows.items()}
        self._finer = {
            name: _reader(_enlarged(row), text, parts.classes)
            for name, row in rows.items()
            if crops > 1 and row.image_size is not None and row.reads_as in CROPPED
        }

    def run(self, samples: Iterable[Sample], batch_size: int) -> Made:
        """Tokenize samples. What cannot be read is missing; samples with nothing left are left out."""
        made, each = Made(columns={name: [] for name in self._rows}), iter(samples)
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(each, batch_size)):
                read: list[tuple[Sample, Values]] = []
                for sample, (values, failures) in zip(batch, pool.map(self._read, batch), strict=True):
                    made.failures.extend(failures)
                    if values:
                        read.append((sample, values))
                made.names.extend(sample.name for sample, _ in read)
                for name in self._rows if read else ():
                    made.columns[name].append(self._column(name, [values.get(name) for _, values in read]))
        return made

    def _read(self, sample: Sample) -> tuple[Values, list[Failure]]:
        values: Values = {}
        failures: list[Failure] = []
        for name, row in self._rows.items():
            folder = name if name in sample.files else row.raw
            if folder not in sample.files:
                continue
            try:
                values[name] = self._values(row, folder, sample)
            except (InputError, OSError) as error:
                failures.append(Failure(sample.name, folder, str(error)))
        return values, failures

    def _values(self, row: Modality, folder: str, sample: Sample) -> list[np.ndarray]:
        content = unzipped(sample.files[folder])
        if folder == row.name and row.kind == "img" and row.name != row.raw:
            return self._ready(row, content, sample.name)
        if CROP_SETTINGS in sample.files and row.reads_as == "rgb":
            return self._stored(row, content, sample)
        first = self._readers[row.name].read(row.raw, content)
        if self._num_crops == 1 or row.reads_as not in CROPPED:
            return [first]
        if CROP_SETTINGS in sample.files or any(name.startswith("tok_") for name in sample.files):
            raise InputError(
                f"{row.raw} cannot follow the crops of token ids that are there already; only rgb can, by "
                f"{CROP_SETTINGS}."
            )
        crops = draw_crops(
            self._num_crops, np.random.default_rng([self._seed, zlib.crc32(sample.name.encode())])
        )
        if row.kind == "seq":
            return [first, *(self._boxes(row, first, crop) for crop in crops[1:])]
        finer = self._finer[row.name].read(row.raw, content)
        return [first, *(crop_value(row, finer, crop) for crop in crops[1:])]

    def _boxes(self, row: Modality, ids: np.ndarray, crop: Crop) -> np.ndarray:
        boxes = crop_boxes(string_to_boxes(self._text.decode(ids)), crop)
        found = self._text.encode(boxes_to_string(boxes), max_tokens=row.max_tokens)
        assert row.vocab_size is not None
        return np.where(found < row.vocab_size, found, np.int32(self._text.unk_id))

    def _stored(self, row: Modality, content: Path | bytes, sample: Sample) -> list[np.ndarray]:
        assert row.image_size is not None
        settings = _array(sample.files[CROP_SETTINGS], f"{sample.name}: {CROP_SETTINGS}")
        if settings.ndim != 2 or settings.shape[1] != 5 or len(settings) < self._num_crops:
            raise InputError(
                f"{CROP_SETTINGS}: shape {settings.shape}; expected ({self._num_crops} or more, 5) rows of "
                "top, left, h, w, flip."
            )
        data = read_bytes(content, _LIMITS.image.max_bytes, sample.name)
        picture = decode_image(data, name=sample.name, limits=_LIMITS.image)
        try:
            return [stored_crop(picture, setting, row.image_size) for setting in settings[: self._num_crops]]
        except ValueError as error:  # Pillow's, of a square that leaves the picture
            raise InputError(f"{CROP_SETTINGS}: {error}.") from error

    def _ready(self, row: Modality, content: Path | bytes, name: str) -> list[np.ndarray]:
        """Token ids that are there already: (crops, n), or (n,) of one."""
        ids = _array(content, f"{name}: {row.name}")
        ids = ids[None] if ids.ndim == 1 else ids.reshape(len(ids), -1)
        if ids.dtype.kind not in "iu" or ids.shape[1] != row.max_tokens or len(ids) < self._num_crops:
            raise InputError(
                f"{row.name}: {ids.dtype} {ids.shape}; expected ids ({self._num_crops} or more crops, "
                f"{row.max_tokens})."
            )
        if ids.min() < 0 or ids.max() >= (row.vocab_size or 0):
            raise InputError(f"{row.name}: ids must lie in 0..{(row.vocab_size or 0) - 1}.")
        return list(ids[: self._num_crops].astype(np.int64))

    def _column(self, name: str, values: list[list[np.ndarray] | None]) -> NDArray[np.generic]:
        """A column of a batch: what is missing is filled as `TokenData` says."""
        row = self._rows[name]
        done = iter(self._encoded(name, row, [value for of_one in values for value in of_one or ()]))
        renderings = 1 if row.reads_as not in CROPPED and row.kind != "img" else self._num_crops
        kept = [None if of_one is None else [next(done) for _ in of_one] for of_one in values]
        filled = [of_one or [None] * renderings for of_one in kept]
        if row.kind == "pix":
            return np.stack([np.stack([_or_black(row, one) for one in of_one]) for of_one in filled])
        return _stacked([[_filled(row, one) for one in of_one] for of_one in filled])

    def _encoded(self, name: str, row: Modality, values: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Values as the model takes them; token ids that were there already pass."""
        raw = [value for value in values if not _is_ids(row, value)]
        encoded = iter(self._encoders[name].encode([{row.raw: value} for value in raw]))
        for value in values:
            found = value if _is_ids(row, value) else next(encoded)[name]
            yield _without_end(found, self._text) if row.kind == "seq" else found


def _is_ids(row: Modality, value: np.ndarray) -> bool:
    return row.kind == "img" and value.dtype == np.int64 and value.shape == (row.max_tokens,)


def _without_end(ids: np.ndarray, text: TextTokenizer) -> np.ndarray:
    """Readers close statistics with "there may be more", which is for queries."""
    return ids[:-1] if len(ids) and ids[-1] == text.sentinels[0] else ids


def _filled(row: Modality, value: np.ndarray | None) -> NDArray[np.generic]:
    if row.kind == "emb":
        return np.zeros((0, row.channels or 0), np.float16) if value is None else value.astype(np.float16)
    if value is not None:
        return value.astype(np.int16)
    return np.full(row.max_tokens, -1, np.int16) if row.kind == "img" else np.zeros(0, np.int16)


def _or_black(row: Modality, value: np.ndarray | None) -> NDArray[np.generic]:
    size = row.image_size or 0
    return np.zeros((size, size, row.channels or 3), np.uint8) if value is None else value


def _stacked(values: list[list[NDArray[np.generic]]]) -> NDArray[np.generic]:
    """Values (n, ...) of samples and renderings as (N, R, 1, longest, ...), padded with 0."""
    longest = max(len(one) for of_one in values for one in of_one)
    first = values[0][0]
    out = np.zeros((len(values), len(values[0]), 1, longest, *first.shape[1:]), first.dtype)
    for i, of_one in enumerate(values):
        for j, one in enumerate(of_one):
            out[i, j, 0, : len(one)] = one
    return out


def _joined(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Batches of one column, padded to the longest."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0)
    out = np.zeros((sum(map(len, arrays)), *map(int, shape)), arrays[0].dtype)
    start = 0
    for array in arrays:
        out[(slice(start, start + len(array)), *(slice(size) for size in array.shape[1:]))] = array
        start += len(array)
    return out


def _array(content: Path | bytes, name: str) -> np.ndarray:
    return read_array(content, name=name, max_bytes=_LIMITS.max_data_bytes)


def _reader(row: Modality, text: TextTokenizer, classes: tuple[str, ...]) -> InputReader:
    return InputReader({row.raw: row}, text, _LIMITS, classes)


def _enlarged(row: Modality) -> Modality:
    return replace(row, image_size=OVERSAMPLING * (row.image_size or 0))
