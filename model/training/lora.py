"""Low-rank adapters on the linear layers of attention and MLPs (LoRA, arXiv 2106.09685).

The weights of the model stay as they are; next to each, two thin matrices learn what to add. Merged, the
result is an ordinary checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ..blocks import CrossAttention, Mlp, SelfAttention
from ..fourm import FourM

_DOWN, _UP = "lora_down", "lora_up"


@dataclass(frozen=True)
class Lora:
    """Which layers get adapters, and how wide they are.

    Attributes:
        rank: of what is added to each weight.
        alpha: scale; `alpha / rank` times the product is added.
        attention, mlp: whether these layers get one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: float = 16.0
    attention: bool = True
    mlp: bool = True


class LoraLinear(nn.Linear):
    """A linear layer with an adapter; its own weight keeps its name and does not learn.

    Args:
        layer: its weight and bias are taken, not copied.
        lora: size of the adapter. It starts as 0.
    """

    def __init__(self, layer: nn.Linear, lora: Lora) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.requires_grad_(False)
        self.lora_down = nn.Parameter(self.weight.new_empty(lora.rank, layer.in_features))
        self.lora_up = nn.Parameter(self.weight.new_zeros(layer.out_features, lora.rank))
        self.scale = lora.alpha / lora.rank
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """The product with weight + scale * up @ down."""
        low = functional.linear(functional.linear(input, self.lora_down), self.lora_up)
        return super().forward(input) + self.scale * low


def add_lora(model: FourM, lora: Lora) -> None:
    """Put adapters on the blocks of a model, in place. What has none learns on, unless it is frozen too."""
    for module in list(model.modules()):
        is_attention = isinstance(module, SelfAttention | CrossAttention)
        if (is_attention and lora.attention) or (isinstance(module, Mlp) and lora.mlp):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, LoraLinear(child, lora))


def merge_lora(state: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The state of the same model without adapters: each is added to its weight, in float32."""
    merged = {name: tensor for name, tensor in state.items() if not name.endswith((_DOWN, _UP))}
    for name in state:
        if name.endswith(_DOWN):
            layer = name.removesuffix(_DOWN)
            weight = merged[f"{layer}weight"]
            up, down = state[layer + _UP].float(), state[name].float()
            with torch.no_grad():
                merged[f"{layer}weight"] = (weight + lora.alpha / lora.rank * up @ down).to(weight.dtype)
    return merged
