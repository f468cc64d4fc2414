"""A start for the tables of tokens: as loud as positions, near numbers and near codes alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..embeddings import ImageTokenEncoderEmbedding, SequenceDecoderEmbedding, SequenceEncoderEmbedding
from ..fourm import FourM
from ..tokenizers.text import TextTokenizer

# Position tables have a root mean square of 0.7. Drawn at the usual 0.02, words and codes are lost beside
# them for hundreds of steps, which a short run does not have.
_SCALE = 0.5
_OCTAVES = 8
_NUMBERS = 1000


@torch.no_grad()
def start_tables(model: FourM, text: TextTokenizer, codebooks: Mapping[str, Tensor]) -> None:
    """Draw the tables of texts and of grids anew.

    `v{i}=n` gets waves of n, mixed at random, and a vector for i: a table of 4,000 numbers drawn
    independently would have to be learnt number by number. A code of a grid gets its place among the codes,
    turned at random.

    Args:
        model: to change.
        text: its tokenizer.
        codebooks: codes (V, d) of the grids' tokenizers, by the model's names.
    """
    dim = model.config.dim
    heads = [text.encode(" ".join(f"v{i}={n}" for n in range(_NUMBERS))) for i in range(4)]
    waves = _waves()
    for layer in (*model.encoder_embeddings.values(), *model.decoder_embeddings.values()):
        if not isinstance(layer, SequenceEncoderEmbedding | SequenceDecoderEmbedding):
            continue
        weight = layer.token_emb.weight
        weight[1:] = _SCALE * torch.randn(len(weight) - 1, dim)
        for head in heads:
            ids = torch.from_numpy(head).long()
            known = ids < len(weight)
            start = waves @ torch.randn(waves.shape[1], dim) + torch.randn(dim)
            weight[ids[known]] = _SCALE * 0.7 * start[known]
    for name, codes in codebooks.items():
        layer = model.encoder_embeddings[name]
        assert isinstance(layer, ImageTokenEncoderEmbedding)
        spread = (codes - codes.mean(0)) / codes.std(0).clamp(min=1e-6)
        layer.token_emb.weight.copy_(
            _SCALE * spread @ torch.randn(codes.shape[1], dim) / codes.shape[1] ** 0.5
        )


def _waves() -> Tensor:
    """Sines and cosines of the numbers, (numbers, 2 octaves), of mean square 1."""
    n = torch.arange(_NUMBERS, dtype=torch.float32) / _NUMBERS
    octaves = torch.arange(_OCTAVES, dtype=torch.float32)
    angle = n[:, None] * torch.pi * 2**octaves
    # High frequencies fade: they tell close numbers apart but say little about what is near.
    waves = torch.cat([angle.sin(), angle.cos()], dim=1) / (1 + octaves).repeat(2)
    return waves / waves.square().sum(1).mean().sqrt()
