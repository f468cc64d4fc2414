"""A start for the tables of text: as loud as positions, and near numbers alike."""

from __future__ import annotations

import torch

from ..embeddings import SequenceDecoderEmbedding, SequenceEncoderEmbedding
from ..fourm import FourM
from ..tokenizers.text import TextTokenizer

# Position tables have a root mean square of 0.7. Drawn at the usual 0.02, words are lost beside them for
# hundreds of steps, which a short run does not have.
_SCALE = 0.5
_OCTAVES = 8
_NUMBERS = 1000


@torch.no_grad()
def start_text_tables(model: FourM, text: TextTokenizer) -> None:
    """Draw every text table anew; `v{i}=n` gets waves of n, mixed at random, and a vector for i.

    A table of 4,000 numbers drawn independently would have to be learnt number by number.
    """
    dim = model.config.dim
    heads = [text.encode(" ".join(f"v{i}={n}" for n in range(_NUMBERS))) for i in range(4)]
    n = torch.arange(_NUMBERS, dtype=torch.float32) / _NUMBERS
    octaves = torch.arange(_OCTAVES, dtype=torch.float32)
    angle = n[:, None] * torch.pi * 2**octaves
    # High frequencies fade: they tell close numbers apart but say little about what is near.
    waves = torch.cat([angle.sin(), angle.cos()], dim=1) / (1 + octaves).repeat(2)
    waves /= waves.square().sum(1).mean().sqrt()
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
