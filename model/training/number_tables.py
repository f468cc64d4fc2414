"""A start for the embeddings of numbers: near numbers alike."""

from __future__ import annotations

import torch

from ..embeddings import SequenceEncoderEmbedding
from ..fourm import FourM
from .scene_batches import TokenIds

_SCALE = 0.05


@torch.no_grad()
def smooth_numbers(model: FourM, ids: TokenIds) -> None:
    """Give `v{i}=n` in every input table sines and cosines of n, mixed at random, and a vector for i.

    A table of 4,000 numbers drawn independently would have to be learnt number by number.
    """
    dim = model.config.dim
    n = torch.arange(ids.numbers.shape[1], dtype=torch.float32) / ids.numbers.shape[1]
    octaves = torch.arange(8, dtype=torch.float32)
    angle = n[:, None] * torch.pi * 2**octaves
    # High frequencies fade: they tell close numbers apart but say little about what is near.
    waves = torch.cat([angle.sin(), angle.cos()], dim=1) / (1 + octaves).repeat(2)
    for layer in model.encoder_embeddings.values():
        if not isinstance(layer, SequenceEncoderEmbedding):
            continue
        weight = layer.token_emb.weight
        for row in torch.from_numpy(ids.numbers):
            known = row < len(weight)
            start = _SCALE * (waves @ torch.randn(waves.shape[1], dim) + torch.randn(dim))
            weight[row[known]] = start[known]
