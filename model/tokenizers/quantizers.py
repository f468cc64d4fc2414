"""Codebooks: vectors to token ids and back.

VectorQuantizer: the nearest vector of one codebook, by cosine (ViT-VQGAN, arXiv 2110.04627) or by Euclidean
distance (arXiv 1711.00937).

Memcodes: every vector is cut into heads, and each head picks the code whose key it matches best ("Memory
codes", vector-quantize-pytorch).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS_AT_ONCE = 4096  # bounds the scores in memory: 256 MB at 16,384 codes


@dataclass(frozen=True)
class Quantized:
    """Codes that stand for the latent vectors (..., dim), and their ids, int64.

    Ids are (..., heads) from `Memcodes` and (...) from `VectorQuantizer`.
    """

    codes: Tensor
    ids: Tensor


class VectorQuantizer(nn.Module):
    """One codebook of whole vectors.

    Codes are moving averages of the latents that chose them, kept in buffers; nothing here has a gradient.

    Args:
        codebook_size: number of codes.
        dim: width of the latent vectors.
        cosine: compare directions; else distances. What is returned is the stored code in both cases, whose
            length is then not exactly 1.
    """

    def __init__(self, codebook_size: int, dim: int, *, cosine: bool) -> None:
        super().__init__()
        self.cosine = cosine
        self._codebook = _Codebook(codebook_size, dim, with_sums=not cosine)

    def codebook(self) -> Tensor:
        """What each id stands for: (1, codebook_size, dim), the first axis as in `Memcodes`."""
        return self._codebook.embed[None]

    def logits(self, latent: Tensor) -> Tensor:
        """How well each code matches, float32: latent (..., dim) to (..., codebook_size).

        Cosines, or squared distances with a minus sign.
        """
        latent, codes = latent.float(), self._codebook.embed.float()
        if self.cosine:
            return functional.normalize(latent, dim=-1) @ functional.normalize(codes, dim=-1).mT
        squares = latent.square().sum(-1, keepdim=True) + codes.square().sum(-1)
        return 2 * (latent @ codes.mT) - squares

    def encode(self, latent: Tensor) -> Tensor:
        """Latent (..., dim) to the best ids, int64 (...)."""
        rows = latent.flatten(0, -2)
        best = [self.logits(part).argmax(-1) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(best).view(latent.shape[:-1])

    def look_up(self, ids: Tensor) -> Tensor:
        """Ids (...) to codes (..., dim)."""
        return self._codebook.embed[ids]

    def forward(self, latent: Tensor) -> Quantized:
        """Latent (..., dim) to codes and ids; in training the codes' gradient goes straight to the latent."""
        ids = self.encode(latent)
        codes = self.look_up(ids)
        return Quantized(latent + (codes - latent).detach() if self.training else codes, ids)


class _Codebook(nn.Module):
    """Buffers as in the files: the codes, how often each is chosen, and for distances their running sums."""

    initted: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, size: int, dim: int, *, with_sums: bool) -> None:
        super().__init__()
        codes = torch.empty(size, dim)
        if not codes.is_meta:  # drawing costs seconds of imports there
            codes = functional.normalize(codes.normal_(), dim=-1)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", codes)
        if with_sums:
            self.register_buffer("embed_avg", codes.clone())


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
        self.codes = nn.Parameter(torch.empty(num_heads, codebook_size, width))
        self.to_k = _PerHead(num_heads, width)
        self.to_v = _PerHead(num_heads, width)
        if not self.codes.is_meta:  # drawing costs seconds of imports there
            nn.init.normal_(self.codes)
            nn.init.normal_(self.to_k.weight, std=self.scale)
            nn.init.normal_(self.to_v.weight, std=self.scale)

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
        self.weight = nn.Parameter(torch.empty(num_heads, width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(heads, n, width) to the same shape."""
        return torch.bmm(x, self.weight)
