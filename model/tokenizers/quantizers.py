"""Codebooks: vectors to token ids and back.

Memcodes: every vector is cut into heads, and each head picks the code whose key it matches best ("Memory
codes", vector-quantize-pytorch).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Quantized:
    """Codes that stand for the latent vectors (..., dim), and their ids, int64 (..., heads)."""

    codes: Tensor
    ids: Tensor


class Memcodes(nn.Module):
    """One codebook per head; keys are compared, values are returned.

    Args:
        num_heads: codebooks, each for `dim / num_heads` channels (head-major).
        codebook_size: codes in each.
        dim: width of the latent vectors.
    """

    def __init__(self, num_heads: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        width = dim // num_heads
        self.scale = width**-0.5
        self.codes = nn.Parameter(torch.randn(num_heads, codebook_size, width))
        self.to_k = _PerHead(num_heads, width)
        self.to_v = _PerHead(num_heads, width)

    def codebook(self) -> Tensor:
        """What each id of each head stands for: (heads, codebook_size, dim / heads)."""
        return self.to_v(self.codes)

    def logits(self, latent: Tensor) -> Tensor:
        """How well each code matches: latent (..., dim) to (..., heads, codebook_size)."""
        heads = latent.unflatten(-1, (self.num_heads, -1))
        return torch.einsum("...hc,hkc->...hk", heads * self.scale, self.to_k(self.codes))

    def encode(self, latent: Tensor) -> Tensor:
        """Latent (..., dim) to the best ids, int64 (..., heads)."""
        return self.logits(latent).argmax(-1)

    def look_up(self, ids: Tensor) -> Tensor:
        """Ids (..., heads) to codes (..., dim)."""
        head = torch.arange(self.num_heads, device=ids.device)
        raw = self.codes[head, ids]
        # The projection follows the look-up: a few rows instead of the whole codebook.
        return torch.einsum("...hd,hdc->...hc", raw, self.to_v.weight).flatten(-2)

    def forward(self, latent: Tensor) -> Quantized:
        """Latent (..., dim) to codes and ids.

        In training the choice is drawn by a straight-through Gumbel softmax of temperature 1, so that
        gradients reach keys and latents; otherwise it is the best match.
        """
        if not self.training:
            ids = self.encode(latent)
            return Quantized(self.look_up(ids), ids)
        choice = functional.gumbel_softmax(self.logits(latent), hard=True, dim=-1)
        codes = torch.einsum("...hk,hkc->...hc", choice, self.codebook())
        return Quantized(codes.flatten(-2), choice.argmax(-1))


class _PerHead(nn.Module):
    """A square matrix per head, applied to rows from the right."""

    def __init__(self, num_heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_heads, width, width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(heads, n, width) to the same shape."""
        return torch.bmm(x, self.weight)
