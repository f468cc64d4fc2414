"""Denoising U-ViT over patches of 4 x 4 pixels: residual convolutions down to 1/8, a transformer with
adaptive layer norms at 1/16, and back (simple diffusion, arXiv 2301.11093; DiT, arXiv 2212.09748). The codes
that it is conditioned on are added to the transformer's tokens. Names are those of the published state dicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ..blocks import Mlp, SelfAttention
from .diffusion import time_features
from .layers import plain_block, position_map, resize_positions
from .sizes import network_size, require_counts

PATCH = 4
_GROUPS = 32
_POSITIONS = 32  # rows and columns of the transformer's position map, whatever the configuration's sizes


@dataclass(frozen=True)
class UVitSize:
    """Size of the network.

    Attributes:
        block_channels: channels of each level of convolutions, multiples of 32; each halves the resolution.
        resnets_per_block: residual blocks per level on the way down; one more on the way up.
        transformer_blocks, transformer_width, transformer_heads: the transformer at the bottom.
    """

    block_channels: tuple[int, ...]
    resnets_per_block: int
    transformer_blocks: int
    transformer_width: int
    transformer_heads: int

    def __post_init__(self) -> None:
        require_counts(self)
        if not self.block_channels or any(n % _GROUPS for n in self.block_channels):
            raise ModelError(f"block_channels {self.block_channels} must be multiples of {_GROUPS}.")
        if self.transformer_width % 4 or self.transformer_width % self.transformer_heads:
            raise ModelError(
                f"transformer_width {self.transformer_width} must divide by 4 and by transformer_heads "
                f"{self.transformer_heads}."
            )

    @classmethod
    def parse(cls, name: str, presets: Mapping[str, object] | None = None) -> "UVitSize":
        """The size behind a `dec_type`; `presets` as in a checkpoint's metadata. Else ModelError."""
        return network_size(cls, name, PRESETS, presets)


PRESETS: Mapping[str, UVitSize] = {"uvit_b_p4_f16": UVitSize((128, 256), 2, 12, 768, 12)}
"""Published sizes."""


class UVit(nn.Module):
    """Predicts from a noisy image, the time and the codes what the checkpoint was trained to predict.

    Args:
        num_channels: of the image.
        code_dim: width of the codes.
        size: of the network.

    Attributes:
        multiple: sides of images must be multiples of it.
    """

    def __init__(self, num_channels: int, code_dim: int, size: UVitSize) -> None:
        super().__init__()
        channels, num_resnets = size.block_channels, size.resnets_per_block
        self.multiple = PATCH * 2 ** len(channels)
        self.features, time_dim = channels[0], 4 * channels[0]
        self.conv_in = nn.Conv2d(num_channels, channels[0], PATCH, PATCH)
        self.time_embedding = _TimeEmbedding(channels[0], time_dim)
        self.down_blocks, widths = nn.ModuleList(), [channels[0]]
        for i, (before, width) in enumerate(pairwise([channels[0], *channels])):
            is_last = i == len(channels) - 1
            inner = [before, *[width] * (num_resnets - 1)]
            self.down_blocks.append(_Down(inner, width, time_dim, shrink=not is_last))
            widths += [width] * (num_resnets + (not is_last))
        self.downsample_mid = _MidDownsample(channels[-1])
        self.mid_block = _Transformer(channels[-1], code_dim, time_dim, size)
        self.upsample_mid = _Upsample(channels[-1])
        self.up_blocks, before = nn.ModuleList(), channels[-1]
        for i, width in enumerate(reversed(channels)):
            inner = [n + widths.pop() for n in [before, *[width] * num_resnets]]
            self.up_blocks.append(_Up(inner, width, time_dim, grow=i < len(channels) - 1))
            before = width
        self.conv_norm_out = _norm(channels[0])
        self.conv_out = nn.ConvTranspose2d(channels[0], num_channels, PATCH, PATCH)

    def condition(self, codes: Tensor, image_size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """What `forward` needs of the codes; made once for all steps.

        Args:
            codes: (B, code_dim, rows, columns).
            image_size: height and width of the image.
            mask: bool (B, rows, columns), True = hide this code.

        Returns:
            (B, height * width / multiple**2, transformer width).
        """
        grid = (image_size[0] // self.multiple, image_size[1] // self.multiple)
        return self.mid_block.condition(codes, grid, mask)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) at times (B or 1,) in training steps to the prediction (B, C, H, W)."""
        dtype = self.conv_in.weight.dtype
        emb = functional.silu(self.time_embedding(time_features(time, self.features).to(dtype)))
        hidden = self.conv_in(x.to(dtype))
        skips = [hidden]
        for block in self.down_blocks:
            hidden = block(hidden, emb, skips)
        hidden = self.mid_block(self.downsample_mid(hidden), emb, condition)
        hidden = self.upsample_mid(hidden)
        for block in self.up_blocks:
            hidden = block(hidden, emb, skips)
        return self.conv_out(functional.silu(self.conv_norm_out(hidden)))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=1e-5)


def _conv(num_in: int, num_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, stride, padding=1)


class _TimeEmbedding(nn.Module):
    def __init__(self, num_features: int, time_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(num_features, time_dim)
        self.linear_2 = nn.Linear(time_dim, time_dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(features)))


class _Resnet(nn.Module):
    def __init__(self, num_in: int, num_out: int, time_dim: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(num_in), _conv(num_in, num_out)
        self.time_emb_proj = nn.Linear(time_dim, num_out)
        self.norm2, self.conv2 = _norm(num_out), _conv(num_out, num_out)
        self.conv_shortcut = nn.Identity() if num_in == num_out else nn.Conv2d(num_in, num_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        hidden = self.conv1(functional.silu(self.norm1(x))) + self.time_emb_proj(emb)[..., None, None]
        return self.conv_shortcut(x) + self.conv2(functional.silu(self.norm2(hidden)))


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _MidDownsample(_Downsample):
    """The published files hold this convolution under two names."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.Conv2d_0 = _conv(width, width, stride=2)
        self.Conv2d_0.weight, self.Conv2d_0.bias = self.conv.weight, self.conv.bias


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0))


