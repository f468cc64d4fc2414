"""Teachers of your own: small towers whose vectors and features a model then learns to predict."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..tokenizers.vit import VitEncoder, VitSize
from .fit import Count
from .run_files import RunConfig

_CONV_STEM = 4
_GROUPS = 8


class TowerConfig(RunConfig):
    """Shape of a tower.

    Attributes:
        network: a transformer over patches, or residual convolutions.
        image_size: side in pixels of the pictures that it sees.
        patch_size: side in pixels behind one feature; of convolutions 4, 8, 16, ...
        width: channels of features and vectors.
        depth: blocks of a transformer; residual blocks at each resolution of convolutions.
        num_heads: of a transformer's attention; the width divides by it.
    """

    network: Literal["vit", "conv"] = "vit"
    image_size: Count = 224
    patch_size: Count = 16
    width: Count = 384
    depth: Count = 12
    num_heads: Count = 6

    def problem(self) -> str | None:
        """What keeps it from being built."""
        if self.image_size % self.patch_size:
            return f"patches of {self.patch_size} do not fill a side of {self.image_size}"
        if self.network == "vit" and (self.width % 4 or self.width % self.num_heads):
            return f"width {self.width} must divide by 4 and by num_heads {self.num_heads}"
        power = self.patch_size & (self.patch_size - 1) == 0
        levels = (self.patch_size // _CONV_STEM).bit_length()
        if self.network == "conv" and (not power or self.patch_size < 4 or self.width % (_GROUPS << levels)):
            return (
                f"convolutions need patch_size 4, 8, 16, ... and a width that divides by "
                f"{_GROUPS << max(levels, 0)}"
            )
        return None


class Tower(nn.Module):
    """Pictures or maps (B, C, H, W) around -1..1 to features and a vector.

    Args:
        config: its shape.
        num_channels: C.
    """

    def __init__(self, config: TowerConfig, num_channels: int = 3) -> None:
        super().__init__()
        self.body = (
            _vit(config, num_channels) if config.network == "vit" else _Convolutions(config, num_channels)
        )
        self.norm = nn.LayerNorm(config.width)
        # Mean for how much there is of something, maximum for whether it is there at all.
        self.pool = nn.Linear(2 * config.width, config.width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, width) and features (B, rows, columns, width), float32."""
        grid = self.norm(self.body(images.movedim(1, -1)).float())
        tokens = grid.flatten(1, 2)
        return self.pool(torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)).float(), grid


def _vit(config: TowerConfig, num_channels: int) -> VitEncoder:
    size = VitSize(config.width, config.depth, config.num_heads)
    grid = config.image_size // config.patch_size
    return VitEncoder(num_channels, size, grid=grid, patch=config.patch_size, post_mlp=False)


class _Convolutions(nn.Module):
    """(B, H, W, C) to (B, H / patch, W / patch, width): each level halves the resolution."""

    def __init__(self, config: TowerConfig, num_channels: int) -> None:
        super().__init__()
        levels = (config.patch_size // _CONV_STEM).bit_length() - 1
        width = config.width >> levels
        layers: list[nn.Module] = [nn.Conv2d(num_channels, width, _CONV_STEM, stride=_CONV_STEM)]
        for level in range(levels + 1):
            if level:
                layers.append(nn.Conv2d(width, 2 * width, 2, stride=2))
                width *= 2
            layers += [_Residual(width) for _ in range(config.depth)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.movedim(-1, 1)).movedim(1, -1)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.gelu(self.conv1(self.norm(x))))


class TextTower(nn.Module):
    """Token ids (B, L), 0 behind the end, to vectors (B, width)."""

    def __init__(self, vocab_size: int, max_tokens: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(0.02 * torch.randn(max_tokens, width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors, float32: the mean over the words."""
        used = ids != 0
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        x = self.norm(self.body(x, src_key_padding_mask=~used).float()) * used[..., None]
        return x.sum(1) / used.sum(1, keepdim=True).clamp(min=1)
