"""Residual MLP over single vectors, a layer norm before every block (Bachmann et al., arXiv 2306.13575)."""

import re
from dataclasses import dataclass

from torch import Tensor, nn

from ...errors import ModelError

MAX_BLOCKS = 256
MAX_WIDTH = 2**16


@dataclass(frozen=True)
class MlpSize:
    """Number of blocks, width, and hidden width of a block over the width."""

    num_blocks: int
    width: int
    expansion: int = 4

    @classmethod
    def parse(cls, name: str) -> "MlpSize":
        """Read `BottleneckMLP/B_6-Wi_1024` or `...-Ex_2`; ModelError for anything else."""
        match = re.fullmatch(r"BottleneckMLP/B_(\d{1,3})-Wi_(\d{1,5})(?:-Ex_(\d{1,2}))?", name)
        if match is None:
            raise ModelError(f"{name!r} is no MLP; those are written like BottleneckMLP/B_6-Wi_1024.")
        size = cls(int(match[1]), int(match[2]), int(match[3] or 4))
        if not (0 < size.num_blocks <= MAX_BLOCKS and 0 < size.width <= MAX_WIDTH and size.expansion):
            raise ModelError(f"{name!r} has no usable size.")
        return size


class BottleneckMLP(nn.Module):
    """Vectors (..., num_in) to (..., num_out)."""

    def __init__(self, num_in: int, num_out: int, size: MlpSize) -> None:
        super().__init__()
        self.linear_in = nn.Linear(num_in, size.width)
        self.linear_out = nn.Linear(size.width, num_out)
        self.blocks = nn.ModuleList(_Block(size.width, size.expansion) for _ in range(size.num_blocks))
        self.layernorms = nn.ModuleList(nn.LayerNorm(size.width, eps=1e-5) for _ in range(size.num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_in) to (..., num_out)."""
        x = self.linear_in(x)
        for norm, block in zip(self.layernorms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.linear_out(x)


class _Block(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.block = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)