class _Down(nn.Module):
    def __init__(self, widths_in: list[int], width: int, time_dim: int, *, shrink: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(num_in, width, time_dim) for num_in in widths_in)
        self.downsamplers = nn.ModuleList([_Downsample(width)] if shrink else [])

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Leaves what the way up will need on `skips`."""
        for resnet in self.resnets:
            x = resnet(x, emb)
            skips.append(x)
        for shrink in self.downsamplers:
            x = shrink(x)
            skips.append(x)
        return x


class _Up(nn.Module):
    def __init__(self, widths_in: list[int], width: int, time_dim: int, *, grow: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(num_in, width, time_dim) for num_in in widths_in)
        self.upsamplers = nn.ModuleList([_Upsample(width)] if grow else [])

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Takes its inputs from the end of `skips`."""
        for resnet in self.resnets:
            x = resnet(torch.cat([x, skips.pop()], dim=1), emb)
        for grow in self.upsamplers:
            x = grow(x)
        return x


class _Transformer(nn.Module):
    def __init__(self, num_channels: int, code_dim: int, time_dim: int, size: UVitSize) -> None:
        super().__init__()
        width = size.transformer_width
        self.mid_pos_emb = position_map(_POSITIONS, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.mid_proj_in = nn.Linear(num_channels, width)
        self.mid_cond_proj = nn.Linear(code_dim, width)
        self.mid_block = nn.ModuleList(
            _AdaptiveBlock(width, size.transformer_heads, time_dim) for _ in range(size.transformer_blocks)
        )
        self.mid_proj_out = nn.Linear(width, num_channels)

    def condition(self, codes: Tensor, grid: tuple[int, int], mask: Tensor | None) -> Tensor:
        """Codes (B, code_dim, rows, columns) to what is added to the tokens of `grid`: (B, N, width)."""
        resized = functional.interpolate(codes, grid).to(self.mid_cond_proj.weight.dtype)
        tokens = self.mid_cond_proj(resized.flatten(2).transpose(1, 2))
        if mask is not None:
            hidden = functional.interpolate(mask[:, None].float(), grid).flatten(2).transpose(1, 2) > 0
            tokens = torch.where(hidden, self.mask_token, tokens)
        return tokens + resize_positions(self.mid_pos_emb, grid).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, emb: Tensor, condition: Tensor) -> Tensor:
        """(B, C, rows, columns) to the same shape."""
        tokens = self.mid_proj_in(x.flatten(2).transpose(1, 2)) + condition
        for block in self.mid_block:
            tokens = block(tokens, emb)
        return self.mid_proj_out(tokens).transpose(1, 2).reshape(x.shape)


class _AdaptiveBlock(nn.Module):
    """Transformer block whose norms are shifted, scaled and gated by the time."""

    def __init__(self, width: int, num_heads: int, time_dim: int) -> None:
        super().__init__()
        config = plain_block(width, num_heads)
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-5), SelfAttention(config)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-5), Mlp(config)
        self.adaLN_modulation = nn.Linear(time_dim, 4 * width)
        self.adaLN_gate = nn.Linear(time_dim, 2 * width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Tokens (B, N, width), SiLU of the time embedding (B or 1, time_dim)."""
        shift1, scale1, shift2, scale2 = self.adaLN_modulation(emb)[:, None].chunk(4, dim=-1)
        gate1, gate2 = self.adaLN_gate(emb)[:, None].chunk(2, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)
