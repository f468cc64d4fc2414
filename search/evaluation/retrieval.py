"""How well each kind of query finds the items that it was made from: no labels are needed, only items that
bring more than one modality, or other files to ask with.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...errors import QueryError
from ..composition import Composed
from ..engine import SearchEngine
from ..ranking import SCORINGS, Evidence, Ints, share_of_likelihood
from .asking import DECODINGS, Setting, Way, ask
from .ceiling import Truth, find_ceilings
from .contents import Contents, QueryFiles, Report
from .gallery import Gallery
from .ranks import Figures, Gap, Place, figures_of, gap_of, place_of
from .report import Aspect, Cell, Choice, Kind, RetrievalReport

if TYPE_CHECKING:
    from ...model import Model
    from ...storage import Snapshot

DEFAULT_MIXES = (
    ("caption", "color_palette"),
    ("caption", "depth"),
    ("semseg", "color_palette"),
    ("color_palette", "metadata"),
    ("caption", "canny_edge"),
    ("det", "color_palette"),
)
"""Pairs that say different things, tried where items bring both."""

_BATCH = 32
_FULL_PICTURE = "rgb"
_COMPOSITIONS: tuple[Composed, ...] = ("joint", "guided", "late")
_Alternative: TypeAlias = tuple[Aspect, str, Setting]


@dataclass(frozen=True)
class RetrievalSettings:
    """What to ask.

    Args:
        limit: queries of a kind at most, drawn from the items that bring what it takes.
        seed: of everything drawn.
        modalities: to ask with; all that the items bring and the model reads where empty.
        mixes: to ask with; DEFAULT_MIXES where None.
        views: to search; all of the collection where empty.
        unique: leave out queries whose very content another item holds too.
        compare: also try other decodings, scorings, spaces and compositions, which asks each query again.
    """

    limit: int = 500
    seed: int = 0
    modalities: Sequence[str] = ()
    mixes: Sequence[Sequence[str]] | None = None
    views: Sequence[str] = ()
    unique: bool = False
    compare: bool = True


def evaluate_collection(
    engine: SearchEngine,
    collection: str,
    settings: RetrievalSettings | None = None,
    *,
    queries: QueryFiles | None = None,
    truth: Truth | None = None,
    progress: Report | None = None,
) -> RetrievalReport:
    """Ask for items of a collection with what they bring, in every way, and rank all items for each query.

    Ranks are exact: every stored vector is scored, no index is asked.

    Args:
        engine: of the library.
        collection: its name.
        settings: what to ask; see `RetrievalSettings`.
        queries: other files to ask with, by item id and modality. Where a modality has some, it is asked with
            those only.
        truth: knows teachers' vectors, for the ceiling.
        progress: told the stage, what is done and of how much.

    Raises:
        NotFoundError: no such collection.
        QueryError: a modality, mix or view that is not there, or nothing to ask with.
        ValueError: a limit below 1.
    """
    settings = settings or RetrievalSettings()
    if settings.limit < 1:
        raise ValueError(f"limit is 1 or more, got {settings.limit}.")
    start = time.perf_counter()
    snapshot = engine.store.snapshot(collection)
    run = _Run(engine.model(collection), snapshot, engine, settings, queries, progress)
    kinds = [run.prepared(modalities) for modalities in run.kinds]
    for kind in kinds:
        run.ask(kind)
    ceilings, why_not = find_ceilings(
        truth, run.contents, run.galleries, snapshot, settings.limit, settings.seed, progress
    )
    return RetrievalReport(
        collection=collection,
        model=snapshot.collection.model,
        generation=snapshot.generation,
        revision=snapshot.revision,
        gallery=snapshot.collection.gallery,
        num_items=snapshot.num_items,
        limit=settings.limit,
        seed=settings.seed,
        spaces=run.spaces,
        kinds=kinds,
        matrix=[cell for kind in kinds for cell in run.cells(kind)],
        gaps=[gap for kind in kinds if (gap := run.gap(kind)) is not None],
        choices=[choice for kind in kinds for choice in run.choices(kind)],
        ceilings=ceilings,
        notes=[*run.notes(kinds), *why_not],
        failures=run.contents.failures,
        seconds=round(time.perf_counter() - start, 2),
    )


@dataclass
class _Run:
    """One evaluation: what is asked, and the place of every query in every setting so far."""

    model: Model
    snapshot: Snapshot
    engine: SearchEngine
    settings: RetrievalSettings
    others: QueryFiles | None
    report: Report | None
    asked: dict[tuple[str, ...], Ints] = field(default_factory=dict[tuple[str, ...], Ints])
    right: dict[tuple[str, int], Ints] = field(default_factory=dict[tuple[str, int], Ints])
    places: dict[tuple[str, Setting], dict[int, Place]] = field(
        default_factory=dict[tuple[str, Setting], dict[int, Place]]
    )

    def __post_init__(self) -> None:
        self.contents = Contents(
            self.snapshot, self.model, self.engine.store.assets, self.others, self.report
        )
        self.spaces = [space.name for space in self.snapshot.collection.spaces]
        self.views = list(self.settings.views or self.snapshot.collection.views)
        for view in self.views:
            self.snapshot.num_rows(view)  # refuses one that is not there
        self.kinds = self._choose_kinds()
        self._draw()
        self.galleries = {view: Gallery(self.snapshot, view) for view in self.views}

    def _choose_kinds(self) -> list[tuple[str, ...]]:
        known = self.contents.modalities
        singles = tuple(self.settings.modalities) or known
        if self.settings.mixes is None:
            mixes = [mix for mix in DEFAULT_MIXES if set(mix) <= set(singles)]
        else:
            mixes = [tuple(dict.fromkeys(mix)) for mix in self.settings.mixes]
        missing = sorted({name for kind in (singles, *mixes) for name in kind} - set(known))
        if missing or not known:
            raise QueryError(
                f"No item of {self.snapshot.collection.name!r} has {', '.join(missing) or 'anything'} that "
                f"model {self.model.name!r} reads; there are {', '.join(known) or 'none'}.",
                code="query.modality",
            )
        parts = {name for mix in mixes for name in mix}
        alone = [name for name in known if name in singles or name in parts]
        return [*((name,) for name in alone), *dict.fromkeys(mix for mix in mixes if len(mix) > 1)]

    def _draw(self) -> None:
        """The items asked for with each kind, and more for parts of mixes, to compare on the same items."""
        self._more: dict[tuple[str, ...], Ints] = {}
        order = np.random.default_rng(self.settings.seed).permutation(self.snapshot.num_items)
        for kind in self.kinds:
            found = order[self.contents.having(kind)[order]][: self.settings.limit]
            for ordinal in found.tolist():
                self.right["+".join(kind), ordinal] = self.contents.twins(kind, ordinal)
            if self.settings.unique:
                alone = [len(self.right["+".join(kind), ordinal]) == 1 for ordinal in found.tolist()]
                found = found[np.array(alone, np.bool_)]
            self.asked[kind] = found
        for kind in self.kinds:
            for part in kind if len(kind) > 1 else ():
                more = np.setdiff1d(self.asked[kind], self.asked[part,])
                self._more[part,] = np.union1d(self._more.get((part,), more), more)
                for ordinal in more.tolist():
                    self.right[part, ordinal] = self.contents.twins([part], ordinal)

    def is_own(self, modalities: Iterable[str], view: str) -> bool:
        own = [modality for modality in modalities if self.contents.is_own(modality)]
        return bool(own) if view == "joint" else view in own

    def prepared(self, modalities: tuple[str, ...]) -> Kind:
        name = "+".join(modalities)
        others = [view for view in self.views if not self.is_own(modalities, view)] or self.views
        preferred = [view for view in (_FULL_PICTURE, "joint") if view in others]
        return Kind(
            name=name,
            modalities=modalities,
            num_items=int(np.count_nonzero(self.contents.having(modalities))),
            num_shared=sum(len(self.right[name, o]) > 1 for o in self.asked[modalities].tolist()),
            view=(preferred or others)[0],
        )

    def ask(self, kind: Kind) -> None:
        """Ask all queries of a kind in all settings, batch by batch."""
        settings = [Setting(view) for view in self.views]
        settings += [setting for _, _, setting in self._alternatives(kind)]
        by_way: dict[Way, list[Setting]] = {}
        for setting in dict.fromkeys(settings):
            by_way.setdefault(setting.way, []).append(setting)
        modalities = tuple(kind.modalities)
        ordinals = np.concatenate(
            [self.asked[modalities], self._more.get(modalities, self.asked[modalities][:0])]
        )
        for start in range(0, len(ordinals), _BATCH):
            batch = ordinals[start : start + _BATCH]
            read = self.contents.read(batch, modalities)
            whole = [i for i, inputs in enumerate(read) if len(inputs) == len(modalities)]
            for way, of_way in by_way.items() if whole else ():
                items = [{name: read[i][name] for name in modalities} for i in whole]
                evidence = ask(self.model.embedder, items, way, self.settings.seed)
                for setting in of_way:
                    self._rank(kind.name, setting, batch[whole], evidence)
            self._tell(f"ask {kind.name}", start + len(batch), len(ordinals))

    def _rank(
        self, name: str, setting: Setting, ordinals: Ints, evidence: Sequence[Sequence[Evidence]]
    ) -> None:
        asked = dict.fromkeys(name.split("+"), 1.0)
        weights = {setting.space: 1.0} if setting.space else self.model.space_weights(asked)
        share = share_of_likelihood(setting.scoring, self.model.likelihood_share(asked))
        scores = self.galleries[setting.view].scores(evidence, weights, share)
        places = self.places.setdefault((name, setting), {})
        for ordinal, of_query in zip(ordinals.tolist(), scores, strict=True):
            if np.isfinite(of_query[ordinal]):  # else the item itself has no vector in this view
                places[ordinal] = place_of(of_query, self.right[name, ordinal])

    def _alternatives(self, kind: Kind) -> list[_Alternative]:
        if not self.settings.compare:
            return []
        view = kind.view
        found: list[_Alternative] = []
        for decoding in DECODINGS:
            found.append(("decoding", decoding, Setting(view, Way(decoding=decoding), "cosine")))
        for scoring in SCORINGS:
            found.append(("scoring", scoring, Setting(view, scoring=scoring)))
        for space in (*self.spaces, None) if len(self.spaces) > 1 else ():
            found.append(("space", space or "default", Setting(view, space=space)))
        for composed in _COMPOSITIONS if len(kind.modalities) > 1 else ():
            found.append(("composition", composed, Setting(view, Way(composed))))
        return found

    def _figures(self, kind: Kind, setting: Setting) -> Figures | None:
        found = self.places.get((kind.name, setting), {})
        places = [found[o] for o in self.asked[tuple(kind.modalities)].tolist() if o in found]
        return figures_of(places, self.settings.seed) if places else None

    def cells(self, kind: Kind) -> list[Cell]:
        return [
            Cell(kind.name, view, self.is_own(kind.modalities, view), self._figures(kind, Setting(view)))
            for view in self.views
        ]

    def choices(self, kind: Kind) -> list[Choice]:
        return [
            Choice(kind.name, kind.view, aspect, choice, figures)
            for aspect, choice, setting in self._alternatives(kind)
            if (figures := self._figures(kind, setting)) is not None
        ]

    def gap(self, kind: Kind) -> Gap | None:
        """What a mix gives beyond its parts, over the queries that were answered with all of them."""
        setting = Setting(kind.view)
        mixed = self.places.get((kind.name, setting), {})
        parts = {name: self.places.get((name, setting), {}) for name in kind.modalities}
        shared = [o for o in mixed if all(o in places for places in parts.values())]
        if len(kind.modalities) == 1 or not shared:
            return None
        return gap_of(
            kind.name,
            kind.view,
            [mixed[o] for o in shared],
            {name: [places[o] for o in shared] for name, places in parts.items()},
            self.settings.seed,
        )

    def notes(self, kinds: Sequence[Kind]) -> list[str]:
        notes: list[str] = []
        own = [kind.name for kind in kinds if self.is_own(kind.modalities, kind.view)]
        if own:
            notes.append(
                f"Asked against vectors made from the very same content, for want of another view: "
                f"{', '.join(own)}. Index with a view that leaves it out, such as --view rgb, or give other "
                "files to ask with."
            )
        for kind in kinds:
            if kind.num_shared:
                notes.append(
                    f"{kind.num_shared} of {len(self.asked[tuple(kind.modalities)])} {kind.name} queries "
                    "have several right answers: items with the very same content."
                )
        unread = len(self.contents.failures)
        return [*notes, *([f"{unread} contents could not be read and were left out."] if unread else [])]

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.report is not None:
            self.report(stage, done, total)
