"""Ordinary files to tokens, once: a source of samples becomes a `TokenData` folder, shard by shard.

A shard that is done lies in `parts/`; an interrupted run goes on with the others. In the end all are laid end
to end in a random order, so that any part of the folder is a random part of the samples.

| file in the folder | what |
|---|---|
| `tokens.json`, `*.npy` | the data |
| `names.txt` | the sample behind each row |
| `failures.jsonl` | what could not be used, and why |
| `plan.json`, `parts/` | while it is not done |
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, InputError
from ..modalities import Modality
from .run_files import write_whole
from .sample_crops import CROPPED, WHOLE
from .sample_tokens import SampleTokenizer
from .setups import Setup
from .shards import CROP_SETTINGS, Shard
from .token_data import INDEX, TokenData, write_index

NAMES, FAILURES, PLAN, PARTS = "names.txt", "failures.jsonl", "plan.json", "parts"
_MAX_ID = 2**15


@dataclass(frozen=True)
class TokenizeReport:
    """What became of a source.

    Attributes:
        num_samples: rows of the data.
        num_failed: values that could not be used; the samples are there without them, or left out where
            nothing else is known of them.
        modalities: by checkpoint name, what the data has.
        skipped: modalities of the source that the model does not take or has no tokenizer for.
        finished: whether all shards are done.
    """

    num_samples: int
    num_failed: int
    modalities: tuple[str, ...]
    skipped: tuple[str, ...]
    finished: bool


def tokenize(
    shards: Sequence[Shard],
    setup: Setup,
    folder: Path,
    *,
    crops: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    device: str = "auto",
    modalities: Sequence[str] = (),
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int, int], None] | None = None,
) -> TokenizeReport:
    """Tokenize a source, or go on with what was interrupted.

    Args:
        shards: the source.
        setup: modalities and their tokenizers.
        folder: of the data; made when missing.
        crops: of each sample; the first is the central square.
        batch_size: samples that are read and tokenized together.
        seed: of crops and order.
        device: where tokenizers run.
        modalities: by checkpoint name; all that model and source have where empty.
        should_stop: asked after every shard.
        progress: told shards done, all shards, and failures.

    Raises:
        InputError: the folder holds something else, or no sample can be used.
        ConfigError: nothing to tokenize, or crops of what cannot be cut.
        ModelError, CheckpointError: a tokenizer cannot be had or does not fit.
    """
    known = frozenset(name for shard in shards for name in shard.names)
    rows, skipped = _chosen(setup, known, modalities)
    _require_crops(rows, known, crops)
    plan = _plan(shards, setup, rows, crops=crops, seed=seed)
    if (folder / INDEX).exists():
        _require_plan(folder, plan)
        return _report(folder, rows, skipped)
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    _require_plan(folder, plan)
    write_whole(folder / PLAN, plan)
    tokenizer = SampleTokenizer(rows, setup.parts(device), setup.text, crops=crops, seed=seed)
    num_failed = 0
    for number, shard in enumerate(shards):
        part = folder / PARTS / f"{number:06d}"
        if not part.exists():
            if should_stop():
                return TokenizeReport(0, num_failed, tuple(rows), skipped, finished=False)
            _write_part(part, tokenizer, shard, batch_size)
        num_failed += len((part / FAILURES).read_text(encoding="utf-8").splitlines())
        if progress is not None:
            progress(number + 1, len(shards), num_failed)
    _merge(folder, rows, seed)
    return _report(folder, rows, skipped)


def _chosen(
    setup: Setup, known: frozenset[str], wanted: Sequence[str]
) -> tuple[dict[str, Modality], tuple[str, ...]]:
    """Rows that can be made, and what of the source is left over."""
    for name in wanted:
        if name not in setup.rows:
            raise ConfigError(f"The model has no modality {name!r}. Known: {', '.join(setup.rows)}.")
    tokenizers = setup.source.tokenizers
    rows = {
        name: row
        for name, row in setup.rows.items()
        if (name in wanted or not wanted)
        and (name in known or (row.raw in known and (row.kind != "img" or row.raw in tokenizers)))
        and not (row.reads_as in ("human_poses", "sam_instance") and row.raw not in tokenizers)
    }
    used = {*rows, *(row.raw for row in rows.values()), CROP_SETTINGS}
    if not rows:
        raise ConfigError(
            f"Nothing to tokenize: the source has {', '.join(sorted(known))}; the model, with the tokenizers "
            f"that are given, takes {', '.join(setup.rows)}."
        )
    for name, row in rows.items():
        if (row.vocab_size or 0) > _MAX_ID:
            raise ConfigError(f"{name} has {row.vocab_size} ids; tokens are kept as int16, below {_MAX_ID}.")
    return rows, tuple(sorted(known - used))


def _require_crops(rows: Mapping[str, Modality], known: frozenset[str], crops: int) -> None:
    fixed = [
        row.raw
        for name, row in rows.items()
        if row.reads_as not in CROPPED | WHOLE and (row.kind != "img" or name not in known)
    ]
    if crops > 1 and fixed:
        raise ConfigError(
            f"Crops of {', '.join(dict.fromkeys(fixed))} cannot be made from its files: take one crop, leave "
            "it out, or give token ids of the crops."
        )


def _plan(
    shards: Sequence[Shard], setup: Setup, rows: Mapping[str, Modality], *, crops: int, seed: int
) -> bytes:
    """All that the result depends on, but the files' contents."""
    digest = hashlib.sha256("\n".join(shard.name for shard in shards).encode())
    said = {
        "shards": len(shards),
        "names": digest.hexdigest(),
        "modalities": {name: [row.max_tokens, row.vocab_size, row.image_size] for name, row in rows.items()},
        "tokenizers": {
            row.raw: str(setup.source.tokenizers[row.raw])
            for row in rows.values()
            if row.raw in setup.source.tokenizers
        },
        "text": setup.text.sha256,
        "crops": crops,
        "seed": seed,
    }
    return (json.dumps(said, indent=1) + "\n").encode()


