"""Strict reading of a model's configuration: from `config.json` values or from a file's string metadata."""

import ast
import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import CheckpointError

T = TypeVar("T")

_MAX_LITERAL = 10_000


def literal_values(metadata: Mapping[str, str], *, json_keys: Collection[str] = ()) -> dict[str, object]:
    """Values behind metadata strings: Python literals, JSON for `json_keys`, else the string itself.

    Raises CheckpointError for a `json_keys` entry that is not JSON.
    """
    return {key: _json(key, text) if key in json_keys else _literal(text) for key, text in metadata.items()}


def _json(key: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Configuration key {key!r} is not JSON: {text[:80]!r}.") from error


def _literal(text: str) -> object:
    if len(text) > _MAX_LITERAL:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def parse_config(
    cls: type[T],
    values: Mapping[str, object],
    *,
    where: str,
    required: Collection[str],
    ignored: Collection[str] = (),
) -> T:
    """Build the dataclass `cls` from configuration values.

    Args:
        cls: a dataclass whose fields are bool, int, float, str, tuple[str, ...], Mapping[str, int], or one of
            these or None.
        values: by field name.
        where: the file, for messages.
        required: fields that must be present although the dataclass has a default.
        ignored: keys that are known but say nothing about what the model computes.

    Raises:
        CheckpointError: an unknown key (known ones are listed), a missing one, or a value of another type.
    """
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(set(values) - set(known) - set(ignored))
    if unknown:
        listed = ", ".join([*known, *ignored])
        raise CheckpointError(f"{where}: unknown configuration key {unknown[0]!r}. Known: {listed}.")
    needed = {
        name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING
    }
    missing = [name for name in known if name in needed | set(required) and name not in values]
    if missing:
        raise CheckpointError(f"{where}: the configuration lacks {', '.join(missing)}.")
    given = {name: _coerce(name, values[name], hints[name], where) for name in known if name in values}
    return cls(**given)


def _coerce(name: str, value: object, hint: Any, where: str) -> object:
    result = _matching(value, hint)
    if result is _NO_MATCH:
        shown = getattr(hint, "__name__", str(hint)) if not get_args(hint) else str(hint)
        raise CheckpointError(f"{where}: configuration key {name!r} must be {shown}, got {value!r:.80}.")
    return result


_NO_MATCH = object()


def _matching(value: object, hint: Any) -> object:
    """`value` as the hinted type, or _NO_MATCH. A bool is no int here; a list becomes a tuple."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        is_match = isinstance(value, list | tuple) and all(isinstance(item, args[0]) for item in value)
        return tuple(value) if is_match else _NO_MATCH  # pyright: ignore[reportArgumentType]
    if origin is Mapping:
        is_match = isinstance(value, dict) and all(
            type(key) is args[0] and type(item) is args[1] for key, item in value.items()
        )
        return value if is_match else _NO_MATCH
    if args:  # X | None
        return next((found for arg in args if (found := _matching(value, arg)) is not _NO_MATCH), _NO_MATCH)
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else _NO_MATCH
