"""Training of tokenizers with one codebook: ViT, nearest code, ViT (ViT-VQGAN, arXiv 2110.04627; 4M,
arXiv 2312.06647, appendix on tokenization).

Codes are moving averages of the latents that chose them; those that nobody chooses are put where a latent is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from ..tokenizers.image import VQVAE, TokenizerConfig, VectorQuantized
from ..tokenizers.quantizers import VectorQuantizer
from .fit import Fit, FitRecipe, NotNegative, Progress, Share, full_precision
from .run_log import RunLog

Loss = Callable[[Tensor, Tensor], Tensor]
"""Decoded values and the values given, to a number."""


@dataclass(frozen=True)
class VqRecipe(FitRecipe):
    """How a tokenizer with one codebook is trained.

    Attributes:
        commitment: weight of the distance between latents and their codes.
        decay: of the moving averages of codes.
        revive_below: a code chosen less often than this (moving average, latents a step) is put elsewhere.
            Where a step has fewer latents than there are codes, the bar is lower in proportion.
    """

    commitment: NotNegative = 1.0
    decay: Share = 0.98
    revive_below: NotNegative = 0.1


def squared(decoded: Tensor, values: Tensor) -> Tensor:
    """Mean squared error: pictures."""
    return functional.mse_loss(decoded.float(), values.float())


def absolute(decoded: Tensor, values: Tensor) -> Tensor:
    """Smooth absolute error: depth with its far outliers, dense features, poses."""
    return functional.smooth_l1_loss(decoded.float(), values.float(), beta=0.1)


def classes(decoded: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (B, C, H, W) against labels (B, H, W)."""
    return functional.cross_entropy(decoded.float(), labels.long())


def binary(decoded: Tensor, values: Tensor) -> Tensor:
    """Cross entropy of the logit of a mask."""
    return functional.binary_cross_entropy_with_logits(decoded.float(), values.float())


def direction(decoded: Tensor, values: Tensor) -> Tensor:
    """1 - cosine: global embeddings, (B, C)."""
    return (1 - functional.cosine_similarity(decoded.float(), values.float(), dim=1)).mean()


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        **dict.fromkeys(("rgb", "normal", "canny_edge", "sam_edge"), squared),
        **dict.fromkeys(("depth", "clip", "dinov2", "imagebind", "human_poses"), absolute),
        **dict.fromkeys(("dinov2_global", "imagebind_global"), direction),
        "semseg": classes,
        "sam_instance": binary,
    }
)
"""Of each modality that has a tokenizer of values (arXiv 2406.09406, appendix)."""


class Codebook:
    """Keeps the codes of a quantizer where its latents are.

    Args:
        quantizer: with one codebook. Its codes are forgotten: the first latents become the codes.
        recipe: decay and revival.
        generator: draws the latents that codes are put on; PyTorch's own where None.
    """

    def __init__(
        self, quantizer: VectorQuantizer, recipe: VqRecipe, generator: torch.Generator | None = None
    ) -> None:
        self._quantizer, self._recipe, self._generator = quantizer, recipe, generator
        self._table = quantizer._codebook  # pyright: ignore[reportPrivateUsage]
        self._table.initted.zero_()

    @property
    def started(self) -> bool:
        """Whether it has seen latents."""
        return bool(self._table.initted.any())

    @torch.no_grad()
    def update(self, latent: Tensor, ids: Tensor) -> int:
        """Move codes towards the latents (N, d) that chose them; gives the number of codes put elsewhere."""
        table = self._table
        rows = latent.float()
        if self._quantizer.cosine:
            rows = functional.normalize(rows, dim=-1)
        if not self.started:
            table.initted.fill_(1)
            table.cluster_size.fill_(1)
            self._place(torch.ones_like(table.cluster_size, dtype=torch.bool), rows)
            return 0
        counts = torch.bincount(ids, minlength=len(table.embed)).float()
        sums = torch.zeros_like(table.embed).index_add_(0, ids, rows)
        keep = self._recipe.decay
        table.cluster_size.mul_(keep).add_(counts, alpha=1 - keep)
        means = sums / counts.clamp(min=1)[:, None]
        moved = torch.where(counts[:, None] > 0, torch.lerp(means, table.embed, keep), table.embed)
        table.embed.copy_(functional.normalize(moved, dim=-1) if self._quantizer.cosine else moved)
        bar = self._recipe.revive_below * min(1.0, len(rows) / len(table.embed))
        dead = table.cluster_size < bar
        table.cluster_size[dead] = max(bar, 1e-6) * 10  # time to be chosen before it is judged again
        self._place(dead, rows)
        return int(dead.sum())

    def _place(self, which: Tensor, rows: Tensor) -> None:
        """Put codes on latents drawn at random."""
        drawn = torch.randint(len(rows), (int(which.sum()),), generator=self._generator)
        self._table.embed[which] = rows[drawn.to(rows.device)]
        if not self._quantizer.cosine:  # files of such tokenizers hold the sums too
            self._table.embed_avg.copy_(self._table.embed * self._table.cluster_size[:, None])


