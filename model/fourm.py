"""The 4M encoder-decoder: any subset of modalities in, any other predicted.

Architecture and names are those of the published checkpoints (arXiv 2312.06647 and 2406.09406), so their
state dicts load strictly. Masks are boolean, True = ignore, throughout.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError, ModelError
from .blocks import (
    DecoderBlock,
    EncoderBlock,
    KeyValue,
    KeyValueCache,
    LayerNorm,
    Packing,
    attention_bias,
)
from .embeddings import (
    DecoderEmbedding,
    EncoderEmbedding,
    ImageTokenDecoderEmbedding,
    SequenceDecoderEmbedding,
    decoder_embedding,
    encoder_embedding,
)
from .presets import FourMConfig
from .tokens import (
    PADDING_ID,
    Selected,
    Targets,
    Tokens,
    attention_mask,
    concatenate,
    take,
    used_first,
    used_first_index,
    usual_code,
)


@dataclass(frozen=True)
class Encoded:
    """What the encoder made of the given tokens.

    Attributes:
        hidden: its output (B, N, D).
        context: what decoders attend to (B, N, D).
        mask: bool (B, N), True = padding.
        ids: int16 (B, N), modality of each token, -1 at padding and registers.
    """

    hidden: Tensor
    context: Tensor
    mask: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Context:
    """What the encoder made of the given tokens, for several decoder passes and without padding.

    Attributes:
        tokens: what decoders attend to, rows end to end (T, D).
        packing: which of them belong to which row (B, N).
    """

    tokens: Tensor
    packing: Packing


@dataclass(frozen=True)
class Losses:
    """Training losses: the one to minimise, and each target modality's mean cross entropy in nats."""

    loss: Tensor
    by_modality: dict[str, Tensor]


