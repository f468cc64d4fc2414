"""The parts of one model, each read from its file when it is first needed.

A published model has twelve tokenizers beside the 4M checkpoint. A depth map as a query needs one encoder of
them, a predicted depth map one decoder: nothing else is fetched or read.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

import torch

from ..errors import ModelError
from .checkpoint import Checkpoint, load_fourm, load_tokenizer, open_checkpoint
from .fourm import FourM
from .modalities import Modality
from .presets import FourMConfig
from .sources import ModelSource
from .tokenizers.build import ImageTokenizer
from .tokenizers.image import TokenizerConfig
from .tokenizers.poses import NUM_CODES as NUM_POSE_CODES
from .tokenizers.text import TextTokenizer, download_text_tokenizer

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Part = Literal["encoder", "decoder"]

_NUM_WORD_CODES = 1024
_POSE_CHANNELS = 23 * 9  # rotation matrices of the joints
_IN_WORDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"human_poses": (NUM_POSE_CODES, _POSE_CHANNELS), "sam_instance": (1, 1)}
)
"""Sequences with codes of a tokenizer among their words: how many codebooks and channels it has."""


class Once(Generic[K, V]):
    """Makes a value for each key when it is first asked for. Thread-safe.

    Args:
        make: makes the value of a key. Others who ask for the same key wait, those who ask for another do
            not; where it raises, the next to ask tries again.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._guard = Lock()
        self._locks: dict[K, Lock] = {}
        self._made: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        with self._guard:
            lock = self._locks.setdefault(key, Lock())
        with lock:
            if key not in self._made:
                self._made[key] = self._make(key)
            return self._made[key]

    def made(self) -> list[V]:
        """What has been made so far."""
        return list(self._made.values())