def _require_plan(folder: Path, plan: bytes) -> None:
    path = folder / PLAN
    if path.exists() and path.read_bytes() != plan:
        raise InputError(
            f"{folder} holds tokens of another source, model or setting ({PLAN}): remove it, or take another "
            "folder."
        )


def _write_part(part: Path, tokenizer: SampleTokenizer, shard: Shard, batch_size: int) -> None:
    """Tokenize a shard; the folder is there only when it is whole."""
    temporary = part.with_name(f".{part.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    made = tokenizer.run(shard.samples(), batch_size)
    if made.names:
        made.data.save(temporary)
    (temporary / NAMES).write_text("".join(f"{name}\n" for name in made.names), encoding="utf-8")
    lines = "".join(json.dumps(asdict(failure)) + "\n" for failure in made.failures)
    (temporary / FAILURES).write_text(lines, encoding="utf-8")
    temporary.rename(part)


def _merge(folder: Path, rows: Mapping[str, Modality], seed: int) -> None:
    parts = sorted(path for path in (folder / PARTS).iterdir() if not path.name.startswith("."))
    names = [name for part in parts for name in (part / NAMES).read_text(encoding="utf-8").splitlines()]
    failures = "".join((part / FAILURES).read_text(encoding="utf-8") for part in parts)
    (folder / FAILURES).write_text(failures, encoding="utf-8")
    if not names:
        first = json.loads(failures.splitlines()[0])["message"] if failures else "the source is empty"
        raise InputError(f"No sample can be used: {first}; {folder / FAILURES} lists all.")
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    whole = [part for part in parts if (part / INDEX).exists()]
    for name in rows:
        _merge_column(folder, [TokenData.load(part).columns[name] for part in whole], name, place)
    (folder / NAMES).write_text("".join(f"{names[row]}\n" for row in order), encoding="utf-8")
    write_index(folder, list(rows))
    shutil.rmtree(folder / PARTS)


def _merge_column(
    folder: Path, columns: Sequence[NDArray[np.generic]], name: str, place: NDArray[np.int64]
) -> None:
    """Rows of all parts to their places; sequences are padded to the longest."""
    longest = np.max([column.shape[1:] for column in columns], axis=0)
    temporary = folder / f".{name}.tmp"
    out: Any = np.lib.format.open_memmap(temporary, "w+", columns[0].dtype, (len(place), *map(int, longest)))
    start = 0
    for column in columns:
        inner = tuple(slice(size) for size in column.shape[1:])
        out[(place[start : start + len(column)], *inner)] = column
        start += len(column)
    out.flush()
    del out
    temporary.rename(folder / f"{name}.npy")


def _report(folder: Path, rows: Mapping[str, Modality], skipped: tuple[str, ...]) -> TokenizeReport:
    failures = (folder / FAILURES).read_text(encoding="utf-8").splitlines()
    return TokenizeReport(len(TokenData.load(folder)), len(failures), tuple(rows), skipped, finished=True)
