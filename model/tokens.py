"""Batches of tokens: what goes into a 4M model, and how tokens are selected and masked on the way.

Masks are boolean, True = ignore, throughout (arXiv 2312.06647).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .modalities import Modality
from .presets import FourMConfig

PADDING_ID = -1
"""Modality id of padding and register tokens."""


@dataclass(frozen=True)
class Tokens:
    """One modality of a batch of samples.

    Attributes:
        tensor: ids (B, n) or (B, rows, columns); float images (B, 3, H, W), ImageNet-normalised; or vectors
            (B, n, channels).
        input_mask: bool (B, n), False where a token is given to the encoder.
        target_mask: bool (B, n), False where it is to be predicted; None: no targets in this batch.
        attention_code: int (B, n), how far targets see (`attention_mask`); None: the usual code of the kind.
    """

    tensor: Tensor
    input_mask: Tensor
    target_mask: Tensor | None = None
    attention_code: Tensor | None = None


@dataclass(frozen=True)
class Selected:
    """Tokens chosen from all modalities, used ones first.

    Attributes:
        content: (B, N, D), zero at padding.
        emb: position + modality (B, N, D), zero at padding.
        mask: bool (B, N), True = padding.
        ids: int16 (B, N), modality of each token, -1 at padding.
    """

    content: Tensor
    emb: Tensor
    mask: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Targets(Selected):
    """Training input of the decoder.

    Attributes:
        target_ids: int64 (B, M), what to predict at each place; 0 at padding.
        blocked: bool (B, M, M), True where query i must not see key j.
    """

    target_ids: Tensor
    blocked: Tensor


def attention_mask(code: Tensor, ids: Tensor, config: FourMConfig) -> Tensor:
    """Which keys each target must not see.

    With c the running sum of the code, query i sees key j when j < c_i: [4, 0, 0, 0] is one block in which
    all see all, [1, 1, 1, 1] is causal.

    Args:
        code: int (B, M).
        ids: modality (B, M) of each token, also at padding.
        config: whether the mask is causal instead, and whether modalities are kept apart.

    Returns:
        bool (B, M, M), True = blocked.
    """
    key = torch.arange(code.shape[1], device=code.device)
    if config.decoder_causal_mask:
        blocked = (key[None] > key[:, None]).expand(code.shape[0], -1, -1)
    else:
        blocked = key[None, None] >= code.cumsum(1)[:, :, None]
    if config.decoder_sep_mask:
        blocked = blocked | (ids[:, None] != ids[:, :, None])
    return blocked


def usual_code(target_mask: Tensor, modality: Modality) -> Tensor:
    """The attention code (B, n) of a modality's targets.

    It is 1 at each token of a sequence; in a grid the first target holds their number and the others 0.
    """
    used = ~target_mask
    if modality.kind == "seq":
        return used.long()
    is_first = used & (used.cumsum(1) == 1)
    return torch.where(is_first, used.sum(1, keepdim=True), 0)


def concatenate(parts: Sequence[tuple[Tensor, Tensor, Tensor, int]]) -> Selected:
    """Join (content, emb, mask, modality id) of several modalities along tokens, order unchanged."""
    return Selected(
        torch.cat([content for content, *_ in parts], dim=1),
        torch.cat([emb.expand(content.shape) for content, emb, *_ in parts], dim=1),
        torch.cat([mask for *_, mask, _ in parts], dim=1),
        torch.cat(
            [mask.new_full(mask.shape, mod_id, dtype=torch.int16) for *_, mask, mod_id in parts], dim=1
        ),
    )


def used_first_index(mask: Tensor) -> Tensor:
    """Order (B, n) that brings used tokens to the front and changes nothing else."""
    return mask.to(torch.uint8).argsort(dim=1, stable=True)


def used_first(joined: Selected, num_tokens: int | None) -> Selected:
    """The first `num_tokens` used tokens of each sample, or with None as many as the fullest sample has."""
    count = int((~joined.mask).sum(1).max()) if num_tokens is None else num_tokens
    return take(joined, used_first_index(joined.mask)[:, :count])


def take(joined: Selected, index: Tensor) -> Selected:
    """Tokens at `index` (B, N); what is masked among them becomes padding."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None]
    mask = joined.mask[rows, index]
    hidden = mask[..., None]
    return Selected(
        joined.content[rows, index].masked_fill(hidden, 0),
        joined.emb[rows, index].masked_fill(hidden, 0),
        mask,
        joined.ids[rows, index].masked_fill(mask, PADDING_ID),
    )
