"""The picture trunk of ImageBind (arXiv 2305.05665), under the tensor names of the published checkpoint.

A pre-norm transformer over patches. It was made for video: a patch spans two frames, and a picture is shown
as two equal ones. What 4M-21 learned are the trunk's tokens before its head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PREFIXES = ("modality_preprocessors.vision.", "modality_trunks.vision.")
"""Of a file's tensors, those of the picture trunk; the head and other modalities' towers are not needed."""

_EPS = 1e-6
_FRAMES = 2


@dataclass(frozen=True)
class TrunkConfig:
    """Shape of a trunk: width, number of blocks and heads, side of a patch in pixels."""

    width: int
    depth: int
    num_heads: int
    patch_size: int = 14


ARCHITECTURES = {"huge": TrunkConfig(width=1280, depth=32, num_heads=16)}


class _Patches(nn.Module):
    """Pixels (B, 3, S, S) to tokens (B, 1 + n, D), the class token first, with positions."""

    def __init__(self, config: TrunkConfig, image_size: int) -> None:
        super().__init__()
        patch = (_FRAMES, config.patch_size, config.patch_size)
        num_patches = (image_size // config.patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        conv = nn.Conv3d(3, config.width, patch, stride=patch, bias=False)
        self.rgbt_stem = nn.ModuleDict({"proj": nn.ModuleList([nn.Identity(), conv])})
        self.pos_embedding_helper = nn.ParameterDict(
            {"pos_embed": nn.Parameter(torch.zeros(1, 1 + num_patches, config.width))}
        )

    def forward(self, pixels: Tensor) -> Tensor:
        weight = self.get_parameter("rgbt_stem.proj.1.weight")
        # Both frames are the same picture, so their two kernels act as one: their sum.
        x = functional.conv2d(pixels, weight.sum(2), stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x + self.get_parameter("pos_embedding_helper.pos_embed")


class _Block(nn.Module):
    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = nn.MultiheadAttention(width, config.num_heads, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm_2(x))))


class ImageBindTrunk(nn.Module):
    """Standardised pixels (B, 3, S, S) to the trunk's tokens (B, 1 + n, D), the class token first."""

    def __init__(self, config: TrunkConfig, image_size: int) -> None:
        super().__init__()
        blocks = nn.ModuleList([_Block(config) for _ in range(config.depth)])
        trunk = {"pre_transformer_layer": nn.ModuleList([nn.LayerNorm(config.width, eps=_EPS)])}
        self.modality_preprocessors = nn.ModuleDict({"vision": _Patches(config, image_size)})
        self.modality_trunks = nn.ModuleDict({"vision": nn.ModuleDict({**trunk, "blocks": blocks})})

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens after the last block; no norm follows, it would be the head's."""
        x = self.modality_preprocessors["vision"](pixels)
        x = self.get_submodule("modality_trunks.vision.pre_transformer_layer.0")(x)
        for block in self.get_submodule("modality_trunks.vision.blocks").children():
            x = block(x)
        return x


def build(architecture: str, image_size: int) -> nn.Module:
    """The trunk of a name in ARCHITECTURES."""
    return ImageBindTrunk(ARCHITECTURES[architecture], image_size)


def features(network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """`imagebind` (B, 1280, 16, 16) and `imagebind_global` (B, 1280)."""
    tokens: Tensor = network(pixels)
    side = round((tokens.shape[1] - 1) ** 0.5)
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    return {"imagebind": patches, "imagebind_global": tokens[:, 0]}
