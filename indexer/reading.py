"""One item's files or values to what the model embeds and the catalog keeps. Runs in worker threads."""

import json
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import AnyseekError, InputError, LimitError, StorageError
from ..model import check_same_view
from ..storage import Asset, AssetFiles, Attribute, Item, JobError
from .attributes import check_attributes, item_facts, picture_facts, read_attributes
from .naming import ATTRIBUTES, printable
from .sources import SourceItem

if TYPE_CHECKING:
    from ..model import Model

#: The source of items that were handed over one by one instead of being found by a scan.
ADDED = "added"

_MAX_MESSAGE_CHARS = 1000
_MAX_VALUE_CHARS = 1 << 20
_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item handed over directly.

    Attributes:
        id: stable id; an item added before under this id is replaced.
        assets: by modality, a path (kept by reference), bytes (kept in the library) or a value such as a
            text, boxes or colours, as the model's reader takes them.
        attributes: flat, as in a side file.
    """

    id: str
    assets: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ReadItem:
    """What could be read of an item.

    Attributes:
        item: what the catalog keeps. Its signature names the modalities that failed, so that an item of which
            a part is broken counts as unchanged only while the same part is broken.
        inputs: model input by modality; empty where nothing can be embedded.
        errors: every file or value that could not be used.
        own_keys: which of its attributes somebody gave; the others were added here.
    """

    item: Item
    inputs: Mapping[str, NDArray[Any]]
    errors: tuple[JobError, ...]
    own_keys: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Draft:
    """An item while its parts are read."""

    id: str
    path: str
    signature: str
    errors: list[JobError]
    inputs: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    assets: list[Asset] = field(default_factory=list[Asset])
    facts: dict[str, Attribute] = field(default_factory=dict[str, Attribute])
    own: dict[str, Attribute] = field(default_factory=dict[str, Attribute])

    @contextmanager
    def listing(self, path: str, modality: str) -> Generator[None]:
        """List whatever goes wrong inside as an error of this file, and go on after it."""
        try:
            yield
        except StorageError:  # a full disk is nobody's file: it stops the job
            raise
        except Exception as error:  # decoders meet hostile bytes: any exception is the file's fault, not ours
            self.errors.append(job_error(path, modality, error))


class ItemReader:
    """Reads items for one model. Thread-safe; one broken file never costs more than itself.

    Args:
        model: says which modalities are read; others are kept as assets unread.
        assets: where content goes that cannot stay where it is.
        source: the source's name, recorded with each item.
        predict: what is predicted of its items, part of their signatures.
    """

    def __init__(self, model: "Model", assets: AssetFiles, source: str, predict: Sequence[str] = ()) -> None:
        self._model = model
        self._assets = assets
        self._source = source
        self._mark = mark_of(source, predict)

    def read(self, found: SourceItem) -> ReadItem:
        """Read all files of an item. What fails is left out and listed in `errors`."""
        paths = [found.files.get("rgb"), *found.files.values(), found.attributes_path]
        first = next((path for path in paths if path is not None), None)
        draft = _Draft(found.id, printable(first or found.id), found.signature, list(found.problems))
        for modality, path in found.files.items():
            with draft.listing(printable(path), modality):
                self._check_view(modality, found.files)
                self._read_file(draft, modality, path)
        if found.attributes_path is not None:
            with draft.listing(printable(found.attributes_path), ATTRIBUTES):
                _take_attributes(draft, *read_attributes(found.attributes_path))
        return self._finish(draft)

    def read_new(self, new: NewItem) -> ReadItem:
        """Read all content of an item that was handed over."""
        draft = _Draft(new.id, new.id, "", [])
        for modality, content in new.assets.items():
            with draft.listing(new.id, modality):
                self._check_view(modality, new.assets)
                self._read_content(draft, modality, content)
        with draft.listing(new.id, ATTRIBUTES):
            _take_attributes(draft, *check_attributes(new.attributes))
        return self._finish(draft)

    def _check_view(self, modality: str, contents: Mapping[str, Any]) -> None:
        """Refuse a map that cannot lie over the item's photo; what the model does not read is just kept."""
        if "rgb" in contents and modality in self._model.inputs:
            check_same_view(modality, contents[modality], contents["rgb"])

    def _read_file(self, draft: _Draft, modality: str, path: Path) -> None:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # replaced since the scan; a pipe would block whoever opens it
            raise InputError("It is not a regular file.", code="source.not_a_file")
        self._read_input(draft, modality, path, num_bytes=status.st_size)
        media_type = _MEDIA_TYPES.get(path.suffix.casefold())
        if modality == "rgb":
            facts, true_type = picture_facts(path)
            draft.facts |= facts
            media_type = true_type or media_type
        if modality == "rgb" or "file_name" not in draft.facts:
            draft.facts |= {"file_name": printable(path.name), "file_bytes": status.st_size}
        if _is_storable(path):
            draft.assets.append(Asset(modality, path=str(path), media_type=media_type))
        else:  # no database holds this name: keep the content
            draft.assets.append(Asset(modality, sha256=self._assets.add(path), media_type=media_type))

    def _read_content(self, draft: _Draft, modality: str, content: Any) -> None:
        if isinstance(content, Path):
            self._read_file(draft, modality, content.expanduser().resolve())
        elif isinstance(content, bytes):
            self._read_input(draft, modality, content, num_bytes=len(content))
            facts, media_type = picture_facts(content) if modality == "rgb" else ({}, None)
            draft.facts |= facts
            draft.assets.append(Asset(modality, sha256=self._assets.add(content), media_type=media_type))
        else:
            _check_value(content)
            self._read_input(draft, modality, content, num_bytes=0)
            draft.assets.append(Asset(modality, value=content))

    def _read_input(self, draft: _Draft, modality: str, content: Any, *, num_bytes: int) -> None:
        if modality not in self._model.inputs:
            return
        try:
            draft.inputs[modality] = self._model.embedder.read(modality, content)
        except InputError as error:
            # A file that says "nothing here" (no boxes in the picture) is not broken; one without bytes is.
            if error.code != "input.empty" or num_bytes == 0:
                raise

    def _finish(self, draft: _Draft) -> ReadItem:
        has = [asset.modality for asset in draft.assets]
        if not draft.inputs and not draft.errors:
            takes, holds = ", ".join(self._model.inputs), ", ".join(has) or "nothing"
            message = f"Model {self._model.name!r} takes {takes}; this item has {holds} to offer."
            draft.errors.append(JobError(draft.path, "", "item.no_input", message))
        failed = sorted({error.modality for error in draft.errors})
        item = Item(
            id=draft.id,
            assets=draft.assets,
            attributes=item_facts(draft.id, has) | draft.facts | draft.own,
            signature="!".join([f"{self._mark}.{draft.signature}", *failed]),
            source=self._source,
        )
        return ReadItem(item, draft.inputs, tuple(draft.errors), frozenset(draft.own))


