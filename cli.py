"""The `anyseek` command: a thin layer over the Python API.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 unexpected or
nothing could be indexed, 2 wrong use (option, query, input, setting), 3 model, 4 not found, 5 another writer,
6 other storage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from . import __version__
from . import open as open_library
from .config import Settings, load_settings
from .errors import AnyseekError, ModelError, NotFoundError, StorageError, WriterBusyError
from .model import ALIASES, MODALITIES

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.progress import TaskID

    from . import Library
    from .indexer import IndexProgress, IndexReport
    from .model import Content
    from .search import Composition, Hits, Query, QueryPart, Retrieval
    from .search.evaluation import Failure

EXIT_CODES: tuple[tuple[type[AnyseekError], int], ...] = (
    (ModelError, 3),
    (NotFoundError, 4),
    (WriterBusyError, 5),
    (StorageError, 6),
    (AnyseekError, 2),
)
TASK_NAMES = ("normal", "depth", "semseg", "instances", "knn", "poses")
MAX_FAILURES = 20
"""Damaged samples that are shown; --json lists all."""

Command = TypeVar("Command", bound=Callable[..., Any])

Picture = click.Path(dir_okay=False, path_type=Path)

config_file = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


class _Group(click.Group):
    """The one place where an error of anyseek becomes a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AnyseekError as error:
            click.echo(f"anyseek: {error} [{error.code}]", err=True)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(130)


