"""Run an indexing job: resumable, and the same rows however often it is interrupted.

A job scans its source into a fixed list and cuts the items that are new or changed, in order, into shards of
`items_per_segment`. A shard is committed as a whole, under the number of its end in that list. Commits go in
order, so after a crash the largest number says where to go on; and as nothing behind it was touched, the
shards that follow are those of an uninterrupted run, batch for batch.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import AnyseekError, ConflictError, InputError
from ..storage import JSON, Collection, Job, Store, Writer
from .attributes import AttributeTypes
from .naming import printable
from .pipeline import BatchEmbedder, Shard, read_ahead
from .predicted import AttributePredictor
from .progress import IndexReport, JobErrors, Meter
from .reading import ItemReader, ReadItem, job_error, mark_of, owner_of
from .scan import Scan
from .sources import Source, SourceItem

if TYPE_CHECKING:
    from ..model import Model, TeacherEmbedder

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What decides which rows a job makes, and how it works.

    Attributes:
        batch_size: inputs that the model sees at once.
        items_per_segment: items of one commit.
        num_workers: threads that read files.
        publish: build a generation at the end.
        prune: remove items of this source whose files are gone.
        predict: modalities to predict as attributes, from `check_predictable`.
    """

    batch_size: int = 32
    items_per_segment: int = 1024
    num_workers: int = 2
    publish: bool = True
    prune: bool = False
    predict: tuple[str, ...] = ()


