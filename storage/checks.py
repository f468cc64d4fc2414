"""What comes from outside is checked once, here, before it reaches the catalog or a file."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .records import Asset, Collection, Item, Rows, SpaceRecord

_MAX_ID = 1024
_MAX_DEPTH = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TITLE = re.compile(r"\w[\w .-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NORM_TOLERANCE = 1e-2


def is_sha256(text: str) -> bool:
    """Whether a text is a sha256 in lower-case hex."""
    return _SHA256.fullmatch(text) is not None


def check_collection(name: str, spaces: Sequence[SpaceRecord], views: Sequence[str]) -> None:
    """Refuse names that cannot be shown, typed or made part of a file's name. Raises InputError."""
    if not _TITLE.fullmatch(name) or name != name.strip():
        raise InputError(
            f"'{name}' cannot name a collection: use 1 to 100 letters, digits, spaces or ._- "
            "and start with a letter or digit."
        )
    names = [space.name for space in spaces]
    for kind, given in (("space", names), ("view", list(views))):
        if not given or len(set(given)) != len(given):
            raise InputError(f"Collection '{name}' needs at least one {kind}, each once; got {given}.")
        for each in given:
            if not _NAME.fullmatch(each):
                raise InputError(f"'{each}' cannot name a {kind}: use 1 to 64 letters, digits, _ or -.")
    for space in spaces:
        if space.dim < 1 or space.num_tokens < 1 or not 1 <= space.codebook_size <= 65536:
            raise InputError(
                f"Space '{space.name}' needs a dimension and tokens of at least 1 and a codebook of 1 to "
                f"65536 (ids are stored in 16 bits); got {space}."
            )


def check_items(items: Sequence[Item]) -> None:
    """Refuse ids that repeat and content that a database or JSON cannot keep. Raises InputError."""
    seen: set[str] = set()
    for item in items:
        if not item.id or len(item.id) > _MAX_ID:
            raise InputError(f"An item's id has 1 to {_MAX_ID} characters; got {item.id[:100]!r}.")
        if item.id in seen:
            raise InputError(f"Item '{item.id}' comes twice in one commit.")
        seen.add(item.id)
        check_json([item.id, item.signature, item.source], f"item {item.id!r}")
        for asset in item.assets:
            _check_asset(asset, f"asset '{asset.modality}' of item {item.id!r}")


def _check_asset(asset: Asset, where: str) -> None:
    check_json([asset.modality, asset.path, asset.media_type, asset.value], where)
    if asset.path is None and asset.sha256 is None and asset.value is None:
        raise InputError(f"The {where} has no path, sha256 or value.")
    if asset.path is not None and not Path(asset.path).is_absolute():
        raise InputError(f"The {where} has the relative path '{asset.path}'; give an absolute one.")
    if asset.sha256 is not None and not is_sha256(asset.sha256):
        raise InputError(f"The {where} has '{asset.sha256}' where a sha256 in lower-case hex belongs.")


def check_json(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what no database keeps as JSON: NUL, lone surrogates, NaN, other types. Raises InputError."""
    if value is None:
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InputError(f"The {where} has an integer of more than 64 bits.")
    elif isinstance(value, str):
        if "\0" in value or not _is_unicode(value):
            raise InputError(f"The {where} has text with NUL or undecodable bytes: {value[:100]!r}.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"The {where} has the number {value}; only finite numbers can be kept.")
    elif depth > _MAX_DEPTH:
        raise InputError(f"The {where} is nested more than {_MAX_DEPTH} deep.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"The {where} has the key {key!r}; keys are text.")
            check_json(key, where, depth + 1)
            check_json(inner, where, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(inner, where, depth + 1)
    else:
        raise InputError(f"The {where} has a value of type {type(value).__name__}; only JSON can be kept.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_rows(collection: Collection, items: Sequence[Item], rows: Rows) -> None:
    """Refuse rows that do not fit the collection or have no item. Raises InputError."""
    num_rows = len(rows)
    regions = rows.regions if rows.regions is not None else [None] * num_rows
    if len(rows.views) != num_rows or len(regions) != num_rows:
        raise InputError(f"{num_rows} rows came with {len(rows.views)} views and {len(regions)} regions.")
    homeless = set(rows.item_ids) - {item.id for item in items}
    if homeless:
        raise InputError(f"Rows came without their items: {', '.join(map(repr, sorted(homeless)[:3]))}.")
    unknown = set(rows.views) - set(collection.views)
    if unknown:
        raise InputError(
            f"Collection '{collection.name}' has no view '{min(unknown)}'; "
            f"it has {', '.join(collection.views)}."
        )
    keys = list(zip(rows.item_ids, rows.views, regions, strict=True))
    if len(set(keys)) != num_rows:
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"Two rows for item {twice[0]!r}, view '{twice[1]}', region {twice[2]!r}.")
    check_json([region for region in regions if region is not None], "region")
    if num_rows:
        _check_spaces(collection, rows)


def _check_spaces(collection: Collection, rows: Rows) -> None:
    expected = {space.name for space in collection.spaces}
    for kind, given in (("vectors", set(rows.vectors)), ("tokens", set(rows.tokens))):
        if given != expected:
            raise InputError(
                f"Collection '{collection.name}' keeps {kind} of {', '.join(sorted(expected))}; "
                f"got {', '.join(sorted(given)) or 'none'}."
            )
    for space in collection.spaces:
        _check_vectors(collection.name, space, rows.vectors[space.name], len(rows))
        _check_tokens(collection.name, space, rows.tokens[space.name], len(rows))


def _check_vectors(name: str, space: SpaceRecord, vectors: NDArray[Any], num_rows: int) -> None:
    if vectors.shape != (num_rows, space.dim):
        raise InputError(
            f"Collection '{name}' holds {space.dim}-d vectors in {space.name}, got shape {vectors.shape} "
            f"for {num_rows} rows; re-index it or pick another space."
        )
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    # Not `any(off > tolerance)`: that is False for NaN.
    if not np.all(np.abs(norms - 1) <= _NORM_TOLERANCE):
        raise InputError(
            f"Vectors in {space.name} must have length 1; got lengths {norms.min()} to {norms.max()}."
        )


def _check_tokens(name: str, space: SpaceRecord, tokens: NDArray[Any], num_rows: int) -> None:
    if tokens.shape != (num_rows, space.num_tokens) or tokens.dtype.kind not in "iu":
        raise InputError(
            f"Collection '{name}' holds {space.num_tokens} token ids a row in {space.name}, "
            f"got {tokens.dtype} of shape {tokens.shape} for {num_rows} rows."
        )
    if tokens.min() < 0 or tokens.max() >= space.codebook_size:
        raise InputError(
            f"Token ids in {space.name} lie in 0..{space.codebook_size - 1}; "
            f"got {tokens.min()} to {tokens.max()}."
        )
