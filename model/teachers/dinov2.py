"""DINOv2 by timm (arXiv 2304.07193): patch tokens and class token after the last norm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_OFFSET = 0.1


def build(architecture: str, image_size: int) -> nn.Module:
    """The network of a timm architecture, without a head."""
    import timm

    return timm.create_model(architecture, pretrained=False, num_classes=0, img_size=image_size)


def features(network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """`dinov2` (B, 768, 16, 16) and `dinov2_global` (B, 768)."""
    vit: Any = network
    tokens: Tensor = vit.forward_features(pixels)
    patches = tokens[:, vit.num_prefix_tokens :].transpose(1, 2)
    return {"dinov2": patches.unflatten(2, vit.patch_embed.grid_size), "dinov2_global": tokens[:, 0]}


def fit(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """Resample positions (1, 1 + n * n, D) to those of `shape`; other tensors stay as they are.

    Published are those of 37 x 37 patches (518 pixels). As in the published network: bicubic, without
    antialiasing, with a tenth of a patch added to the wanted side (its guard against rounding).
    """
    side, wanted = (round((s[1] - 1) ** 0.5) if len(s) == 3 else 0 for s in (tensor.shape, shape))
    if name != "pos_embed" or side == wanted or side * side + 1 != tensor.shape[1]:
        return tensor
    grid = tensor[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (wanted + _OFFSET) / side
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([tensor[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)