def exit_code(error: AnyseekError) -> int:
    """The code that the command ends with for an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def modality_options(*, multiple: bool) -> Callable[[Command], Command]:
    """An option for each modality but the caption, named as everywhere else, and by its other words."""
    rows = {row.raw: row for row in MODALITIES.values() if row.raw != "caption"}

    def add(command: Command) -> Command:
        for raw, row in reversed(rows.items()):
            words = [raw, *(word for word, name in ALIASES.items() if name == raw)]
            command = click.option(
                *(f"--{word.replace('_', '-')}" for word in words),
                raw,
                multiple=multiple,
                metavar="FILE|VALUES" if row.kind == "seq" else "FILE",
                help=f"{row.raw_format[0].upper()}{row.raw_format[1:]}.",
            )(command)
        return command

    return add


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="anyseek")
@click.option(
    "--library",
    type=click.Path(path_type=Path),
    help="Library folder [default: ANYSEEK_LIBRARY or the user's].",
)
@click.pass_context
def main(ctx: click.Context, library: Path | None) -> None:
    """Index collections of images and search them with any mix of modalities."""
    settings = load_settings()
    ctx.obj = settings if library is None else settings.model_copy(update={"library": library})


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "collection", required=True, help="Collection to add to; made when new.")
@click.option("--model", help="Model of a new collection: a name (see `anyseek models`) or a bundle folder.")
@click.option(
    "--view",
    "views",
    multiple=True,
    help="What the vectors of a new collection are predicted from: `joint` (all that an item has, the "
    "default) or one modality; repeatable.",
)
@click.option(
    "--gallery",
    type=click.Choice(["predicted", "teacher"]),
    default="predicted",
    show_default=True,
    help="Whose vectors a collection holds: the model's predictions or, of items with RGB, its teachers'.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME[=WEIGHTS]",
    help="With --gallery teacher: dinov2 or imagebind, and its weights (safetensors file, folder or hub id) "
    "where not the published ones; repeatable.",
)
@click.option(
    "--predict",
    default="",
    metavar="MODALITIES",
    help="Modalities that become attributes by prediction: any of metadata,palette,caption.",
)
@click.option("--prefix", default="", help="Put in front of each item's id, to keep several folders apart.")
@click.option("--prune", is_flag=True, help="Remove items whose files are gone from this folder.")
@as_json
@click.pass_obj
def index(
    settings: Settings,
    folder: Path,
    collection: str,
    model: str | None,
    views: tuple[str, ...],
    gallery: str,
    teachers: tuple[str, ...],
    predict: str,
    prefix: str,
    prune: bool,
    as_json: bool,
) -> None:
    """Index FOLDER into a collection.

    It holds images with side files (photo.jpg, photo.caption.txt, photo.depth.png, photo.json), or one folder
    per modality (rgb/0001.jpg, depth/0001.png). Run again after an interruption to go on, or after a change
    to add what is new.
    """
    from .indexer import stop_on_signals
    from .model import TEACHERS

    if teachers and gallery != "teacher":
        raise click.UsageError("--teacher makes vectors only with --gallery teacher.")
    named = {name: weights or None for name, _, weights in (teacher.partition("=") for teacher in teachers)}
    with (
        open_library(settings=settings, create=True) as library,
        _progress() as show,
        stop_on_signals() as should_stop,
    ):
        if collection not in library and (model or settings.model) == "scenes":
            click.echo(
                "The model 'scenes' knows rendered scenes, not photos; for photos pass --model 4m21-b "
                "(downloaded, non-commercial use only; see `anyseek models`).",
                err=True,
            )
        for name in named:
            if name in TEACHERS:
                click.echo(f"Licence of the teacher {name}: {TEACHERS[name].license}.", err=True)
        report = library.index(
            folder,
            to=collection,
            model=model,
            views=views or None,
            teachers=named if gallery == "teacher" else None,
            predict=[word for word in predict.split(",") if word.strip()],
            prefix=prefix,
            prune=prune,
            progress=_index_progress(show),
            should_stop=should_stop,
        )
        errors = [asdict(error) for error in report.errors]  # read from the catalog, which closes below
        summary = report.to_json() | {"errors": errors}
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _print_report(report, errors)
    if report.state == "stopped":
        sys.exit(130)
    if report.failed and not report.done and not report.skipped:
        sys.exit(1)


@main.command()
@click.argument("collection")
@click.option("--caption", "captions", multiple=True, metavar="TEXT", help="Words that describe it.")
@modality_options(multiple=True)
@click.option("--not", "negatives", multiple=True, metavar="TEXT", help="Words that must not describe it.")
@click.option("--like", "likes", multiple=True, metavar="ID", help="An indexed item to resemble.")
@click.option(
    "--part",
    "weighted",
    multiple=True,
    nargs=3,
    metavar="MODALITY CONTENT WEIGHT",
    help="Any part with its weight, negative to push away: --part caption 'a harbour' 0.6",
)
@click.option("--where", help='Filter on attributes: "year >= 2024 and license in [cc0, by]".')
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option("--view", default="joint", show_default=True, help="Which of the items' vectors to search.")
@click.option(
    "--composition",
    type=click.Choice(["auto", "joint", "guided", "late"]),
    default="auto",
    show_default=True,
    help="How parts combine: one prediction from all, one that each part pulls or pushes by its weight, or "
    "one each with summed scores.",
)
@click.option("--explain", is_flag=True, help="Show what each part and space gave to each hit.")
@click.option(
    "--save-grid",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the hits as a picture.",
)
@as_json
@click.pass_obj
def search(
    settings: Settings,
    collection: str,
    captions: tuple[str, ...],
    negatives: tuple[str, ...],
    likes: tuple[str, ...],
    weighted: tuple[tuple[str, str, str], ...],
    where: str | None,
    limit: int,
    view: str,
    composition: Composition,
    explain: bool,
    save_grid: Path | None,
    as_json: bool,
    **contents: tuple[str, ...],
) -> None:
    """Search COLLECTION with any mix of parts; each option can be repeated.

    \b
    anyseek search holidays --caption "a harbour at dusk" --rgb boat.jpg --not people
    anyseek search holidays --color-palette "#20324a,#e0a35a" --where "year >= 2024"
    """
    from .search import Caption, Like, Query, parse_filter

    parts = [Caption(text) for text in captions] + [-Caption(text) for text in negatives]
    parts += [Like(item_id) for item_id in likes]
    parts += [_part(modality, text) for modality, texts in contents.items() for text in texts]
    parts += [_number(weight) * _part(modality, text) for modality, text, weight in weighted]
    query = Query(tuple(parts))
    with open_library(settings=settings) as library:
        hits = library[collection].search(
            query,
            where=parse_filter(where) if where else None,
            limit=limit,
            view=view,
            composition=composition,
            explain=explain,
        )
        if save_grid:
            _save_grid(library, [(query, hits)], save_grid)
    if as_json:
        click.echo(json.dumps(hits.as_dict()))
    else:
        _print_hits(hits, explain)


@main.command()
@click.argument("photos", nargs=-1, metavar="[PHOTO]...", type=click.Path(path_type=Path))
@click.option(
    "--to", "words", required=True, metavar="MODALITY,...", help="What to predict, as in depth,caption."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the files; made when missing.",
)
@click.option("--caption", metavar="TEXT", help="Words that describe it.")
@modality_options(multiple=False)
@click.option(
    "--model", help="A name (see `anyseek models`) or a bundle folder [default: ANYSEEK_MODEL, scenes]."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same result.")
@click.option("--super-resolution", is_flag=True, help="Predict at twice the size, where the model can.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there; never those given.")
@as_json
@click.pass_obj
def predict(
    settings: Settings,
    photos: tuple[Path, ...],
    words: str,
    out: Path,
    model: str | None,
    seed: int,
    super_resolution: bool,
    overwrite: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Predict modalities of each PHOTO, or of what the options give, as ordinary files and one overview.png.

    With photos, the options say more about every one of them. Files are named after the photo:
    beach.jpg gives beach.depth.png.

    \b
    anyseek predict beach.jpg --to depth,semseg,caption,palette --out predicted/
    anyseek predict --depth room.png --caption "a kitchen" --to rgb --out predicted/ --model 4m21-xl
    """
    from .model import load_model, predict_files

    contents = {raw: _part(raw, text).content for raw, text in given.items() if text is not None}
    items = _items_to_predict(photos, cast("dict[str, Content]", contents))
    opened = load_model(model or settings.model, spaces=(), device=settings.device, dtype=settings.dtype)
    with _progress() as show:
        report = predict_files(
            opened,
            items,
            [word for word in words.split(",") if word.strip()],
            out,
            seed=seed,
            super_resolution=super_resolution,
            overwrite=overwrite,
            progress=_stages(show),
        )
    if as_json:
        told = {
            "model": opened.name,
            "license": opened.license,
            "seed": seed,
            "files": {
                name: {raw: str(path) for raw, path in files.items()} for name, files in report.files.items()
            },
            "problems": report.problems,
            "errors": {name: {"code": e.code, "message": str(e)} for name, e in report.errors.items()},
            "overview": str(report.overview),
        }
        click.echo(json.dumps(told))
    else:
        for name, error in report.errors.items():
            click.echo(f"{name}: {error} [{error.code}]", err=True)
        for name, files in report.files.items():
            for path in files.values():
                click.echo(path)
            for raw, problem in report.problems.get(name, {}).items():
                click.echo(f"{name}: {raw}: {problem}", err=True)
        click.echo(report.overview)
        click.echo(f"Predicted by {opened.name}. Licence of the weights: {opened.license}.", err=True)
    if report.errors:
        sys.exit(1)


