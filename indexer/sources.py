"""Find the items of a folder and the files that belong to each.

Two layouts are understood, and told apart by the folder itself:

- *side files*: `harbour.jpg`, beside it `harbour.depth.png`, `harbour.caption.txt`, `harbour.det.json`;
  `harbour.json` holds its attributes. Folders nest freely.
- *folders*: one top folder per modality, `rgb/0001.jpg`, `depth/0001.png`, `attributes/0001.json`. Taken
  where the top level has no media file, and two folders named as modalities, or one and no other folder.

An item is whatever shares a name: RGB is not required. Its id is that name relative to the root, without
suffixes (`2024/harbour`, or `0001` in the folder layout), in Unicode NFC: a copy by macOS keeps its ids.
Two pictures of one name (`a.jpg`, `a.png`) are two items: `a` and `a.png`.
"""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from ..errors import InputError
from ..storage import JobError
from .naming import ATTRIBUTES, Named, check_id, extensions_of, is_slot, natural_key, place_of, printable

# Thumbnails, resource forks and bins that storage boxes and archivers leave among the pictures.
_SKIPPED_FOLDERS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin"})
# Part of every signature: raise it when unchanged files have to be read again, as for a new attribute.
_SIGNATURE_VERSION = "1"

_LINK_OUTSIDE = ("source.link_outside", "The link leaves the folder.")

