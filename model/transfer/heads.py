"""Heads on the encoder's features: classes of pictures, and maps from a few ConvNeXt blocks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..blocks import EPS
from .backbone import TransferEncoder


def token_map(tokens: Tensor) -> Tensor:
    """Tokens (B, side * side, D) of a square grid as a map (B, D, side, side)."""
    batch, length, dim = tokens.shape
    side = int(length**0.5)
    return tokens.transpose(1, 2).reshape(batch, dim, side, side)


class ClassHead(nn.Module):
    """The mean of all tokens, layer norm and one linear layer (MAE, MultiMAE, 4M)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.linear = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features (B, n, D) by input to logits (B, num_classes)."""
        return self.linear(self.norm(torch.cat(list(features.values()), dim=1).mean(1)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7 convolution, norm and MLP over channels, added to the input (arXiv 2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) to the same shape."""
        y = self.mlp(self.norm(self.spatial(x).permute(0, 2, 3, 1)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXtHead(nn.Module):
    """Maps of the encoder's tokens: each becomes cells x cells, blocks mix them, pixels lie between them.

    MultiMAE's head for segmentation (arXiv 2204.01678, appendix), which 4M keeps.

    Args:
        dim: width of the features.
        channels: of the result: classes, or 1 for depth.
        image_size: side of the result.
        readout: inputs whose tokens it sees, side by side; their grids are equal.
        width, cells, depth: as `HeadConfig`.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        image_size: int,
        *,
        readout: Sequence[str] = ("rgb",),
        width: int = 6144,
        cells: int = 4,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self._readout, self._image_size, self._cells = tuple(readout), image_size, cells
        inner = width // cells**2
        self.project = nn.Linear(dim * len(self._readout), width)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(inner) for _ in range(depth)))
        self.last = nn.Conv2d(inner, channels, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features (B, n, D) by input to maps (B, channels, S, S)."""
        x = self.project(torch.cat([features[name] for name in self._readout], dim=-1))
        # A token's numbers are (row, column, channel) with channel fastest: to channels as pixel_shuffle has.
        batch, length, _ = x.shape
        x = x.view(batch, length, self._cells**2, -1).transpose(2, 3).flatten(2)
        x = self.last(self.blocks(functional.pixel_shuffle(token_map(x), self._cells)))
        size = (self._image_size, self._image_size)
        return functional.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)


class TransferModel(nn.Module):
    """An encoder and a head."""

    def __init__(self, encoder: TransferEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Inputs as `TransferEncoder` to what the head gives."""
        return self.head(self.encoder(batch))
