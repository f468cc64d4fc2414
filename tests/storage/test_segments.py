"""Segments give back what they were given, or say that they cannot."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyseek.errors import CorruptError
from anyseek.storage import Collection, Segment, Store, Writer
from anyseek.storage.segments import read_segment, write_segment


@pytest.fixture
def collection(store: Store, writer: Writer) -> Collection:
    assert writer
    return store.collection("photos")


@pytest.fixture
def written(tmp_path: Path, collection: Collection, samples) -> tuple[Path, Segment]:
    rows = samples.rows(["a", "ü/\U0001f600", "c"], ("joint", "rgb"))
    num_bytes, sha256 = write_segment(tmp_path / "s.parquet", collection, rows)
    return tmp_path / "s.parquet", Segment("s", 6, num_bytes, sha256, 1)


def test_rows_survive(written: tuple[Path, Segment], collection: Collection, samples) -> None:
    path, segment = written
    assert path.stat().st_size == segment.num_bytes
    read = read_segment(path, segment, collection.spaces)
    given = samples.rows(["a", "ü/\U0001f600", "c"], ("joint", "rgb"))
    assert read.items.to_pylist() == given.item_ids
    assert read.views.to_pylist() == given.views
    assert read.regions.to_pylist() == [None] * 6
    for space in collection.spaces:
        assert read.vectors[space.name].dtype == np.float16
        np.testing.assert_array_equal(read.vectors[space.name], given.vectors[space.name])
        np.testing.assert_array_equal(read.tokens[space.name], given.tokens[space.name])


def test_other_programs_can_read_it(written: tuple[Path, Segment]) -> None:
    schema = pq.read_schema(written[0])
    assert schema.names == [
        "item",
        "view",
        "region",
        "dino.vector",
        "dino.tokens",
        "bind.vector",
        "bind.tokens",
    ]
    assert schema.field("dino.vector").type.value_type == pa.float16()
    assert schema.field("dino.tokens").type.list_size == 4
    assert schema.metadata[b"fingerprint"] == b"f1"


def test_tokens_take_about_their_bits(tmp_path: Path, collection: Collection, samples) -> None:
    ids = [f"{number}" for number in range(2000)]
    write_segment(tmp_path / "s.parquet", collection, samples.rows(ids))
    groups = pq.read_metadata(tmp_path / "s.parquet").row_group(0)
    sizes = {groups.column(i).path_in_schema: groups.column(i).total_compressed_size for i in range(7)}
    # 4 ids of 6 bits are 3 bytes; as 32-bit ints they would be 16.
    assert sizes["dino.tokens.list.element"] < 5 * len(ids)


@pytest.mark.parametrize("place", [0, 10, 200, -200, -1])
def test_one_flipped_bit_is_noticed(
    written: tuple[Path, Segment], collection: Collection, place: int
) -> None:
    path, segment = written
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="checksum"):
        read_segment(path, segment, collection.spaces)


def test_a_missing_file_is_named(written: tuple[Path, Segment], collection: Collection) -> None:
    path, segment = written
    path.unlink()
    with pytest.raises(CorruptError, match=r"s\.parquet"):
        read_segment(path, segment, collection.spaces)
