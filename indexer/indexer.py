"""The room's front door: sources in, items stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConflictError, InputError, NotFoundError
from ..storage import Collection, JobError, SpaceRecord, Store, Writer
from .attributes import AttributeTypes
from .jobs import JobRun, JobSettings
from .naming import check_id
from .pipeline import JOINT, BatchEmbedder, Shard, check_views
from .predicted import AttributePredictor, check_predictable
from .progress import IndexProgress, IndexReport, Meter
from .reading import ADDED, ItemReader, NewItem
from .sources import Source
from .writing import writing

if TYPE_CHECKING:
    from ..model import Model, TeacherEmbedder


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of items handed over directly.

    Attributes:
        ids: items that are committed.
        failed: items of which nothing could be used.
        errors: every value that could not be used.
    """

    ids: tuple[str, ...]
    failed: tuple[str, ...]
    errors: tuple[JobError, ...]


class Indexer:
    """Fills collections of a store with what one model makes of files and values.

    Safe to share between threads; all indexers of a process share their store's one writer.

    Args:
        store: the library.
        model: reads and embeds.
        views: views of collections that get created: `joint`, or modalities alone; by default `joint`. An
            existing collection keeps its own, and must have these where they are given.
        gallery: gives vectors in place of the model's prediction; part of a collection's identity.
        batch_size: inputs that the model sees at once.
        items_per_segment: items of one commit; interrupted work is repeated from the last one.
        num_workers: threads that read files ahead of the model.

    Raises:
        InputError: a view that the model cannot fill, or a number below 1.
    """

    def __init__(
        self,
        store: Store,
        model: "Model",
        *,
        views: Sequence[str] | None = None,
        gallery: "TeacherEmbedder | None" = None,
        batch_size: int = 32,
        items_per_segment: int = 1024,
        num_workers: int = 2,
    ) -> None:
        numbers = {
            "batch_size": batch_size,
            "items_per_segment": items_per_segment,
            "num_workers": num_workers,
        }
        for name, number in numbers.items():
            if number < 1:
                raise InputError(f"{name} must be at least 1, got {number}.")
        self.store = store
        self.model = model
        self._views = None if views is None else check_views(views, model.inputs)
        self._gallery = gallery
        self._numbers = numbers

    def index(
        self,
        collection: str,
        source: Source,
        *,
        progress: Callable[[IndexProgress], None] | None = None,
        publish: bool = True,
        prune: bool = False,
        predict: Sequence[str] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> IndexReport:
        """Index a source into a collection, which is created if it does not exist.

        An item whose files are unchanged is skipped, a changed one replaced. The same call takes up a job
        that was interrupted in any way, and makes the rows of an uninterrupted one. A file that cannot be
        used is listed and never stops the job.

        Args:
            collection: name of the collection.
            source: where the items are.
            progress: called in this thread after every batch and commit.
            publish: build a generation at the end; without, the rows are searched exactly.
            prune: remove items of this source whose files are gone.
            predict: modalities whose predictions become attributes (`predicted.brightness`, ...), by any
                words for them; items that were indexed with others count as changed.
            should_stop: asked after every commit; True ends the call there (see `stop_on_signals`).

        Raises:
            InputError: the source cannot be scanned; or holds nothing while `prune` is set; or the model does
                not predict what was asked.
            ConflictError: the collection was made by another model, with other views or gallery.
            WriterBusyError: another process is writing.
            ModelError: the model fails on everything.
            StorageError: nothing can be written, for example to a full disk; what was committed stays.
        """
        attributes = check_predictable(self.model, predict)
        settings = JobSettings(publish=publish, prune=prune, predict=attributes, **self._numbers)
        meter = Meter(progress)
        with writing(self.store) as writer:
            target = self._collection(writer, collection, self._views)
            stop = should_stop or (lambda: False)
            return JobRun(
                self.store, writer, self.model, target, source, settings, meter, stop, self._gallery
            ).run()

    def create(self, collection: str, views: Sequence[str] | None = None) -> Collection:
        """Create an empty collection; one that is there with the same model and views is left as it is.

        Args:
            collection: its name.
            views: `joint`, or modalities alone; None: the indexer's, those of the existing one, or `joint`.

        Raises:
            InputError: a view that the model cannot fill, or a name that cannot be one.
            ConflictError: the collection was made by another model, with other views or gallery.
            WriterBusyError: another process is writing.
        """
        chosen = self._views if views is None else check_views(views, self.model.inputs)
        with writing(self.store) as writer:
            return self._collection(writer, collection, chosen)

    def add(self, collection: str, items: Sequence[NewItem], *, predict: Sequence[str] = ()) -> AddReport:
        """Add items that are at hand, in one commit; one that was added before under its id is replaced.

        Args:
            collection: name of the collection, created if it does not exist.
            items: with different ids.
            predict: as for `index`.

        Raises:
            InputError: an id that is empty, too long, or given twice; or as `index`.
            ConflictError: an id belongs to an item of an indexed folder; or as `index`.
            WriterBusyError: another process is writing.
        """
        ids = [check_id(item.id) for item in items]
        if len(set(ids)) < len(ids):
            raise InputError("The same item id is given twice.", code="item.id")
        attributes = check_predictable(self.model, predict)
        reader = ItemReader(self.model, self.store.assets, ADDED, attributes)
        with writing(self.store) as writer:
            target = self._collection(writer, collection, self._views)
            for other in self.store.catalog.items(collection, ids):
                if other.source != ADDED:
                    message = f"Item {other.id!r} comes from {other.source}; use another id or remove it."
                    raise ConflictError(message, code="item.taken")
            shard = Shard(self.model, AttributeTypes(target.attributes))
            batch_size = self._numbers["batch_size"]
            embedder = BatchEmbedder(self.model, target.views, batch_size, self._gallery)
            added = shard.add([reader.read_new(item) for item in items], embedder)
            if attributes:
                shard.predict(added, AttributePredictor(self.model, attributes, batch_size))
            writer.commit(collection, items=shard.items, rows=shard.rows())
        done = {item.id for item in shard.items}
        failed = tuple(id_ for id_ in ids if id_ not in done)
        return AddReport(tuple(id_ for id_ in ids if id_ in done), failed, tuple(shard.errors))

    def remove(self, collection: str, ids: Sequence[str]) -> int:
        """Remove items and tell how many there were; their own files are left alone.

        Raises:
            NotFoundError: no such collection.
            WriterBusyError: another process is writing.
        """
        with writing(self.store) as writer:
            return writer.remove(collection, ids)

    def _collection(self, writer: Writer, name: str, views: Sequence[str] | None) -> Collection:
        """The collection, checked against this model; created if there is none."""
        if views is None:
            try:
                views = self.store.collection(name).views
            except NotFoundError:
                views = (JOINT,)
        spaces = [
            SpaceRecord(space.name, space.dim, space.num_tokens, space.codebook_size)
            for space in self.model.spaces.values()
        ]
        return writer.create_collection(
            name,
            model=self.model.name,
            fingerprint=self.model.fingerprint,
            spaces=spaces,
            views=views,
            gallery=self._gallery.name if self._gallery else "predicted",
        )