Layout = Literal["auto", "side_files", "folders"]


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item of a source, before anything of it is read.

    Attributes:
        id: stable id, unique in the source.
        files: file of each modality, by the modality's raw name; empty where only problems were found.
        attributes_path: JSON file of its attributes, if any.
        signature: changes when a file of the item appears, vanishes, is renamed, resized or written again.
            Made of names, sizes and modification times: reading every byte of a library to see that nothing
            changed would take as long as indexing it.
        problems: files of the item that cannot be used; the job lists them.
    """

    id: str
    files: Mapping[str, Path]
    attributes_path: Path | None
    signature: str
    problems: tuple[JobError, ...] = ()


class Source(Protocol):
    """Where items come from."""

    @property
    def name(self) -> str:
        """Identity of the source, the same in every run; stored with each item that came from it."""
        ...

    def scan(self, ignored: Counter[str] | None = None) -> Iterator[SourceItem]:
        """Yield the items in a fixed order; count in `ignored` the files passed over, by reason."""
        ...


class FolderSource:
    """The pictures and side files below a folder.

    Hidden files, anyseek's own libraries (`*.anyseek`) and thumbnail folders are passed over. Links to files
    inside the root are followed, linked folders are not (inside the root they are scanned where they lie),
    and a link that leaves the root is listed as a problem: nothing outside the root is read.

    Args:
        root: the folder.
        prefix: put before every id (`prefix/2024/harbour`), to keep two folders apart in one collection.
        layout: `side_files` or `folders`; `auto` looks at the top level (see the module).

    Raises:
        InputError: `root` is not a folder, `layout` is unknown, or `prefix` cannot start an id.
    """

    def __init__(self, root: str | os.PathLike[str], *, prefix: str = "", layout: Layout = "auto") -> None:
        if layout not in ("auto", "side_files", "folders"):
            raise InputError(f"Unknown layout {layout!r}; pick 'auto', 'side_files' or 'folders'.")
        self.root = Path(root).expanduser().resolve()
        self.prefix = check_id(prefix).strip("/") if prefix else ""
        if not self.root.is_dir():
            raise InputError(f"{printable(self.root)} is not a folder.", code="source.not_a_folder")
        self.layout: Layout = layout

    @property
    def name(self) -> str:
        """The resolved root, and the prefix: two prefixes are two sources."""
        return f"{printable(self.root)}#{self.prefix}" if self.prefix else printable(self.root)

    def scan(self, ignored: Counter[str] | None = None) -> Iterator[SourceItem]:
        """Yield the items, folder by folder, in natural order (`2` before `10`) of their path components.

        Only the listings of the folders on the way to the current one are held in memory.

        Args:
            ignored: receives how many files were passed over, by reason (`.heic`, `linked folders`, ...).

        Yields:
            Every item; also, without files, whatever looks like one and cannot be used.

        Raises:
            InputError: the root itself cannot be listed.
        """
        counts: Counter[str] = Counter() if ignored is None else ignored
        top = self._top(counts)
        inside = [folder for folder in top if folder.path.resolve().is_relative_to(self.root)]
        for folder in top:
            if folder not in inside:
                id_ = _join(self.prefix, printable(folder.path.name))
                yield SourceItem(id_, {}, None, "", (_problem(folder.path, folder.slot, *_LINK_OUTSIDE),))
        stack = [self._list(_Place(self.prefix, inside), counts)]
        while stack:  # not recursive: folders can nest deeper than Python's stack
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
            elif isinstance(found, _Place):
                stack.append(self._list(found, counts))
            else:
                yield found

    def _top(self, ignored: Counter[str]) -> "list[_Folder]":
        """Decide the layout; give the folders that together hold the top level."""
        try:
            names = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        except OSError as error:
            message = f"{printable(self.root)} cannot be listed: {error.strerror}."
            raise InputError(message, code="source.unreadable") from error
        named = [name for name in names if is_slot(name) and (self.root / name).is_dir()]
        by_folder = self.layout == "folders" or (self.layout == "auto" and self._is_by_folder(names, named))
        if not by_folder:
            return [_Folder(self.root, None)]
        ignored.update("outside the modality folders" for name in names if name not in named)
        return [_Folder(self.root / name, name.casefold()) for name in named]

    def _is_by_folder(self, names: Sequence[str], named: Sequence[str]) -> bool:
        folders = [name for name in names if (self.root / name).is_dir() and not _is_skipped(name)]
        media = any(place_of(name) for name in names if not (self.root / name).is_dir())
        num_modalities = sum(name.casefold() != ATTRIBUTES for name in named)
        return not media and (num_modalities >= 2 or (num_modalities == 1 and len(named) == len(folders)))

    def _list(self, place: "_Place", ignored: Counter[str]) -> "Iterator[SourceItem | _Place]":
        """Yield the items of one place and the places below it, in order."""
        listing = _Listing()
        for folder in place.folders:
            try:
                with os.scandir(folder.path) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                message = f"Cannot be listed: {error.strerror}."
                listing.add_problem("", folder.path, folder.slot, "source.unreadable_folder", message)
                continue
            for entry in entries:
                if not entry.name.startswith("."):
                    self._add_entry(listing, folder.slot, entry, ignored)
        for stem in sorted({*listing.files, *listing.places, *listing.problems}, key=natural_key):
            yield from listing.items(place.id, stem, ignored)
            if stem in listing.places:
                yield _Place(_join(place.id, stem), listing.places[stem])

    def _add_entry(
        self, listing: "_Listing", slot: str | None, entry: "os.DirEntry[str]", ignored: Counter[str]
    ) -> None:
        try:
            status = entry.stat()
        except OSError as error:  # a broken link, a loop of links, or gone meanwhile
            if named := place_of(entry.name, slot):
                message = f"{error.strerror}."
                listing.add_problem(named.stem, entry.path, named.slot, "source.unreadable", message)
            return
        if stat.S_ISDIR(status.st_mode):
            self._add_folder(listing, slot, entry, ignored)
        elif named := place_of(entry.name, slot):
            self._add_file(listing, named, entry, status)
        else:
            ignored[os.path.splitext(entry.name)[1].casefold() or "no extension"] += 1  # noqa: PTH122

    def _add_folder(
        self, listing: "_Listing", slot: str | None, entry: "os.DirEntry[str]", ignored: Counter[str]
    ) -> None:
        stem = printable(entry.name)
        if _is_skipped(entry.name):
            ignored["skipped folders"] += 1
        elif not entry.is_symlink():
            listing.places[stem].append(_Folder(Path(entry.path), slot))
        elif Path(entry.path).resolve().is_relative_to(self.root):
            ignored["linked folders"] += 1
        else:
            listing.add_problem(stem, entry.path, slot, *_LINK_OUTSIDE)

    def _add_file(
        self, listing: "_Listing", named: Named, entry: "os.DirEntry[str]", status: os.stat_result
    ) -> None:
        path = str(Path(entry.path).resolve()) if entry.is_symlink() else entry.path
        if entry.is_symlink() and not Path(path).is_relative_to(self.root):
            code, message = _LINK_OUTSIDE
        elif not stat.S_ISREG(status.st_mode):  # a pipe would block whoever opens it
            code, message = "source.not_a_file", "It is not a regular file."
        elif named.rank < 0:
            known = ", ".join(extensions_of(named.slot))
            code, message = "source.extension", f"{named.slot} is read from {known}."
        else:
            file = _File(printable(entry.name), named, path, status.st_size, status.st_mtime_ns)
            listing.files[named.stem].append(file)
            return
        listing.add_problem(named.stem, entry.path, named.slot, code, message)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder on disk; in the folder layout with the slot that all its files fill."""

    path: Path
    slot: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """One level of ids, and the folders on disk that hold it: one, or one per modality."""

    id: str
    folders: list[_Folder]


