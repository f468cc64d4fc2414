"""One training of a 4M model from its YAML, and the files it leaves.

| file in the output folder | what |
|---|---|
| `config.yaml` | what the run was asked for, defaults included |
| `model.json`, `text_tokenizer.json`, `tok_*.safetensors` | what makes the folder a model |
| `fourm.safetensors`, `last.safetensors` | the best averaged weights so far and the last ones |
| `fourm.jsonl`, `tensorboard/` | the log |
| `fourm.ckpt` | from where an interrupted run goes on |
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..checkpoint import load_tokenizer, open_checkpoint, save_checkpoint
from ..fourm import FourM
from ..modalities import Modality
from ..registry import resolve_device
from ..sources import BUNDLE_FILE
from .batches import AheadBatches, Batches, MixedBatches
from .distributed import World, join_world
from .fourm_recipes import DataSet, FourMRun
from .held_out import HeldOutLosses, HeldOutRetrieval, evaluate_all
from .lora import add_lora
from .masking import MaskedBatches, Masking
from .mixtures import mixture_4m21
from .pretrain import BEST, CHECKPOINT, Evaluate, Pretrainer
from .run_files import require_same, save_run, write_whole
from .setups import TEXT_TOKENIZER, Setup, set_up, text_file
from .starting import Start, freeze_all_but, start_from
from .token_data import TokenData

CONFIG = "config.yaml"
_FREE = ("device", "strategy", "threads", "workers", "training", "name", "license", "description")
"""What may change when a run goes on; of `training` the state itself says what may not."""
_MAX_RETRIEVAL = 1000


def run_fourm(
    run: FourMRun,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a 4M model, or go on with a training that was interrupted; in each process of `torchrun`.

    Args:
        run: as `read_fourm_run` gives it.
        should_stop: asked after every step; the state is saved before it stops.
        progress: told the step, and of how many.

    Returns:
        `output`, `step`, `finished`, `best` (mean held-out loss in nats, or None), and which layers started
        `fresh` or were `left_out` where training starts from a checkpoint.

    Raises:
        ConfigError: the run cannot be as asked, or its folder holds another one.
        InputError: data that does not fit the model.
        ModelError, CheckpointError: what training starts from cannot be had or does not fit.
    """
    with join_world(resolve_device(run.device)) as world:
        setup = set_up(run, name=run.name, license=run.license, description=run.description)
        if world.is_first:
            _claim(run, setup)
        world.wait()
        trainer, start = _trainer(run, setup, world)
        if run.workers:
            mine = _numbers(trainer, world)
            trainer.batches = AheadBatches(partial(training_batches, run), mine, run.workers)
        steps = run.training.steps
        finished = trainer.run(
            _evaluation(run, setup) if any(data.held_out for data in run.data) else None,
            should_stop=should_stop,
            progress=None if progress is None else lambda step: progress(step, steps),
        )
        return {
            "output": str(run.output),
            "step": trainer.step,
            "finished": finished,
            "best": trainer.best if trainer.best < float("inf") else None,
            "fresh": list(start.fresh),
            "left_out": list(start.left_out),
        }


def training_batches(run: FourMRun, setup: Setup | None = None) -> Batches:
    """What a run is trained on."""
    setup = setup or set_up(run)
    seed = run.training.seed
    parts = [
        (_masked(run, setup, number, held_out=False, seed=seed + number), data.weight)
        for number, data in enumerate(run.data)
    ]
    return MixedBatches(parts, seed=seed)


def _trainer(run: FourMRun, setup: Setup, world: World) -> tuple[Pretrainer, Start]:
    start = Start((), ())

    def prepare(model: FourM) -> None:
        nonlocal start
        if setup.init is not None:
            start = start_from(model, setup.init)
        if run.freeze or run.lora is not None:
            freeze_all_but(model, start.fresh)
        if run.lora is not None:
            add_lora(model, run.lora)

    trainer = Pretrainer(
        setup.config,
        training_batches(run, setup),
        run.training,
        run.output,
        prepare=prepare,
        lora=run.lora,
        threads=1 if run.workers else run.threads,
        world=world,
        strategy=run.strategy,
    )
    return trainer, start


def _numbers(trainer: Pretrainer, world: World) -> list[int]:
    parts, steps = trainer.recipe.parts, trainer.recipe.steps
    return [
        number
        for step in range(trainer.step, steps)
        for number in range(step * parts + world.rank, (step + 1) * parts, world.size)
    ]


