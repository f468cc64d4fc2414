"""What every reader starts from: bytes, text, JSON or numbers from outside, within limits."""

import json
import math
import stat
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, LimitError

Content = Path | bytes | str | Mapping[str, Any] | Sequence[Any] | np.ndarray
"""A value of a modality as it comes from outside."""


def read_bytes(content: Path | bytes, max_bytes: int, name: str) -> bytes:
    """Content of a file. Raises LimitError where it is larger, InputError where it cannot be read."""
    if isinstance(content, Path):
        content = read_file(content, max_bytes + 1, name)
    if len(content) > max_bytes:
        raise LimitError(f"{name}: more than {max_bytes:,} bytes, which is the limit; give a smaller file.")
    return content


def read_file(path: Path, max_bytes: int, name: str) -> bytes:
    """Read the first bytes of a regular file; a pipe or device might never end. Raises InputError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{name}: not a regular file.")
        with path.open("rb") as file:
            return file.read(max_bytes)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be read ({reason}).") from error


def decode_text(content: bytes, name: str) -> str:
    """Decode a UTF-8 file, with or without byte order mark. Raises InputError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text ({error}); save it as UTF-8.") from error


def parse_json(text: str, name: str) -> Any:
    """Parse strict JSON (no NaN, no Infinity, nothing nested beyond reason). Raises InputError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise InputError(f"{name}: JSON nested too deeply.") from error
    except ValueError as error:
        raise InputError(f"{name}: not valid JSON ({error}).") from error


def parse_number(value: object, name: str) -> float:
    """A finite number, no truth value. Raises InputError."""
    try:
        if isinstance(value, Real) and value is not True and value is not False and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise InputError(f"{name} must be a number, got {str(value)[:40]!r}.")
