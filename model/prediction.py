"""From the tokens of a batch of items to the logits of global embeddings, whatever the device.

`Predictor` is what the embedder needs; `PaddedPredictor` runs the model as it is, on padded batches (GPUs,
any variant). `ragged.py` has the one for processors.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .blocks import attention_bias
from .embeddings import ImageTokenDecoderEmbedding, PixelEncoderEmbedding, VectorSequenceEncoderEmbedding
from .fourm import FourM
from .inputs import IMAGENET_MEAN, IMAGENET_STD
from .tokens import Tokens

Item = Mapping[str, np.ndarray]
"""One item: by checkpoint name (`rgb@224`, `caption`), pixels uint8 (S, S, 3), token ids (n,) of a text or a
grid, or vectors float32 (n, channels)."""


class Predictor(Protocol):
    """Predicts all tokens of the targets of every item in one encoder pass and one decoder pass."""

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Logits float32 (B, n, V) by target."""
        ...


class TargetHeads:
    """Queries and heads of image-like targets that are predicted side by side, none seeing another.

    Heads work in float32 whatever the model's type: the probabilities of tokens are results too.

    Attributes:
        names: the targets, in the order of their queries.
        queries: (1, M, D), mask token + position + modality.
        bias: (1, 1, M, M), to be added to the logits of self-attention.
    """

    def __init__(self, model: FourM, names: Sequence[str]) -> None:
        layers = [model.decoder_embeddings[name] for name in names]
        self.names = tuple(names)
        self._heads: list[Tensor] = []
        embeddings: list[Tensor] = []
        for layer in layers:
            assert isinstance(layer, ImageTokenDecoderEmbedding)
            self._heads.append(layer.to_logits.weight.detach().float())
            embeddings.append(layer.grid_embedding())
        self._lengths = [embedding.shape[1] for embedding in embeddings]
        self.queries = (torch.cat(embeddings, dim=1) + model.mask_token).detach()
        owner = torch.repeat_interleave(torch.arange(len(names)), torch.tensor(self._lengths))
        blocked = (owner[:, None] != owner[None]).to(self.queries.device)
        self.bias = attention_bias(blocked[None], self.queries.dtype)

    def logits(self, hidden: Tensor) -> dict[str, Tensor]:
        """Decoder output (B, M, D) to float32 logits (B, n, V) by target."""
        # One matrix each: a batch of them makes torch multiply item by item, at half the speed.
        parts = (part.flatten(0, 1) for part in hidden.float().split(self._lengths, dim=1))
        return {
            name: functional.linear(part, head).unflatten(0, (len(hidden), -1))
            for name, part, head in zip(self.names, parts, self._heads, strict=True)
        }


class PaddedPredictor:
    """Runs a FourM on batches padded to the item with the most tokens.

    Args:
        model: in evaluation mode, on its device and in its type.
        targets: image-like modalities to predict.
    """

    def __init__(self, model: FourM, targets: Sequence[str]) -> None:
        self._model = model
        self._targets = TargetHeads(model, targets)
        self._device, self._dtype = model.mask_token.device, model.mask_token.dtype

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Logits float32 (B, n, V) by target."""
        return self.forward(self.prepare(items))

    def prepare(self, items: Sequence[Item]) -> dict[str, Tokens]:
        """Bring items onto the device, padded to one batch."""
        names = [name for name in self._model.inputs if any(name in item for item in items)]
        return {name: self._tokens(name, items) for name in names}

    def forward(self, batch: Mapping[str, Tokens]) -> dict[str, Tensor]:
        """Logits float32 (B, n, V) by target of what `prepare` gave."""
        encoded = self._model.encode(batch)
        queries = self._targets.queries.expand(len(encoded.mask), -1, -1)
        return self._targets.logits(self._model.run_decoder(queries, encoded, self._targets.bias))

    def _tokens(self, name: str, items: Sequence[Item]) -> Tokens:
        """One modality for all items; those that lack it get something that the mask hides."""
        values = [item.get(name) for item in items]
        absent = torch.tensor([value is None for value in values])[:, None]
        layer = self._model.encoder_embeddings[name]
        if isinstance(layer, PixelEncoderEmbedding):
            first = next(value for value in values if value is not None)
            pixels = np.stack([np.zeros_like(first) if value is None else value for value in values])
            mask = absent.expand(-1, self._model.config.modality(name).max_tokens)
            tensor = normalized(pixels, self._device, self._dtype)
            return Tokens(tensor, mask.contiguous().to(self._device))
        lengths = torch.tensor([0 if value is None else len(value) for value in values])
        vectors = isinstance(layer, VectorSequenceEncoderEmbedding)
        shape = (len(values), int(lengths.max()), *([layer.emb_proj.in_features] if vectors else []))
        tensor = torch.zeros(shape, dtype=torch.float32 if vectors else torch.int64)
        for row, value in zip(tensor, values, strict=True):
            if value is not None:
                row[: len(value)] = torch.from_numpy(value if vectors else value.astype(np.int64))
        mask = torch.arange(tensor.shape[1])[None] >= lengths[:, None]
        return Tokens(tensor.to(self._device), mask.to(self._device))


def normalized(pixels: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Standardise uint8 (B, H, W, 3) with the statistics of ImageNet to (B, 3, H, W), on the device.

    One byte per number goes there, and a graphics card does not wait for the processor's arithmetic.
    """
    values = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
    mean, std = (values.new_tensor(numbers)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    return ((values - 255 * mean) / (255 * std)).to(dtype)
