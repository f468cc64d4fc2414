"""How good and how fast the published indexes are, against looking at every vector."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import QueryError
from ..ranking import Floats, Ints
from .contents import Report

if TYPE_CHECKING:
    from ...storage import Snapshot, Store
    from ..filters import Mask

CUTS = (1, 10, 100)
_TIMED_CUT = 10
_PERCENTILES = (50, 95, 99)
_ROWS_PER_BLOCK = 32_768
_SLACK = 1e-5
"""An index sums in another order: what misses the last exact score by less is equal to it."""

_NOISE = 0.5
"""Length of the noise on queries made from the searched vectors themselves, which have length 1."""


@dataclass(frozen=True)
class IndexSettings:
    """What to measure.

    Args:
        limit: queries.
        seed: of the queries and filters drawn.
        views: to search; all of the collection where empty.
        selectivities: of random filters: the share of the items that they let through, 0..1.
    """

    limit: int = 200
    seed: int = 0
    views: Sequence[str] = ()
    selectivities: Sequence[float] = (0.001, 0.01, 0.1, 0.5)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one query, k = 10: median and upper percentiles over the queries."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Search:
    """Searches with one filter, or none.

    Args:
        selectivity: share of the items allowed; 1 without filter.
        num_allowed: items allowed.
        recall: by k (1, 10, 100), the share of what exact search finds that the index finds; an item with
            the same score as the last one counts as found.
        latency_ms: in this process, one query after the other.
    """

    selectivity: float
    num_allowed: int
    recall: Mapping[int, float]
    latency_ms: Latency


@dataclass(frozen=True)
class IndexQuality:
    """One index.

    Args:
        space: of its vectors.
        view: of its vectors.
        num_rows: vectors.
        queries: what the queries were made of.
        searches: without filter first, then by rising selectivity.
        bare_ms: of the index library's own call, nothing around it, on the same queries in turn.
        ratio: median latency of a search without filter over that of the bare call.
        exact_ms: median of looking at every vector with numpy, in batches of all queries.
        index_bytes: of the index on disk, mapped into memory while it is searched.
        token_bytes: of the token ids, likewise.
    """

    space: str
    view: str
    num_rows: int
    queries: str
    searches: Sequence[Search]
    bare_ms: Latency
    ratio: float
    exact_ms: float
    index_bytes: int
    token_bytes: int


@dataclass(frozen=True)
class IndexEvaluation:
    """All indexes of a collection.

    Args:
        collection: its name.
        generation: the published version, None before the first.
        revision: of the collection.
        num_items: in the collection.
        num_fresh: items newer than the generation, which are searched beside it.
        indexes: every space and view.
        generation_bytes: of all files of the generation on disk.
        segment_bytes: of the segments that it is built from.
        resident_bytes: by how much this process grew by opening and searching all of it; None where the
            system does not say.
        seed: as set.
        seconds: that it took.
    """

    collection: str
    generation: str | None
    revision: int
    num_items: int
    num_fresh: int
    indexes: Sequence[IndexQuality]
    generation_bytes: int
    segment_bytes: int
    resident_bytes: int | None
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain values; docs/evaluation.md lists them."""
        return {"schema": "anyseek.index/1"} | asdict(self)


def evaluate_index(
    store: Store,
    collection: str,
    settings: IndexSettings | None = None,
    *,
    progress: Report | None = None,
) -> IndexEvaluation:
    """Measure recall, latency and size of everything that a search of a collection asks. Needs no model.

    Args:
        store: the library.
        collection: its name.
        settings: what to measure; see `IndexSettings`.
        progress: told the stage, what is done and of how much.

    Raises:
        NotFoundError: no such collection.
        QueryError: a view that is not there, or a collection without items.
        ValueError: a limit below 1 or a selectivity outside 0..1.
    """
    settings = settings or IndexSettings()
    if settings.limit < 1 or not all(0 < share <= 1 for share in settings.selectivities):
        raise ValueError("limit is 1 or more, and selectivities lie above 0, up to 1.")
    start, resident = time.perf_counter(), _resident_bytes()
    snapshot = store.snapshot(collection)
    views = [view for view in settings.views or snapshot.collection.views if snapshot.num_rows(view)]
    if not views:
        raise QueryError(f"Collection {collection!r} has nothing to search yet.", code="query.view")
    places = [(space.name, view) for space in snapshot.collection.spaces for view in views]
    sizes = store.footprint(snapshot)
    indexes: list[IndexQuality] = []
    for i, (space, view) in enumerate(places):
        bytes_of = sizes.indexes[space, view], sizes.tokens[space, view]
        indexes.append(_measure(snapshot, space, view, settings, *bytes_of))
        if progress is not None:
            progress("measure", i + 1, len(places))
    after = _resident_bytes()
    published = {each.name: each.num_items for each in store.catalog.generations(collection)}
    return IndexEvaluation(
        collection=collection,
        generation=snapshot.generation,
        revision=snapshot.revision,
        num_items=snapshot.num_items,
        num_fresh=max(0, snapshot.num_items - published.get(snapshot.generation or "", 0)),
        indexes=indexes,
        generation_bytes=sizes.generation,
        segment_bytes=sizes.segments,
        resident_bytes=None if resident is None or after is None else max(0, after - resident),
        seed=settings.seed,
        seconds=round(time.perf_counter() - start, 2),
    )


