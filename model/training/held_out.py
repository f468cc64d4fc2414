"""How good a model is on samples that it was not trained on: losses, and what is found by likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fourm import FourM
from ..inputs import normalize_pixels
from ..modalities import Modality
from ..tokens import Tokens
from .batches import Batches
from .objective import masked_losses, to_device
from .pretrain import HELD_OUT
from .token_data import TokenData

_AT_ONCE = 64


class HeldOutLosses:
    """Mean cross entropies in nats over some fixed batches.

    Args:
        batches: of each data set by name, of samples that are not trained on.
        num_batches: of each.
    """

    def __init__(self, batches: Mapping[str, Batches], num_batches: int) -> None:
        self._batches, self._num = batches, num_batches

    @torch.inference_mode()
    def __call__(self, model: FourM) -> dict[str, float]:
        """`held_out`, the mean over modalities and data sets, and `held_out.DATA.MODALITY`."""
        device, found = model.mask_token.device, dict[str, float]()
        for name, batches in self._batches.items():
            losses: dict[str, list[float]] = {}
            for number in range(self._num):
                for modality, loss in masked_losses(model, to_device(batches.draw(number), device)).items():
                    losses.setdefault(modality, []).append(loss.item())
            found |= {f"{HELD_OUT}.{name}.{key}": _rounded(values) for key, values in sorted(losses.items())}
        return {HELD_OUT: _rounded(list(found.values()))} | found


class HeldOutRetrieval:
    """R@1 and R@10: how often a sample is found among all by one of its modalities.

    A sample's score is the probability that what is predicted from the query gives the tokens of its vectors.

    Args:
        data: the samples; their first renderings and variants are taken.
        modalities: rows of the model, by checkpoint name.
        queries: modalities to ask with.
        spaces: targets of which a sample has one vector (`tok_dinov2_global`).
    """

    def __init__(
        self,
        data: TokenData,
        modalities: Mapping[str, Modality],
        queries: Sequence[str],
        spaces: Sequence[str],
    ) -> None:
        self._data, self._rows, self._queries, self._spaces = data, modalities, queries, spaces

    @torch.inference_mode()
    def __call__(self, model: FourM) -> dict[str, float]:
        """`r@1.QUERY` and `r@10.QUERY`, with the scores of all spaces added up."""
        found: dict[str, float] = {}
        for query in self._queries:
            scores = self._scores(model, query)
            own = np.diagonal(scores)[:, None]
            # Ties count half: a model that cannot tell samples apart must not look as if it could.
            rank = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
            found |= {f"r@{k}.{query}": round(float((rank < k).mean()), 4) for k in (1, 10)}
        return found

    def _scores(self, model: FourM, query: str) -> NDArray[np.float32]:
        column, total = self._data.columns[query], np.zeros((), np.float32)
        parts: dict[str, list[Tensor]] = {space: [] for space in self._spaces}
        for start in range(0, len(column), _AT_ONCE):
            tokens = shown(self._rows[query], column[start : start + _AT_ONCE])
            encoded = model.encode(to_device({query: tokens}, model.mask_token.device))
            for space, logits in model.decode(encoded, self._spaces).items():
                parts[space].append(logits.float().log_softmax(-1).cpu())
        for space in self._spaces:
            ids = self._data.columns[space][:, 0, 0].astype(np.int64)
            log_probs = torch.cat(parts[space])  # (N, heads, V)
            heads = range(ids.shape[1])
            total = total + sum((log_probs[:, h, ids[:, h]] for h in heads), torch.zeros(())).numpy()
        return np.asarray(total, np.float32)


def shown(row: Modality, column: NDArray[np.generic]) -> Tokens:
    """Samples of one modality as input, nothing of them hidden: their first renderings and variants."""
    if row.kind == "pix":
        pixels = torch.from_numpy(normalize_pixels(column[:, 0]))
        return Tokens(pixels, torch.zeros(len(column), row.max_tokens, dtype=torch.bool))
    values = torch.from_numpy(column[:, 0, 0].astype(np.float32 if row.kind == "emb" else np.int64))
    if row.kind == "img":
        return Tokens(values, torch.zeros(values.shape, dtype=torch.bool))
    return Tokens(values, ~values.any(-1) if row.kind == "emb" else values == 0)


def evaluate_all(*evaluations: Callable[[FourM], dict[str, float]]) -> Callable[[FourM], dict[str, float]]:
    """Several evaluations as one."""

    def evaluate(model: FourM) -> dict[str, float]:
        found: dict[str, float] = {}
        for evaluation in evaluations:
            found |= evaluation(model)
        return found

    return evaluate


def _rounded(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