@dataclass(frozen=True, slots=True)
class _File:
    """A file that fills a place; paths stay text as long as there are many of them."""

    name: str
    named: Named
    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class _Listing:
    """What one place holds, by item name."""

    files: defaultdict[str, list[_File]] = field(default_factory=lambda: defaultdict(list))
    places: defaultdict[str, list[_Folder]] = field(default_factory=lambda: defaultdict(list))
    problems: defaultdict[str, list[JobError]] = field(default_factory=lambda: defaultdict(list))

    def add_problem(self, stem: str, path: Path | str, slot: str | None, code: str, message: str) -> None:
        self.problems[stem].append(_problem(path, slot, code, message))

    def items(self, parent: str, stem: str, ignored: Counter[str]) -> Iterator[SourceItem]:
        """Yield the item of this name, and one more for every further picture of the same name."""
        slots: dict[str, _File] = {}
        extra: dict[str, _File] = {}
        for file in sorted(self.files.get(stem, ()), key=lambda file: (file.named.rank, file.name)):
            slot = file.named.slot
            if slot not in slots:
                slots[slot] = file
            elif slot == "rgb" and file.name not in self.files and file.name not in extra:
                extra[file.name] = file
            else:
                message = f"{slots[slot].name} is already the {slot} of item {_join(parent, stem)!r}."
                self.add_problem(stem, file.path, slot, "source.duplicate", message)
        problems = tuple(self.problems.get(stem, ()))
        if problems or slots.keys() - {ATTRIBUTES}:
            yield _item(_join(parent, stem), slots, problems)
        elif slots:
            ignored["attributes without an item"] += 1
        for name, file in sorted(extra.items(), key=lambda pair: natural_key(pair[0])):
            yield _item(_join(parent, name), {"rgb": file}, ())


def _problem(path: Path | str, slot: str | None, code: str, message: str) -> JobError:
    return JobError(path=printable(path), modality=slot or "", code=code, message=message)


def _item(id_: str, slots: Mapping[str, _File], problems: tuple[JobError, ...]) -> SourceItem:
    files = {slot: Path(file.path) for slot, file in slots.items() if slot != ATTRIBUTES}
    attributes = slots.get(ATTRIBUTES)
    attributes_path = Path(attributes.path) if attributes else None
    return SourceItem(id_, files, attributes_path, _signature(slots), problems)


def _signature(slots: Mapping[str, _File]) -> str:
    lines = (f"{slot}/{file.name}/{file.size}/{file.mtime_ns}" for slot, file in sorted(slots.items()))
    return sha256("\n".join((_SIGNATURE_VERSION, *lines)).encode()).hexdigest()[:32]


def _is_skipped(name: str) -> bool:
    return name.casefold() in _SKIPPED_FOLDERS or name.casefold().endswith(".anyseek")


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent and name else parent or name
