"""Layers that several tokenizer networks share."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..blocks import BlockConfig
from ..embeddings import sincos_2d

MLP_RATIO = 4
"""Hidden width over width of every MLP in the transformers of tokenizers."""


def plain_block(dim: int, num_heads: int) -> BlockConfig:
    """The transformer block of all tokenizers: exact GELU, biases everywhere."""
    return BlockConfig(
        dim=dim,
        num_heads=num_heads,
        mlp_hidden=MLP_RATIO * dim,
        activation="GELU",
        gated=False,
        qkv_bias=True,
        proj_bias=True,
        mlp_bias=True,
        norm_bias=True,
        qk_norm=False,
    )


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply `layer` in the type of `x`, whatever that of its weights."""
    return functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


class Pointwise(nn.Module):
    """A linear map over channels, stored as the convolution of size 1 that files hold.

    Computes in the type of its input, so that a float32 stretch of a bfloat16 network stays one.

    Args:
        num_in: channels in.
        num_out: channels out.
        num_axes: trailing axes of length 1 of the stored weight: 2 for images, 1 for sequences.
    """

    def __init__(self, num_in: int, num_out: int, *, num_axes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in, *[1] * num_axes))
        self.bias = nn.Parameter(torch.zeros(num_out))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_in) to (..., num_out)."""
        return functional.linear(x, self.weight.flatten(1).to(x.dtype), self.bias.to(x.dtype))


def position_map(side: int, dim: int) -> nn.Parameter:
    """Fixed sine-cosine positions (1, dim, side, side): a parameter without gradient, as files hold it."""
    table = torch.empty(1, dim, side, side)
    if not table.is_meta:  # what makes the table there costs a second of imports
        table.copy_(sincos_2d((side, side), dim).mT.view_as(table))
    return nn.Parameter(table, requires_grad=False)


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position map (1, D, rows, columns) for another grid, by bicubic interpolation as in training."""
    if table.shape[-2:] == grid:
        return table
    resized = functional.interpolate(table.float(), grid, mode="bicubic", align_corners=False)
    return resized.to(table.dtype)
