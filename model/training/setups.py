"""From what a YAML says of modalities to a configuration, tokenizers and weights to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ...errors import ConfigError
from ..checkpoint import Checkpoint, open_checkpoint
from ..classes import COCO_CLASSES
from ..modalities import Modality
from ..parts import ModelParts
from ..presets import PRESETS, FourMConfig
from ..registry import resolve_device
from ..sources import ModelSource, find_source
from ..tokenizers.build import parse_tokenizer_config
from ..tokenizers.text import TextTokenizer, download_text_tokenizer
from .fourm_recipes import Modalities
from .starting import extended, restricted

TEXT_TOKENIZER = "text_tokenizer.json"


@dataclass(frozen=True)
class Setup:
    """What a run is about.

    Attributes:
        config: of the model.
        source: where its tokenizers lie; its `fourm` is not there yet.
        init: the checkpoint that training starts from.
    """

    config: FourMConfig
    source: ModelSource
    init: Checkpoint | None = None

    @property
    def rows(self) -> dict[str, Modality]:
        """All modalities, by checkpoint name."""
        names = dict.fromkeys((*self.config.domains_in, *self.config.domains_out))
        return {name: self.config.modality(name) for name in names}

    @cached_property
    def text(self) -> TextTokenizer:
        """The tokenizer of texts."""
        return TextTokenizer.from_file(text_file(self.source))

    def parts(self, device: str) -> ModelParts:
        """The tokenizers, each opened when it is needed."""
        place = resolve_device(device)
        return ModelParts(self.source, place, torch.float32, config=self.config)


def set_up(run: Modalities, *, name: str = "new", license: str = "", description: str = "") -> Setup:
    """Find everything that a run names.

    Raises:
        ConfigError, ModelError, CheckpointError: modalities that do not exist, or files that do not.
    """
    base = None if run.bundle is None else find_source(run.bundle)[1]
    text = base.text_tokenizer if run.text_tokenizer is None and base else _text_path(run.text_tokenizer)
    tokenizers: dict[str, str | Path] = {**(base.tokenizers if base else {}), **run.tokenizers}
    for new, said in run.new_modalities.items():
        if said.tokenizer is not None:
            tokenizers[new.removeprefix("tok_").partition("@")[0]] = said.tokenizer
    source = ModelSource(
        name,
        "",
        license,
        description,
        "",
        tokenizers,
        text,
        text_sha256="" if run.text_tokenizer is not None or base is None else base.text_sha256,
        semseg_classes=run.semseg_classes or (base.semseg_classes if base else COCO_CLASSES),
    )
    start = run.init or (base.fourm if base else None)
    init = None if start is None else open_checkpoint(start)
    setup = Setup(_known(run, init), source, init)
    sizes = _Sizes(setup, run)
    config = setup.config if init is not None else replace(setup.config, vocab_overrides=sizes.of(setup.rows))
    own = {new: said.like for new, said in run.new_modalities.items()}
    config = extended(config, own, {})
    fresh = {new: config.modality(new) for new in own}
    vocab = {**config.vocab_overrides, **sizes.of(fresh)}
    return replace(setup, config=replace(config, vocab_overrides=vocab))


def text_file(source: ModelSource) -> Path:
    """The file of the tokenizer of texts, fetched where it is a URL."""
    if isinstance(source.text_tokenizer, Path):
        return source.text_tokenizer
    return download_text_tokenizer(source.text_tokenizer, source.text_sha256)


def _known(run: Modalities, init: Checkpoint | None) -> FourMConfig:
    """The configuration without new modalities."""
    said = run.model
    if init is not None:
        config = FourMConfig.parse(init.config, where=str(init.path))
        return restricted(config, said.inputs or config.domains_in, said.targets or config.domains_out)
    values = {
        "share_modality_embeddings": False,
        **PRESETS[said.preset or "tiny"],
        **said.others,
        "domains_in": said.inputs,
        "domains_out": said.targets,
    }
    unknown = [key for key in said.others if key not in FourMConfig.__dataclass_fields__]
    if unknown:
        known = ", ".join(("preset", "inputs", "targets", "vocab", *FourMConfig.__dataclass_fields__))
        raise ConfigError(f"model: unknown key {unknown[0]}; known are {known}.")
    return FourMConfig(**values)  # pyright: ignore[reportArgumentType]


class _Sizes:
    """Numbers of ids: what a YAML says, else what tokenizers have, else the published ones."""

    def __init__(self, setup: Setup, run: Modalities) -> None:
        self._setup = setup
        self._said = {**run.model.vocab} | {
            name: new.vocab_size for name, new in run.new_modalities.items() if new.vocab_size is not None
        }

    def of(self, rows: Mapping[str, Modality]) -> dict[str, int]:
        return {name: size for name, row in rows.items() if (size := self._size(row)) is not None}

    def _size(self, row: Modality) -> int | None:
        if row.vocab_size is None:
            return None
        if row.name in self._said:
            return self._said[row.name]
        if row.kind == "seq":
            return self._setup.text.vocab_size
        if row.raw not in self._setup.source.tokenizers:
            return None
        checkpoint = open_checkpoint(self._setup.source.tokenizers[row.raw])
        return parse_tokenizer_config(checkpoint.config, where=str(checkpoint.path)).codebook_size


def _text_path(path: Path | None) -> Path:
    assert path is not None
    return path / TEXT_TOKENIZER if path.is_dir() else path
