"""Where samples to tokenize come from: one folder or tar file per modality, as 4M's own data lies, or items
that somebody else found.

- `root/<modality>/<folder>/<stem>.ext`
- `root/<modality>/shard-00000.tar`; also spelt out, `root/[rgb,caption]/shard-{00000..00009}.tar`

A modality is called by the user's name (`depth`) or, where its files are token ids already, by the
checkpoint's (`tok_depth@224`). `crop_settings` holds the crops that such ids are of. Files of one stem belong
to one sample.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from ...errors import InputError, LimitError

CROP_SETTINGS = "crop_settings"
MAX_FILE_BYTES = 2**28
MAX_SHARDS = 1_000_000


@dataclass(frozen=True)
class Sample:
    """One sample, of which nothing is read yet.

    Attributes:
        name: unique in its source.
        files: by folder name: a path, or the bytes of a file and its name's extension.
    """

    name: str
    files: Mapping[str, Path | bytes]


@dataclass(frozen=True)
class Shard:
    """Samples that are done together.

    Attributes:
        name: unique in its source; stands for the samples' names.
        names: of the modalities that they may have.
        samples: reads them one by one.
    """

    name: str
    names: frozenset[str]
    samples: Callable[[], Iterator[Sample]]


def is_modality_layout(root: Path, known: Collection[str]) -> bool:
    """Whether a source holds tar files or token ids, or is a pattern."""
    if not root.is_dir():
        return True
    folders = [path for path in root.iterdir() if path.is_dir() and path.name in known]
    return any("@" in path.name or path.name.startswith("tok_") for path in folders) or any(
        next(path.glob("*.tar"), None) for path in folders
    )


def open_shards(source: str | Path, known: Collection[str], size: int) -> list[Shard]:
    """Find the shards of a source.

    Args:
        source: folder, or pattern of tar files, see the module.
        known: names that folders may have; others are passed over.
        size: samples of a shard, where they lie as single files.

    Raises:
        InputError: there is none.
    """
    root = Path(source)
    if not root.is_dir():
        return _tar_shards(_expanded(str(source), known))
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and path.name in known}
    tars = {name: sorted(folder.glob("*.tar")) for name, folder in folders.items()}
    if any(tars.values()):
        return _tar_shards([(name, path) for name, paths in tars.items() for path in paths])
    files: dict[str, dict[str, Path]] = {}
    for name, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                stem = (inside.parent / _stem(inside.name)).as_posix()
                files.setdefault(stem, {}).setdefault(name, path)
    if not files:
        raise InputError(
            f"{source}: found no samples; expected one folder per modality, named as one of "
            f"{', '.join(sorted(known))}."
        )
    return item_shards(sorted(files.items()), size)


def item_shards(items: Iterable[tuple[str, Mapping[str, Path]]], size: int) -> list[Shard]:
    """Shards of items that are known already: names, and files by modality."""
    every = [Sample(name, files) for name, files in items]
    shards: list[Shard] = []
    for start in range(0, len(every), size):
        part = every[start : start + size]
        names = frozenset(name for sample in part for name in sample.files)
        shards.append(Shard(f"{start // size:06d}-{part[0].name}", names, _given(part)))
    return shards


def _given(samples: Sequence[Sample]) -> Callable[[], Iterator[Sample]]:
    return lambda: iter(samples)


def _tar_shards(found: Iterable[tuple[str, Path]]) -> list[Shard]:
    """One shard for each file name, of the modalities that have it."""
    shards: dict[str, dict[str, Path]] = {}
    for name, path in found:
        shards.setdefault(path.name, {})[name] = path
    if not shards:
        raise InputError("Found no tar files; expected <modality>/shard-00000.tar.")
    return [Shard(name, frozenset(tars), _in_tars(tars)) for name, tars in sorted(shards.items())]


def _in_tars(tars: Mapping[str, Path]) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        opened = {name: _open_tar(path) for name, path in tars.items()}
        try:
            members = {name: _members(tar, tars[name]) for name, tar in opened.items()}
            for stem in dict.fromkeys(stem for found in members.values() for stem in found):
                yield Sample(
                    stem,
                    {
                        name: _content(opened[name], found[stem], tars[name])
                        for name, found in members.items()
                        if stem in found
                    },
                )
        finally:
            for tar in opened.values():
                tar.close()

    return samples


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is no readable tar file: {error}.") from error


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    try:
        files = [member for member in tar if member.isfile()]
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is damaged: {error}.") from error
    found: dict[str, tarfile.TarInfo] = {}
    for member in files:
        inside = PurePosixPath(member.name)
        found.setdefault((inside.parent / _stem(inside.name)).as_posix(), member)
    return found


def _stem(name: str) -> str:
    return PurePosixPath(name.removesuffix(".gz")).stem


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    """Bytes of a member; too large a one is empty, which its reader refuses."""
    if member.size > MAX_FILE_BYTES:
        return b""
    try:
        file = tar.extractfile(member)
        return b"" if file is None else file.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path}: {member.name} cannot be read: {error}.") from error


def _expanded(pattern: str, known: Collection[str]) -> list[tuple[str, Path]]:
    """Files of a pattern with `[a,b]` and `{00000..00009}`, each with the name of its folder."""
    parts = re.split(r"(\[[^\]]*\]|\{\d+\.\.\d+\})", pattern)
    paths = [Path("".join(choice)) for choice in product(*map(_choices, parts))]
    if len(paths) > MAX_SHARDS:
        raise LimitError(f"{pattern} stands for more than {MAX_SHARDS:,} files.")
    missing = [path for path in paths if not path.is_file()]
    unknown = [path for path in paths if path.parent.name not in known]
    if missing:
        raise InputError(f"{missing[0]} is not there ({len(missing)} of {len(paths)} files of {pattern}).")
    if unknown:
        raise InputError(
            f"{unknown[0].parent.name!r} is no modality of the model. Known: {', '.join(sorted(known))}."
        )
    return [(path.parent.name, path) for path in paths]


def _choices(part: str) -> list[str]:
    if part.startswith("["):
        return [name.strip() for name in part[1:-1].split(",")]
    match = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
    if match is None:
        return [part]
    first, last = match[1], match[2]
    if int(last) - int(first) >= MAX_SHARDS:
        raise LimitError(f"{part} stands for more than {MAX_SHARDS:,} files.")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]


def unzipped(content: Path | bytes, max_bytes: int = MAX_FILE_BYTES) -> Path | bytes:
    """What a gzip file holds; anything else unchanged. Raises InputError for a damaged or too large one."""
    if isinstance(content, Path):
        if content.suffix != ".gz":
            return content
        content = content.read_bytes() if content.stat().st_size <= max_bytes else b""
    if content[:2] != b"\x1f\x8b":
        return content
    stream = zlib.decompressobj(31)
    try:
        text = stream.decompress(content, max_bytes)
    except zlib.error as error:
        raise InputError(f"damaged gzip file: {error}.") from error
    if stream.unconsumed_tail:
        raise LimitError(f"holds more than {max_bytes:,} bytes.")
    return text