def _items_to_predict(photos: Sequence[Path], given: Mapping[str, Content]) -> dict[str, dict[str, Content]]:
    """What is given of each item, by the name that its files get."""
    if photos and "rgb" in given:
        raise click.UsageError("Give the photo as PHOTO or as --rgb, not both.")
    if not photos and not given:
        raise click.UsageError("Give a PHOTO, or what else is known, such as --caption or --depth.")
    if not photos:
        files = ((raw, content) for raw, content in given.items() if isinstance(content, Path))
        name = next((_item_name(raw, path) for raw, path in files), "predicted")
        return {name: dict(given)}
    items: dict[str, dict[str, Content]] = {}
    for photo in photos:
        name = _item_name("rgb", photo)
        if name in items:
            raise click.UsageError(f"Two photos are called {name!r}; their files would replace each other.")
        items[name] = {"rgb": photo, **given}
    return items


def _item_name(raw: str, path: Path) -> str:
    """`room` of room.png and of room.depth.png."""
    return path.stem.removesuffix(f".{raw}")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True)
@click.pass_obj
def serve(settings: Settings, host: str, port: int) -> None:
    """Serve the library over HTTP: the search page at /, the API under /v1, its description at /docs."""
    with open_library(settings=settings, create=True) as library:
        _serve(library, host, port)


@main.group(invoke_without_command=True)
@as_json
@click.pass_context
def collections(ctx: click.Context, as_json: bool) -> None:
    """List the collections; `delete NAME` removes one."""
    if ctx.invoked_subcommand:
        return
    with open_library(settings=ctx.obj) as library:
        rows = [
            {
                "name": c.name,
                "items": c.num_items,
                "model": c.model,
                "views": list(c.views),
                "gallery": c.gallery,
            }
            for c in library.store.collections()
        ]
    if as_json:
        click.echo(json.dumps({"collections": rows}))
    else:
        _print_table(rows or [{"collections": "none yet: anyseek index FOLDER --to NAME"}])


@collections.command("delete")
@click.argument("name")
@click.confirmation_option(prompt="Delete the collection and its vectors (not your files)?")
@click.pass_obj
def delete_collection(settings: Settings, name: str) -> None:
    """Delete the collection NAME with its vectors; files it refers to stay."""
    with open_library(settings=settings) as library, library.store.writer() as writer:
        writer.delete_collection(name)


@main.command()
@as_json
def models(as_json: bool) -> None:
    """List the models that can be used by name, with their licences."""
    from .model import MODELS

    rows = [
        {
            "name": name,
            "weights": source.weights,
            "license": source.license,
            "description": source.description,
        }
        for name, source in MODELS.items()
    ]
    click.echo(json.dumps({"models": rows})) if as_json else _print_table(rows)


@main.group("eval")
def evaluate() -> None:
    """Measure models on public data sets, and how well your own collections are found."""


@evaluate.command("task")
@click.argument("name", metavar="TASK", type=click.Choice(TASK_NAMES))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Folder of the data set, as listed above."
)
@click.option("--model", help="A name (see `anyseek models`) or a bundle folder.")
@click.option("--limit", type=click.IntRange(1), help="Take this many samples, spread over all of them.")
@click.option("--batch", type=click.IntRange(1, 4096), default=8, show_default=True, help="Samples at once.")
@click.option(
    "--ensemble",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Predictions per sample, averaged or voted; the paper takes 10 for normal and semseg.",
)
@click.option("--temperature", type=click.FloatRange(0), help="Of the prediction, to make an ensemble vary.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same result.")
@click.option("--smpl", type=click.Path(path_type=Path), help="Your SMPL body model as .npz, for poses.")
@as_json
@click.pass_obj
def evaluate_task(
    settings: Settings, name: str, data: Path, model: str | None, smpl: Path | None, as_json: bool, **run: Any
) -> None:
    """Run one of the out-of-the-box tasks of 4M-21 on your copy of its data.

    \b
    TASK       data set    --data holds
    normal     DIODE       val/indoors/scene_*/scan_*/*.png and *_normal.npy, val/outdoor/...
    depth      DIODE       the same with *_depth.npy and *_depth_mask.npy
    semseg     COCO 2017   val2017/, annotations/panoptic_val2017.json, annotations/panoptic_val2017/
    instances  COCO 2017   val2017/, annotations/instances_val2017.json
    knn        ImageNet    train/CLASS/*.JPEG, val/CLASS/*.JPEG
    poses      3DPW        imageFiles/SEQUENCE/*.jpg, sequenceFiles/test/SEQUENCE.npz; needs --smpl
    normal, depth and semseg also run on your own pictures: rgb/a.jpg with depth/a.png, semseg/a.png, ...

    \b
    anyseek eval task depth --data diode --model 4m21-b --limit 20
    anyseek eval task semseg --data coco --model 4m21-xl --ensemble 10 --json > semseg.json

    Damaged samples are listed and left out. docs/evaluation.md says where the data is, what the metrics are
    and what the paper reports.
    """
    from .model import load_model
    from .model.tasks import TASKS, RunSettings, evaluate

    run_settings = RunSettings(**run)
    opened = load_model(model or settings.model, spaces=(), device=settings.device, dtype=settings.dtype)
    with _progress() as show:
        report = evaluate(
            opened,
            name,
            data,
            run_settings,
            smpl=smpl,
            progress=lambda done, total, failed: show(
                {"stage": name, "done": done, "total": total, "failed": failed}
            ),
        )
    if as_json:
        told = {"task": name, "data": str(data), "model": opened.name, "license": opened.license}
        click.echo(json.dumps(told | report.as_dict()))
    else:
        for failure in report.failures[:MAX_FAILURES]:
            click.echo(f"{failure.name}: {failure.message}", err=True)
        title = f"{name} on {report.num_samples:,} samples of {data} by {opened.name}"
        rows = [
            {"metric": key, "": value, "paper": "Table 1" if key == TASKS[name].metric else ""}
            for key, value in report.metrics.items()
        ]
        _print_table(rows, title=title)
        notes = {"seconds": report.seconds, "failed": len(report.failures)} | dict(report.notes)
        click.echo(", ".join(f"{key} {value}" for key, value in notes.items()))


