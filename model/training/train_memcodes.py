"""Training of tokenizers for single vectors: MLP, one codebook per head (Memcodes), MLP (arXiv 2406.09406).

Codes learn by gradient, through a straight-through Gumbel softmax of temperature 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..tokenizers.image import VQVAE, TokenizerConfig
from ..tokenizers.quantizers import Memcodes
from .fit import Fit, FitRecipe, Progress, full_precision
from .run_log import RunLog
from .train_vq import Loss, direction


@dataclass(frozen=True)
class MemcodesRecipe(FitRecipe):
    """How a tokenizer of single vectors is trained."""

    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


class MemcodesObjective:
    """Vectors through one code per head and back.

    Args:
        tokenizer: with a `memcodes` quantizer.
        loss: compares what is decoded with what was given.
    """

    def __init__(self, tokenizer: VQVAE, loss: Loss = direction) -> None:
        assert isinstance(tokenizer.quantize, Memcodes)
        self.network = tokenizer
        self._loss = loss

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Of vectors (B, C)."""
        latent = self.network.latent(batch).float()
        with full_precision(latent.device):  # in bfloat16 the noise of the softmax may be infinite
            found = self.network.quantize(latent)
        decoded = self.network.decode_codes(found.codes.movedim(-1, 1))
        ids = found.ids.flatten(0, -2)
        size = self.network.config.codebook_size
        used = sum(head.unique().numel() for head in ids.unbind(-1)) / (size * ids.shape[-1])
        return self._loss(decoded, batch), {"used_in_batch": used}

    def update(self, step: int) -> Mapping[str, float]:
        """Nothing: all of it has a gradient."""
        del step
        return {}


def train_memcodes(
    config: TokenizerConfig,
    draw: Callable[[int], Tensor],
    loss: Loss,
    recipe: MemcodesRecipe,
    log: Path | None = None,
    progress: Progress | None = None,
) -> VQVAE:
    """Fit a tokenizer of vectors.

    Args:
        config: with a `memcodes` quantizer.
        draw: gives batch number n, vectors (B, C).
        loss: `direction` for global embeddings, `absolute` for poses.
        recipe: how long and how fast.
        log: JSON lines go there.
        progress: told after each step: steps done, of how many.

    Returns:
        The tokenizer with its averaged weights, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    fit = Fit(MemcodesObjective(VQVAE(config), loss), draw, recipe, log=RunLog(log))
    fit.run(progress=progress)
    return fit.averaged()