def _measure(
    snapshot: Snapshot, space: str, view: str, settings: IndexSettings, index_bytes: int, token_bytes: int
) -> IndexQuality:
    queries, made_of = _queries(snapshot, space, view, settings)
    masks = _masks(snapshot, settings)
    start = time.perf_counter()
    exact = _exact_scores(snapshot, space, view, queries, masks)
    exact_ms = (time.perf_counter() - start) / len(queries) / len(masks) * 1000
    searches = [
        _search(snapshot, space, view, queries, allowed, best)
        for allowed, best in zip(masks, exact, strict=True)
    ]
    ours, bare = _in_turn(
        queries,
        lambda query: snapshot.search(space, view, query, _TIMED_CUT),
        lambda query: snapshot.bare_search(space, view, query, _TIMED_CUT),
    )
    return IndexQuality(
        space=space,
        view=view,
        num_rows=snapshot.num_rows(view),
        queries=made_of,
        searches=searches,
        bare_ms=_latency(bare),
        ratio=float(np.median(ours) / np.median(bare)),
        exact_ms=exact_ms,
        index_bytes=index_bytes,
        token_bytes=token_bytes,
    )


def _queries(snapshot: Snapshot, space: str, view: str, settings: IndexSettings) -> tuple[Floats, str]:
    """(Q, D) of items drawn: their vectors in another view, as a real query is never the stored vector."""
    random = np.random.default_rng(settings.seed)
    order = random.permutation(snapshot.num_items)
    for other in snapshot.collection.views:
        if other != view and snapshot.num_rows(other):
            rows = snapshot.rows_of(other, order[: settings.limit])[: settings.limit]
            if len(rows):
                return snapshot.vectors(space, other, rows), f"the items' vectors of view {other}"
    rows = snapshot.rows_of(view, order[: settings.limit])[: settings.limit]
    if not len(rows):
        rows = np.arange(min(settings.limit, snapshot.num_rows(view)))
    vectors = snapshot.vectors(space, view, rows)
    noise = random.normal(size=vectors.shape).astype(np.float32)
    vectors += _NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, f"the items' own vectors with noise of length {_NOISE:g}"


def _masks(snapshot: Snapshot, settings: IndexSettings) -> list[Mask | None]:
    """No filter, then random ones of rising selectivity; each lets at least one item through."""
    random = np.random.default_rng((settings.seed, 1))
    masks: list[Mask | None] = [None]
    for share in sorted(settings.selectivities):
        allowed = np.zeros(snapshot.num_items, np.bool_)
        num = max(1, round(share * snapshot.num_items))
        allowed[random.choice(snapshot.num_items, num, replace=False)] = True
        masks.append(allowed)
    return masks


def _exact_scores(
    snapshot: Snapshot, space: str, view: str, queries: Floats, masks: Sequence[Mask | None]
) -> list[Floats]:
    """Under each mask the best scores (Q, 100) of all rows, best first, -inf where there are fewer."""
    best = [np.full((len(queries), CUTS[-1]), -np.inf, np.float32) for _ in masks]
    for start in range(0, snapshot.num_rows(view), _ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + _ROWS_PER_BLOCK, snapshot.num_rows(view)))
        scores = queries.astype(np.float32) @ snapshot.vectors(space, view, rows).T
        owners = snapshot.items_of(view, rows)
        for i, allowed in enumerate(masks):
            here = scores if allowed is None else scores[:, allowed[owners]]
            both = np.concatenate([best[i], here], axis=1)
            best[i][:] = np.partition(both, -CUTS[-1], axis=1)[:, -CUTS[-1] :]
    return [-np.sort(-each, axis=1) for each in best]


def _search(
    snapshot: Snapshot, space: str, view: str, queries: Floats, allowed: Mask | None, best: Floats
) -> Search:
    found = snapshot.search(space, view, queries, CUTS[-1], allowed)
    recall: dict[int, float] = {}
    for k in CUTS:
        possible = np.isfinite(best[:, :k]).sum(1)
        needed = np.where(possible > 0, best[np.arange(len(best)), np.maximum(possible, 1) - 1], np.inf)
        right = (found.scores[:, :k] >= needed[:, None] - _SLACK) & (found.rows[:, :k] >= 0)
        shares = right.sum(1)[possible > 0] / possible[possible > 0]
        recall[k] = float(np.mean(shares)) if len(shares) else 1.0
    seconds, _ = _in_turn(queries, lambda query: snapshot.search(space, view, query, _TIMED_CUT, allowed))
    num_allowed = snapshot.num_items if allowed is None else int(np.count_nonzero(allowed))
    return Search(num_allowed / snapshot.num_items, num_allowed, recall, _latency(seconds))


def _in_turn(
    queries: Floats, call: Callable[[Floats], object], other: Callable[[Floats], object] | None = None
) -> tuple[Floats, Floats]:
    """Seconds of a call, and of another, for one query after the other; each pays for the same neighbours."""
    calls = [call] if other is None else [call, other]
    for each in calls:
        each(queries[:1])  # maps the files
    seconds = np.empty((2, len(queries)))
    for i in range(len(queries)):
        for j, each in enumerate(calls):
            start = time.perf_counter()
            each(queries[i : i + 1])
            seconds[j, i] = time.perf_counter() - start
    return seconds[0], seconds[1]


def _latency(seconds: Floats) -> Latency:
    return Latency(*(float(value) * 1000 for value in np.percentile(seconds, _PERCENTILES)))


def _resident_bytes() -> int | None:
    """Memory of this process, None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes: Ints = np.array([int(line.split()[1]) for line in lines if line.startswith("VmRSS:")])
    return int(sizes[0]) * 1024 if len(sizes) else None
