"""Random adds, replacements, removals, publishing and reopening against a model of plain dicts.

Named invariants, checked on a reader that stays open and on one that has just opened:
items       exactly the live items, with their newest attributes
rows        exactly their newest rows, each once, with its own vector and tokens
exactness   search finds what brute force over the model finds, filtered or not
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from anyseek.storage import Snapshot, Store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

IDS = [f"{number}" for number in range(12)]
VIEWS = ("joint", "rgb", "caption")

_ids = st.lists(st.sampled_from(IDS), unique=True, max_size=6)
_views = st.sets(st.sampled_from(VIEWS))


class Library(RuleBasedStateMachine):
    """`model` maps each live id to its version and views."""

    samples = None  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "library"
        self.model: dict[str, tuple[int, set[str]]] = {}
        self.version = 0
        self.publishings = 0

    @initialize()
    def create(self) -> None:
        self.store = Store.open(self.path, create=True)
        self.reader = Store.open(self.path)
        self.writer = self.store.writer()
        self.samples.create(self.writer)
        self.is_checked = True

    @rule(ids=_ids, views=_views)
    def commit(self, ids: list[str], views: set[str]) -> None:
        self.version += 1
        pairs = [(id, view) for id in ids for view in sorted(views)]
        items = self.samples.items(ids, self.version)
        self.writer.commit("photos", items=items, rows=self.samples.rows_of(pairs, self.version))
        self.model |= dict.fromkeys(ids, (self.version, views))
        self.is_checked = False

    @rule(ids=_ids)
    def remove(self, ids: list[str]) -> None:
        assert self.writer.remove("photos", ids) == len(set(ids) & self.model.keys())
        for id in ids:
            self.model.pop(id, None)
        self.is_checked = False

    @rule()
    def publish(self) -> None:
        generation = self.writer.publish("photos")
        assert generation.num_items == len(self.model)
        assert generation.num_rows == sum(len(views) for _, views in self.model.values())
        self.is_checked = False

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.store.close()
        self.store = Store.open(self.path)
        self.writer = self.store.writer()

    @precondition(lambda self: not self.is_checked)
    @rule(seed=st.integers(0, 1000))
    def look(self, seed: int) -> None:
        """Only sometimes, so that readers also meet several changes at once."""
        self._compare(self.reader.snapshot("photos"), seed)
        with Store.open(self.path) as new:
            self._compare(new.snapshot("photos"), seed)
        self.is_checked = True

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "store"):
            assert self.store.collection("photos").num_items == len(self.model)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.look(0)
            self.writer.close()
            self.store.close()
            self.reader.close()
        self.folder.cleanup()

    def _compare(self, snapshot: Snapshot, seed: int) -> None:
        ids = list(snapshot.item_ids)
        assert sorted(ids) == sorted(self.model)
        expected = [{"name": id, "version": self.model[id][0]} for id in ids]
        assert snapshot.attributes.to_pylist() == expected
        for view in VIEWS:
            rows = np.arange(snapshot.num_rows(view))
            owners = [ids[ordinal] for ordinal in snapshot.items_of(view, rows)]
            assert sorted(owners) == sorted(id for id in self.model if view in self.model[id][1])
            for space in self.samples.spaces:
                self._compare_rows(snapshot, space.name, view, owners, seed)

    def _compare_rows(self, snapshot: Snapshot, space: str, view: str, owners: list[str], seed: int) -> None:
        rng = np.random.default_rng(seed)
        rows = np.arange(len(owners))
        dim = next(each.dim for each in self.samples.spaces if each.name == space)
        given = [self.samples.vector(space, id, view, self.model[id][0]) for id in owners]
        vectors = np.array(given, np.float32).reshape(-1, dim)
        np.testing.assert_array_equal(snapshot.vectors(space, view, rows), vectors)
        tokens = [self.samples.tokens(space, id, view, self.model[id][0]).tolist() for id in owners]
        assert snapshot.tokens(space, view, rows).tolist() == tokens
        queries = rng.standard_normal((2, dim)).astype(np.float32)
        allowed = rng.random(snapshot.num_items) < rng.choice([0.1, 0.5, 1.0])
        for filter_ in (None, allowed):
            may = rows if filter_ is None else rows[filter_[snapshot.items_of(view, rows)]]
            k = int(rng.integers(1, 15))
            found = snapshot.search(space, view, queries, k, filter_)
            best = may[np.argsort(-(queries @ vectors[may].T), axis=1)[:, :k]]
            np.testing.assert_array_equal(found.rows[:, : best.shape[1]], best)
            assert np.all(found.rows[:, best.shape[1] :] == -1)


def _run(samples, num_examples: int) -> None:
    Library.samples = samples
    machine = Library.TestCase
    machine.settings = settings(
        max_examples=num_examples,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    machine("runTest").runTest()


def test_random_changes_agree_with_a_model(samples) -> None:
    _run(samples, 6)


@pytest.mark.slow
def test_many_random_changes_agree_with_a_model(samples) -> None:
    _run(samples, 150)
