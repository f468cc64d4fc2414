"""Retrieval between scenes, by what the model predicts from each modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from ..fourm import FourM
from ..inputs import normalize_pixels
from ..token_likelihood import LIKELIHOOD_SHARE, likelihood, likelihood_table
from ..tokenizers.image import VQVAE
from ..tokens import Tokens
from .objective import masked_losses
from .pretrain import HELD_OUT
from .scene_masking import TEXTS
from .token_data import TokenData

_PATCH = 16


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


@dataclass(frozen=True)
class Fitted:
    """How a search by one modality ranks best: see `ModelSource`.

    Attributes:
        space_weights: by name of the space's modality.
        likelihood_share: 0..1.
    """

    space_weights: dict[str, float]
    likelihood_share: float


def fit_ranking(
    model: FourM,
    data: TokenData,
    queries: Mapping[str, str],
    pixels: str,
    tokenizers: Mapping[str, VQVAE],
    num: int,
) -> dict[str, Fitted]:
    """How much each of two spaces, and the likelihood, should count for each modality alone.

    The tenths that give the best mean reciprocal rank among the first `num` samples, known to the gallery
    by their pixels only.

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
    fitted: dict[str, Fitted] = {}
    for query, name in queries.items():
        asked = whole(data, [name], num, int(name == pixels))
        found = predict_all(model, asked, tokenizers)
        rows = ~asked[name].input_mask.all(1).numpy()
        of_first, of_second = (measures(found, gallery, space) for space in (first, second))
        tenths, share = best_tenths(of_first, of_second, rows)
        fitted[query] = Fitted({first: tenths / 10, second: (10 - tenths) / 10}, share / 10)
    return fitted


Measures = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Cosines and likelihoods `(Q, N)`."""


def best_tenths(first: Measures, second: Measures, rows: NDArray[np.bool_]) -> tuple[int, int]:
    """Tenths of the first space beside the second, and of likelihood beside cosine, that rank best.

    Of equals the most even spaces, then the share nearest `LIKELIHOOD_SHARE`.

    Args:
        first, second: of `(N, N)`, query i belongs to item i.
        rows: `(N,)`, queries that count.
    """

    def quality(tenths: tuple[int, int]) -> tuple[float, int, float]:
        space, share = tenths
        found = space / 10 * mixed(first, share / 10) + (1 - space / 10) * mixed(second, share / 10)
        mean = float((1 / own_ranks(found)[rows]).mean()) if rows.any() else 0.0
        return mean, -abs(space - 5), -abs(share - 10 * LIKELIHOOD_SHARE)

    return max(product(range(11), range(11)), key=quality)


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
    """Score every gallery item for every query, `(Q, N)`: the default score, the sum over `spaces`."""
    total = np.zeros((), dtype=np.float32)
    for space in spaces:
        total = total + mixed(measures(queries, gallery, space), LIKELIHOOD_SHARE)
    return np.asarray(total, dtype=np.float32)


def measures(queries: Predicted, gallery: Predicted, space: str) -> Measures:
    """Every gallery item for every query, in one space."""
    tables = likelihood_table(queries.log_probs[space])
    return (
        queries.vectors[space] @ gallery.vectors[space].T,
        likelihood(tables, gallery.tokens[space]).astype(np.float32),
    )


def mixed(measured: Measures, likelihood_share: float) -> NDArray[np.float32]:
    """Scores `(Q, N)`."""
    cosines, likelihoods = measured
    return np.asarray((1 - likelihood_share) * cosines + likelihood_share * likelihoods, dtype=np.float32)


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
