"""Batches from several data sets, and batches drawn ahead by other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..tokens import Tokens


class Batches(Protocol):
    """Where batches come from; number n is always the same one."""

    def draw(self, number: int) -> dict[str, Tokens]:
        """Inputs and targets by modality."""
        ...


class MixedBatches:
    """Draws each batch from one of several data sets, which may have different modalities.

    Args:
        parts: the data sets, and how often each is drawn from, relative to the others.
        seed: of the choice.
    """

    def __init__(self, parts: Sequence[tuple[Batches, float]], *, seed: int = 0) -> None:
        self._parts = [batches for batches, _ in parts]
        weights = np.array([weight for _, weight in parts], np.float64)
        self._odds, self._seed = weights / weights.sum(), seed

    def which(self, number: int) -> int:
        """The data set of batch `number`."""
        if len(self._parts) == 1:
            return 0
        # Another stream than that of the batches themselves, which have the same seed and number.
        return int(np.random.default_rng([self._seed, number, 1]).choice(len(self._odds), p=self._odds))

    def draw(self, number: int) -> dict[str, Tokens]:
        """Batch `number`."""
        return self._parts[self.which(number)].draw(number)


class _Numbered(Dataset[dict[str, Tokens]]):
    """Batches by number, made in the process that draws them."""

    def __init__(self, make: Callable[[], Batches]) -> None:
        self._make = make

    @cached_property
    def _batches(self) -> Batches:
        return self._make()

    def __getitem__(self, index: int) -> dict[str, Tokens]:
        return self._batches.draw(index)


class AheadBatches:
    """Has other processes draw the batches that come next; what is drawn stays the same.

    Args:
        make: makes what to draw from, in each process anew: mapped files should not travel.
        numbers: of the batches that will be asked for, in this order.
        workers: processes.
    """

    def __init__(self, make: Callable[[], Batches], numbers: Sequence[int], workers: int) -> None:
        loader: DataLoader[dict[str, Tokens]] = DataLoader(
            _Numbered(make),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            multiprocessing_context="spawn",  # forks of a process with threads can hang
        )
        self._coming = zip(numbers, loader, strict=True)

    def draw(self, number: int) -> dict[str, Tokens]:
        """The next of the expected ones."""
        expected, batch = next(self._coming)
        assert number == expected
        return batch
