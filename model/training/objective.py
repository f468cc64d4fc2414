"""The loss of masked multimodal training (arXiv 2312.06647)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..blocks import attention_bias
from ..fourm import FourM
from ..tokens import Tokens


def masked_losses(model: FourM, batch: Mapping[str, Tokens]) -> dict[str, Tensor]:
    """Mean cross entropy in nats of each target modality that the batch asks for.

    Samples may have no input at all. Raises InputError where the batch asks for nothing.
    """
    asked = {
        name: tokens.target_mask
        for name, tokens in batch.items()
        if tokens.target_mask is not None and not bool(tokens.target_mask.all())
    }
    if not asked:
        raise InputError("The batch asks for nothing: no modality has targets.")
    # Most batches show few modalities: the others would be embedded for nothing.
    shown = {
        name: tokens
        for name, tokens in batch.items()
        if name in model.encoder_embeddings and not bool(tokens.input_mask.all())
    }
    # Attention over no keys at all is undefined: where nothing is shown, keep one of padding.
    num_tokens = int(_used(tokens.input_mask for tokens in shown.values()).max()) if shown else 1
    encoded = model.encode(shown or batch, num_tokens=num_tokens)
    targets = model.select_targets(
        {name: batch[name] for name in asked}, int(_used(asked.values()).max()), order=list(asked)
    )
    x = targets.content + targets.emb
    y = model.run_decoder(x, encoded, attention_bias(targets.blocked, x.dtype))
    return model.losses(y, targets, list(asked)).by_modality


def _used(masks: Iterable[Tensor]) -> Tensor:
    """Used tokens of each sample, (B,)."""
    return (~torch.cat(list(masks), dim=1)).sum(1)


class Objective(nn.Module):
    """`masked_losses` as a module, so that what wraps modules for several processes can wrap it.

    Args:
        fourm: the model.
        touch_all: make every parameter outside the blocks part of every loss, with gradient 0 where the batch
            does not use it: sharded training expects the same gradients in all processes.
    """

    def __init__(self, fourm: FourM, *, touch_all: bool = False) -> None:
        super().__init__()
        self.fourm = fourm
        self._touch_all = touch_all

    def forward(self, batch: Mapping[str, Tokens]) -> dict[str, Tensor]:
        """Losses by target modality."""
        losses = masked_losses(self.fourm, batch)
        if not self._touch_all:
            return losses
        blocks = {id(p) for p in chain(self.fourm.encoder.parameters(), self.fourm.decoder.parameters())}
        others = [p for p in self.fourm.parameters() if p.requires_grad and id(p) not in blocks]
        nothing = torch.stack([p.sum() for p in others]).sum() * 0
        first = next(iter(losses))
        return {**losses, first: losses[first] + nothing}


def weighted_mean(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss to minimise: the mean over modalities, each counting 1 where `weights` does not name it."""
    factors = [weights.get(name, 1.0) for name in losses]
    pairs = zip(factors, losses.values(), strict=True)
    return torch.stack([factor * loss for factor, loss in pairs]).sum() / max(sum(factors), 1e-12)


def to_device(batch: Mapping[str, Tokens], device: torch.device) -> dict[str, Tokens]:
    """A batch on another device."""
    if device.type == "cpu":
        return dict(batch)
    return {name: _moved(tokens, device) for name, tokens in batch.items()}


def _moved(tokens: Tokens, device: torch.device) -> Tokens:
    optional = (tokens.target_mask, tokens.attention_code)
    return Tokens(
        tokens.tensor.to(device, non_blocking=True),
        tokens.input_mask.to(device, non_blocking=True),
        *(None if mask is None else mask.to(device, non_blocking=True) for mask in optional),
    )
