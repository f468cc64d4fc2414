"""Segments: immutable Parquet files of rows. They are the truth; every index can be rebuilt from them.

Columns: `item`, `view`, `region` (null for the whole item) and per space `<space>.vector`, a fixed-size list
of float16, and `<space>.tokens`, a fixed-size list of uint16.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import CorruptError
from .files import new_file, sha256_of
from .records import Collection, Rows, Segment, SpaceRecord


@dataclass(frozen=True, slots=True, eq=False)
class SegmentRows:
    """The rows of one segment.

    `items`, `views` and `regions` are Arrow arrays of N texts; per space that was asked for, `vectors` are
    (N, D) float16 and `tokens` (N, num_tokens) uint16.
    """

    items: pa.Array
    views: pa.Array
    regions: pa.Array
    vectors: Mapping[str, NDArray[np.float16]]
    tokens: Mapping[str, NDArray[np.uint16]]


def write_segment(path: Path, collection: Collection, rows: Rows) -> tuple[int, str]:
    """Write rows to a new file, durably; returns its size in bytes and its sha256.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    regions = rows.regions if rows.regions is not None else [None] * len(rows)
    columns = [pa.array(list(texts), pa.string()) for texts in (rows.item_ids, rows.views, regions)]
    fields = [("item", pa.string()), ("view", pa.string()), ("region", pa.string())]
    fields = [pa.field(name, kind, nullable=name == "region") for name, kind in fields]
    for space in collection.spaces:
        vectors = np.ascontiguousarray(rows.vectors[space.name], np.float16)
        tokens = np.ascontiguousarray(rows.tokens[space.name], np.uint16)
        for name, values in ((f"{space.name}.vector", vectors), (f"{space.name}.tokens", tokens)):
            field = _list_field(name, values)
            fields.append(field)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=field.type))
    schema = pa.schema(fields, {"collection": collection.id, "fingerprint": collection.fingerprint})
    # Dictionaries pack token ids to their codebook's bits; on vectors they would only cost time.
    packed: Any = [
        "item",
        "view",
        "region",
        *(f"{space.name}.tokens.list.element" for space in collection.spaces),
    ]
    with new_file(path) as temporary:
        table = pa.Table.from_arrays(columns, schema=schema)
        pq.write_table(table, temporary, compression="NONE", use_dictionary=packed)
        return temporary.stat().st_size, sha256_of(temporary)


def _list_field(name: str, values: NDArray[np.generic]) -> pa.Field:
    # Not nullable, inside and out: it reads twice as fast.
    element = pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False)
    return pa.field(name, pa.list_(element, values.shape[1]), nullable=False)


def read_segment(path: Path, segment: Segment, spaces: Iterable[SpaceRecord]) -> SegmentRows:
    """Check a segment's bytes, then read its rows with the vectors and tokens of some spaces.

    Raises:
        CorruptError: the file is missing, or not the one that was written.
    """
    spaces = list(spaces)
    names = [f"{space.name}.{kind}" for space in spaces for kind in ("vector", "tokens")]
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != segment.sha256:
            raise CorruptError(f"The segment '{path}' does not match its checksum; index its items again.")
        table = pq.read_table(pa.BufferReader(content), columns=["item", "view", "region", *names])
    except (OSError, pa.ArrowException) as error:
        raise CorruptError(f"Cannot read the segment '{path}': {error}; index its items again.") from error
    return SegmentRows(
        *(table.column(name).combine_chunks() for name in ("item", "view", "region")),
        vectors={space.name: _matrix(table, f"{space.name}.vector", space.dim) for space in spaces},
        tokens={space.name: _matrix(table, f"{space.name}.tokens", space.num_tokens) for space in spaces},
    )


def _matrix(table: pa.Table, name: str, width: int) -> NDArray[Any]:
    values = table.column(name).combine_chunks().flatten()
    return values.to_numpy(zero_copy_only=True).reshape(-1, width)
