"""Retrieval between scenes, by what the model predicts from each modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from ..fourm import FourM
from ..inputs import normalize_pixels
from ..tokenizers.image import VQVAE
from ..tokens import Tokens
from .objective import masked_losses
from .pretrain import HELD_OUT
from .scene_masking import TEXTS
from .token_data import TokenData

_PATCH = 16
LIKELIHOOD_WEIGHT = 1.0
"""Of mean log probabilities beside cosines: as in search, where their share is 0.8 in units of log 64."""


@dataclass(frozen=True)
class Predicted:
    """What the model says of N samples, by target modality.

    Attributes:
        vectors: softly decoded unit vectors `(N, C)`.
        tokens: likeliest ids `(N, heads)`.
        log_probs: `(N, heads, V)`.
    """

    vectors: dict[str, NDArray[np.float32]]
    tokens: dict[str, NDArray[np.int64]]
    log_probs: dict[str, NDArray[np.float32]]


@torch.inference_mode()
def predict_all(
    model: FourM, batch: Mapping[str, Tokens], tokenizers: Mapping[str, VQVAE], batch_size: int = 250
) -> Predicted:
    """Run the model over a batch of any size and decode softly: the expected code of every head."""
    num = len(next(iter(batch.values())).tensor)
    found = Predicted({}, {}, {})
    logits: dict[str, list[torch.Tensor]] = {name: [] for name in tokenizers}
    for start in range(0, num, batch_size):
        part = {
            name: Tokens(
                tokens.tensor[start : start + batch_size], tokens.input_mask[start : start + batch_size]
            )
            for name, tokens in batch.items()
        }
        with torch.autocast("cpu", torch.bfloat16):
            for name, value in model.decode(model.encode(part), tuple(tokenizers)).items():
                logits[name].append(value.float())
    for name, tokenizer in tokenizers.items():
        log_probs = torch.cat(logits[name]).log_softmax(-1)
        codes = torch.einsum("nhk,hkc->nhc", log_probs.exp(), tokenizer.codebook()).flatten(1)
        found.vectors[name] = F.normalize(tokenizer.decode_codes(codes), dim=1).numpy()
        found.tokens[name] = log_probs.argmax(-1).numpy()
        found.log_probs[name] = log_probs.numpy()
    return found


def held_out_losses(model: FourM, batches: Iterable[Mapping[str, Tokens]]) -> dict[str, float]:
    """Mean losses in nats over some batches: `held_out.NAME` of each target modality, and `held_out`."""
    sums: dict[str, list[float]] = {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in batches:
            for name, loss in masked_losses(model, batch).items():
                sums.setdefault(name, []).append(loss.item())
    found = {f"{HELD_OUT}.{name}": round(float(np.mean(losses)), 4) for name, losses in sorted(sums.items())}
    return found | {HELD_OUT: round(float(np.mean(list(found.values()))), 4)}


def evaluate_queries(
    model: FourM,
    data: TokenData,
    queries: Mapping[str, Sequence[str]],
    pixels: str,
    tokenizers: Mapping[str, VQVAE],
    num: int,
) -> dict[str, float]:
    """R@1 and R@10 of queries among the first `num` samples, known to the gallery by their pixels only.

    Args:
        model: to evaluate.
        data: samples.
        queries: names of modalities, by what the report calls them; pixels alone ask with rendering 1.
        pixels: name of that modality.
        tokenizers: by name of their space's modality.
        num: at most.
    """
    num = min(num, len(data))
    gallery = predict_all(model, whole(data, [pixels], num, 0), tokenizers)
    report: dict[str, float] = {}
    for query, names in queries.items():
        found = predict_all(model, whole(data, names, num, int(list(names) == [pixels])), tokenizers)
        row = ranks(scores(found, gallery, tuple(tokenizers)))
        report |= {f"{query}.{key}": round(row[key], 4) for key in ("r1", "r10")}
    return report


def fit_space_weights(
    model: FourM,
    data: TokenData,
    queries: Mapping[str, str],
    pixels: str,
    tokenizers: Mapping[str, VQVAE],
    num: int,
) -> dict[str, dict[str, float]]:
    """How much each of two spaces should count for each modality alone: the share in tenths that gives the
    best mean reciprocal rank among the first `num` samples, known to the gallery by their pixels only.

    Args:
        model: to measure.
        data: samples that tell, not those to judge by later.
        queries: names of modalities, by what the result calls them; pixels ask with rendering 1. A sample
            that has nothing of one is not asked for by it.
        pixels: name of that modality.
        tokenizers: by name of their space's modality, two.
        num: at most.
    """
    num = min(num, len(data))
    gallery = predict_all(model, whole(data, [pixels], num, 0), tokenizers)
    first, second = tokenizers
    fitted: dict[str, dict[str, float]] = {}
    for query, name in queries.items():
        asked = whole(data, [name], num, int(name == pixels))
        found = predict_all(model, asked, tokenizers)
        a, b = (scores(found, gallery, (space,)) for space in (first, second))
        tenths = best_tenths(a, b, ~asked[name].input_mask.all(1).numpy())
        fitted[query] = {first: tenths / 10, second: (10 - tenths) / 10}
    return fitted


def best_tenths(first: NDArray[np.float32], second: NDArray[np.float32], rows: NDArray[np.bool_]) -> int:
    """How many tenths of the first score beside the second rank best, the most even of equals.

    Args:
        first, second: `(N, N)`, query i belongs to item i.
        rows: `(N,)`, queries that count.
    """

    def quality(tenths: int) -> tuple[float, int]:
        ranks = own_ranks(tenths / 10 * first + (1 - tenths / 10) * second)
        return float((1 / ranks[rows]).mean()) if rows.any() else 0.0, -abs(tenths - 5)

    return max(range(11), key=quality)


def whole(data: TokenData, names: Sequence[str], num: int, rendering: int) -> dict[str, Tokens]:
    """Modalities as queries give them: all there is of the first `num` samples, in their first variant."""
    batch: dict[str, Tokens] = {}
    for name in names:
        column = data.columns[name]
        view = min(rendering, column.shape[1] - 1)
        if column.dtype == np.uint8:
            pixels = normalize_pixels(np.asarray(column[:num, view]))
            patches = (pixels.shape[-1] // _PATCH) ** 2
            batch[name] = Tokens(torch.from_numpy(pixels), torch.zeros(num, patches, dtype=torch.bool))
            continue
        ids = np.asarray(column[:num, view, 0]).astype(np.int64)
        hidden = ids == 0 if name in TEXTS else np.zeros(ids.shape, bool)
        batch[name] = Tokens(torch.from_numpy(ids), torch.from_numpy(hidden))
    return batch


def scores(queries: Predicted, gallery: Predicted, spaces: Sequence[str]) -> NDArray[np.float32]:
    """Score every gallery item for every query, `(Q, N)`: cosine and likelihood, the sum over `spaces`."""
    total = np.zeros((), dtype=np.float32)
    for name in spaces:
        total = total + queries.vectors[name] @ gallery.vectors[name].T
        total = total + LIKELIHOOD_WEIGHT * likelihood(queries.log_probs[name], gallery.tokens[name])
    return np.asarray(total, dtype=np.float32)


def likelihood(log_probs: NDArray[np.float32], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean over heads of log p(token): `(Q, H, V)` and `(N, H)` to `(Q, N)`."""
    total = np.zeros((len(log_probs), len(tokens)), dtype=np.float32)
    for head in range(tokens.shape[1]):
        total += log_probs[:, head][:, tokens[:, head]]
    return total / tokens.shape[1]


def ranks(score: NDArray[np.float32]) -> dict[str, float]:
    """R@1, R@5, R@10 and median rank where query i belongs to item i."""
    rank = own_ranks(score)
    return {
        **{f"r{k}": float((rank <= k).mean()) for k in (1, 5, 10)},
        "median_rank": float(np.median(rank)),
    }


def own_ranks(score: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Rank `(Q,)` from 1 of item i for query i; ties count against the query."""
    return (score >= np.diag(score)[:, None]).sum(1)