class _Files:
    """Opened files, whichever models share them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self.checkpoints = Once[str | Path, Checkpoint](open_checkpoint)
        self.networks = Once[tuple[str | Path, Part], ImageTokenizer](self._network)
        self.texts = Once[tuple[str | Path, str], TextTokenizer](_text)

    @property
    def bytes_read(self) -> int:
        texts = sum(text.num_bytes for text in self.texts.made())
        return texts + sum(checkpoint.bytes_read for checkpoint in self.checkpoints.made())

    def _network(self, key: tuple[str | Path, Part]) -> ImageTokenizer:
        source, part = key
        return load_tokenizer(
            self.checkpoints[source],
            encoder=part == "encoder",
            decoder=part == "decoder",
            device=self._device,
            dtype=torch.float32 if part == "encoder" else self._dtype,
        )


class ModelParts:
    """The parts of one model. Thread-safe; opening it reads nothing but the configuration of the 4M model.

    Args:
        source: where the files are.
        device: where weights go.
        dtype: floating type of the 4M model and of decoders. Encoders always compute in float32: in bfloat16
            values near the border of two codes would get other ids.
        files: of another model on the same device and in the same type that shares some with this one.
        config: of a 4M model that is not trained yet; by default what its checkpoint says.

    Attributes:
        source, device, dtype: as given.
        config: of the 4M checkpoint.
        inputs: what it can be given, by the user's name: the row of the modality table that is used. Pixels
            come before their tokens; what needs a tokenizer counts where the source has it.
        targets: what it can predict and decode, likewise.

    Raises:
        CheckpointError: there is no usable 4M checkpoint.
    """

    def __init__(
        self,
        source: ModelSource,
        device: torch.device,
        dtype: torch.dtype,
        files: _Files | None = None,
        *,
        config: FourMConfig | None = None,
    ) -> None:
        self.source, self.device, self.dtype = source, device, dtype
        self._files = files or _Files(device, dtype)
        self.config = config or self._read_config()
        self.inputs = MappingProxyType(self._rows(self.config.domains_in))
        self.targets = MappingProxyType(self._rows(self.config.targets))

    @property
    def spaces(self) -> tuple[str, ...]:
        """Those of the targets that are spaces of global embeddings."""
        return tuple(raw for raw, row in self.targets.items() if row.positions == "learned")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 1, 2, ... of segmentations."""
        return self.source.semseg_classes

    @property
    def text(self) -> TextTokenizer:
        """The text tokenizer. Raises CheckpointError where it cannot be had."""
        return self._files.texts[self.source.text_tokenizer, self.source.text_sha256]

    @property
    def fourm_checkpoint(self) -> Checkpoint:
        """The 4M checkpoint, of which only the header may have been read."""
        return self._files.checkpoints[self.source.fourm]

    @property
    def bytes_read(self) -> int:
        """Of all its files, so far."""
        return self._files.bytes_read

    @cached_property
    def super_resolution(self) -> "ModelParts | None":
        """The model that doubles the resolution of grids, with the same tokenizers; None where none is known.

        Raises CheckpointError where its checkpoint cannot be had.
        """
        if self.source.super_resolution is None:
            return None
        finer = replace(self.source, fourm=self.source.super_resolution, super_resolution=None)
        return ModelParts(finer, self.device, self.dtype, self._files)

    def tokenizer_checkpoint(self, raw: str) -> Checkpoint:
        """The checkpoint of a modality's tokenizer, of which only the header may have been read.

        Raises:
            ModelError: the modality has no tokenizer here.
            CheckpointError: its file cannot be had or is damaged.
        """
        return self._files.checkpoints[_pick("tokenizer for", raw, self.source.tokenizers)]

    def encoder(self, raw: str) -> ImageTokenizer:
        """What turns values of a modality into ids: only the encoder, in float32.

        Raises:
            ModelError: the modality has no tokenizer here, or one that does not fit the model.
            CheckpointError: its file cannot be had or is damaged.
        """
        return self._network(raw, "encoder")

    def decoder(self, raw: str) -> ImageTokenizer:
        """What turns ids of a modality into values: only the decoder. Errors as for `encoder`."""
        return self._network(raw, "decoder")

    def fourm(self, inputs: Iterable[str], targets: Iterable[str]) -> FourM:
        """The 4M model with the layers of some modalities; nothing else is read.

        Each call reads a new one, which belongs to the caller: predictors lay its weights out anew.

        Args:
            inputs: by the user's names.
            targets: likewise.

        Raises:
            ModelError: a modality that the model does not have.
            CheckpointError: the file does not hold what its configuration says.
        """
        ins = [_pick("input", raw, self.inputs).name for raw in inputs]
        outs = [_pick("target", raw, self.targets).name for raw in targets]
        return load_fourm(
            self.fourm_checkpoint, inputs=ins, targets=outs, device=self.device, dtype=self.dtype
        )

    def _read_config(self) -> FourMConfig:
        return FourMConfig.parse(self.fourm_checkpoint.config, where=str(self.fourm_checkpoint.path))

    def _rows(self, names: Iterable[str]) -> dict[str, Modality]:
        rows = [self._row(name) for name in names]
        rows = [row for row in rows if not _has_codes(row) or row.raw in self.source.tokenizers]
        chosen: dict[str, Modality] = {}
        for row in sorted(rows, key=lambda row: row.kind != "pix"):
            chosen.setdefault(row.raw, row)
        return {row.raw: chosen[row.raw] for row in rows}

    def _row(self, name: str) -> Modality:
        row = self.config.modality(name)
        return replace(row, channels=self.source.channels.get(row.raw, row.channels))

    def _network(self, raw: str, part: Part) -> ImageTokenizer:
        source = _pick("tokenizer for", raw, self.source.tokenizers)
        rows = [rows[raw] for rows in (self.targets, self.inputs) if raw in rows and _has_codes(rows[raw])]
        if not rows:
            raise ModelError(f"This model neither reads nor predicts tokens of {raw!r}.")
        found = self._files.networks[source, part]
        has, needs = _ids(found.config), _row_ids(rows[0])
        if has == needs and (part == "encoder" or raw == "semseg"):
            has, needs = self._values(found.config, rows[0])
        if has != needs:
            raise ModelError(f"The tokenizer of {raw} has {has}, the model needs {needs}: take its own.")
        return found

    def _values(self, config: TokenizerConfig, row: Modality) -> tuple[str, str]:
        """What a tokenizer takes, and what readers prepare for it."""
        if config.n_labels is None:
            channels = _IN_WORDS[row.reads_as][1] if row.reads_as in _IN_WORDS else row.channels
            has, needs = f"{config.n_channels} channels", f"{channels} channels"
        else:
            has, needs = f"{config.n_labels} labels", f"{1 + len(self.classes)} labels"
        if row.grid is None or not config.patch_proj or not config.enc_type.startswith("vit"):
            return has, needs
        return f"{has} in patches of {config.patch_size} px", f"{needs} in patches of {row.patch_size} px"


def _text(key: tuple[str | Path, str]) -> TextTokenizer:
    source, sha256 = key
    return TextTokenizer.from_file(
        source if isinstance(source, Path) else download_text_tokenizer(source, sha256)
    )


def _has_codes(row: Modality) -> bool:
    """Whether values become ids by a tokenizer other than that of texts."""
    return row.kind == "img" or row.reads_as in _IN_WORDS


def _ids(config: TokenizerConfig) -> str:
    return f"{config.num_codebooks} codebooks of {config.codebook_size} ids"


def _row_ids(row: Modality) -> str:
    if row.reads_as in _IN_WORDS:
        return f"{_IN_WORDS[row.reads_as][0]} codebooks of {_NUM_WORD_CODES} ids"
    return f"{row.max_tokens if row.positions == 'learned' else 1} codebooks of {row.vocab_size} ids"


def _pick(what: str, name: str, known: Mapping[str, V]) -> V:
    if name not in known:
        raise ModelError(f"This model has no {what} {name!r}. Known: {', '.join(known) or 'none'}.")
    return known[name]
