"""A start for the input tables of text: as loud as positions, and near numbers alike."""

from __future__ import annotations

import torch

from ..embeddings import SequenceEncoderEmbedding
from ..fourm import FourM
from .scene_batches import TokenIds

# Position tables have a root mean square of 0.7. Drawn at the usual 0.02, words are lost beside them for
# hundreds of steps, which a short run does not have.
_SCALE = 0.5
_OCTAVES = 8


@torch.no_grad()
def start_text_tables(model: FourM, ids: TokenIds) -> None:
    """Draw every text table anew; `v{i}=n` gets waves of n, mixed at random, and a vector for i.

    A table of 4,000 numbers drawn independently would have to be learnt number by number.
    """
    dim = model.config.dim
    n = torch.arange(ids.numbers.shape[1], dtype=torch.float32) / ids.numbers.shape[1]
    octaves = torch.arange(_OCTAVES, dtype=torch.float32)
    angle = n[:, None] * torch.pi * 2**octaves
    # High frequencies fade: they tell close numbers apart but say little about what is near.
    waves = torch.cat([angle.sin(), angle.cos()], dim=1) / (1 + octaves).repeat(2)
    waves /= waves.square().sum(1).mean().sqrt()
    for layer in model.encoder_embeddings.values():
        if not isinstance(layer, SequenceEncoderEmbedding):
            continue
        weight = layer.token_emb.weight
        weight[1:] = _SCALE * torch.randn(len(weight) - 1, dim)
        for row in torch.from_numpy(ids.numbers):
            known = row < len(weight)
            start = waves @ torch.randn(waves.shape[1], dim) + torch.randn(dim)
            weight[row[known]] = _SCALE * 0.7 * start[known]
