"""Runs a task: samples are read ahead in threads, predicted in batches and counted in order."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ...errors import InputError, QueryError
from ..values import Value
from .task import Predictor, Sample, Task

Truth = TypeVar("Truth")
Progress = Callable[[int, int, int], None]
"""Called after every batch with the samples done, all of them, and those that failed."""

_READERS = 4


@dataclass(frozen=True)
class RunSettings:
    """How a task is run.

    Attributes:
        limit: take this many samples, spread evenly over all; None for all.
        batch: samples predicted at once.
        ensemble: predictions of each sample, with seeds `seed`, `seed + 1`, ..., that are made one.
        seed: 0 or more.
        temperature: of the prediction; None for the default of the modality.

    Raises:
        QueryError: a setting without a meaning.
    """

    limit: int | None = None
    batch: int = 8
    ensemble: int = 1
    seed: int = 0
    temperature: float | None = None

    def __post_init__(self) -> None:
        limits = {"limit": (1, 2**31), "batch": (1, 4096), "ensemble": (1, 100), "seed": (0, 2**31)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise QueryError(f"{name} must be a whole number in {low}..{high}, got {value}.")


@dataclass(frozen=True)
class Failure:
    """A sample that was left out, and why."""

    name: str
    message: str


@dataclass(frozen=True)
class TaskReport:
    """The result of a run.

    Attributes:
        metrics: by name; docs/evaluation.md says what they are.
        notes: what else there is to know.
        num_samples: how many were counted.
        failures: those left out because a file was damaged or missing.
        settings: what the result depends on besides data and model.
        seconds: how long it took.
    """

    metrics: Mapping[str, float]
    notes: Mapping[str, Any]
    num_samples: int
    failures: Sequence[Failure]
    settings: RunSettings
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_task(
    task: Task[Any],
    predictor: Predictor,
    settings: RunSettings | None = None,
    *,
    progress: Progress | None = None,
) -> TaskReport:
    """Predict the samples of a task and compare them with the ground truth.

    Args:
        task: fresh from `open_task`.
        predictor: of the model in question.
        settings: the defaults where None.
        progress: told how far it is; what it raises stops the run.

    Returns:
        Metrics, and the samples that were left out because a file of theirs could not be used.

    Raises:
        QueryError: predictions of this task cannot be made one.
        InputError: no sample could be read; the message is the first one's.
        ModelError: the model cannot be asked this.
    """
    settings = settings or RunSettings()
    if settings.ensemble > 1 and not task.can_ensemble:
        raise QueryError(f"Several predictions of {task.target} cannot be made one; leave the ensemble at 1.")
    started = time.perf_counter()
    chosen = _spread(len(task.names), settings.limit)
    failures: list[Failure] = []
    done = 0
    for indices, samples in _read_ahead(task, chosen, settings.batch):
        good = [sample for sample in samples if isinstance(sample, Sample)]
        failures += [
            Failure(task.names[i], str(error))
            for i, error in zip(indices, samples, strict=True)
            if isinstance(error, InputError)
        ]
        for sample, answers in zip(good, _predict(task, predictor, good, settings), strict=True):
            task.add(sample, answers)
        done += len(indices)
        if progress is not None:
            progress(done, len(chosen), len(failures))
    if len(failures) == len(chosen):
        raise InputError(f"None of the {len(chosen)} samples can be used. {failures[0].message}")
    return TaskReport(
        metrics=task.metrics(),
        notes=task.notes(),
        num_samples=len(chosen) - len(failures),
        failures=failures,
        settings=settings,
        seconds=round(time.perf_counter() - started, 2),
    )


def _spread(count: int, limit: int | None) -> list[int]:
    """Indices of `limit` samples at even distances, so that few samples still come from all over the data."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def _read_ahead(
    task: Task[Truth], chosen: Sequence[int], batch: int
) -> Iterator[tuple[Sequence[int], list[Sample[Truth] | InputError]]]:
    """Batches of samples, the next being read while one is worked on."""

    def read(index: int) -> Sample[Truth] | InputError:
        try:
            return task.read(index)
        except InputError as error:
            return error

    with ThreadPoolExecutor(_READERS) as pool:
        waiting: tuple[Sequence[int], list[Future[Sample[Truth] | InputError]]] | None = None
        for start in [*range(0, len(chosen), batch), None]:
            ready = waiting
            if start is not None:
                indices = chosen[start : start + batch]
                waiting = indices, [pool.submit(read, index) for index in indices]
            if ready is not None:
                yield ready[0], [future.result() for future in ready[1]]


def _predict(
    task: Task[Any], predictor: Predictor, samples: Sequence[Sample[Any]], settings: RunSettings
) -> list[list[Value | None]]:
    """The answers for each sample, one per seed."""
    if not samples:
        return []
    items = [sample.item for sample in samples]
    seeds = range(settings.seed, settings.seed + settings.ensemble)
    rounds = [
        predictor.predict(items, [task.target], seed=seed, temperature=settings.temperature) for seed in seeds
    ]
    return [[answers[i][task.target].value for answers in rounds] for i in range(len(items))]