class LearnedCodes:
    """Values to codes while both learn: what every tokenizer with one codebook trains by.

    Args:
        tokenizer: its encoder and quantizer.
        recipe: commitment, decay, revival.
        generator: as for `Codebook`.
    """

    def __init__(
        self, tokenizer: VectorQuantized, recipe: VqRecipe, generator: torch.Generator | None = None
    ) -> None:
        assert isinstance(tokenizer.quantize, VectorQuantizer)
        self._tokenizer, self._quantizer, self._recipe = tokenizer, tokenizer.quantize, recipe
        self._codebook = Codebook(tokenizer.quantize, recipe, generator)
        self._latent = self._ids = torch.zeros(0)

    def find(self, values: Tensor) -> tuple[Tensor, Tensor, Mapping[str, float]]:
        """Codes (B, latent_dim, *S), whose gradient goes straight to the encoder; the loss of commitment,
        weighted; numbers for the log."""
        latent = self._tokenizer.latent(values).float()
        rows = latent.detach().flatten(0, -2)
        with full_precision(latent.device):
            if not self._codebook.started:
                self._codebook.update(rows, torch.zeros(0, dtype=torch.int64, device=rows.device))
            found = self._quantizer(latent)
            near = functional.normalize(latent, dim=-1) if self._quantizer.cosine else latent
            distance = functional.mse_loss(near, self._quantizer.look_up(found.ids)) * latent.shape[-1]
        self._latent, self._ids = rows, found.ids.flatten()
        used = self._ids.unique().numel() / self._tokenizer.config.codebook_size
        numbers = {"commitment": distance.item(), "used_in_batch": used}
        return found.codes.movedim(-1, 1), self._recipe.commitment * distance, numbers

    def update(self) -> Mapping[str, float]:
        """Let the codes follow the latents of the last `find`."""
        return {"revived": self._codebook.update(self._latent, self._ids)}


class VqObjective:
    """Values through the codes and back.

    Args:
        tokenizer: with one codebook.
        loss: compares what is decoded with what was given.
        recipe: of the codes.
        generator: as for `Codebook`.
    """

    def __init__(
        self, tokenizer: VQVAE, loss: Loss, recipe: VqRecipe, generator: torch.Generator | None = None
    ) -> None:
        self.network = tokenizer
        self._codes = LearnedCodes(tokenizer, recipe, generator)
        self._loss = loss

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Of values as `encode` takes them."""
        codes, commitment, numbers = self._codes.find(batch)
        rebuilt = self._loss(self.network.decode_codes(codes), batch)
        return rebuilt + commitment, {"rebuilt": rebuilt.item(), **numbers}

    def update(self, step: int) -> Mapping[str, float]:
        """Let the codes follow."""
        del step
        return self._codes.update()


def train_vq(
    config: TokenizerConfig,
    draw: Callable[[int], Tensor],
    loss: Loss,
    recipe: VqRecipe,
    log: Path | None = None,
    progress: Progress | None = None,
) -> VQVAE:
    """Fit a tokenizer.

    Args:
        config: with a `lucid` quantizer.
        draw: gives batch number n, values as `encode` takes them.
        loss: compares what is decoded with what was given.
        recipe: how long and how fast.
        log: JSON lines go there.
        progress: told after each step: steps done, of how many.

    Returns:
        The tokenizer with its averaged weights, in evaluation mode.
    """
    torch.manual_seed(recipe.seed)
    fit = Fit(VqObjective(VQVAE(config), loss, recipe), draw, recipe, log=RunLog(log))
    fit.run(progress=progress)
    return fit.averaged()
