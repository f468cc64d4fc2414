"""Random crops of a batch of pictures, each its own, resized in the same step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_LOG_RATIO = math.log(4 / 3)
_JITTER = 0.4
_GREY = 0.2


def random_crops(
    images: Tensor,
    size: int,
    area: tuple[float, float],
    *,
    mirror: bool = True,
    recolor: bool = True,
) -> Tensor:
    """A crop of each picture, with PyTorch's random numbers (drawn on the CPU).

    Args:
        images: (B, C, H, W) around -1..1.
        size: side in pixels of the crops.
        area: smallest and largest share of the picture; sides differ by up to 4 : 3.
        mirror: half of them, left and right.
        recolor: change brightness, contrast and saturation, and make some grey.

    Returns:
        (B, C, size, size).
    """
    count = len(images)
    share = torch.empty(count).uniform_(*area)
    ratio = torch.empty(count).uniform_(-_LOG_RATIO, _LOG_RATIO).exp().sqrt()
    width, height = (share.sqrt() * ratio).clamp(max=1), (share.sqrt() / ratio).clamp(max=1)
    x, y = (torch.rand(count) * 2 - 1) * (1 - width), (torch.rand(count) * 2 - 1) * (1 - height)
    sign = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if mirror else torch.ones(count)
    zero = torch.zeros(count)
    affine = torch.stack([width * sign, zero, x, zero, height, y], dim=1).view(count, 2, 3)
    grid = functional.affine_grid(affine, [count, images.shape[1], size, size], align_corners=False)
    images = images.float()
    shrink = images.shape[-1] * float(share.mean()) ** 0.5 / size
    if shrink > 2:  # against aliasing: points are taken from a picture not much finer than the crop
        images = functional.avg_pool2d(images, int(shrink), ceil_mode=True)
    crops = functional.grid_sample(
        images, grid.to(images), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _recolored(crops) if recolor else crops


def _recolored(images: Tensor) -> Tensor:
    def factor() -> Tensor:
        return torch.empty(len(images), 1, 1, 1).uniform_(1 - _JITTER, 1 + _JITTER).to(images)

    images = (images + 1) * factor() - 1
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor()
    grey = images.mean(1, keepdim=True)
    plain = torch.rand(len(images), 1, 1, 1).to(images) < _GREY
    return torch.where(plain, grey, grey + (images - grey) * factor())
