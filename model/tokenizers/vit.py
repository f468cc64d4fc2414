"""ViT encoder and decoder of image tokenizers (arXiv 2312.06647, appendix on tokenization; ViT-VQGAN,
arXiv 2110.04627; output convolutions: ConvNeXt, arXiv 2201.03545).

Both read and give channels last. Their position maps are interpolated to the grid at hand, so that one
tokenizer serves several image sizes.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ..blocks import EPS, EncoderBlock, LayerNorm
from .layers import MLP_RATIO, linear, plain_block, position_map, resize_positions

PRESETS = {"s": (512, 8, 8), "b": (768, 12, 12), "l": (1024, 24, 16)}
"""Width, blocks and heads of `vit_s_enc`, `vit_b_dec`, ..."""

_OUT_CONVS = 2
_MAX = {"width": 8192, "depth": 128}


@dataclass(frozen=True)
class VitSize:
    """Width, number of blocks and of attention heads."""

    dim: int
    depth: int
    num_heads: int

    @classmethod
    def parse(cls, name: str, part: Literal["enc", "dec"]) -> "VitSize":
        """Read `vit_b_enc`, or any size as `vit_d64l2h4_enc` (width, blocks, heads); else ModelError."""
        match = re.fullmatch(r"vit_(?:([a-z])|d(\d{1,5})l(\d{1,3})h(\d{1,3}))_(enc|dec)", name)
        if match is None or match[5] != part or (match[1] and match[1] not in PRESETS):
            known = ", ".join(f"vit_{preset}_{part}" for preset in PRESETS)
            raise ModelError(f"{name!r} is no ViT {part}oder. Known: {known}, vit_d64l2h4_{part}.")
        size = cls(*(PRESETS[match[1]] if match[1] else (int(match[i]) for i in (2, 3, 4))))
        fits = 0 < size.depth <= _MAX["depth"] and 0 < size.dim <= _MAX["width"] and size.num_heads > 0
        if not fits or size.dim % 4 or size.dim % size.num_heads:
            raise ModelError(f"{name!r} has no usable size: the width must divide by 4 and by the heads.")
        return size

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        config = plain_block(self.dim, self.num_heads)
        return nn.ModuleList(EncoderBlock(config) for _ in range(self.depth))


class _Transformer(nn.Module):
    """What encoder and decoder share: positions, blocks, and a last MLP in float32."""

    def __init__(self, size: VitSize, grid: int, post_mlp: bool) -> None:
        super().__init__()
        self.pos_emb = position_map(grid, size.dim)
        self.blocks = size.blocks()
        self.norm_mlp = LayerNorm(size.dim, bias=True) if post_mlp else None
        self.post_mlp = _TanhMlp(size.dim, MLP_RATIO * size.dim) if post_mlp else None

    def transform(self, x: Tensor) -> Tensor:
        """Tokens (B, rows, columns, D) to the same shape; float32 if there is a last MLP."""
        grid = (x.shape[1], x.shape[2])
        x = (x + resize_positions(self.pos_emb, grid).movedim(1, -1)).flatten(1, 2)
        for block in self.blocks:
            x = block(x)
        if self.post_mlp is not None and self.norm_mlp is not None:
            # In float32 whatever the weights' type, as in training: codes are close to each other.
            x, weight, bias = x.float(), self.norm_mlp.weight.float(), self.norm_mlp.bias.float()
            x = x + self.post_mlp(functional.layer_norm(x, weight.shape, weight, bias, EPS))
        return x.unflatten(1, grid)


class VitEncoder(_Transformer):
    """Values (B, H, W, C) to features (B, H / patch, W / patch, dim).

    Args:
        num_channels: C.
        size: of the transformer.
        grid: rows and columns of the position map.
        patch: side of the patch that becomes one token; 1 where the values are a grid of features already.
        post_mlp: whether there is a last MLP.
    """

    def __init__(self, num_channels: int, size: VitSize, *, grid: int, patch: int, post_mlp: bool) -> None:
        super().__init__(size, grid, post_mlp)
        self.proj = nn.Conv2d(num_channels, size.dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, rows, columns, dim)."""
        return self.transform(self.proj(x.movedim(-1, 1)).movedim(1, -1))


class VitDecoder(_Transformer):
    """Features (B, rows, columns, dim) to values (B, rows * patch, columns * patch, C).

    Args:
        num_channels: C.
        size: of the transformer.
        grid: rows and columns of the position map.
        patch: side of the patch that one token becomes; 1 for grids of features.
        post_mlp: whether there is a last MLP.
        out_conv: whether convolutions smooth over the borders of patches.
    """

    def __init__(
        self, num_channels: int, size: VitSize, *, grid: int, patch: int, post_mlp: bool, out_conv: bool
    ) -> None:
        super().__init__(size, grid, post_mlp)
        self.patch = patch
        self.out_proj = nn.Linear(size.dim, num_channels * patch * patch)
        self.out_conv = (
            nn.Sequential(*(_ConvNextBlock(num_channels) for _ in range(_OUT_CONVS))) if out_conv else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, rows, columns, dim) to (B, H, W, C)."""
        patches = self.out_proj(self.transform(x).to(self.out_proj.weight.dtype))
        # Channel slowest within a patch, the other way round than in 4M's own patches.
        x = functional.pixel_shuffle(patches.movedim(-1, 1), self.patch)
        if self.out_conv is not None:
            x = self.out_conv(x)
        return x.movedim(1, -1)


class _TanhMlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape, in the type of the input."""
        return linear(self.fc2, torch.tanh(linear(self.fc1, x)))


class _ConvNextBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm(dim, bias=True)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        y = self.norm(self.dwconv(x).movedim(1, -1))
        y = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(y)))
        return x + y.movedim(-1, 1)
