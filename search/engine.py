"""One search, from the query to the hits: read, embed, look up, score, join with the catalog."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import AnyseekError, InputError, NotFoundError, QueryError
from ..model import likelihood_table
from ..storage import Item
from .batching import Batcher
from .candidates import Scored, scored_candidates, stored_rows
from .composition import Composition, Inputs, check_signs, choose, compose
from .filters import Filter
from .hits import Contribution, Hit, Hits, Plan
from .query import Content, ItemAssets, Query, QueryPart
from .ranking import (
    DEFAULT_SCORING,
    SCORINGS,
    Evidence,
    Scoring,
    Term,
    checked_space_weights,
    measure_rows,
    share_of_likelihood,
    terms_of,
    top,
)

if TYPE_CHECKING:
    from ..model import Model
    from ..storage import Asset, AssetFiles, Collection, Snapshot, Store

MAX_HITS = 10_000
"""How far down the ranking pages reach."""


class SearchEngine:
    """Answers queries on the collections of a store. Safe from many threads; their model calls are batched.

    Args:
        store: the library; the caller keeps it open.
        model: the model of all collections, or a function that gives the model of a name and keeps it loaded.
        max_batch: items that one forward pass takes at most.
    """

    def __init__(self, store: Store, model: Model | Callable[[str], Model], *, max_batch: int = 32) -> None:
        self.store = store
        self._model_of: Callable[[str], Model] = model if callable(model) else lambda _: model
        self._max_batch = max_batch
        self._batchers: dict[int, tuple[Model, Batcher]] = {}  # by id(): two models may share a name
        self._lock = threading.Lock()

    def search(
        self,
        collection: str,
        query: Query | QueryPart,
        *,
        where: Filter | None = None,
        limit: int = 20,
        offset: int = 0,
        view: str = "joint",
        composition: Composition = "auto",
        spaces: Mapping[str, float] | None = None,
        scoring: Scoring = DEFAULT_SCORING,
        explain: bool = False,
        with_items: bool = True,
    ) -> Hits:
        """The items of a collection that answer a query best.

        Args:
            collection: its name.
            query: a part, or a sum of parts with weights.
            where: which items may be returned.
            limit: how many hits, from 1.
            offset: how many of the best to step over first; limit + offset reach 10,000 at most.
            view: which of the items' vectors to compare with.
            composition: `joint` predicts one embedding from all positive parts together, `late` one from each
                and adds the scores, `guided` one from all parts by their weights, each pulling or pushing its
                tokens; `auto` is `joint` where the positive parts weigh the same and bring different
                modalities, else `late`.
            spaces: weight of each embedding space; by default as the model knows for the modalities of the
                query, all alike where it does not.
            scoring: `cosine`, `likelihood` or `both`, see ranking.py.
            explain: also tell what each part and space gave to each hit.
            with_items: False leaves out attributes and assets, for rankings of which only the order counts.

        Raises:
            NotFoundError: no such collection, or no item of a `Like` part.
            QueryError: the query, the filter or an option asks for what is not there or cannot be combined.
            InputError: the content of a part cannot be read.
        """
        query = Query.of(query)
        _check_page(limit, offset)
        check_signs(query)
        clock = _Clock()
        snapshot = self.store.snapshot(collection)
        model, batcher = self._model_for(snapshot.collection)
        known = [space.name for space in snapshot.collection.spaces]
        space_weights = None if spaces is None else checked_space_weights(spaces, known)
        _check_choice("scoring", scoring, SCORINGS)
        _check_choice("view", view, snapshot.collection.views)
        with clock.stage("filter"):
            allowed = where.mask(snapshot.attributes) if where is not None else None
        with clock.stage("read"):
            inputs = [self._read(model, snapshot, i, part) for i, part in enumerate(query)]
            chosen = choose(composition, query, inputs)
            predictions = compose(chosen, query, inputs, explain=explain)
        asked = defaultdict[str, float](float)
        for part, given in zip(query, inputs, strict=True):
            for modality in given:
                asked[modality] += abs(part.weight)
        if space_weights is None:
            space_weights = model.space_weights(asked)
        likelihood_share = share_of_likelihood(scoring, model.likelihood_share(asked))
        with clock.stage("embed"):
            predicted = batcher.embed([p.blend for p in predictions], log_probs=scoring != "cosine")
        evidence = [
            Evidence(
                prediction.parts,
                prediction.weight,
                {space: vectors[i] for space, vectors in predicted.vectors.items()},
                {space: likelihood_table(log_probs[i]) for space, log_probs in predicted.log_probs.items()},
            )
            for i, prediction in enumerate(predictions)
        ]
        terms = terms_of(evidence, space_weights, likelihood_share)
        with clock.stage("search"):
            scored = scored_candidates(
                snapshot, view, [term for term in terms if term.weight], limit + offset, allowed
            )
            places = top(
                scored.scores, limit + offset, lambda at: snapshot.item_ids.take(scored.ordinals[at])
            )[offset:]
        with clock.stage("items"):
            hits = _hits(snapshot, view, terms, scored, places, explain=explain, with_items=with_items)
        total = snapshot.num_items if allowed is None else int(np.count_nonzero(allowed))
        return Hits(
            hits,
            snapshot.generation,
            snapshot.revision,
            Plan(
                composition=chosen,
                view=view,
                spaces=space_weights,
                scoring=scoring,
                likelihood_share=likelihood_share,
                filter=None if where is None else str(where),
                selectivity=total / snapshot.num_items if snapshot.num_items else 0.0,
                candidates=scored.how,
                num_scored=scored.num_scored,
                exact=scored.exact,
            ),
            total,
            clock.milliseconds,
        )

    def model(self, collection: str) -> Model:
        """The model of a collection, loaded if it is not yet. Raises NotFoundError, ModelError."""
        return self._model_of(self.store.collection(collection).model)

    def models(self) -> list[Model]:
        """The models of all collections, loading those that are not loaded yet."""
        found: dict[int, Model] = {}
        for name in sorted({collection.model for collection in self.store.collections()}):
            model = self._model_of(name)
            found[id(model)] = model
        return list(found.values())

    def _model_for(self, collection: Collection) -> tuple[Model, Batcher]:
        model = self._model_of(collection.model)
        if model.fingerprint != collection.fingerprint:
            raise QueryError(
                f"Collection {collection.name!r} was indexed by model {collection.model!r} with fingerprint "
                f"{collection.fingerprint[:12]}, but {model.name!r} with {model.fingerprint[:12]} is loaded. "
                "Their vectors cannot be compared: load that model, or index the collection again.",
                code="collection.model_mismatch",
            )
        with self._lock:
            return self._batchers.setdefault(id(model), (model, Batcher(model.embedder, self._max_batch)))

    def _read(self, model: Model, snapshot: Snapshot, place: int, part: QueryPart) -> Inputs:
        """Model input of one part; nothing for a part of weight 0."""
        if not part.weight:
            return {}
        try:
            if isinstance(part.content, ItemAssets):
                return self._read_item(model, snapshot, place, part.content)
            _check_modality(part.modality, model, f"Part {place + 1}")
            return {part.modality: _read(model, part.modality, part.content, f"Part {place + 1}")}
        except AnyseekError as error:
            error.part = place
            raise

    def _read_item(self, model: Model, snapshot: Snapshot, place: int, wanted: ItemAssets) -> Inputs:
        found = snapshot.items([wanted.id])
        if not found:
            raise NotFoundError(
                f"Part {place + 1}: no item {wanted.id!r} in collection {snapshot.collection.name!r}."
            )
        assets = {asset.modality: asset for asset in found[0].assets}
        for modality in wanted.use:
            _check_modality(modality, model, f"Part {place + 1}")
        use = wanted.use or [modality for modality in assets if modality in model.inputs]
        missing = [modality for modality in use if modality not in assets]
        if missing or not use:
            raise QueryError(
                f"Part {place + 1}: item {wanted.id!r} has no "
                f"{' or '.join(missing) or 'modality to ask with'}; it has "
                f"{', '.join(assets) or 'none'}, the model reads {', '.join(model.inputs)}.",
                code="query.modality",
            )
        where = f"Part {place + 1}, item {wanted.id!r}"
        return {
            modality: _read(model, modality, content_of(assets[modality], self.store.assets), where)
            for modality in use
        }


def content_of(asset: Asset, files: AssetFiles) -> Content:
    """What a reader takes of an asset: its value, or where its file lies."""
    if asset.value is not None:
        return cast("Content", asset.value)  # what is no content, the reader refuses
    if asset.path is not None:
        return Path(asset.path)
    return files.path(asset.sha256 or "")


def _read(model: Model, modality: str, content: Content, where: str) -> NDArray[Any]:
    assert not isinstance(content, ItemAssets)
    try:
        return model.embedder.read(modality, content)
    except InputError as error:
        raise type(error)(f"{where}: {error}", code=error.code) from error


def _hits(
    snapshot: Snapshot,
    view: str,
    terms: Sequence[Term],
    scored: Scored,
    places: NDArray[Any],
    *,
    explain: bool,
    with_items: bool,
) -> tuple[Hit, ...]:
    """Join the best places with the catalog, in one query for all."""
    ids = snapshot.item_ids.take(scored.ordinals[places])
    records = snapshot.items(ids) if with_items else [Item(id) for id in ids]
    items = {item.id: item for item in records}
    told: Iterator[tuple[Contribution, ...] | None] = iter([None] * len(ids))
    if explain:
        told = iter(_contributions(snapshot, view, terms, scored.rows[places]))
    return tuple(
        Hit(id, float(score), item.attributes, item.assets, explanation)
        for id, score, explanation in zip(ids, scored.scores[places], told, strict=True)
        if (item := items.get(id)) is not None  # removed after the snapshot was taken
    )


def _contributions(
    snapshot: Snapshot, view: str, terms: Sequence[Term], rows: NDArray[Any]
) -> list[tuple[Contribution, ...]]:
    raw = measure_rows(terms, stored_rows(snapshot, view), rows)  # (num_terms, n)
    return [
        tuple(
            Contribution(
                term.evidence.parts,
                term.space,
                term.measure,
                float(measured),
                term.weight,
                term.weight * float(measured),
            )
            for term, measured in zip(terms, column, strict=True)
        )
        for column in raw.T
    ]


def _check_page(limit: int, offset: int) -> None:
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if type(value) is not int or value < least:
            raise QueryError(f"{name} is a whole number from {least} up, got {value!r}.", code="query.page")
    if limit + offset > MAX_HITS:
        raise QueryError(
            f"limit + offset is {limit + offset:,}, at most {MAX_HITS:,}; narrow the search with a filter.",
            code="query.page",
        )


def _check_choice(what: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise QueryError(f"No {what} {value!r} here; known: {', '.join(known)}.", code=f"query.{what}")


def _check_modality(modality: str, model: Model, where: str) -> None:
    if modality not in model.inputs:
        raise QueryError(
            f"{where}: model {model.name!r} cannot read {modality!r}; it reads {', '.join(model.inputs)}.",
            code="query.modality",
        )


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[name] = round((time.perf_counter() - start) * 1000, 3)