class FourM(nn.Module):
    """The 4M transformer.

    Args:
        config: what the checkpoint holds.
        inputs: modalities to build input layers for; None builds all.
        targets: modalities to build output layers for; None builds all. When given, image-like targets leave
            out the token table that published files carry and nothing reads.

    Raises:
        ModelError: an input or target that the configuration does not have.
    """

    def __init__(
        self,
        config: FourMConfig,
        *,
        inputs: Iterable[str] | None = None,
        targets: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        chosen_in = _chosen("input", inputs, config.domains_in)
        chosen_out = _chosen("target", targets, config.targets)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        if config.num_register_tokens:
            self.register_tokens = nn.Parameter(torch.empty(1, config.num_register_tokens, dim))
        self.encoder_embeddings = nn.ModuleDict(
            {name: encoder_embedding(config.modality(name), dim) for name in chosen_in}
        )
        self.decoder_embeddings = nn.ModuleDict(
            {
                name: decoder_embedding(config.modality(name), dim, with_tokens=targets is None)
                for name in chosen_out
            }
        )
        self.encoder = nn.ModuleList(EncoderBlock(config.block) for _ in range(config.encoder_depth))
        self.encoder_norm = LayerNorm(dim, bias=config.norm_bias)
        self.decoder_proj_context = nn.Linear(dim, dim)
        self.decoder = nn.ModuleList(DecoderBlock(config.block) for _ in range(config.decoder_depth))
        self.decoder_norm = LayerNorm(dim, bias=config.norm_bias)
        if not self.mask_token.is_meta:
            self._initialise()
        if config.share_modality_embeddings:
            for name in set(chosen_in) & set(chosen_out):
                self._output(name).mod_emb = self._input(name).mod_emb

    @property
    def inputs(self) -> tuple[str, ...]:
        """Modalities that it can be given."""
        return tuple(self.encoder_embeddings)

    @property
    def targets(self) -> tuple[str, ...]:
        """Modalities that it can predict."""
        return tuple(self.decoder_embeddings)

    def tied_keys(self) -> dict[str, str]:
        """State-dict keys that hold the same values: a file may have either or both of each pair."""
        if not self.config.share_modality_embeddings:
            return {}
        return {
            f"decoder_embeddings.{name}.mod_emb": f"encoder_embeddings.{name}.mod_emb"
            for name in self.config.targets
            if name in self.config.domains_in
        }

    def select_inputs(self, batch: Mapping[str, Tokens], num_tokens: int | None = None) -> Selected:
        """Embed the given tokens of a batch, used ones first, after the register tokens if there are any.

        Args:
            batch: by modality, in the order of concatenation; modalities without an input layer are skipped.
            num_tokens: how many to keep per sample, surplus being dropped; None keeps every used token, and
                pads shorter samples to the longest.

        Raises:
            ModelError: a modality that the model does not have, or none that it takes.
            InputError: a tensor of the wrong shape.
        """
        parts: list[tuple[Tensor, Tensor, Tensor, int]] = []
        for name, tokens in batch.items():
            self._require_known(name)
            if name in self.encoder_embeddings:
                layer = self._input(name)
                content, emb = layer(tokens.tensor, tokens.input_mask)
                _require_mask(name, tokens.input_mask, content)
                parts.append((content, emb, tokens.input_mask, layer.modality.id))
        if not parts:
            raise ModelError(f"Nothing to encode: this model takes {', '.join(self.inputs)}.")
        chosen = concatenate(parts)
        if num_tokens is not None or bool(chosen.mask.any()):
            chosen = used_first(chosen, num_tokens)
        return self._with_registers(chosen) if self.config.num_register_tokens else chosen

    def encode(self, batch: Mapping[str, Tokens], *, num_tokens: int | None = None) -> Encoded:
        """One encoder pass over the given tokens; arguments and errors as in `select_inputs`."""
        chosen = self.select_inputs(batch, num_tokens)
        hidden = self._run_encoder(chosen.content + chosen.emb, chosen.mask)
        context = self.decoder_proj_context(hidden) + chosen.emb
        return Encoded(hidden, context, chosen.mask, chosen.ids)

    def read(self, batch: Mapping[str, Tokens]) -> Context:
        """One encoder pass for decoder passes by `attend`; arguments and errors as in `select_inputs`.

        Rows may differ widely in length, down to none: no work is spent on padding. Targets of a row
        without tokens get nothing from their cross-attention.
        """
        chosen = self.select_inputs(batch)
        if not chosen.mask.shape[1]:  # attention over no keys at all is undefined: keep one of padding
            chosen = self.select_inputs(batch, 1)
        packing = Packing(chosen.mask)
        emb = packing.pack(chosen.emb)
        hidden = self._run_encoder(packing.pack(chosen.content) + emb, chosen.mask, packing)
        return Context(self.decoder_proj_context(hidden) + emb, packing)

    def context_kvs(self, context: Context) -> Iterator[KeyValue]:
        """Keys and values of a context for each decoder block in turn; a list of them can be kept."""
        for block in self.decoder:
            assert isinstance(block, DecoderBlock)
            yield block.context_kv(context.tokens, context.packing)

    def attend(
        self,
        x: Tensor,
        kvs: Iterable[KeyValue],
        context_bias: Tensor | None,
        self_bias: Tensor | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        """The decoder stack, up to and with its last norm.

        Args:
            x: content + embedding of the targets (B, M, D); with caches only of the new ones.
            kvs: from `context_kvs`, for the B rows.
            context_bias: `attention_bias` of the context's padding.
            self_bias: `attention_bias` of what targets must not see of each other.
            caches: one per block, filled along the way.
        """
        memory: Sequence[KeyValueCache | None] = caches or [None] * len(self.decoder)
        for block, kv, cache in zip(self.decoder, kvs, memory, strict=True):
            x = block(x, kv, self_bias, context_bias, cache)
        return self.decoder_norm(x)

    def decode(
        self, encoded: Encoded, targets: Sequence[str], *, positions: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predict image-like targets, all in one decoder pass; no target sees another.

        Args:
            encoded: from `encode`.
            targets: image-like modalities.
            positions: for some of them, int64 (B, k) slots to predict instead of all n.

        Returns:
            Logits (B, n or k, V) by target.

        Raises:
            ModelError: a target that this model lacks or that is no grid of tokens.
        """
        parts: list[Tensor] = []
        for name in targets:
            emb = self._grid_target(name).grid_embedding()
            slots = None if positions is None else positions.get(name)
            parts.append(emb if slots is None else emb[0][slots])
        batch, lengths = encoded.context.shape[0], [part.shape[1] for part in parts]
        queries = torch.cat([part.expand(batch, -1, -1) for part in parts], dim=1) + self.mask_token
        self_bias = None
        if len(parts) > 1:
            owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(lengths)).to(
                queries.device
            )
            self_bias = attention_bias((owner[:, None] != owner[None])[None], queries.dtype)
        outputs = self.run_decoder(queries, encoded, self_bias).split(lengths, dim=1)
        return {name: self._output(name).to_logits(y) for name, y in zip(targets, outputs, strict=True)}

    def run_decoder(self, x: Tensor, encoded: Encoded, self_bias: Tensor | None) -> Tensor:
        """The decoder stack over content + embedding (B, M, D), up to and with its last norm."""
        kvs = (block.context_kv(encoded.context) for block in self.decoder if isinstance(block, DecoderBlock))
        return self.attend(x, kvs, attention_bias(encoded.mask, x.dtype), self_bias)

    def select_targets(
        self, batch: Mapping[str, Tokens], num_tokens: int, order: Sequence[str] | None = None
    ) -> Targets:
        """The decoder's training input, teacher-forced within sequences.

        Args:
            batch: by modality; those without an output layer or without `target_mask` are skipped.
            num_tokens: how many targets to keep per sample, surplus being dropped.
            order: of concatenation, which decides what is dropped; None shuffles.

        Raises:
            ModelError: no modality of the batch is a target.
        """
        names = self._targets_in(batch)
        if not names:
            raise ModelError(f"Nothing to predict: this model's targets are {', '.join(self.targets)}.")
        order = [names[i] for i in torch.randperm(len(names)).tolist()] if order is None else order
        parts = [self._target_part(name, batch[name]) for name in order]
        joined = concatenate([(content, emb, mask, mod_id) for content, emb, mask, mod_id, _, _ in parts])
        index = used_first_index(joined.mask)[:, :num_tokens]
        target_ids = torch.cat([ids for *_, ids, _ in parts], dim=1).gather(1, index)
        code = torch.cat([code for *_, code in parts], dim=1).gather(1, index)
        blocked = attention_mask(code, joined.ids.gather(1, index), self.config)
        chosen = take(joined, index)
        return Targets(
            chosen.content,
            chosen.emb,
            chosen.mask,
            chosen.ids,
            target_ids.masked_fill(chosen.mask, 0),
            blocked,
        )

    def forward(
        self,
        batch: Mapping[str, Tokens],
        *,
        num_encoder_tokens: int,
        num_decoder_tokens: int,
        loss: Literal["mod", "token"] = "mod",
        decoder_order: Sequence[str] | None = None,
    ) -> Losses:
        """Training loss of a batch.

        Args:
            batch: by modality, inputs and targets.
            num_encoder_tokens: budget per sample; surplus is dropped, so keep within it.
            num_decoder_tokens: likewise for targets.
            loss: `mod` averages over target modalities (all released models); `token` weights each by its
                number of logits.
            decoder_order: of concatenation of the targets; None shuffles with torch's generator.
        """
        encoded = self.encode(batch, num_tokens=num_encoder_tokens)
        targets = self.select_targets(batch, num_decoder_tokens, decoder_order)
        x = targets.content + targets.emb
        y = self.run_decoder(x, encoded, attention_bias(targets.blocked, x.dtype))
        return self.losses(y, targets, self._targets_in(batch), loss)

    def losses(
        self, y: Tensor, targets: Targets, names: Sequence[str], loss: Literal["mod", "token"] = "mod"
    ) -> Losses:
        """Cross entropies of decoder outputs (B, M, D) for the target modalities `names`.

        One without any target counts as 0 and stays in the mean.
        """
        by_modality: dict[str, Tensor] = {}
        weights: list[int] = []
        for name in names:
            layer = self._output(name)
            chosen = targets.ids == layer.modality.id
            logits = layer.to_logits(y[chosen])
            weights.append(logits.numel())
            total = functional.cross_entropy(logits.float(), targets.target_ids[chosen], reduction="sum")
            by_modality[name] = total / max(logits.shape[0], 1)
        stacked = torch.stack(list(by_modality.values()))
        if loss == "mod":
            return Losses(stacked.mean(), by_modality)
        weight = stacked.new_tensor(weights)
        return Losses((stacked * weight).sum() / weight.sum().clamp(min=1), by_modality)

    def _targets_in(self, batch: Mapping[str, Tokens]) -> list[str]:
        return [
            name for name in batch if name in self.decoder_embeddings and batch[name].target_mask is not None
        ]

    def _target_part(self, name: str, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor, int, Tensor, Tensor]:
        """Content, embedding, mask, modality id, target ids and attention code of one target modality."""
        layer, mask, ids = self._output(name), tokens.target_mask, tokens.tensor.flatten(1).long()
        assert mask is not None
        code = (
            usual_code(mask, layer.modality)
            if tokens.attention_code is None
            else tokens.attention_code.long()
        )
        if isinstance(layer, ImageTokenDecoderEmbedding):
            content = self.mask_token.expand(*ids.shape, -1)
            return content, layer.grid_embedding(), mask, layer.modality.id, ids, code
        # Each token predicts the next; the last one of a target predicts nothing.
        content, emb = layer(ids, mask)
        mask = mask[:, 1:] | mask[:, :-1]
        return content[:, :-1], emb[:, :-1], mask, layer.modality.id, ids[:, 1:], code[:, :-1]

    def _run_encoder(self, x: Tensor, mask: Tensor, packing: Packing | None = None) -> Tensor:
        bias = attention_bias(mask, x.dtype)
        for block in self.encoder:
            x = block(x, bias, packing)
        return self.encoder_norm(x)

    def _with_registers(self, chosen: Selected) -> Selected:
        batch, count = chosen.content.shape[0], self.config.num_register_tokens
        registers = self.register_tokens.expand(batch, -1, -1)
        return Selected(
            torch.cat([registers, chosen.content], dim=1),
            torch.cat([torch.zeros_like(registers), chosen.emb], dim=1),
            functional.pad(chosen.mask, (count, 0), value=False),
            functional.pad(chosen.ids, (count, 0), value=PADDING_ID),
        )

    def _grid_target(self, name: str) -> ImageTokenDecoderEmbedding:
        if name not in self.decoder_embeddings:
            raise ModelError(
                f"This model was not opened to predict {name!r}. Targets: {', '.join(self.targets)}."
            )
        layer = self._output(name)
        if not isinstance(layer, ImageTokenDecoderEmbedding):
            raise ModelError(f"{name!r} is a sequence: it is predicted token by token, not in one pass.")
        return layer

    def _require_known(self, name: str) -> None:
        if name in self.encoder_embeddings or name in self.decoder_embeddings:
            return
        if name in self.config.domains_in:
            opened = ", ".join(self.inputs)
            raise ModelError(f"This model was opened without the input {name!r}. It takes {opened}.")
        if name not in self.config.domains_out:
            known = ", ".join(self.config.domains_in)
            raise ModelError(f"This model has no modality {name!r}. Its inputs: {known}.")

    def _input(self, name: str) -> EncoderEmbedding:
        layer = self.encoder_embeddings[name]
        assert isinstance(layer, EncoderEmbedding)
        return layer

    def _output(self, name: str) -> DecoderEmbedding:
        layer = self.decoder_embeddings[name]
        assert isinstance(layer, ImageTokenDecoderEmbedding | SequenceDecoderEmbedding)
        return layer

    def _initialise(self) -> None:
        nn.init.normal_(self.mask_token, std=0.02)
        if self.config.num_register_tokens:
            nn.init.normal_(self.register_tokens, std=0.02)
        for name in self.encoder_embeddings:
            self._input(name).reset_parameters()
        for name in self.decoder_embeddings:
            self._output(name).reset_parameters()
        for name, parameter in self.named_parameters():
            layer, _, kind = name.rpartition(".")
            if kind == "bias":
                nn.init.zeros_(parameter)
            elif kind == "weight" and isinstance(self.get_submodule(layer), nn.Linear):
                # A fused projection is drawn like the separate matrices that it holds.
                parts = {"qkv": 3, "kv": 2}.get(layer.rpartition(".")[2], 1)
                bound = math.sqrt(6 / (parameter.shape[0] / parts + parameter.shape[1]))
                nn.init.uniform_(parameter, -bound, bound)


def _chosen(what: str, wanted: Iterable[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    if wanted is None:
        return tuple(known)
    names = tuple(dict.fromkeys(wanted))
    for name in names:
        if name not in known:
            raise ModelError(f"This model has no {what} {name!r}. Known: {', '.join(known)}.")
    return names


def _require_mask(name: str, mask: Tensor, content: Tensor) -> None:
    if mask.shape != content.shape[:2] or mask.dtype != torch.bool:
        raise InputError(
            f"{name}: expected a bool mask {tuple(content.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}."
        )
