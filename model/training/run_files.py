"""One YAML says what a run does: read strictly, and kept beside what the run makes."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar, cast, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ...errors import ConfigError

MAX_BYTES = 2**20
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")

FullPath = Annotated[Path, AfterValidator(Path.absolute)]
"""A path that is kept absolute, so that a saved configuration runs from anywhere."""


class RunConfig(BaseModel):
    """Base of what a YAML says: unknown keys are errors, nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RunT = TypeVar("RunT", bound=RunConfig)


def read_values(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError where there is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} bytes: it is no configuration.")
        values: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict) or not all(
        isinstance(key, str) for key in cast("dict[Any, Any]", values)
    ):
        raise ConfigError(f"{path} must map names to values, as in `output: runs/first`.")
    return cast("dict[str, Any]", values)


def parse_run(values: Mapping[str, Any], kind: type[RunT], *, where: str) -> RunT:
    """Check the values of a run.

    Args:
        values: as `read_values` gives them.
        kind: what they should be.
        where: the file, for messages.

    Raises:
        ConfigError: every key that is unknown (with those that are known), missing, or without a meaning.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = [_explain(kind, one["loc"], one["type"], one["msg"]) for one in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(found)}.") from error


def save_run(config: RunConfig, path: Path) -> None:
    """Write a configuration, defaults included, as `read_values` reads it; the file is never half there."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(path, text.encode())


def require_same(config: RunConfig, path: Path, *, free: Collection[str] = ()) -> None:
    """Let a run go on only with the settings that it was begun with.

    Args:
        config: of the run now.
        path: what `save_run` wrote when it began; nothing is asked where it is not there.
        free: keys that may change.

    Raises:
        ConfigError: another key has changed.
    """
    if not path.exists():
        return
    now = config.model_dump(mode="json")
    before = read_values(path)
    changed = [key for key in now if key not in free and before.get(key) != now[key]]
    if changed:
        told = "; ".join(f"{key} was {before.get(key)!r:.200}" for key in changed)
        raise ConfigError(f"{path.parent} holds a run with other settings ({told}); name another output.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under its name only when all of it is on disk."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """A file to write into, which gets its name only when all of it is on disk."""
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a kill leaves, the next one overwrites
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_kind(path: Path, kinds: Mapping[str, type[RunT]]) -> RunT:
    """Read a YAML whose key `kind` says which of several it is.

    Args:
        path: of the file.
        kinds: by what `kind` says.

    Raises:
        ConfigError: all that is wrong with it; unknown keys with those that are known.
    """
    values = read_values(path)
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{path}: kind is {kind!r}; known are {', '.join(kinds)}.")
    return parse_run(values, kinds[kind], where=str(path))


def _explain(kind: type[RunConfig], place: Sequence[int | str], problem: str, message: str) -> str:
    key = ".".join(map(str, place))
    if problem in UNKNOWN:
        known = _known(kind, place[:-1])
        close = get_close_matches(str(place[-1]), known, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"unknown key {key}{hint}; known are {', '.join(known)}"
    return f"missing key {key}" if problem.startswith("missing") else f"{key}: {message}"


def _known(kind: type[Any], place: Sequence[int | str]) -> list[str]:
    """Names of the fields at a place inside a configuration."""
    for name in place:
        options = get_args(_fields(kind)[str(name)]) or (_fields(kind)[str(name)],)
        kind = next(option for option in options if _fields(option))
    return list(_fields(kind))


def _fields(kind: Any) -> dict[str, Any]:
    """Fields of a model or a dataclass, with their types."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {field.name: field.type for field in fields(kind)} if is_dataclass(kind) else {}
