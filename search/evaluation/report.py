"""What `eval retrieval` found, as values and as JSON. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .contents import Failure
from .ranks import Figures, Gap

Aspect = Literal["decoding", "scoring", "space", "composition"]


@dataclass(frozen=True)
class Kind:
    """A kind of query: one modality, or a mix of several.

    Args:
        name: its modalities joined by `+`.
        modalities: of which content is given.
        num_items: items that bring all of them.
        num_shared: queries whose very content other items hold too; each of those is a right answer.
        view: the one its figures are for where one is shown: without the query's own modalities, if there is
            such a view.
    """

    name: str
    modalities: Sequence[str]
    num_items: int
    num_shared: int
    view: str


@dataclass(frozen=True)
class Cell:
    """One kind of query against one view.

    Args:
        query: name of the kind.
        view: what was searched.
        own: whether the view's vectors were made from the very content that is asked with. Then an item is
            partly or wholly searched with itself, which says little about queries from outside.
        figures: how it did; None where no query of this kind has an item in the view.
    """

    query: str
    view: str
    own: bool
    figures: Figures | None


@dataclass(frozen=True)
class Choice:
    """The same queries with one thing chosen otherwise; everything else is as in the matrix.

    Args:
        query: name of the kind.
        view: what was searched, the kind's own.
        aspect: what is chosen. Decodings are compared by cosine alone, as the likelihood knows none.
        choice: `soft`, `argmax` or `sample`; `cosine`, `likelihood` or `both`; a space or `all`; `joint`,
            `guided` or `late`.
        figures: how it did.
    """

    query: str
    view: str
    aspect: Aspect
    choice: str
    figures: Figures


@dataclass(frozen=True)
class Ceiling:
    """Queries with the true vectors of the teacher in place of predicted ones: no prediction does better by
    being more exact.

    Args:
        query: what the vectors are of: `rgb`, or a vector that items bring.
        space: whose vectors.
        view: what was searched.
        own: whether the view may hold the very vectors that were asked with.
        figures: how they did, by cosine.
    """

    query: str
    space: str
    view: str
    own: bool
    figures: Figures


@dataclass(frozen=True)
class RetrievalReport:
    """Everything that was measured of a collection.

    Args:
        collection: its name.
        model: its model's name.
        generation: the published version, None before the first; newer items take part too.
        revision: of the collection.
        gallery: where its vectors come from.
        num_items: in the collection; all of them are ranked for each query.
        limit: queries of a kind at most.
        seed: of the sample of items, of resampling and of sampled decoding.
        spaces: names of its embedding spaces.
        kinds: what was asked.
        matrix: every kind against every view, by joint prediction, soft decoding, both scorings, all spaces.
        gaps: what each mix gives beyond its best part.
        choices: the same queries with other decodings, scorings, spaces and compositions.
        ceilings: what the teachers' own vectors reach.
        notes: what to know when reading the figures.
        failures: contents that could not be read.
        seconds: that it took.
    """

    collection: str
    model: str
    generation: str | None
    revision: int
    gallery: str
    num_items: int
    limit: int
    seed: int
    spaces: Sequence[str]
    kinds: Sequence[Kind]
    matrix: Sequence[Cell]
    gaps: Sequence[Gap]
    choices: Sequence[Choice]
    ceilings: Sequence[Ceiling]
    notes: Sequence[str]
    failures: Sequence[Failure]
    seconds: float

    @property
    def views(self) -> tuple[str, ...]:
        """The views of the matrix, in the collection's order."""
        return tuple(dict.fromkeys(cell.view for cell in self.matrix))

    def cell(self, query: str, view: str) -> Cell:
        """One cell of the matrix. Raises KeyError."""
        return self._cells[query, view]

    @property
    def _cells(self) -> Mapping[tuple[str, str], Cell]:
        return {(cell.query, cell.view): cell for cell in self.matrix}

    def to_json(self) -> dict[str, Any]:
        """As plain values; docs/evaluation.md lists them."""
        return {"schema": "anyseek.retrieval/1"} | asdict(self)