def _evaluation(run: FourMRun, setup: Setup) -> Evaluate:
    held_out: dict[str, Batches] = {}
    retrievals: list[Evaluate] = []
    for number, data in enumerate(run.data):
        if not data.held_out:
            continue
        batches = _masked(run, setup, number, held_out=True, seed=run.training.seed)
        name = data.tokens.name if data.tokens.name not in held_out else f"{data.tokens.name}-{number}"
        held_out[name] = batches
        if run.retrieval:
            retrievals.append(_retrieval(run, setup, batches.data))
    return evaluate_all(HeldOutLosses(held_out, run.held_out_batches), *retrievals)


def _retrieval(run: FourMRun, setup: Setup, data: TokenData) -> Evaluate:
    rows = {name: row for name, row in setup.rows.items() if name in data.columns}
    spaces = [name for name in setup.config.targets if name in rows and rows[name].positions == "learned"]
    missing = [name for name in run.retrieval if name not in rows or name not in setup.config.domains_in]
    if missing or not spaces:
        told = f"{missing[0]} is no input of both" if missing else "there is no vector to find samples by"
        raise ConfigError(f"retrieval: of the model and its held-out data, {told}.")
    return HeldOutRetrieval(data.part(0, _MAX_RETRIEVAL), rows, run.retrieval, spaces)


def _masked(run: FourMRun, setup: Setup, number: int, *, held_out: bool, seed: int) -> MaskedBatches:
    """Batches of one of the data sets, of the samples that are trained on or of the others."""
    said = run.data[number]
    data = TokenData.load(said.tokens)
    rows = setup.rows
    names = said.modalities or [name for name in data.columns if name in rows]
    border = len(data) - said.held_out
    if border < 1:
        raise ConfigError(f"{said.tokens} has {len(data)} samples: held_out leaves none to train on.")
    data = data.only(names).part(*((border, len(data)) if held_out else (0, border)))
    return MaskedBatches(
        data,
        {name: row for name, row in rows.items() if name in setup.config.domains_in or row.is_target},
        _masking(said, rows),
        setup.text,
        targets=setup.config.targets,
        batch_size=run.batch_size,
        seed=seed,
        name=str(said.tokens),
    )


def _masking(said: DataSet, rows: Mapping[str, Modality]) -> Masking:
    components = mixture_4m21(rows.values()) if said.mixture == "4m21" else said.mixture
    pairs = frozenset(name for name, row in rows.items() if row.reads_as == "metadata")
    for component in components:
        for name in (*component.inputs, *component.targets, *component.keep):
            if name not in rows and said.mixture != "4m21":
                raise ConfigError(f"mixture names {name!r}. The model has {', '.join(rows)}.")
    return Masking(
        components,
        said.num_input_tokens,
        said.num_target_tokens,
        chunk=dict.fromkeys(pairs, 2),
        shuffled=pairs,
    )


def _claim(run: FourMRun, setup: Setup) -> None:
    """Make the output folder a model, but for its weights, and keep what was asked for."""
    run.output.mkdir(parents=True, exist_ok=True)
    if (run.output / CHECKPOINT).exists():
        require_same(run, run.output / CONFIG, free=_FREE)
    save_run(run, run.output / CONFIG)
    raws = {row.raw for row in setup.rows.values()}
    files: dict[str, str] = {}
    for raw, source in setup.source.tokenizers.items():
        if raw in raws:
            files[raw] = f"tok_{raw}.safetensors"
            _keep_tokenizer(source, run.output / files[raw])
    _copy(text_file(setup.source), run.output / TEXT_TOKENIZER)
    content = {
        "name": run.name,
        "license": run.license,
        "description": run.description,
        "fourm": BEST,
        "text_tokenizer": TEXT_TOKENIZER,
        "tokenizers": files,
        "semseg_classes": list(setup.source.semseg_classes),
    }
    write_whole(run.output / BUNDLE_FILE, (json.dumps(content, indent=2) + "\n").encode())


def _keep_tokenizer(source: str | Path, target: Path) -> None:
    checkpoint = open_checkpoint(source)
    if set(checkpoint.file.metadata) - {"format"}:
        _copy(checkpoint.path, target)
    elif not target.exists():  # its configuration lies beside it: bring both together
        save_checkpoint(load_tokenizer(checkpoint), target)


def _copy(source: Path, target: Path) -> None:
    """Put a file there, without doubling it on disk where the file system can."""
    if target.exists():
        return
    source = source.resolve()  # the hub's cache holds links
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
