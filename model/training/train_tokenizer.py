"""Training of tokenizers for single vectors: MLP, Memcodes, MLP; loss 1 - cosine (arXiv 2406.09406)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from ..tokenizers.image import VQVAE, TokenizerConfig
from .learning_rate import warmup_cosine


@dataclass(frozen=True)
class TokenizerRecipe:
    """How the tokenizer of an embedding space is trained."""

    mlp: str = "BottleneckMLP/B_2-Wi_128"
    codebook_size: int = 64
    num_codebooks: int = 16
    latent_dim: int = 256
    steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 2e-3
    seed: int = 0

    def config(self, num_channels: int) -> TokenizerConfig:
        """The tokenizer for vectors of this size."""
        return TokenizerConfig(
            n_channels=num_channels,
            enc_type=self.mlp,
            dec_type=self.mlp,
            codebook_size=self.codebook_size,
            num_codebooks=self.num_codebooks,
            latent_dim=self.latent_dim,
        )


def train_tokenizer(vectors: NDArray[np.float32], recipe: TokenizerRecipe) -> tuple[VQVAE, list[float]]:
    """Fit a tokenizer to unit vectors `(N, C)`; also give the mean loss of each tenth of the run."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = VQVAE(recipe.config(vectors.shape[1])).train()
    optimizer = torch.optim.AdamW(
        tokenizer.parameters(), recipe.learning_rate, (0.9, 0.95), weight_decay=0.01
    )
    data = torch.from_numpy(vectors)
    losses: list[float] = []
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warmup_cosine(step, recipe.steps, min(100, recipe.steps))
        batch = data[torch.randint(len(data), (recipe.batch_size,), generator=generator)]
        loss = (1 - F.cosine_similarity(tokenizer(batch).values, batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    tenth = max(1, recipe.steps // 10)
    means = [float(np.mean(losses[i : i + tenth])) for i in range(0, len(losses), tenth)]
    return tokenizer.eval(), means


@dataclass(frozen=True)
class TokenizerReport:
    """What the 16 tokens keep of held-out vectors.

    Attributes:
        cosine: mean cosine between vectors and their reconstructions.
        codes_used: share of all codes that occur.
        perplexity: of the codes, mean over heads.
        posterior_entropy: mean entropy in nats of a head's distribution over codes given the vector.
    """

    cosine: float
    codes_used: float
    perplexity: float
    posterior_entropy: float


@torch.inference_mode()
def judge_tokenizer(tokenizer: VQVAE, vectors: NDArray[np.float32]) -> TokenizerReport:
    """Measure a tokenizer on unit vectors `(N, C)`."""
    data = torch.from_numpy(vectors)
    log_p = tokenizer.quantize.logits(tokenizer.latent(data)).log_softmax(-1)
    ids = log_p.argmax(-1)
    counts = F.one_hot(ids, tokenizer.config.codebook_size).float().sum(0)
    share = counts / counts.sum(-1, keepdim=True)
    entropy = -(share * share.clamp(min=1e-9).log()).sum(-1)
    return TokenizerReport(
        cosine=F.cosine_similarity(tokenizer.decode(ids), data).mean().item(),
        codes_used=(counts > 0).float().mean().item(),
        perplexity=entropy.exp().mean().item(),
        posterior_entropy=-(log_p.exp() * log_p).sum(-1).mean().item(),
    )
