"""Jobs in the background of a server: one at a time, each in a thread of its own."""

import threading
from collections.abc import Sequence

from ..errors import ConflictError
from ..storage import Job, Store
from .indexer import Indexer
from .progress import IndexProgress
from .sources import Source
from .writing import writing


class BackgroundJob:
    """A job of this process.

    Attributes:
        ids: its ids; more than one where it found an older attempt outdated and began afresh.
        progress: the latest news, None before the first.
        error: why it failed, if it did.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.progress: IndexProgress | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.finished = threading.Event()
        self._known = threading.Event()

    def tell(self, progress: IndexProgress) -> None:
        """Take news from the thread that works."""
        self.progress = progress
        if progress.job_id not in self.ids:
            self.ids.append(progress.job_id)
        self._known.set()

    def finish(self, error: Exception | None) -> None:
        """Note the end."""
        self.error = error
        self.finished.set()
        self._known.set()

    def wait_for_id(self) -> str:
        """Wait until the job is in the catalog; raises what kept it from getting there."""
        self._known.wait()
        if not self.ids:
            raise self.error or ConflictError("The job ended before it began.", code="job.failed")
        return self.ids[0]


class JobRunner:
    """Starts, watches and cancels background jobs. Thread-safe.

    A job is not waited for when the process ends: it loses the shard it works on, and the next job for the
    same source goes on from there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._jobs: dict[str, BackgroundJob] = {}
        self._current: BackgroundJob | None = None

    def start(
        self,
        indexer: Indexer,
        collection: str,
        source: Source,
        *,
        prune: bool = False,
        publish: bool = True,
        predict: Sequence[str] = (),
    ) -> str:
        """Start a job and give its id.

        Raises:
            ConflictError: another job is running here.
            AnyseekError: it cannot begin, as `Indexer.index` says.
        """
        job = BackgroundJob()

        def work() -> None:
            error: Exception | None = None
            try:
                report = indexer.index(
                    collection,
                    source,
                    progress=job.tell,
                    prune=prune,
                    publish=publish,
                    predict=predict,
                    should_stop=lambda: job.cancelled,
                )
                if report.state == "stopped":
                    with writing(self._store) as writer:
                        writer.finish_job(report.job_id, "cancelled")
            except Exception as caught:  # reported to whoever asks for the job; a thread has no other caller
                error = caught
            job.finish(error)

        with self._lock:
            if self._current is not None and not self._current.finished.is_set():
                running = self._current.ids[-1] if self._current.ids else "a job that is about to start"
                raise ConflictError(f"One job at a time: {running} is running.", code="job.busy")
            self._current = job
        threading.Thread(target=work, name="anyseek-job", daemon=True).start()
        id_ = job.wait_for_id()
        with self._lock:
            self._jobs[id_] = job
        return id_

    def find(self, job_id: str) -> BackgroundJob | None:
        """The job of this process that has or had this id."""
        with self._lock:
            return next((job for job in self._jobs.values() if job_id in job.ids), None)

    def cancel(self, job_id: str) -> Job:
        """End a job for good: after its current shard if it runs here, at once if nobody runs it.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has ended already.
            WriterBusyError: it runs in another process.
        """
        live = self.find(job_id)
        if live is not None and not live.finished.is_set():
            live.cancelled = True
            return self._store.catalog.job(live.ids[-1])
        job = self._store.catalog.job(job_id)
        if job.state in ("done", "cancelled"):
            raise ConflictError(f"Job {job_id} is {job.state} already.", code="job.ended")
        with writing(self._store) as writer:
            return writer.finish_job(job_id, "cancelled")
