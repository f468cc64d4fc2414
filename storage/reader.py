"""How snapshots come about: what is new is read once, what is damaged is left out and remembered."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ..errors import CorruptError
from .catalog import Catalog, Changes
from .generations import open_generation
from .parts import LivePart, Part, fresh_part, merged
from .records import Collection, Generation, Problem
from .segments import SegmentRows, read_segment
from .snapshot import Snapshot

_log = logging.getLogger(__name__)

# Every part costs a search of its own (some 50 us); joining them copies all fresh vectors.
_MAX_FRESH_PARTS = 8


class Reader:
    """Makes and keeps the newest snapshot of each collection. Safe from many threads.

    Args:
        folder: where the collections' folders lie.
        catalog: of the same library.
    """

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self._folder = folder
        self._catalog = catalog
        # With the version of the catalog at which each was the newest.
        self._snapshots: dict[str, tuple[Snapshot, int | None]] = {}
        self._problems: dict[tuple[str, str], Problem] = {}
        self._locks: dict[str, threading.Lock] = {}

    def snapshot(self, name: str) -> Snapshot:
        """The newest snapshot of a collection. Raises NotFoundError."""
        version = self._catalog.version()  # before the rest: what is committed meanwhile is seen next time
        known, as_of = self._snapshots.get(name, (None, None))
        if known is not None and version is not None and as_of == version:
            return known
        head = self._catalog.head(name)
        # One collection's new generation may take seconds to check; the others need not wait for it.
        with self._locks.setdefault(name, threading.Lock()):
            known, _ = self._snapshots.get(name, (None, None))
            if known is None or known.collection.id != head[0] or known.revision < head[1]:
                known = self._newest(name, known)
            self._snapshots[name] = known, version
        return known

    def problems(self) -> list[Problem]:
        """Damage met so far in files that the library still has."""
        for (collection_id, name), problem in list(self._problems.items()):
            if not self._is_listed(collection_id, problem):
                self._problems.pop((collection_id, name), None)
        return list(self._problems.values())

    def _is_listed(self, collection_id: str, problem: Problem) -> bool:
        known = {collection.id: collection.name for collection in self._catalog.collections()}
        if collection_id not in known:
            return False
        of_kind = self._catalog.generations if problem.kind == "generation" else self._catalog.segments
        return problem.name in {each.name for each in of_kind(known[collection_id])}

    def _newest(self, name: str, known: Snapshot | None) -> Snapshot:
        while True:
            collection = self._catalog.collection(name)
            if known is not None and known.collection.id != collection.id:
                known = None  # deleted, and made anew under the same name
            try:
                snapshot = self._advanced(collection, known)
            except _MovedError:
                snapshot = None
            if snapshot is not None:
                return snapshot
            known = None

    def _advanced(self, collection: Collection, known: Snapshot | None) -> Snapshot | None:
        """The snapshot of now, starting from a known one where that has the newest generation."""
        generation, part = self._open_newest(collection, known)
        name = generation.name if generation is not None else None
        if known is not None and known.generation == name:
            parts, since = list(known.parts), known.revision
        elif generation is not None and part is not None:
            parts, since = [LivePart(part)], generation.revision
        else:
            parts, since = [], -1
        changes = self._catalog.changes(collection.name, since)
        if changes.collection.id != collection.id or (parts and changes.removals_since > since):
            return None  # the writer has published meanwhile and forgotten removals that these parts need
        parts = self._changed(parts, changes, num_fixed=0 if generation is None else 1)
        return Snapshot(changes.collection, name, parts, self._catalog)

    def _open_newest(
        self, collection: Collection, known: Snapshot | None
    ) -> tuple[Generation | None, Part | None]:
        """The newest generation that is intact; its part only where `known` does not have it open."""
        for generation in self._catalog.generations(collection.name):
            if (collection.id, generation.name) in self._problems:
                continue
            if known is not None and known.generation == generation.name:
                return generation, None
            path = generation_path(self._folder, collection.id, generation.name)
            try:
                return generation, open_generation(path, generation, collection)
            except CorruptError as error:
                self._report(collection, Problem(collection.name, "generation", generation.name, str(error)))
        return None, None

    def _changed(self, parts: list[LivePart], changes: Changes, *, num_fixed: int) -> list[LivePart]:
        """Parts after changes: what was removed or replaced is dead, what is new comes last."""
        gone = [*changes.removed, *(item.id for item in changes.items)]
        if gone:
            parts = [part.without(gone) for part in parts]
        if changes.items:
            fresh = fresh_part(changes.collection, changes.items, self._read_segments(changes))
            parts = [*parts, LivePart(fresh)]
        if len(parts) - num_fixed > _MAX_FRESH_PARTS:
            parts = [*parts[:num_fixed], LivePart(merged(changes.collection, parts[num_fixed:]))]
        return parts

    def _read_segments(self, changes: Changes) -> Mapping[int, SegmentRows]:
        collection = changes.collection
        rows: dict[int, SegmentRows] = {}
        num_items = Counter(item.segment for item in changes.items if item.segment is not None)
        for number, affected in sorted(num_items.items()):
            segment = changes.segments[number]
            path = segment_path(self._folder, collection.id, segment.name)
            try:
                rows[number] = read_segment(path, segment, collection.spaces)
            except CorruptError as error:
                problem = Problem(collection.name, "segment", segment.name, str(error), affected)
                self._report(collection, problem)
        return rows

    def _report(self, collection: Collection, problem: Problem) -> None:
        # What the writer deleted while it was being opened is no damage: there is something newer.
        if not self._is_listed(collection.id, problem):
            raise _MovedError
        if (collection.id, problem.name) not in self._problems:
            _log.warning("Left out: %s", problem.message)
        self._problems[collection.id, problem.name] = problem


class _MovedError(Exception):
    """The files that a snapshot was to be made of have been replaced meanwhile."""


def segment_path(folder: Path, collection_id: str, name: str) -> Path:
    """Where a segment lies."""
    return folder / collection_id / "segments" / f"{name}.parquet"


def generation_path(folder: Path, collection_id: str, name: str) -> Path:
    """Where a generation lies."""
    return folder / collection_id / "generations" / name
