"""The gradients of a step from its parts: one after another, or side by side on a processor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..tokens import Tokens
from .objective import Objective, to_device, weighted_mean

Draw = Callable[[], Mapping[str, Tokens]]
Found = list[dict[str, float]]


class Gradients(Protocol):
    """Leaves the mean gradients of several batches in the model's parameters."""

    def __call__(self, draws: Sequence[Draw]) -> Found:
        """Returns the losses of each batch by modality."""
        ...


class Scaled:
    """The backward pass of one batch.

    Args:
        weights: of the losses of modalities.
        bfloat16: whether matrix products run in it.
        device: where.
    """

    def __init__(self, weights: Mapping[str, float], *, bfloat16: bool, device: torch.device) -> None:
        self._weights, self._bfloat16, self._device = weights, bfloat16, device

    def __call__(self, objective: nn.Module, batch: Mapping[str, Tokens], share: float) -> dict[str, float]:
        """Add `share` of the gradients to the module's; returns the losses."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            losses = objective(to_device(batch, self._device))
        (share * weighted_mean(losses, self._weights)).backward()
        names = list(losses)
        return dict(zip(names, torch.stack([losses[name].detach() for name in names]).tolist(), strict=True))


class InTurn:
    """One batch after another; those of other processes are waited for at the last one.

    Args:
        objective: plain, or spread over processes.
        backward: of one batch.
    """

    def __init__(self, objective: nn.Module, backward: Scaled) -> None:
        self._objective, self._backward = objective, backward

    def __call__(self, draws: Sequence[Draw]) -> Found:
        """See Gradients."""
        self._objective.zero_grad()
        return [self._add(draw, 1 / len(draws), is_last=i == len(draws) - 1) for i, draw in enumerate(draws)]

    def _add(self, draw: Draw, share: float, *, is_last: bool) -> dict[str, float]:
        apart = isinstance(self._objective, DistributedDataParallel) and not is_last
        with self._objective.no_sync() if apart else nullcontext():  # pyright: ignore[reportCallIssue]
            return self._backward(self._objective, draw(), share)


class SideBySide:
    """Several batches at a time, each on one core: matrix products of a small model are too small to share.

    Args:
        objective: of the model.
        backward: of one batch.
        threads: batches at a time; of no effect on the result.
    """

    def __init__(self, objective: Objective, backward: Scaled, threads: int) -> None:
        self._objective, self._backward = objective, backward
        self._replicas = [_replica(objective) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, draws: Sequence[Draw]) -> Found:
        """See Gradients."""
        self._objective.zero_grad()
        found: Found = []
        for start in range(0, len(draws), len(self._replicas)):
            now = draws[start : start + len(self._replicas)]
            used = self._replicas[: len(now)]
            found += self._pool.map(self._one, used, now, [1 / len(draws)] * len(now))
            self._collect(used)
        return found

    def _one(self, replica: Objective, draw: Draw, share: float) -> dict[str, float]:
        replica.zero_grad()
        return self._backward(replica, draw(), share)

    def _collect(self, replicas: Sequence[Objective]) -> None:
        """Add up in the order of the batches: sums do not depend on which was done first."""
        for mine, *theirs in zip(
            self._objective.parameters(), *(replica.parameters() for replica in replicas), strict=True
        ):
            for gradient in (other.grad for other in theirs if other.grad is not None):
                mine.grad = gradient if mine.grad is None else mine.grad + gradient


def _replica(objective: Objective) -> Objective:
    """A copy that shares the weights but not their gradients."""
    copied = copy.deepcopy(objective)
    for mine, shared in zip(copied.parameters(), objective.parameters(), strict=True):
        mine.data = shared.data
    return copied
