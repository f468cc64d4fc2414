"""What a file's name says: which item it belongs to, and as which modality."""

import os
import re
import unicodedata
from dataclasses import dataclass

from ..errors import InputError
from ..model import SIDE_FILES

_LEGEND = "classes.json"  # of label maps; read with them
#: The place of an item's attributes, beside its modalities.
ATTRIBUTES = "attributes"
#: Stands for a modality where predicting attributes failed.
PREDICTED = "predicted"

_MAX_ID_CHARS = 1024
_EXTENSIONS = {**SIDE_FILES, ATTRIBUTES: (".json",)}


@dataclass(frozen=True, slots=True)
class Named:
    """A file's place in an item.

    Attributes:
        stem: the item's name within its folder.
        slot: a modality's raw name, or `attributes`.
        rank: position of the extension among those that the slot is read from; -1 where it is none of them.
    """

    stem: str
    slot: str
    rank: int


def place_of(name: str, folder_slot: str | None = None) -> Named | None:
    """Tell which item a file belongs to and as what, or None if its name says neither.

    A suffix is a modality only before an extension that this modality is read from: `video.clip.jpg` is a
    picture called `video.clip`, `room.depth.png` the depth of `room`. Letter case of suffixes is ignored.

    Args:
        name: file name, without folders.
        folder_slot: the slot that the folder stands for in the folder layout; then names have no suffix.
    """
    stem, extension = os.path.splitext(name)  # noqa: PTH122 (names may hold what Path would interpret)
    extension = extension.casefold()
    if folder_slot is not None:
        return _named(stem, folder_slot, extension) if extension in _EXTENSIONS[folder_slot] else None
    if name.casefold() == _LEGEND or name.casefold().endswith(f".{_LEGEND}"):
        return None
    base, suffix = os.path.splitext(stem)  # noqa: PTH122
    modality = suffix[1:].casefold()
    if base and modality in SIDE_FILES and extension in SIDE_FILES[modality]:
        return _named(base, modality, extension)
    if extension in SIDE_FILES["rgb"]:
        return _named(stem, "rgb", extension)
    if base and modality in SIDE_FILES:
        return Named(printable(base), modality, -1)
    return _named(stem, ATTRIBUTES, extension) if extension == ".json" else None


def _named(stem: str, slot: str, extension: str) -> Named:
    return Named(printable(stem), slot, _EXTENSIONS[slot].index(extension))


def is_slot(name: str) -> bool:
    """Whether a top folder of this name holds one modality, or attributes, in the folder layout."""
    return name.casefold() in _EXTENSIONS


def extensions_of(slot: str) -> tuple[str, ...]:
    """The extensions that a slot is read from, best first."""
    return _EXTENSIONS[slot]


def printable(name: str | os.PathLike[str]) -> str:
    """Give a file name as text that any database and terminal can hold.

    Unicode NFC; bytes that are not UTF-8 and control characters are written `\\xe9`.
    """
    text = unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))
    if text.isprintable():
        return text
    return "".join(f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" else char for char in text)


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Sort key under which `2` comes before `10`, and letter case only breaks ties."""
    parts = re.split("([0-9]+)", text)
    return [int(part) if i % 2 else part.casefold() for i, part in enumerate(parts)], text


def check_id(id_: str) -> str:
    """Let a text pass as an item's id, or as the start of ids.

    Raises:
        InputError: it is empty, longer than 1024 characters, or has control characters or broken Unicode.
    """
    broken = any(unicodedata.category(char) in ("Cc", "Cs") for char in id_)
    if not id_.strip() or len(id_) > _MAX_ID_CHARS or broken:
        message = f"{id_[:80]!r} cannot be an item id: give 1 to {_MAX_ID_CHARS} printable characters."
        raise InputError(message, code="item.id")
    return id_
