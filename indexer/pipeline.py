"""Read, embed and gather: what happens to items between a source and the store.

Reading (files, decoding, tokenizing) runs in threads ahead of the model, which runs in the caller's thread.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..storage import Item, JobError, Rows
from .attributes import AttributeTypes
from .naming import ATTRIBUTES, PREDICTED
from .reading import ReadItem, job_error

if TYPE_CHECKING:
    from ..model import Model, TeacherEmbedder
    from .predicted import AttributePredictor

#: The view of everything an item has.
JOINT = "joint"

# So many items failing in the model one after the other are not at fault themselves: stop, and lose nothing.
_MODEL_GIVES_UP = 64

T = TypeVar("T")
R = TypeVar("R")


def check_views(views: Iterable[str], inputs: Sequence[str]) -> tuple[str, ...]:
    """Sort out the views of a collection: `joint`, or a modality alone.

    Args:
        views: names; repeated ones count once.
        inputs: modalities that the model takes.

    Raises:
        InputError: none, or one that this model cannot fill.
    """
    names = tuple(dict.fromkeys(views))
    unknown = [name for name in names if name not in (JOINT, *inputs)]
    if unknown or not names:
        known = ", ".join((JOINT, *inputs))
        wrong = ", ".join(unknown) or "none given"
        raise InputError(f"No such view: {wrong}; pick from {known}.", code="view.unknown")
    return names


def read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[T], R], entries: Iterable[T], window: int
) -> Generator[R]:
    """Yield `read(entry)` for every entry, in order; at most `window` are begun and not yet taken."""
    pending: deque[Future[R]] = deque()
    try:
        for entry in entries:
            pending.append(pool.submit(read, entry))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@dataclass(slots=True)
class Embedded:
    """Vectors of a batch of items: row i is item `owners[i]` in view `views[i]`.

    Attributes:
        owners: positions in the batch.
        views: names of views.
        vectors: per space (N, D) float32.
        tokens: per space (N, T) token ids.
        failures: why an item has no rows, by position in the batch.
        without_teacher: items with a predicted vector where the gallery is the teachers'.
    """

    owners: list[int]
    views: list[str]
    vectors: Mapping[str, NDArray[np.float32]]
    tokens: Mapping[str, NDArray[np.integer]]
    failures: Mapping[int, Exception]
    without_teacher: int = 0


class BatchEmbedder:
    """Embeds items in every view of a collection, and survives a model that fails on some of them.

    Args:
        model: what embeds.
        views: views to fill; an item gets no row in a view whose modality it lacks.
        batch_size: inputs that the model sees at once.
        gallery: embeds in place of the model.
    """

    def __init__(
        self,
        model: "Model",
        views: Sequence[str],
        batch_size: int,
        gallery: "TeacherEmbedder | None" = None,
    ) -> None:
        self._spaces = model.spaces
        self._embedder = gallery or model.embedder
        self._gallery = gallery
        self._views = views
        self._batch_size = batch_size
        self._num_failed_in_a_row = 0

    def embed(self, batch: Sequence[Mapping[str, NDArray[Any]]]) -> Embedded:
        """Embed a batch of items, each given by its inputs.

        A batch that the model fails on is tried again in halves, down to the single item that is at fault.

        Raises:
            ModelError: the model failed on many items in a row, so it is the model that is broken.
        """
        requests: list[Mapping[str, NDArray[Any]]] = []
        request_of: dict[tuple[int, tuple[str, ...]], int] = {}
        places: list[tuple[int, str, int]] = []  # item, view, request
        for view in self._views:
            for i, inputs in enumerate(batch):
                subset = tuple(inputs) if view == JOINT else (view,) if view in inputs else ()
                if not subset:
                    continue
                if (i, subset) not in request_of:  # of a picture alone, `joint` and `rgb` are the same row
                    request_of[i, subset] = len(requests)
                    requests.append({modality: inputs[modality] for modality in subset})
                places.append((i, view, request_of[i, subset]))
        vectors, tokens, failed = self._run(requests)
        failures = {i: failed[request] for (i, _), request in request_of.items() if request in failed}
        self._watch({i: failures.get(i) for i, _ in request_of})
        places = [place for place in places if place[0] not in failures]
        picked = [request for _, _, request in places]
        predicted = [request for request in set(picked) if self._is_predicted(requests[request])]
        return Embedded(
            owners=[i for i, _, _ in places],
            views=[view for _, view, _ in places],
            vectors={space: array[picked] for space, array in vectors.items()},
            tokens={space: array[picked] for space, array in tokens.items()},
            failures=failures,
            without_teacher=len({i for i, _, request in places if request in predicted}),
        )

    def _is_predicted(self, request: Collection[str]) -> bool:
        return self._gallery is not None and bool(self._gallery.predicted_spaces(request))

    def _run(
        self, requests: Sequence[Mapping[str, NDArray[Any]]]
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.integer]], dict[int, Exception]]:
        """Embed requests into arrays with one row for each; rows of failed requests mean nothing."""
        spaces = self._spaces
        vectors = {name: np.zeros((len(requests), space.dim), np.float32) for name, space in spaces.items()}
        tokens: dict[str, NDArray[np.integer]] = {
            name: np.zeros((len(requests), space.num_tokens), np.uint16) for name, space in spaces.items()
        }
        failed: dict[int, Exception] = {}
        size, num = self._batch_size, len(requests)
        spans = [(start, min(start + size, num)) for start in range(0, num, size)][::-1]
        while spans:
            start, stop = spans.pop()
            try:
                found = self._embedder.embed(requests[start:stop])
            except Exception as error:  # out of memory, a kernel that dislikes one input: narrow it down
                if stop - start == 1:
                    failed[start] = error.with_traceback(None)  # its frames would keep the batch in memory
                else:
                    middle = (start + stop) // 2
                    spans += [(middle, stop), (start, middle)]
                continue
            for name in spaces:
                vectors[name][start:stop] = found[name].vectors
                tokens[name][start:stop] = found[name].tokens
        for name, array in vectors.items():
            for row in np.flatnonzero(~np.isfinite(array).all(axis=1)):
                message = f"The model gave no finite vector in {name}."
                failed.setdefault(int(row), ModelError(message, code="model.not_finite"))
        return vectors, tokens, failed

    def _watch(self, outcomes: Mapping[int, Exception | None]) -> None:
        for failure in outcomes.values():
            self._num_failed_in_a_row = self._num_failed_in_a_row + 1 if failure else 0
            if self._num_failed_in_a_row == _MODEL_GIVES_UP:
                raise ModelError(
                    f"The model failed on {_MODEL_GIVES_UP} items in a row, last with: {failure}. Nothing "
                    "that was indexed is lost; index again to go on.",
                    code="model.failing",
                ) from failure


class Shard:
    """Items gathered for one commit.

    Args:
        model: says which spaces rows have.
        types: attribute types of the collection; learns those of the items gathered.

    Attributes:
        items: what the catalog keeps of those that have rows.
        errors: files and values that could not be used.
        num_failed: items without any row.
        without_teacher: items with a predicted vector where the gallery is the teachers'.
    """

    def __init__(self, model: "Model", types: AttributeTypes) -> None:
        self.items: list[Item] = []
        self.errors: list[JobError] = []
        self.num_failed = self.without_teacher = 0
        self._spaces = model.spaces
        self._types = types
        self._item_ids: list[str] = []
        self._batches: list[Embedded] = []

    def add(self, reads: Sequence[ReadItem], embedder: BatchEmbedder) -> list[ReadItem]:
        """Embed a batch and take it in; gives what has rows now. An item without adds its errors only."""
        embedded = embedder.embed([read.inputs for read in reads])
        with_rows = set(embedded.owners)
        self.without_teacher += embedded.without_teacher
        for i, read in enumerate(reads):
            self.errors += read.errors
            if i in with_rows:
                self.items.append(self._fit(read))
                continue
            self.num_failed += 1
            if i in embedded.failures:
                self.errors.append(job_error(_path_of(read.item), "", embedded.failures[i]))
            elif read.inputs:
                error = InputError("It has none of the views of this collection.", code="item.no_view")
                self.errors.append(job_error(_path_of(read.item), "", error))
        self._item_ids += [reads[i].item.id for i in embedded.owners]
        self._batches.append(embedded)
        return [read for i, read in enumerate(reads) if i in with_rows]

    def predict(self, reads: Sequence[ReadItem], predictor: "AttributePredictor") -> None:
        """Predict attributes of the items that were added last; what they have of the same name stays."""
        found = predictor.predict([read.inputs for read in reads])
        first = len(self.items) - len(reads)
        for i, of_item in enumerate(found, start=first):
            item = self.items[i]
            new = {key: value for key, value in of_item.attributes.items() if key not in item.attributes}
            kept, refused = self._types.admit(new)
            errors = [] if of_item.error is None else [of_item.error]
            if refused:
                errors.append(InputError(" ".join(refused.values()), code="attributes.type"))
            if errors:
                # Not the signature of a whole item, so that the next run tries again.
                item = replace(item, signature=f"{item.signature}!{PREDICTED}")
            self.errors += [job_error(_path_of(item), PREDICTED, error) for error in errors]
            self.items[i] = replace(item, attributes={**kept, **item.attributes})

    def rows(self) -> Rows:
        """All rows gathered so far."""
        empty = {
            name: (np.zeros((0, space.dim), np.float32), np.zeros((0, space.num_tokens), np.uint16))
            for name, space in self._spaces.items()
        }
        return Rows(
            item_ids=self._item_ids,
            views=[view for batch in self._batches for view in batch.views],
            vectors={
                name: np.concatenate([vectors, *(batch.vectors[name] for batch in self._batches)])
                for name, (vectors, _) in empty.items()
            },
            tokens={
                name: np.concatenate([tokens, *(batch.tokens[name] for batch in self._batches)])
                for name, (_, tokens) in empty.items()
            },
        )

    def _fit(self, read: ReadItem) -> Item:
        """Drop the attributes that do not fit the collection's columns; list those that somebody gave."""
        kept, refused = self._types.admit(read.item.attributes)
        told = [sentence for key, sentence in refused.items() if key in read.own_keys]
        if told:
            error = InputError(" ".join(told), code="attributes.type")
            self.errors.append(job_error(_path_of(read.item), ATTRIBUTES, error))
        return replace(read.item, attributes=kept)


def _path_of(item: Item) -> str:
    return next((asset.path for asset in item.assets if asset.path), item.id)
