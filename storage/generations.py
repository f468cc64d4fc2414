"""Generations: folders of immutable files that one rename makes visible, and that readers map.

manifest.json             what it covers, and the sha256 of every other file
attributes.arrow          id and attributes of every item
rows.arrow                view, item and region of every row, view by view
<space>.<view>.faiss      the index over the rows of a view
<space>.<view>.tokens.npy their token ids
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import CorruptError
from .attributes import schema, to_table
from .catalog import LiveItem
from .files import new_folder, sha256_of
from .parts import Part, PartView, rows_of_items
from .records import Collection, Generation, Segment, SpaceRecord
from .segments import read_segment
from .vectors import FaissIndex

_FORMAT = 1
_MANIFEST = "manifest.json"
_ITEMS_PER_BATCH = 65536


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One segment on its way into a generation; without a file for items that have no rows.

    `items` fetches its live items; it is called once, so that not all items are in memory together.
    """

    segment: Segment | None
    path: Path
    items: Callable[[], Sequence[LiveItem]]


def index_file(space: str, view: str) -> str:
    """Name of the index of a view in a space."""
    return f"{space}.{view}.faiss"


def tokens_file(space: str, view: str) -> str:
    """Name of the file of a view's token ids in a space."""
    return f"{space}.{view}.tokens.npy"


