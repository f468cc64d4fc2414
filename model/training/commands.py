"""What `anyseek train tokenize` does: find out whose tokens, and where the samples are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .fourm_recipes import Modalities, read_fourm_run
from .setups import set_up
from .shards import CROP_SETTINGS, is_modality_layout, item_shards, open_shards
from .tokenize import TokenizeReport, tokenize

Items = Sequence[tuple[str, Mapping[str, Path]]]


def modalities_of(model: str) -> Modalities:
    """Which modalities and tokenizers a model has: a name or bundle folder, or the YAML of a training.

    Raises ConfigError for a YAML that says something else.
    """
    if Path(model).suffix in (".yaml", ".yml"):
        return read_fourm_run(Path(model))
    return Modalities(bundle=model)


def tokenize_source(
    source: str,
    run: Modalities,
    folder: Path,
    *,
    items: Callable[[], Items],
    shard_size: int,
    progress: Callable[[int, int, int], None] | None = None,
    **options: Any,
) -> TokenizeReport:
    """Tokenize a folder or a pattern.

    Args:
        source: as the user names it.
        run: modalities and tokenizers.
        folder: of the tokens.
        items: finds the items of a folder that is laid out as for indexing: names, and files by modality.
        shard_size: samples of a shard.
        progress, options: of `tokenize`.

    Raises:
        InputError, ConfigError, ModelError, CheckpointError: as `tokenize` and `open_shards`.
    """
    setup = set_up(run)
    known = {*setup.rows, *(row.raw for row in setup.rows.values()), CROP_SETTINGS}
    own = any(row.like is not None for row in setup.rows.values())
    if own or is_modality_layout(Path(source), known):
        shards = open_shards(source, known, shard_size)
    else:
        shards = item_shards(items(), shard_size)
    return tokenize(shards, setup, folder, progress=progress, **options)
