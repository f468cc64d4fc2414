"""Out-of-the-box tasks of 4M-21 (arXiv 2406.09406, Table 1): data sets, protocols, metrics."""

from .catalog import TASKS, Setup, TaskSource, open_task
from .evaluation import evaluate
from .runner import Failure, RunSettings, TaskReport, run_task
from .task import Predictor, Sample, Task

__all__ = [
    "TASKS",
    "Failure",
    "Predictor",
    "RunSettings",
    "Sample",
    "Setup",
    "Task",
    "TaskReport",
    "TaskSource",
    "evaluate",
    "open_task",
    "run_task",
]