class _Builder:
    """Writes the files of a generation into a folder, reading each segment once per space."""

    def __init__(self, folder: Path, collection: Collection) -> None:
        self.folder = folder
        self.collection = collection
        self.num_items = 0
        self.left_out: list[Segment] = []
        # Per segment and view, the rows that live: kept from the first pass over the segments for the others.
        self._chosen: list[tuple[Source, dict[str, NDArray[np.int64]]]] = []
        self._items: dict[str, list[NDArray[np.int32]]] = {view: [] for view in collection.views}
        self._regions: dict[str, list[pa.Array]] = {view: [] for view in collection.views}

    def write_items(self, sources: Sequence[Source]) -> None:
        """The first pass: `attributes.arrow`, and which rows live."""
        kind = schema(self.collection.attributes)
        path = self.folder / "attributes.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, kind) as writer:
            pending: list[pa.Table] = []
            for source in sources:
                pending.append(self._items_of(source))
                # Few large batches: a table of thousands is slow to search and filter.
                if sum(table.num_rows for table in pending) >= _ITEMS_PER_BATCH:
                    writer.write_table(pa.concat_tables(pending).combine_chunks())
                    pending.clear()
            if pending:
                writer.write_table(pa.concat_tables(pending).combine_chunks())

    def _items_of(self, source: Source) -> pa.Table:
        items = source.items()
        ids = [item.id for item in items]
        self._note_rows(source, ids)
        self.num_items += len(items)
        return to_table(self.collection.attributes, ids, [item.attributes for item in items])

    def _note_rows(self, source: Source, ids: Sequence[str]) -> None:
        if source.segment is None:
            return
        try:
            rows = read_segment(source.path, source.segment, ())
        except CorruptError:
            self.left_out.append(source.segment)
            return
        live, owners = rows_of_items(rows, ids)
        views = rows.views.take(pa.array(live)).to_numpy(zero_copy_only=False)
        chosen: dict[str, NDArray[np.int64]] = {}
        for view in self.collection.views:
            of_view = np.flatnonzero(views == view)
            chosen[view] = live[of_view]
            self._items[view].append(owners[of_view] + np.int32(self.num_items))
            self._regions[view].append(rows.regions.take(pa.array(live[of_view])))
        self._chosen.append((source, chosen))

    def write_rows(self) -> dict[str, int]:
        """`rows.arrow`; returns the number of rows of each view."""
        views = pa.array(self.collection.views, pa.string())
        names = ("view", "item", "region")
        kind = pa.schema(
            zip(names, (pa.dictionary(pa.int32(), pa.string()), pa.int32(), pa.string()), strict=True)
        )
        counts: dict[str, int] = {}
        path = self.folder / "rows.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, kind) as writer:
            for code, view in enumerate(self.collection.views):
                items = np.concatenate([*self._items[view], np.empty(0, np.int32)])
                regions = pa.concat_arrays([*self._regions[view], pa.array([], pa.string())])
                codes = pa.DictionaryArray.from_arrays(np.full(len(items), code, np.int32), views)
                writer.write_batch(pa.record_batch([codes, pa.array(items), regions], schema=kind))
                counts[view] = len(items)
        return counts

    def write_space(self, space: SpaceRecord, counts: dict[str, int]) -> None:
        """The indexes and tokens of all views in a space; only one space is in memory at a time."""
        indexes = {view: FaissIndex.empty(space.dim) for view, count in counts.items() if count}
        tokens = {view: np.empty((counts[view], space.num_tokens), np.uint16) for view in indexes}
        for source, chosen in self._chosen:
            assert source.segment is not None
            rows = read_segment(source.path, source.segment, [space])
            for view, index in indexes.items():
                start = index.num_rows
                index.add(rows.vectors[space.name][chosen[view]])
                tokens[view][start : index.num_rows] = rows.tokens[space.name][chosen[view]]
        for view, index in indexes.items():
            index.save(self.folder / index_file(space.name, view))
            np.save(self.folder / tokens_file(space.name, view), tokens[view], allow_pickle=False)

    def write_manifest(self, name: str, revision: int, counts: dict[str, int]) -> Generation:
        """`manifest.json`, last: it holds the checksums of the others."""
        created_at = datetime.now(UTC)
        segments = [source.segment.name for source, _ in self._chosen if source.segment is not None]
        manifest = {
            "format": _FORMAT,
            "name": name,
            "collection": self.collection.id,
            "model": self.collection.model,
            "fingerprint": self.collection.fingerprint,
            "revision": revision,
            "created_at": created_at.isoformat(),
            "index": "flat float16",
            "spaces": [asdict(space) for space in self.collection.spaces],
            "num_items": self.num_items,
            "views": counts,
            "segments": segments,
            "left_out": [segment.name for segment in self.left_out],
            "files": {file.name: sha256_of(file) for file in sorted(self.folder.iterdir())},
        }
        (self.folder / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        return Generation(
            name=name,
            revision=revision,
            num_items=self.num_items,
            num_rows=sum(counts.values()),
            num_bytes=sum(file.stat().st_size for file in self.folder.iterdir()),
            sha256=sha256_of(self.folder / _MANIFEST),
            created_at=created_at,
        )


def build_generation(
    path: Path, collection: Collection, revision: int, sources: Sequence[Source]
) -> tuple[Generation, list[Segment]]:
    """Write a generation over the live rows of some segments; whole and durable when it returns.

    Returns:
        The generation, and the segments that are damaged and left out; their items are in it without rows.

    Raises:
        StorageError: the disk is full or not writable; nothing is left behind.
    """
    with new_folder(path) as folder:
        builder = _Builder(folder, collection)
        builder.write_items(sources)
        counts = builder.write_rows()
        for space in collection.spaces:
            builder.write_space(space, counts)
        generation = builder.write_manifest(path.name, revision, counts)
    return generation, builder.left_out


def verify_generation(path: Path, generation: Generation, collection: Collection) -> dict[str, Any]:
    """Check every file of a generation against its checksum, before any is parsed; returns the manifest.

    Raises:
        CorruptError: a file is missing or not the one that was written.
    """
    content = _read(path / _MANIFEST, generation.sha256)
    manifest: dict[str, Any] = json.loads(content)
    if manifest["format"] != _FORMAT or manifest["fingerprint"] != collection.fingerprint:
        raise CorruptError(f"The generation '{path}' is of another format or model; publish it again.")
    files: dict[str, str] = manifest["files"]
    # Hashing lets go of the interpreter, so files are read side by side.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_check, [path / name for name in files], files.values()))
    return manifest


def _read(path: Path, sha256: str) -> bytes:
    _check(path, sha256)
    return path.read_bytes()


def _check(path: Path, sha256: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise CorruptError(f"Cannot read '{path}': {error}; publish the collection again.") from error
    if found != sha256:
        raise CorruptError(f"The file '{path}' does not match its checksum; publish the collection again.")


def open_generation(path: Path, generation: Generation, collection: Collection) -> Part:
    """Check a generation, then map it.

    Raises:
        CorruptError: a file is missing, not the one that was written, or cannot be parsed.
    """
    manifest = verify_generation(path, generation, collection)
    try:
        table = _map_arrow(path / "attributes.arrow")
        rows = _map_arrow(path / "rows.arrow")
        views: dict[str, PartView] = {}
        start = 0
        for view, count in manifest["views"].items():
            if count:
                views[view] = _open_view(path, collection, view, rows.slice(start, count))
            start += count
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise CorruptError(f"Cannot open the generation '{path}': {error}; publish it again.") from error
    if table.num_rows != manifest["num_items"]:
        raise CorruptError(f"The generation '{path}' does not hold what its manifest says; publish it again.")
    return Part(table, views)


def _open_view(path: Path, collection: Collection, view: str, rows: pa.Table) -> PartView:
    indexes = {
        space.name: FaissIndex.load(path / index_file(space.name, view)) for space in collection.spaces
    }
    tokens = {
        space.name: np.load(path / tokens_file(space.name, view), mmap_mode="r", allow_pickle=False)
        for space in collection.spaces
    }
    for space in collection.spaces:
        if indexes[space.name].num_rows != rows.num_rows or len(tokens[space.name]) != rows.num_rows:
            raise CorruptError(f"The index of {space.name} and '{view}' in '{path}' has rows missing.")
    return PartView(
        items=rows.column("item").combine_chunks().to_numpy(),
        regions=rows.column("region").combine_chunks(),
        indexes=indexes,
        tokens=tokens,
    )


def _map_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
