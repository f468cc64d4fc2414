"""Denoising UNet over patches of 4 x 4 pixels (guided diffusion, arXiv 2105.05233; names as in its state
dicts). The codes that it is conditioned on are resized to the patches and join the image as channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from .diffusion import time_features
from .layers import Pointwise
from .sizes import network_size, require_counts

PATCH = 4
_GROUPS = 32


@dataclass(frozen=True)
class UNetSize:
    """Size of the network.

    Attributes:
        model_channels: channels at full resolution, a multiple of 32.
        num_res_blocks: residual blocks per level on the way down; one more on the way up.
        attention_factors: down-sampling factors whose levels attend.
        channel_mult: channels of each level over `model_channels`; each level has half the resolution.
        num_heads: attention heads.
    """

    model_channels: int
    num_res_blocks: int
    attention_factors: tuple[int, ...]
    channel_mult: tuple[int, ...]
    num_heads: int = 1

    def __post_init__(self) -> None:
        require_counts(self)
        if not self.channel_mult or self.model_channels % _GROUPS or self.model_channels % self.num_heads:
            raise ModelError(
                f"model_channels {self.model_channels} must divide by {_GROUPS} and by num_heads "
                f"{self.num_heads}, and channel_mult name a level."
            )

    @classmethod
    def parse(cls, name: str, presets: Mapping[str, object] | None = None) -> "UNetSize":
        """The size behind a `dec_type`; `presets` as in a checkpoint's metadata. Else ModelError."""
        return network_size(cls, name, PRESETS, presets)


PRESETS: Mapping[str, UNetSize] = {"unet_patched": UNetSize(256, 3, (4, 8), (1, 2, 2, 2))}
"""Published sizes."""


class UNet(nn.Module):
    """Predicts from a noisy image, the time and the codes what the checkpoint was trained to predict.

    Args:
        num_channels: of the image.
        code_dim: width of the codes.
        size: of the network.

    Attributes:
        multiple: sides of images must be multiples of it.
    """

    def __init__(self, num_channels: int, code_dim: int, size: UNetSize) -> None:
        super().__init__()
        self.multiple = PATCH * 2 ** (len(size.channel_mult) - 1)
        self.features, time_dim = size.model_channels, 4 * size.model_channels
        first = nn.Linear(self.features, time_dim)
        self.time_embed = nn.Sequential(first, nn.SiLU(), nn.Linear(time_dim, time_dim))
        image_dim = num_channels * PATCH**2
        width = size.channel_mult[0] * size.model_channels
        self.input_blocks = nn.ModuleList([_Steps(_conv(image_dim + code_dim, width))])
        widths = [width]
        for level, mult in enumerate(size.channel_mult):
            if level:
                self.input_blocks.append(_Steps(_Downsample(width)))
                widths.append(width)
            for _ in range(size.num_res_blocks):
                block = _level_block(width, mult * size.model_channels, time_dim, size, level)
                self.input_blocks.append(_Steps(*block))
                width = mult * size.model_channels
                widths.append(width)
        self.middle_block = _Steps(
            _ResBlock(width, width, time_dim),
            _AttentionBlock(width, size.num_heads),
            _ResBlock(width, width, time_dim),
        )
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(size.channel_mult))):
            for i in range(size.num_res_blocks + 1):
                out = mult * size.model_channels
                block = _level_block(width + widths.pop(), out, time_dim, size, level)
                width = out
                if level and i == size.num_res_blocks:
                    block.append(_Upsample(width))
                self.output_blocks.append(_Steps(*block))
        self.out = nn.Sequential(_norm(width), nn.SiLU(), _conv(width, image_dim))

    def condition(self, codes: Tensor, image_size: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """What `forward` needs of the codes; made once for all steps.

        Args:
            codes: (B, code_dim, rows, columns).
            image_size: height and width of the image.
            mask: bool (B, rows, columns), True = hide this code.

        Returns:
            (B, code_dim, height / 4, width / 4).
        """
        if mask is not None:
            codes = codes.masked_fill(mask[:, None], 0.0)
        return functional.interpolate(codes, (image_size[0] // PATCH, image_size[1] // PATCH))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) at times (B or 1,) in training steps to the prediction (B, C, H, W)."""
        dtype = next(self.parameters()).dtype
        emb = self.time_embed(time_features(time, self.features).to(dtype))
        patches = functional.pixel_unshuffle(x.to(dtype), PATCH)
        hidden = torch.cat([patches, condition.to(dtype)], dim=1)
        skips: list[Tensor] = []
        for block in self.input_blocks:
            hidden = block(hidden, emb)
            skips.append(hidden)
        hidden = self.middle_block(hidden, emb)
        for block in self.output_blocks:
            hidden = block(torch.cat([hidden, skips.pop()], dim=1), emb)
        return functional.pixel_shuffle(self.out(hidden), PATCH)


def _level_block(num_in: int, num_out: int, time_dim: int, size: UNetSize, level: int) -> list[nn.Module]:
    block: list[nn.Module] = [_ResBlock(num_in, num_out, time_dim)]
    if 2**level in size.attention_factors:
        block.append(_AttentionBlock(num_out, size.num_heads))
    return block


def _conv(num_in: int, num_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, stride, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=1e-5)


class _Steps(nn.ModuleList):
    """A sequence whose residual blocks are told the time."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__(steps)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for step in self:
            x = step(x, emb) if isinstance(step, _ResBlock) else step(x)
        return x


class _ResBlock(nn.Module):
    def __init__(self, num_in: int, num_out: int, time_dim: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(_norm(num_in), nn.SiLU(), _conv(num_in, num_out))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, num_out))
        # The dropout of the published networks has rate 0; it keeps the convolution's place in the names.
        self.out_layers = nn.Sequential(_norm(num_out), nn.SiLU(), nn.Identity(), _conv(num_out, num_out))
        self.skip_connection = nn.Identity() if num_in == num_out else nn.Conv2d(num_in, num_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        hidden = self.in_layers(x) + self.emb_layers(emb)[..., None, None]
        return self.skip_connection(x) + self.out_layers(hidden)


class _AttentionBlock(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = _norm(width)
        self.qkv = Pointwise(width, 3 * width, num_axes=1)
        self.proj_out = Pointwise(width, width, num_axes=1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        # Channels are split into heads first and then into queries, keys and values.
        heads = self.qkv(tokens).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = heads.permute(3, 0, 2, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.proj_out(attended).transpose(1, 2).reshape(x.shape)


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = _conv(width, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0))
