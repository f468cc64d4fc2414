"""How far a job is, and what it did."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..storage import Catalog, JobError

Stage = Literal["scan", "read", "embed", "predict", "store", "publish"]
STAGES: tuple[Stage, ...] = ("scan", "read", "embed", "predict", "store", "publish")

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far a job is. All counts are items; `done + failed + skipped + pending` approaches `total`.

    Attributes:
        job_id: the job.
        stage: what is going on; `read`, `embed` and `predict` (attributes, where asked) alternate.
        total: items in the source; while it is scanned, those found so far.
        done: committed: found by every search from now on, whatever happens to this process.
        failed: none of its modalities could be used; the reasons are listed by the job.
        skipped: unchanged since they were indexed, or handled before the job was interrupted.
        pending: embedded and not committed yet.
        rate: items per second through the model, since this run began to read.
        eta_s: seconds left for reading and embedding at that rate; None while it is unknown.
    """

    job_id: str
    stage: Stage
    total: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    pending: int = 0
    rate: float = 0.0
    eta_s: float | None = None


class JobErrors:
    """What a job could not use, read from the catalog page by page; iterate as often as needed."""

    def __init__(self, catalog: Catalog, job_id: str) -> None:
        self._catalog = catalog
        self._job_id = job_id

    def __iter__(self) -> Iterator[JobError]:
        offset = 0
        while page := self._catalog.job_errors(self._job_id, offset=offset, limit=_PAGE):
            yield from page
            offset += len(page)

    def __len__(self) -> int:
        return self._catalog.job(self._job_id).num_errors


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run of a job did.

    Attributes:
        job_id: the job, for its errors and to look it up later.
        collection: the collection that it filled.
        state: `done`; or `stopped` on request, and taken up by the next call with the same source.
        total: items in the source.
        done: items indexed by this run.
        failed: items that this run could not index.
        skipped: items unchanged since an earlier run, or handled before this job was interrupted.
        removed: items removed because their files are gone.
        without_teacher: in a gallery of teachers, items indexed by this run of which a vector was predicted.
        ignored: files of the source passed over, by reason (`.heic`, `linked folders`, ...).
        seconds: wall-clock time by stage; `read` is the time that the model waited for files.
        generation: the generation published at the end, if any.
        errors: every file that could not be used, of the whole job.
    """

    job_id: str
    collection: str
    state: Literal["done", "stopped"]
    total: int
    done: int
    failed: int
    skipped: int
    removed: int
    without_teacher: int
    ignored: Mapping[str, int]
    seconds: Mapping[str, float]
    generation: str | None
    errors: JobErrors

    def to_json(self) -> dict[str, Any]:
        """Everything but the errors, of which only the number is given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "errors": len(self.errors)}


class Meter:
    """Counts and times one run, and tells the caller.

    Args:
        callback: receives every change; called in the thread that runs the job.
    """

    def __init__(self, callback: Callable[[IndexProgress], None] | None) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self.job_id = ""
        self.total = self.done = self.failed = self.skipped = self.pending = self.without_teacher = 0
        self._callback = callback
        self._stage: Stage = "scan"
        self._since = time.perf_counter()
        self._reading_since: float | None = None

    def enter(self, stage: Stage) -> None:
        """Close the account of the current stage and open that of the next."""
        now = time.perf_counter()
        self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now
        if stage == "read" and self._reading_since is None:
            self._reading_since = now

    def tell(self) -> None:
        """Report the present state."""
        if self._callback is None:
            return
        handled = self.done + self.failed + self.pending
        elapsed = 0.0 if self._reading_since is None else time.perf_counter() - self._reading_since
        rate = handled / elapsed if elapsed > 0 else 0.0
        left = max(0, self.total - self.skipped - handled)
        self._callback(
            IndexProgress(
                job_id=self.job_id,
                stage=self._stage,
                total=self.total,
                done=self.done,
                failed=self.failed,
                skipped=self.skipped,
                pending=self.pending,
                rate=rate,
                eta_s=left / rate if rate > 0 else None,
            )
        )