@main.group("train")
def train() -> None:
    """Train tokenizers, 4M and what goes with them on your own data; docs/training.md walks through it."""


@train.command("4m")
@config_file
@as_json
def train_fourm(config: Path, as_json: bool) -> None:
    """Train a 4M model as CONFIG, a YAML, says, or go on with a training that was interrupted.

    Its output folder is a model for `--model`. Ctrl-C stops after the step and keeps it. On several GPUs:

    \b
    torchrun --nproc-per-node 8 -m anyseek train 4m run.yaml
    """
    from .indexer import stop_on_signals
    from .model.training.fourm_recipes import read_fourm_run
    from .model.training.fourm_runs import run_fourm

    is_first = os.environ.get("RANK", "0") == "0"
    with _progress() as show, stop_on_signals() as should_stop:
        report = run_fourm(
            read_fourm_run(config),
            should_stop=should_stop,
            progress=(lambda done, total: show({"stage": "train", "done": done, "total": total}))
            if is_first
            else None,
        )
    if is_first:
        click.echo(json.dumps(report) if as_json else _told_training(report))
    if not report["finished"]:
        sys.exit(130)


@train.command("scenes")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="For all results."
)
@click.option(
    "--scenes",
    "num_scenes",
    type=click.IntRange(20, 9999),
    default=500,
    show_default=True,
    help="To be searched; four times as many are trained on.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which scenes.")
@as_json
def train_scenes(out: Path, num_scenes: int, seed: int, as_json: bool) -> None:
    """Render 3D scenes with every modality and train a small model that finds them, in minutes, on a CPU.

    OUT/scenes holds scenes that the model never sees, OUT/bundle the model. Run again to go on after an
    interruption. Then:

    \b
    anyseek index OUT/scenes --to scenes --model OUT/bundle
    anyseek search scenes --caption "a person in a red shirt"
    """
    from .model.training.scene_runs import run_scenes

    with _progress() as show:
        report = run_scenes(
            out,
            num_scenes,
            seed=seed,
            workers=os.cpu_count() or 1,
            progress=lambda stage, done, total: show({"stage": stage, "done": done, "total": total}),
        )
    if as_json:
        click.echo(json.dumps(report))
        return
    rows = [{"query": name} | row for name, row in report["retrieval"].items()]
    _print_table(rows, title=f"Found among {num_scenes} scenes never seen in training, by their pictures")
    click.echo(f"anyseek index {report['scenes']} --to scenes --model {report['bundle']}")


@train.command("transfer")
@config_file
@as_json
@click.pass_obj
def train_transfer(settings: Settings, config: Path, as_json: bool) -> None:
    """Fine-tune a model's encoder for a task of your own as CONFIG, a YAML, says, or go on with it.

    Classes of pictures, segmentation, depth or boxes, from RGB or RGB and depth; docs/transfer.md has the
    settings for ImageNet, ADE20K, NYUv2, Hypersim and COCO. Ctrl-C stops after the step and keeps it.
    """
    from .indexer import stop_on_signals
    from .model.transfer import TransferRun, read_config

    with _progress() as show, stop_on_signals() as should_stop:
        result = TransferRun(read_config(config), device=settings.device, show=show).run(should_stop)
    if as_json:
        click.echo(json.dumps(result))
    else:
        rows = [{"metric": key, "": value} for key, value in result["best"].items() if key != "step"]
        _print_table(rows, title=f"{result['task']} with {result['model']}, step {result['steps']:,}")
    if not result["finished"]:
        sys.exit(130)


@train.command("tokenizer")
@config_file
@as_json
def train_tokenizer(config: Path, as_json: bool) -> None:
    """Train a tokenizer of one modality as CONFIG, a YAML, says, or go on where it was interrupted.

    Its `kind` is vq, diffusion, memcodes or wordpiece (docs/training-tokenizers.md). Ctrl-C stops after the
    step and keeps it.
    """
    from .model.training.tokenizer_recipes import read_tokenizer_run
    from .model.training.tokenizer_runs import run_tokenizer

    _train(read_tokenizer_run(config), run_tokenizer, as_json)


@train.command("teachers")
@config_file
@as_json
def train_teachers(config: Path, as_json: bool) -> None:
    """Train or open a teacher as CONFIG, a YAML, says, and write its features of your pictures as .npy files.

    Its `kind` is dino (pictures alone), contrastive (with captions or depth) or published (your own copy of
    DINOv2's, CLIP's or ImageBind's weights); docs/training-tokenizers.md. Ctrl-C stops after the step and
    keeps it.
    """
    from .model.training.teacher_recipes import read_teacher_run
    from .model.training.teacher_runs import run_teacher

    _train(read_teacher_run(config), run_teacher, as_json)


