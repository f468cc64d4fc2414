"""Sizes of denoising networks by name: published ones, or those that a checkpoint describes itself."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ...errors import ModelError
from ..parsing import parse_config

T = TypeVar("T")

_MAX_COUNT = 2**14
_MAX_LEVELS = 8


def network_size(cls: type[T], name: str, known: Mapping[str, T], presets: Mapping[str, object] | None) -> T:
    """The size called `name`.

    Args:
        cls: a dataclass of numbers and tuples of numbers.
        name: the configuration's `dec_type`.
        known: published sizes.
        presets: sizes in the checkpoint's own metadata, by name, as mappings of `cls`'s fields; they win.

    Raises:
        ModelError: an unknown name (known ones are listed), or a preset without meaning.
    """
    own = (presets or {}).get(name)
    if isinstance(own, Mapping):
        return parse_config(cls, own, where=f"preset {name!r}", required=())
    if own is not None or name not in known:
        listed = ", ".join([*known, *(presets or {})])
        raise ModelError(
            f"No size is known for the decoder {name!r}. Known: {listed}; the metadata key 'presets' can add."
        )
    return known[name]


def require_counts(size: Any) -> None:
    """Raise ModelError unless all fields of a dataclass are positive numbers in bounds, or tuples of some."""
    for field in fields(size):
        value = getattr(size, field.name)
        counts = value if isinstance(value, tuple) else (value,)
        if not all(type(n) is int and 0 < n <= _MAX_COUNT for n in counts) or len(counts) > _MAX_LEVELS:
            raise ModelError(f"{field.name} must be in 1..{_MAX_COUNT}, got {value!r:.80}.")
