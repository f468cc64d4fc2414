"""The simple feature pyramid of ViTDet (arXiv 2203.16527): one map of the encoder to maps of five sizes.

What detectors stand on: the one here (`detector`), and others, as docs/transfer.md shows.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..blocks import EPS
from .backbone import TransferEncoder
from .heads import token_map


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) to the same shape."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """The encoder's last map brought to cells of 1/4, 1/2, 1, 2 and 4 times its patches.

    Args:
        encoder: whose features will be given.
        readout: the inputs whose features are taken, side by side.
        channels: of each map.

    Attributes:
        strides: pixels per cell of each map, by its name.
    """

    def __init__(
        self, encoder: TransferEncoder, *, readout: tuple[str, ...] = ("rgb",), channels: int = 256
    ) -> None:
        super().__init__()
        self._readout = readout
        dim, patch = encoder.dim * len(readout), encoder.layer(readout[0]).patch_size
        self.strides = {f"p{level}": patch * 2 ** (level - 4) for level in range(2, 7)}
        finest = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 2, 2, 2),
            ChannelNorm(dim // 2),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 2, dim // 4, 2, 2),
        )
        fine = nn.ConvTranspose2d(dim, dim // 2, 2, 2)
        scales = ((finest, dim // 4), (fine, dim // 2), (nn.Identity(), dim), (nn.MaxPool2d(2, 2), dim))
        self.levels = nn.ModuleList(
            nn.Sequential(
                scale,
                nn.Conv2d(width, channels, 1, bias=False),
                ChannelNorm(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                ChannelNorm(channels),
            )
            for scale, width in scales
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, n, D) by input to maps (B, channels, S / stride, S / stride), `p2` the finest."""
        x = token_map(torch.cat([features[name] for name in self._readout], dim=-1))
        maps = [level(x) for level in self.levels]
        maps.append(functional.max_pool2d(maps[-1], 1, 2))
        return dict(zip(self.strides, maps, strict=True))
