"""The attributes of an item: what its JSON file says, and a few facts about its files."""

import io
import json
import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from PIL import ExifTags, Image

from ..errors import InputError, LimitError
from ..storage import Attribute

_MAX_FILE_BYTES = 1 << 20
_MAX_KEYS = 256
_MAX_KEY_CHARS = 128
_MAX_TEXT_CHARS = 8192
_MAX_LIST = 1024
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_TAKEN_AT = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def read_attributes(path: Path) -> tuple[dict[str, Attribute], list[str]]:
    """Read a JSON object of attributes; a value that cannot be one costs that key alone.

    Args:
        path: a JSON file holding one flat object.

    Returns:
        The usable attributes, and one sentence for each key left out.

    Raises:
        LimitError: the file is larger than 1 MiB or has more than 256 keys.
        InputError: it is not a regular file, or not a JSON object.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("The attributes are not a regular file.", code="source.not_a_file")
    if status.st_size > _MAX_FILE_BYTES:
        raise LimitError(f"Attributes are limited to {_MAX_FILE_BYTES} bytes; the file has {status.st_size}.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"The attributes are not JSON: {error}.", code="attributes.not_json") from error
    if not isinstance(content, dict):
        raise InputError("Attributes must be one JSON object.", code="attributes.not_an_object")
    return check_attributes(cast(dict[str, Any], content))


def check_attributes(content: Mapping[str, Any]) -> tuple[dict[str, Attribute], list[str]]:
    """Sort out what can be an attribute: bool, int of 64 bits, finite float, text, or a list of texts.

    `null` means that the item lacks the attribute.

    Raises:
        LimitError: there are more than 256 keys.
    """
    if len(content) > _MAX_KEYS:
        raise LimitError(f"An item can have {_MAX_KEYS} attributes, got {len(content)}.")
    attributes: dict[str, Attribute] = {}
    refused: list[str] = []
    for key, value in content.items():
        if value is None:
            continue
        reason = _key_problem(key) or _value_problem(value)
        if reason:
            refused.append(f"Attribute {key[:_MAX_KEY_CHARS]!r} {reason}.")
        else:
            attributes[key] = value
    return attributes, refused


def _key_problem(key: str) -> str | None:
    if not key.strip() or not key.isprintable():
        return "has no readable name"
    return f"has a name longer than {_MAX_KEY_CHARS} characters" if len(key) > _MAX_KEY_CHARS else None


def _value_problem(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "is an integer beyond 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not a finite number"
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, list):
        texts = cast(list[object], value)
        if not all(isinstance(text, str) for text in texts):
            return "is a list of other things than texts"
        if len(texts) > _MAX_LIST:
            return f"is a list of more than {_MAX_LIST} texts"
        return next(filter(None, (_text_problem(str(text)) for text in texts)), None)
    return f"is a {type(value).__name__}; use bool, int, float, text or a list of texts"


def _text_problem(text: str) -> str | None:
    if len(text) > _MAX_TEXT_CHARS:
        return f"is a text longer than {_MAX_TEXT_CHARS} characters"
    try:  # JSON can escape half a surrogate pair, which no database stores
        text.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return None


def item_facts(id_: str, modalities: Sequence[str]) -> dict[str, Attribute]:
    """Attributes that every item gets; one of the same name in its own attributes wins.

    - `modalities`: which modalities the item has, sorted;
    - `folder`: the id without its last part, "" at the top.

    An item from a folder also gets `file_name` and `file_bytes` of its picture or, without one, of its first
    file; `picture_facts` names the rest.
    """
    return {"modalities": sorted(modalities), "folder": id_.rpartition("/")[0]}


def picture_facts(content: Path | bytes) -> tuple[dict[str, Attribute], str | None]:
    """Attributes that a picture's header gives; its pixels are not decoded.

    - `width`, `height`: as it is shown, in pixels;
    - `taken_at`: when the camera took it (`2024-05-01T10:00:00`, local time of the camera).

    Args:
        content: a picture that the model's reader could read; damage found here costs only the facts.

    Returns:
        The attributes, and the media type of the format that the bytes really have (None: not seen).
    """
    try:
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(source, formats=_FORMATS) as picture:
            width, height = picture.size
            exif = _exif(picture)
            media_type = Image.MIME.get(picture.format or "")
    except Exception:  # whatever a hostile header provokes; the reader has judged the file already
        return {}, None
    lies_on_its_side = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    if lies_on_its_side and media_type != "image/tiff":  # of those, Pillow gives the upright size
        width, height = height, width
    facts: dict[str, Attribute] = {"width": width, "height": height}
    taken = exif.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    match = _TAKEN_AT.match(taken) if isinstance(taken, str) else None
    if match and match[1] != "0000":  # cameras whose clock was never set
        facts["taken_at"] = "{}-{}-{}T{}:{}:{}".format(*match.groups())
    return facts, media_type


def _exif(picture: Image.Image) -> Mapping[int, object]:
    if picture.format == "PNG" and "exif" not in picture.info:
        return {}  # Pillow would decode all pixels to look for tags behind them
    try:
        exif = picture.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # damaged tags leave the size of the picture standing
        return {}


class AttributeTypes:
    """One type per key in a whole collection, so that it can be a column.

    Args:
        types: the types known so far, by key: bool, int, float, str or list[str].
    """

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = dict(types)

    def admit(
        self, attributes: Mapping[str, Attribute | None]
    ) -> tuple[dict[str, Attribute], dict[str, str]]:
        """Keep the attributes that agree with the types seen so far, learning new keys.

        Integers and decimals may share a key, which then holds decimals.

        Returns:
            The attributes to keep, and one sentence for each key left out, by key.
        """
        kept: dict[str, Attribute] = {}
        refused: dict[str, str] = {}
        for key, value in attributes.items():
            if value is None:
                continue
            kind = type(value).__name__ if isinstance(value, bool | int | float | str) else "list[str]"
            known = self._types.setdefault(key, kind)
            if {kind, known} == {"int", "float"}:
                self._types[key] = "float"
            elif kind != known:
                refused[key] = f"Attribute {key!r} is {known} in this collection, here it is {kind}."
                continue
            kept[key] = value
        return kept, refused
