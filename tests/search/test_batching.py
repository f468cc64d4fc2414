"""Concurrent model calls: made together, answered apart."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from anyseek.search.batching import Batcher, _Call


@dataclass
class Answer:
    vectors: np.ndarray
    log_probs: np.ndarray | None


class Doubling:
    """Embeds {"x": [v]} to 2 v, fails on negative v, and can be held inside a pass."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.held = False
        self.inside = 0

    def embed(self, items: Sequence[Mapping[str, Any]], *, log_probs: bool = False) -> dict[str, Answer]:
        self.inside += 1
        assert self.inside == 1, "one pass at a time"
        try:
            self.passes.append(len(items))
            if self.held:
                self.entered.release()
                self.may_go.acquire()
            values = np.array([item["x"] for item in items], dtype=np.float32)
            if (values < 0).any():
                raise ValueError(f"negative among {values.ravel().tolist()}")
            if (values == 666).any():
                raise KeyboardInterrupt
            return {"space": Answer(2 * values, np.stack([values, values], axis=1) if log_probs else None)}
        finally:
            self.inside -= 1

    def embed_guided(
        self, queries: Sequence[Sequence[tuple[float, Mapping[str, Any]]]], *, log_probs: bool = False
    ) -> dict[str, Answer]:
        """Weighted sums of what is given."""
        sums = [{"x": sum(weight * given["x"] for weight, given in query)} for query in queries]
        return self.embed(sums, log_probs=log_probs)


def item(value: float) -> list[tuple[float, dict[str, np.ndarray]]]:
    return [(1.0, {"x": np.array([value])})]


def wait_until_waiting(batcher: Batcher, count: int) -> None:
    while len(batcher._waiting) < count:
        threading.Event().wait(0.001)


def test_calls_that_arrive_during_a_pass_share_the_next() -> None:
    model = Doubling()
    batcher = Batcher(model)
    model.held = True
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batcher.embed, [item(0)])
        model.entered.acquire()
        others = [pool.submit(batcher.embed, [item(i), item(10 * i)]) for i in range(1, 9)]
        wait_until_waiting(batcher, 8)
        model.held = False
        model.may_go.release()
        assert first.result().vectors["space"].tolist() == [[0]]
        for i, future in enumerate(others, start=1):
            assert future.result().vectors["space"].tolist() == [[2 * i], [20 * i]]
    assert model.passes == [1, 16]


def test_a_pass_takes_no_more_than_the_batch_size_and_loses_nobody() -> None:
    model = Doubling()
    batcher = Batcher(model, max_batch=4)
    barrier = threading.Barrier(12)

    def ask(i: int) -> list[list[float]]:
        barrier.wait()
        return batcher.embed([item(i)] * 3, log_probs=bool(i % 2)).vectors["space"].tolist()

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == [[[2 * i]] * 3 for i in range(12)]
    assert max(model.passes) == 3
    batcher.embed([item(1)] * 9)  # one larger call is still one pass
    assert model.passes[-1] == 9


def test_calls_with_and_without_distributions_do_not_mix() -> None:
    batcher = Batcher(Doubling())
    assert batcher.embed([item(1)]).log_probs == {}
    assert batcher.embed([item(1)], log_probs=True).log_probs["space"].shape == (1, 2, 1)


def test_an_error_reaches_only_the_call_that_made_it() -> None:
    model = Doubling()
    batcher = Batcher(model)
    model.held = True
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batcher.embed, [item(0)])
        model.entered.acquire()
        others = [pool.submit(batcher.embed, [item(-i if i % 3 == 0 else i)]) for i in range(1, 9)]
        wait_until_waiting(batcher, 8)
        model.held = False
        model.may_go.release()
        first.result()
        for i, future in enumerate(others, start=1):
            if i % 3 == 0:
                with pytest.raises(ValueError, match=rf"^negative among \[-{i}\.0\]$"):
                    future.result()
            else:
                assert future.result().vectors["space"].tolist() == [[2 * i]]


def test_an_interrupted_pass_leaves_the_other_calls_to_their_own_threads() -> None:
    model = Doubling()
    batcher = Batcher(model)
    other = _Call([item(5)], log_probs=False)
    batcher._waiting.append(other)  # as if its thread waited for the model
    with pytest.raises(KeyboardInterrupt):
        batcher.embed([item(666)])
    assert model.passes == [2]
    assert batcher._waiting == [other]
    assert batcher.embed([item(3)]).vectors["space"].tolist() == [[6]]
    assert other.result is not None
    assert other.result.vectors["space"].tolist() == [[10]]


def test_many_threads_get_their_own_answers() -> None:
    batcher = Batcher(Doubling(), max_batch=8)
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda i: batcher.embed([item(i)]).vectors["space"][0, 0], range(500))
        assert list(answers) == [2 * i for i in range(500)]


def test_blends_and_plain_items_share_a_pass() -> None:
    model = Doubling()
    blend = [(0.5, {"x": np.array([8.0])}), (-1.0, {"x": np.array([1.0])})]
    answer = Batcher(model).embed([blend, item(7)], log_probs=True)
    assert answer.vectors["space"].tolist() == [[6], [14]]
    assert answer.log_probs["space"].tolist() == [[[3], [3]], [[7], [7]]]
    assert model.passes == [2]
    assert Batcher(model).embed([[(2.0, {"x": np.array([8.0])})]]).vectors["space"].tolist() == [[32]]