def owner_of(source: str) -> str:
    """What stands before the dot in the signature of every item of a source: who may replace it."""
    return sha256(source.encode()).hexdigest()[:8]


def mark_of(source: str, predict: Sequence[str]) -> str:
    """What signatures of a source's items begin with: their owner, and what was predicted of them."""
    return ".".join([owner_of(source), *(["+".join(predict)] if predict else [])])


def job_error(path: str, modality: str, error: Exception) -> JobError:
    """Describe what happened to a file in words that any database can hold."""
    if isinstance(error, AnyseekError):
        code, message = error.code, str(error)
    elif isinstance(error, OSError):
        code, message = "input.unreadable", f"{error.strerror or error}."
    else:
        code, message = "input.unexpected", f"{type(error).__name__}: {error}"
    return JobError(path, modality, code, storable(message)[:_MAX_MESSAGE_CHARS])


def storable(text: str) -> str:
    """Text with whatever is not Unicode (half a surrogate pair) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_value(content: object) -> None:
    """Let a value pass that the catalog can keep. Raises InputError."""
    try:
        size = len(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"Give a path, bytes, a text, or what JSON can hold ({error})."
        raise InputError(message, code="input.not_json") from error
    if size > _MAX_VALUE_CHARS:
        raise LimitError(
            f"A value is limited to {_MAX_VALUE_CHARS} characters of JSON; give bytes or a path."
        )


def _take_attributes(draft: _Draft, attributes: Mapping[str, Attribute], refused: list[str]) -> None:
    draft.own.update(attributes)
    if refused:
        raise InputError(" ".join(refused), code="attributes.unusable")


def _is_storable(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
