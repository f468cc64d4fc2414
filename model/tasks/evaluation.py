"""A model on a task: what the task needs of it, and who predicts."""

from pathlib import Path

from ...errors import ModelError, QueryError
from ..registry import Model
from ..smpl import read_body_model
from .box_prompts import BoxPrompts
from .catalog import TASKS, Setup, open_task
from .runner import Progress, RunSettings, TaskReport, run_task
from .task import Predictor


def evaluate(
    model: Model,
    task: str,
    data: Path,
    settings: RunSettings | None = None,
    *,
    smpl: Path | None = None,
    progress: Progress | None = None,
) -> TaskReport:
    """Measure a model on a task.

    Args:
        model: `load_model(name, spaces=())` opens one that does no more than predict.
        task: a key of TASKS.
        data: the folder of the data set, in one of the task's layouts.
        settings: how to run it.
        smpl: the user's body model (`read_body_model`), for poses.
        progress: told how far it is.

    Raises:
        QueryError: unknown task, or settings without a meaning for it.
        InputError: a folder in another layout, or nothing in it can be used.
        ModelError: the model cannot predict what the task asks for.
    """
    if task not in TASKS:
        raise QueryError(f"Unknown task {task!r}. Known: {', '.join(TASKS)}.")
    target = TASKS[task].target
    if "rgb" not in model.parts.inputs or target not in model.targets:
        raise ModelError(
            f"Model {model.name!r} does not predict {target} from rgb; it predicts "
            f"{', '.join(model.targets)}. The 4M-21 models do everything (`anyseek models`)."
        )
    size = model.parts.inputs["rgb"].image_size
    assert size is not None
    setup = Setup(
        size=size,
        classes=model.parts.classes,
        read=model.embedder.read,
        joints=None if smpl is None else read_body_model(smpl).joints,
    )
    opened = open_task(task, data, setup)
    predictor: Predictor = BoxPrompts(model.parts) if task == "instances" else model.predictor
    return run_task(opened, predictor, settings, progress=progress)