class JobRun:
    """One run of a job, from scan to publication.

    Args:
        store: the library.
        writer: the right to change it.
        model: what reads and embeds.
        collection: the collection to fill; it exists.
        source: what to index.
        settings: how.
        meter: counts, and tells the caller.
        should_stop: asked after every shard.
        gallery: embeds in place of the model.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        model: "Model",
        collection: Collection,
        source: Source,
        settings: JobSettings,
        meter: Meter,
        should_stop: Callable[[], bool],
        gallery: "TeacherEmbedder | None" = None,
    ) -> None:
        self._store = store
        self._writer = writer
        self._model = model
        self._collection = collection
        self._source = source
        self._settings = settings
        self._meter = meter
        self._should_stop = should_stop
        self._embedder = BatchEmbedder(model, collection.views, settings.batch_size, gallery)
        self._predictor = (
            AttributePredictor(model, settings.predict, settings.batch_size) if settings.predict else None
        )
        self._owner = owner_of(source.name)
        self._mark = mark_of(source.name, settings.predict)
        self._known = dict(store.catalog.signatures(collection.name))

    def run(self) -> IndexReport:
        """Do the job, or what is left of it.

        Raises:
            InputError: the source cannot be scanned, or is empty and items would be pruned.
            ModelError: the model fails on everything.
            StorageError: nothing can be written, for example to a full disk.
        """
        job = self._start()
        try:
            with self._scan() as scan:
                self._check_prune(scan)
                job, position = self._resume(job, scan)
                stopped = not self._work(job, scan, position)
                removed = 0 if stopped or not self._settings.prune else self._prune(scan)
                return self._finish(job, scan, stopped=stopped, removed=removed)
        except Exception:
            # `failed` is taken up by the next run as well; that it cannot be noted must not hide the reason.
            with suppress(AnyseekError, OSError):
                self._writer.finish_job(self._meter.job_id, "failed")
            raise

    def _start(self) -> Job:
        spec: dict[str, JSON] = {
            "source": self._source.name,
            "model": self._model.fingerprint,
            "views": list(self._collection.views),
            "gallery": self._collection.gallery,
            "predict": list(self._settings.predict),
            "batch_size": self._settings.batch_size,
            "items_per_segment": self._settings.items_per_segment,
        }
        job = self._writer.start_job(self._collection.name, spec)
        for other in self._store.catalog.jobs(self._collection.name):
            # Unfinished with other settings: whatever it left to do, this job does.
            is_same_source = other.spec.get("source") == self._source.name
            if other.id != job.id and other.state in ("running", "failed") and is_same_source:
                self._writer.finish_job(other.id, "cancelled")
        self._meter.job_id = job.id
        self._meter.tell()
        return job

    def _scan(self) -> Scan:
        def count(num_items: int) -> None:
            self._meter.total = num_items
            self._meter.tell()

        scan = Scan(self._source, count)
        count(len(scan))
        return scan

    def _resume(self, job: Job, scan: Scan) -> tuple[Job, int]:
        """Find where to go on. Positions count only in the scan that they were made in."""
        # The ledger's own entry for the scan: below zero, where no position is, and within 32 bits.
        mark = -1 - int(scan.digest[:7], 16)
        done = self._writer.done_shards(job.id)
        if done and mark not in done:  # files changed since: what is unchanged is recognised item by item
            self._writer.finish_job(job.id, "cancelled")
            job = self._writer.start_job(self._collection.name, job.spec)
            self._meter.job_id = job.id
            done = set[int]()
        if not done:
            nothing = Shard(self._model, AttributeTypes({}))
            self._commit(job, nothing, mark)
        return job, max({0, *done})

    def _work(self, job: Job, scan: Scan, position: int) -> bool:
        """Index shard after shard from a position of the scan; False when stopped on request."""
        settings, meter = self._settings, self._meter
        meter.skipped = position
        reader = ItemReader(self._model, self._store.assets, self._source.name, settings.predict)
        window = 2 * settings.batch_size + settings.num_workers
        with ThreadPoolExecutor(settings.num_workers, thread_name_prefix="anyseek-read") as pool:
            todo = self._todo(scan, position)
            entries = read_ahead(pool, lambda entry: (entry[0], reader.read(entry[1])), todo, window)
            try:
                while self._work_shard(job, entries):
                    if self._should_stop():
                        return False
            finally:
                entries.close()
        return True

    def _todo(self, scan: Scan, position: int) -> Iterator[tuple[int, SourceItem]]:
        """Yield the items that are new or changed, each with the position after it."""
        for end, item in enumerate(scan.items_from(position), start=position + 1):
            known = self._known.get(item.id)
            if known is not None and known == f"{self._mark}.{item.signature}":
                self._meter.skipped += 1
                if self._meter.skipped % _PAGE == 0:
                    self._meter.tell()
            elif known is None or known.partition(".")[0] == self._owner:
                yield end, item
            else:
                yield end, self._refused(item)

    def _refused(self, item: SourceItem) -> SourceItem:
        """The item without its files, with the reason: it would silently replace another source's item."""
        others = self._store.catalog.items(self._collection.name, [item.id])
        owner = others[0].source if others else "another source"
        error = ConflictError(
            f"Item {item.id!r} is in the collection already, from {owner}. Index this folder with a prefix; "
            "or, if the folder was moved, remove those items first.",
            code="item.taken",
        )
        path = next((printable(path) for path in item.files.values()), item.id)
        return SourceItem(item.id, {}, None, "", (job_error(path, "", error),))

    def _work_shard(self, job: Job, entries: Iterator[tuple[int, ReadItem]]) -> bool:
        """Read, embed and commit the next shard; False when nothing is left."""
        meter, left, end = self._meter, self._settings.items_per_segment, 0
        types = self._store.collection(self._collection.name).attributes
        shard = Shard(self._model, AttributeTypes(types))
        while left:
            meter.enter("read")
            batch = list(islice(entries, min(left, self._settings.batch_size)))
            if not batch:
                break
            left -= len(batch)
            end = batch[-1][0]
            meter.enter("embed")
            added = self._add(shard, [read for _, read in batch])
            if self._predictor is not None:
                meter.enter("predict")
                shard.predict(added, self._predictor)
            meter.pending = len(shard.items) + shard.num_failed
            meter.tell()
        if end:
            self._commit(job, shard, end)
        return end > 0

    def _add(self, shard: Shard, reads: list[ReadItem]) -> list[ReadItem]:
        """Embed what is new; an item whose same part is still broken is unchanged, and listed again."""
        changed: list[ReadItem] = []
        for read in reads:
            if read.item.signature == self._known.get(read.item.id):
                shard.errors += read.errors
                self._meter.skipped += 1
            else:
                changed.append(read)
        return shard.add(changed, self._embedder)

    def _commit(self, job: Job, shard: Shard, number: int) -> None:
        meter = self._meter
        meter.enter("store")
        self._writer.commit(
            self._collection.name,
            items=shard.items,
            rows=shard.rows(),
            job=job.id,
            shard=number,
            errors=shard.errors,
        )
        meter.done += len(shard.items)
        meter.failed += shard.num_failed
        meter.without_teacher += shard.without_teacher
        meter.pending = 0
        meter.tell()

    def _check_prune(self, scan: Scan) -> None:
        if self._settings.prune and not any(item.files for item in scan.items_from(0)):
            message = f"{self._source.name} is empty, so all its items would be removed; is it mounted?"
            raise InputError(message, code="source.empty")

    def _prune(self, scan: Scan) -> int:
        """Remove items of this source that the scan did not meet; folders it could not list keep theirs."""
        met = {item.id for item in scan.items_from(0)}
        unlisted = [
            f"{item.id}/" if item.id else ""
            for item in scan.items_from(0)
            if any(problem.code == "source.unreadable_folder" for problem in item.problems)
        ]
        name, after, num_removed = self._collection.name, "", 0
        while page := self._store.catalog.page(name, after=after, limit=_PAGE):
            after = page[-1].id
            mine = (item.id for item in page if item.source == self._source.name)
            gone = [id_ for id_ in mine if id_ not in met and not id_.startswith(tuple(unlisted))]
            num_removed += self._writer.remove(name, gone) if gone else 0
        return num_removed

    def _finish(self, job: Job, scan: Scan, *, stopped: bool, removed: int) -> IndexReport:
        meter = self._meter
        generation = None
        if not stopped:
            meter.enter("publish")
            meter.tell()
            if self._settings.publish:
                generation = self._writer.publish(self._collection.name).name
            self._writer.finish_job(job.id, "done")
        meter.enter("publish")
        return IndexReport(
            job_id=job.id,
            collection=self._collection.name,
            state="stopped" if stopped else "done",
            total=len(scan),
            done=meter.done,
            failed=meter.failed,
            skipped=meter.skipped,
            removed=removed,
            without_teacher=meter.without_teacher,
            ignored=dict(scan.ignored),
            seconds=dict(meter.seconds),
            generation=generation,
            errors=JobErrors(self._store.catalog, job.id),
        )
