"""Model calls of concurrent requests, made together.

A forward pass over eight items takes far less than eight passes over one. There is no worker thread and no
timer: whoever finds the model free runs everything that waits, its own call included, and hands the others
their results. An idle server answers without delay, a busy one batches by itself (what arrives during one
pass makes the next), and there is nothing to start, to shut down or to lose, in whatever application this is
mounted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Items: TypeAlias = "Sequence[Mapping[str, NDArray[Any]]]"
Blends: TypeAlias = "Sequence[Sequence[tuple[float, Mapping[str, NDArray[Any]]]]]"
"""For each embedding what it is predicted from, with weights (composition.py)."""


class Embedded(Protocol):
    """What this room reads of the model's embeddings of N items in one space."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(N, D) float32, L2-normalised."""
        ...

    @property
    def log_probs(self) -> NDArray[np.float32] | None:
        """(N, H, V) float32 log-probabilities, if asked for."""
        ...


class Embeds(Protocol):
    """The part of the model's `Embedder` that is called here."""

    def embed(self, items: Items, *, log_probs: bool = False) -> Mapping[str, Embedded]:
        """Embed N items, each any subset of modalities, in every space."""
        ...

    def embed_guided(self, queries: Blends, *, log_probs: bool = False) -> Mapping[str, Embedded]:
        """Embed N blends in every space."""
        ...


@dataclass(frozen=True, eq=False)
class CallResult:
    """Vectors and token distributions of the blends of one call: per space (n, D) and (n, H, V)."""

    vectors: Mapping[str, NDArray[np.float32]]
    log_probs: Mapping[str, NDArray[np.float32]]


@dataclass(eq=False)
class _Call:
    blends: Blends
    log_probs: bool
    done: bool = False
    result: CallResult | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Batcher:
    """Embeds for many threads at once.

    Args:
        embedder: makes the forward passes, one at a time.
        max_batch: blends in one pass; a single call with more is still one pass.
    """

    embedder: Embeds
    max_batch: int = 32
    _waiting: list[_Call] = field(default_factory=list[_Call])
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _model: threading.Lock = field(default_factory=threading.Lock)

    def embed(self, blends: Blends, *, log_probs: bool = False) -> CallResult:
        """Embed blends, in one pass with those of other threads.

        Raises:
            Exception: whatever the model raises for these; never what it raises for another thread's.
        """
        call = _Call(blends, log_probs)
        with self._guard:
            self._waiting.append(call)
        try:
            while not call.done:
                with self._model:  # those who wait here are served by the one inside
                    if not call.done:
                        self._run(self._take())
        except BaseException:  # interrupted: nobody will fetch this call's result
            with self._guard:
                self._waiting = [other for other in self._waiting if other is not call]
            raise
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    def _take(self) -> list[_Call]:
        """The oldest calls that fit one pass together."""
        with self._guard:
            batch, size = self._waiting[:1], len(self._waiting[0].blends)
            for call in self._waiting[1:]:
                if call.log_probs == batch[0].log_probs and size + len(call.blends) <= self.max_batch:
                    batch.append(call)
                    size += len(call.blends)
            self._waiting = [call for call in self._waiting if call not in batch]
        return batch

    def _run(self, batch: list[_Call]) -> None:
        try:
            self._embed_together(batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error, batch[0].done = error, True
            else:  # find whose it is
                for call in batch:
                    self._run([call])
        finally:
            with self._guard:  # an interrupt in this thread leaves the others' calls to the others
                self._waiting[:0] = [call for call in batch if not call.done and call not in self._waiting]

    def _embed_together(self, batch: list[_Call]) -> None:
        blends = [blend for call in batch for blend in call.blends]
        log_probs = batch[0].log_probs
        if all(_is_plain(blend) for blend in blends):  # as nearly all are: spare the pass from nothing
            spaces = self.embedder.embed([blend[0][1] for blend in blends], log_probs=log_probs)
        else:
            spaces = self.embedder.embed_guided(blends, log_probs=log_probs)
        start = 0
        for call in batch:
            here = slice(start, start + len(call.blends))
            start = here.stop
            call.result = CallResult(
                {name: space.vectors[here] for name, space in spaces.items()},
                {
                    name: space.log_probs[here]
                    for name, space in spaces.items()
                    if space.log_probs is not None
                },
            )
            call.done = True


def _is_plain(blend: Sequence[tuple[float, Mapping[str, NDArray[Any]]]]) -> bool:
    return len(blend) == 1 and blend[0][0] == 1