def _train(config: object, run: Callable[..., Mapping[str, Any]], as_json: bool) -> None:
    """Run what a YAML says and show its report."""
    from .indexer import stop_on_signals

    with _progress() as show, stop_on_signals() as should_stop:
        report = run(config, progress=_stages(show), should_stop=should_stop)
    failures: Mapping[str, str] = report["failures"]
    if as_json:
        click.echo(json.dumps(report))
    else:
        for name, reason in list(failures.items())[:MAX_FAILURES]:
            click.echo(f"{name}: {reason}", err=True)
        told = {key: value for key, value in report.items() if key not in ("failures", "finished", "output")}
        _print_table([{"": key, "value": value} for key, value in told.items()], title=report["output"])
        if failures:
            click.echo(f"{len(failures):,} files could not be used.", err=True)
    if not report["finished"]:
        click.echo("Stopped; run the same command again to go on.", err=True)
        sys.exit(130)


@train.command("tokenize")
@click.argument("source")
@click.option(
    "--model",
    required=True,
    help="Whose tokenizers: a name, a bundle folder, or the YAML of a training that is to come.",
)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the tokens; made when missing.",
)
@click.option("--crops", type=click.IntRange(1, 100), default=1, show_default=True, help="Of each sample.")
@click.option(
    "--modalities", default="", metavar="NAME,...", help="Those to take, as in rgb@224,tok_depth@224."
)
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Samples at once.")
@click.option(
    "--shard-size", type=click.IntRange(1), default=512, show_default=True, help="Samples of a shard."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of crops and order.")
@as_json
@click.pass_obj
def train_tokenize(
    settings: Settings,
    source: str,
    model: str,
    folder: Path,
    modalities: str,
    shard_size: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn SOURCE into tokens to train on; run again after an interruption to go on.

    SOURCE is a folder as `anyseek index` takes it, or data as 4M's own: tar files and token ids by modality,
    also as a pattern: "data/[rgb,caption]/shard-{00000..00009}.tar".
    """
    from .indexer import FolderSource, stop_on_signals
    from .model.training.commands import modalities_of, tokenize_source

    run = modalities_of(model)

    def items() -> list[tuple[str, Mapping[str, Path]]]:
        return [(item.id, item.files) for item in FolderSource(source).scan() if item.files]

    with _progress() as show, stop_on_signals() as should_stop:
        report = tokenize_source(
            source,
            run,
            folder,
            items=items,
            shard_size=shard_size,
            modalities=[name for name in modalities.split(",") if name.strip()],
            batch_size=options["batch"],
            crops=options["crops"],
            seed=options["seed"],
            device=settings.device,
            should_stop=should_stop,
            progress=lambda done, total, failed: show(
                {"stage": "tokenize", "done": done, "total": total, "failed": failed}
            ),
        )
    if as_json:
        click.echo(json.dumps(asdict(report)))
    elif report.finished:
        passed_over = f"; passed over: {', '.join(report.skipped)}" if report.skipped else ""
        click.echo(
            f"{folder}: {report.num_samples:,} samples of {', '.join(report.modalities)}, "
            f"{report.num_failed:,} values could not be used{passed_over}"
        )
    else:
        click.echo("Stopped; run the same command again to go on.", err=True)
    if not report.finished:
        sys.exit(130)


def _told_training(report: Mapping[str, Any]) -> str:
    if not report["finished"]:
        return f"Stopped after step {report['step']:,}; run the same command again to go on."
    best = "" if report["best"] is None else f" Best held-out loss {report['best']:.4f} nats."
    output = report["output"]
    return f"{output} is trained: {report['step']:,} steps.{best} Use it with --model {output}."


@evaluate.command("retrieval")
@click.argument("collection")
@click.option("--modality", "modalities", multiple=True, help="Ask with this one; repeatable [default: all].")
@click.option(
    "--mix",
    "mixes",
    multiple=True,
    metavar="MODALITY+MODALITY",
    help="Ask with these together, as in caption+palette; repeatable [default: pairs that differ].",
)
@click.option("--view", "views", multiple=True, help="Search this one; repeatable [default: all].")
@click.option(
    "--queries",
    multiple=True,
    metavar="[MODALITY=]FOLDER",
    help="Ask with these files, named as the items' own: rgb=moved/ holds other photos of the same things; "
    "without MODALITY all that the folder has; repeatable.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME[=WEIGHTS]",
    help="Whose vectors of the pictures show the ceiling: dinov2 or imagebind, as for `index`; repeatable.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=500, show_default=True, help="Queries of a kind at most."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--unique", is_flag=True, help="Leave out what several items have the very same of.")
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Also try other decodings, scorings, spaces and compositions.",
)
@click.option("--save-matrix", type=Picture, metavar="FILE", help="Draw queries against views as a heat map.")
@click.option("--save-gaps", type=Picture, metavar="FILE", help="Draw what mixes add to their parts.")
@as_json
@click.pass_obj
def evaluate_retrieval(
    settings: Settings,
    collection: str,
    mixes: tuple[str, ...],
    queries: tuple[str, ...],
    teachers: tuple[str, ...],
    save_matrix: Path | None,
    save_gaps: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how well each kind of query finds its item in COLLECTION, which needs no labels.

    Items are asked for with what they have, alone and in mixes, and every stored vector is ranked. Vectors
    made from the very content that is asked with are marked: index with --view rgb to ask without it.

    \b
    anyseek eval retrieval holidays --save-matrix matrix.png
    anyseek eval retrieval scenes --queries rgb=moved/ --mix caption+palette --limit 2000 --json > found.json
    """
    from .model import raw_name
    from .search import RetrievalSettings

    for option in ("modalities", "views"):
        options[option] = tuple(raw_name(w) if w != "joint" else w for w in options[option])
    split = [tuple(raw_name(word) for word in mix.split("+")) for mix in mixes]
    folders = {word or "*": Path(path) for word, _, path in (_named(text) for text in queries)}
    named = {name: weights or None for name, _, weights in (teacher.partition("=") for teacher in teachers)}
    with open_library(settings=settings) as library, _progress() as show:
        report = library[collection].evaluate(
            RetrievalSettings(mixes=split or None, **options),
            queries=folders,
            teachers=named,
            progress=_stages(show),
        )
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        from .search.evaluation.tables import retrieval_tables

        _print_tables(retrieval_tables(report))
        _print_notes(report.notes, report.failures, report.seconds)
    if save_matrix or save_gaps:
        from .search.evaluation import plots

        if save_matrix:
            plots.save(plots.draw_matrix(report), save_matrix)
        if save_gaps:
            plots.save(plots.draw_gaps(report), save_gaps)


def _named(text: str) -> tuple[str, str, str]:
    """`rgb=folder` as its two sides; a folder alone names no modality."""
    word, equals, path = text.partition("=")
    return (word, equals, path) if equals else ("", "", text)


@evaluate.command("index")
@click.argument("collection")
@click.option("--view", "views", multiple=True, help="Search this one; repeatable [default: all].")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="Queries.")
@click.option(
    "--selectivity",
    "selectivities",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    default=(0.001, 0.01, 0.1, 0.5),
    show_default=True,
    help="Share of the items that a random filter lets through; repeatable.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--save-plot", type=Picture, metavar="FILE", help="Draw recall and latency.")
@as_json
@click.pass_obj
def evaluate_index(
    settings: Settings, collection: str, save_plot: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure recall, latency and size of COLLECTION's published indexes against exact search.

    Recall is that of 1, 10 and 100 hits; latency that of one query for 10 hits in this process, beside the
    bare FAISS call on the same index. No model is loaded.
    """
    from .search import IndexSettings

    with open_library(settings=settings) as library, _progress() as show:
        report = library[collection].evaluate_index(IndexSettings(**options), progress=_stages(show))
    if as_json:
        click.echo(json.dumps(report.to_json()))
    else:
        from .search.evaluation.tables import index_tables

        _print_tables(index_tables(report))
        told = {"generation": report.generation_bytes, "segments": report.segment_bytes}
        told |= {"memory grew by": report.resident_bytes} if report.resident_bytes is not None else {}
        sizes = ", ".join(f"{what} {size / 2**20:,.1f} MiB" for what, size in told.items())
        click.echo(f"{sizes}; {report.num_fresh:,} items newer than the generation; {report.seconds} s.")
    if save_plot:
        from .search.evaluation import plots

        plots.save(plots.draw_index(report), save_plot)


@evaluate.command("check")
@click.argument("collection")
@click.option(
    "--modality", "modalities", multiple=True, help="Check these against each other [default: all]."
)
@click.option("--limit", type=click.IntRange(1), help="Check this many items, drawn at random.")
@click.option("--top", type=click.IntRange(1), default=50, show_default=True, help="Findings to list.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn.")
@click.option("--save-pictures", type=Picture, metavar="FILE", help="Draw the worst twelve.")
@as_json
@click.pass_obj
def evaluate_check(
    settings: Settings,
    collection: str,
    modalities: tuple[str, ...],
    save_pictures: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """List items of COLLECTION that contradict themselves: wrong captions, swapped files.

    Predicts each modality's vector from it alone and from the item's others; those that agree least, for
    what is usual of the modality, come first. It is a ranking to look through, not a verdict.
    """
    from .model import raw_name
    from .search import CheckSettings

    chosen = tuple(raw_name(word) for word in modalities)
    with open_library(settings=settings) as library:
        with _progress() as show:
            check = CheckSettings(modalities=chosen, **options)
            report = library[collection].check(check, progress=_stages(show))
        if as_json:
            click.echo(json.dumps(report.to_json()))
        else:
            from .search.evaluation.tables import check_tables

            _print_tables(check_tables(report))
            _print_notes(report.notes, report.failures, report.seconds)
        if save_pictures:
            from .search.evaluation import plots

            _save_picture(plots.draw_findings(library.engine(), report), save_pictures)


def _stages(show: Callable[[Mapping[str, Any]], None]) -> Callable[[str, int, int], None]:
    """Adapt the display to work that tells its stage, what is done and of how much."""
    return lambda stage, done, total: show({"stage": stage, "done": done, "total": total})


def _print_tables(tables: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
    for title, rows in tables:
        _print_table(rows, title=title)


def _print_notes(notes: Sequence[str], failures: Sequence[Failure], seconds: float) -> None:
    for failure in failures[:MAX_FAILURES]:
        click.echo(f"{failure.id}, {failure.modality}: {failure.message} [{failure.code}]", err=True)
    for note in notes:
        click.echo(note)
    click.echo(f"{seconds} s.")


def _part(modality: str, text: str) -> QueryPart:
    """Read one part from the command line: words for a caption, else a file or values written out."""
    from .model import raw_name
    from .search import QueryPart

    modality = modality if modality == "item" else raw_name(modality)
    if modality == "caption":
        return QueryPart(modality, text)
    if modality == "item":
        from .search import Like

        return Like(text)
    if text.lstrip().startswith(("{", "[")):
        try:
            return QueryPart(modality, json.loads(text))
        except json.JSONDecodeError as error:
            raise click.UsageError(f"The {modality} part is no JSON: {error}.") from error
    if modality == "color_palette" and text.startswith("#"):
        return QueryPart(modality, [color.strip() for color in text.split(",")])
    path = Path(text)
    if not path.is_file():
        raise click.UsageError(f"The {modality} part names the file {text!r}, which does not exist.")
    return QueryPart(modality, path)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"A weight is a number such as 0.6 or -1, got {text!r}.") from None


@contextmanager
def _progress() -> Generator[Callable[[Mapping[str, Any]], None]]:
    """Show where long work is: a bar on a terminal, elsewhere a JSON line at most every second.

    Yields a function of `stage`, `done`, `total` (None while unknown) and whatever else there is to tell.
    """
    if sys.stderr.isatty():
        yield from _progress_bar()
        return
    last_stage, last_time = "", 0.0

    def line(state: Mapping[str, Any]) -> None:
        nonlocal last_stage, last_time
        now = time.monotonic()
        finished = state["done"] == state["total"]
        if state["stage"] != last_stage or now - last_time >= 1 or finished:
            last_stage, last_time = state["stage"], now
            click.echo(json.dumps(state), err=True)

    yield line


def _progress_bar() -> Generator[Callable[[Mapping[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def draw(state: Mapping[str, Any]) -> None:
            stage = state["stage"]
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, note="")
            note = f"{state['failed']} failed" if state.get("failed") else ""
            bar.update(tasks[stage], completed=state["done"], total=state["total"], note=note)

        yield draw


def _index_progress(show: Callable[[Mapping[str, Any]], None]) -> Callable[[IndexProgress], None]:
    """Adapt the display to the indexer's reports; reading, embedding and predicting alternate: one stage."""

    def tell(progress: IndexProgress) -> None:
        stage = "index" if progress.stage in ("read", "embed", "predict", "store") else progress.stage
        handled = progress.done + progress.failed + progress.skipped + progress.pending
        total = progress.total if stage != "scan" else None
        show(asdict(progress) | {"stage": stage, "done": handled, "total": total})

    return tell


def _counter(show: Callable[[Mapping[str, Any]], None], stage: str, total: int) -> Callable[[int], None]:
    """Adapt the display to work that only counts."""
    return lambda done: show({"stage": stage, "done": done, "total": total})


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Generator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 2)


def _print_report(report: IndexReport, errors: Sequence[Mapping[str, str]], shown: int = 20) -> None:
    for error in errors[:shown]:
        click.echo(f"{error['path']}: {error['message']} [{error['code']}]", err=True)
    if len(errors) > shown:
        click.echo(f"... and {len(errors) - shown} more; --json lists all.", err=True)
    counts = {
        "indexed": report.done,
        "unchanged": report.skipped,
        "removed": report.removed,
        "failed": report.failed,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing to index"
    passed_over = ", ".join(f"{count:,} {reason}" for reason, count in report.ignored.items())
    click.echo(f"{report.collection}: {told}" + (f"; passed over: {passed_over}" if passed_over else ""))
    if report.without_teacher:
        click.echo(
            f"{report.without_teacher:,} items hold a predicted vector among the teachers': they have "
            "neither RGB nor a vector of their own, or no teacher of that space was named."
        )
    if report.state == "stopped":
        click.echo("Stopped; run the same command again to go on.", err=True)


def _print_hits(hits: Hits, explain: bool) -> None:
    rows: list[dict[str, Any]] = []
    for place, hit in enumerate(hits, 1):
        row: dict[str, Any] = {"": place, "score": hit.score, "id": hit.id}
        paths = {asset.modality: asset.path for asset in hit.assets if asset.path}
        path = paths.get("rgb") or next(iter(paths.values()), "")
        rows.append(row | ({"why": hit.why()} if explain else {"file": path}))
    _print_table(rows) if rows else click.echo("No item passes the filter.")


def _save_grid(library: Library, rows: Sequence[tuple[Query | QueryPart, Hits]], path: Path) -> None:
    from .search import draw_grid

    _save_picture(draw_grid(rows, library.store.assets), path)


def _save_picture(picture: Image, path: Path) -> None:
    try:
        picture.save(path)
    except (OSError, ValueError) as error:  # Pillow's: no folder, no space, an extension it does not write
        raise click.UsageError(f"The picture cannot be written to {path}: {error}.") from error


def _serve(library: Library, host: str, port: int) -> None:
    import uvicorn

    uvicorn.run(library.app(), host=host, port=port, log_level="warning")


def _print_table(rows: list[dict[str, Any]], title: str | None = None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # Without a terminal there is no width to fit, and cut ids help nobody.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: object) -> str:
    from rich.markup import escape

    if isinstance(value, float):
        return f"{value:.3f}"
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


@main.command()
@click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True
)
@click.option("--scenes", "num_scenes", type=click.IntRange(10, 100_000), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which scenes.")
@click.option("--serve/--no-serve", "then_serve", default=True, help="Serve the result until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True)
@as_json
@click.pass_obj
def demo(
    settings: Settings, home: Path, num_scenes: int, seed: int, then_serve: bool, port: int, as_json: bool
) -> None:
    """Render scenes that the built-in model has never seen, index them like any folder, measure how well each
    kind of query finds its scene, draw some searches and serve the result.

    Items are compared by vectors predicted from their picture alone (view `rgb`), so a caption finds a
    picture and not its own text. The rgb queries show the scene with the camera moved and the light changed.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "render"):
        _render_scenes(home, num_scenes, seed)
    settings = settings.model_copy(update={"library": home / "library.anyseek"})
    with open_library(settings=settings, create=True) as library:
        with _timed(seconds, "index"), _progress() as show:
            report = library.index(
                home / "scenes",
                to="scenes",
                model="scenes",
                views=("joint", "rgb"),
                progress=_index_progress(show),
            )
        with _timed(seconds, "evaluate"):
            retrieval = _evaluate_scenes(library, home)
        with _timed(seconds, "draw"):
            grid = _draw_scenes(library, home)
        result = {
            "retrieval": {name: asdict(found) for name, found in retrieval.items()},
            "items": len(library["scenes"]),
            "failures": report.failed,
            "seconds": seconds,
            "library": str(settings.library),
            "grid": str(grid),
        }
        if not as_json:
            rows = [{"query": name} | asdict(found) for name, found in retrieval.items()]
            _print_table(rows, title=f"Found among {result['items']} scenes never seen in training")
            click.echo(f"Some searches: {result['grid']}. Seconds: {result['seconds']}.")
        if then_serve:
            click.echo(f"http://127.0.0.1:{port} shows the search page; Ctrl-C ends.", err=True)
            _serve(library, "127.0.0.1", port)
    if as_json:
        click.echo(json.dumps(result))


def _render_scenes(home: Path, num_scenes: int, seed: int) -> None:
    """Write the scenes and, to ask with, other renderings of them; keep those that are there already."""
    from .errors import InputError
    from .model.scenes import MODALITIES, write_scenes

    wanted = {"scenes": num_scenes, "seed": seed}
    marker = home / "demo.json"
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) == wanted:
            return
        raise InputError(f"{home} holds a demo of other scenes; pass another --home, or remove the folder.")
    for rendering, folder in enumerate(("scenes", "queries")):
        with _progress() as show:
            write_scenes(
                home / folder,
                num_scenes,
                seed=seed,
                rendering=rendering,
                modalities=("rgb",) if rendering else MODALITIES,
                workers=os.cpu_count() or 1,
                progress=_counter(show, f"render {folder}", num_scenes),
            )
    marker.write_text(json.dumps(wanted), encoding="utf-8")


def _scene_query(home: Path, kind: str, name: str) -> Query | None:
    """The query of one kind that scene `name` should answer, of its files; None where one is not there."""
    from .model.scenes import scene_file
    from .search import Query, QueryPart

    parts: list[QueryPart] = []
    for modality in kind.split("+"):
        path = home / ("queries" if modality == "rgb" else "scenes") / scene_file(name, modality)
        if not path.is_file():
            return None
        is_text = modality == "caption"
        parts.append(QueryPart(modality, path.read_text(encoding="utf-8").strip() if is_text else path))
    return Query(tuple(parts))


_NUM_ASKED = 300
_DRAWN = ("rgb", "caption", "depth", "semseg", "sam_edge", "color_palette", "caption+color_palette", "det")


def _draw_scenes(library: Library, home: Path) -> Path:
    """Draw some searches as a picture: single parts, mixes, and one with a negative."""
    from .model.scenes import known_queries
    from .search import Caption

    names = sorted(path.stem for path in (home / "queries").glob("*.png") if "." not in path.stem)
    inputs = library.model("scenes").inputs
    kinds = [raw for raw in known_queries(inputs) if raw in _DRAWN]
    asked = [_scene_query(home, kind, names[i * len(names) // len(kinds)]) for i, kind in enumerate(kinds)]
    queries: list[Query | QueryPart] = [query for query in asked if query is not None]
    night = Caption("a yellow cone at night")
    queries += [night, night - 0.5 * Caption("on green grass")]
    scenes = library["scenes"]
    path = home / "searches.png"
    _save_grid(library, [(query, scenes.search(query, limit=6, view="rgb")) for query in queries], path)
    return path


def _evaluate_scenes(library: Library, home: Path) -> dict[str, Retrieval]:
    """Ask for scenes whose caption no other scene has, in every way, and see where they come in among all.

    Every modality that the model reads is a question of its own, then some pairs; a scene that has nothing of
    a kind (people) is not asked for by it. Of many scenes only the first are asked for.
    """
    from .model.scenes import known_queries
    from .search import evaluate_retrieval

    captions = {
        path.name.split(".")[0]: path.read_text(encoding="utf-8")
        for path in sorted((home / "scenes").glob("*.caption.txt"))
    }
    counts = Counter(captions.values())
    names = [name for name, caption in captions.items() if counts[caption] == 1][:_NUM_ASKED]
    found: dict[str, Retrieval] = {}
    with _progress() as show:
        for kind in known_queries(library.model("scenes").inputs):
            asked = [(query, name) for name in names if (query := _scene_query(home, kind, name))]
            if asked:
                found[kind] = evaluate_retrieval(
                    library.engine(), "scenes", asked, view="rgb", progress=_counter(show, kind, len(asked))
                )
    return found
