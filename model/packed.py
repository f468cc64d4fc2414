"""Linear layers whose weights lie as the processor multiplies them best.

Weights are rearranged in every product unless they are laid out once and for all; for the 1 to 400 rows of a
generation's passes that is a quarter of the time and more (Zen 4, torch 2.13: 392 rows of float32 at 100
instead of 70 GFLOP/s, 2 rows in a third of the time).
"""

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from .fourm import FourM

_USUAL_ROWS = 256
"""What the layout is chosen for; other numbers of rows work too."""


class PackedLinear(nn.Module):
    """A linear layer (..., num_in) to (..., num_out), for inference on the CPU.

    Args:
        layer: its weights are copied.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _USUAL_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")


def packed_twin(fourm: FourM) -> FourM:
    """The same model with packed blocks and heads; everything else is shared with the one given.

    On other devices than processors, or for number types that they do not multiply, it is the model given.
    """
    weight = fourm.mask_token
    if not _can_pack(weight):
        return fourm
    shared = {id(tensor): tensor for tensor in chain(fourm.parameters(), fourm.buffers())}
    twin = copy.deepcopy(fourm, shared)
    parts = [twin.encoder, twin.decoder, twin.decoder_embeddings]
    for module in [twin, *chain.from_iterable(part.modules() for part in parts)]:
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child))
    return twin


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
