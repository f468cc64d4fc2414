"""Predicting over HTTP: any modalities of one item in, any out, as values and ordinary files."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import mimetypes
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from ..errors import ModelError, QueryError
from ..model import Predicted, check_same_view, draw_overview, encode_value, raw_name, shown_value
from . import examples, schemas
from .bodies import read_body
from .problems import RefusedError
from .query import ItemAssets

if TYPE_CHECKING:
    from ..model import Content, Model

MAX_WAITING = 4
"""Predictions at once, of which one runs; each takes seconds, and a thread that searches need too."""

router = APIRouter(tags=["predict"])


@router.post(
    "/predict",
    response_model=schemas.PredictAnswer,
    responses=examples.PREDICT,
    openapi_extra={"requestBody": examples.PREDICT_BODY},
)
async def predict(request: Request) -> Response:
    """Predict modalities of one item from any others.

    JSON, or multipart/form-data with the JSON in the field `request` and files named by the inputs' `upload`.
    """
    wire, uploads = await read_body(request, schemas.PredictRequest)
    models: Callable[[], Sequence[Model]] = request.app.state.models
    turns: Turns = request.app.state.turns

    def work(gone: threading.Event) -> Response:
        with turns.take(gone):
            return _answer(_chosen(models(), wire.model), wire, uploads, gone)

    return await _until_gone(request, work)


class GoneError(Exception):
    """Nobody waits for the answer any more."""


class Turns:
    """Predictions one after another. Few may wait, so that threads are left for searches.

    Attributes:
        num_places: how many more may come now.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.num_places = max_waiting
        self._guard = threading.Lock()
        self._turn = threading.Lock()

    @contextmanager
    def take(self, gone: threading.Event) -> Generator[None]:
        """Wait for the turn.

        Raises:
            RefusedError: too many wait already.
            GoneError: the client went away meanwhile.
        """
        with self._guard:
            if not self.num_places:
                detail = "Too many predictions wait here already; try again in a while."
                raise RefusedError(503, "predict.busy", detail)
            self.num_places -= 1
        try:
            while not self._turn.acquire(timeout=0.1):
                if gone.is_set():
                    raise GoneError
            try:
                yield
            finally:
                self._turn.release()
        finally:
            with self._guard:
                self.num_places += 1


async def _until_gone(request: Request, work: Callable[[threading.Event], Response]) -> Response:
    """Run `work` in a thread; the event tells it when the client has gone away."""
    gone = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        return await run_in_threadpool(work, gone)
    except GoneError:
        return Response(status_code=499)  # read by nobody
    finally:
        watcher.cancel()


def _chosen(models: Sequence[Model], name: str | None) -> Model:
    """The model of that name, by default the first. Raises LocatedError."""
    known = {model.name: model for model in models}
    if name is None and models:
        return models[0]
    with schemas.located("/model"):
        if name is None or name not in known:
            raise ModelError(f"No model {name or ''!r} here; loaded are {', '.join(known) or 'none'}.")
        return known[name]


def _answer(
    model: Model, wire: schemas.PredictRequest, uploads: Mapping[str, bytes], gone: threading.Event
) -> Response:
    def check(*_: object) -> None:
        if gone.is_set():
            raise GoneError

    times = [time.perf_counter()]
    contents = _contents(wire, uploads)
    values = _read(model, contents)
    targets = _targets(model, wire.to)
    times.append(time.perf_counter())
    (predicted,) = model.predictor.predict(
        [values], targets, seed=wire.seed, super_resolution=wire.super_resolution, progress=check
    )
    times.append(time.perf_counter())
    body: dict[str, Any] = {
        "model": model.name,
        "license": model.license,
        "seed": wire.seed,
        "predicted": [_predicted_out(one, model.parts.classes) for one in predicted.values()],
        "overview": _overview(model, contents, predicted) if wire.overview else None,
    }
    times.append(time.perf_counter())
    spent = zip(("read", "predict", "write"), times, times[1:], strict=False)
    body["timing_ms"] = {stage: round((end - start) * 1000, 3) for stage, start, end in spent}
    timing = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in body["timing_ms"].items())
    return JSONResponse(body, headers={"Server-Timing": timing})


def _contents(wire: schemas.PredictRequest, uploads: Mapping[str, bytes]) -> dict[str, Content]:
    """What is given, by modality, in the order of the request. Raises LocatedError."""
    found: dict[str, Content] = {}
    for i, part in enumerate(schemas.parts_from_wire(wire.inputs, uploads, "/inputs")):
        with schemas.located(f"/inputs/{i}"):
            if part.weight != 1:
                raise QueryError("The inputs of a prediction have no weights.", code="query.weight")
            modality = raw_name(part.modality)
            if modality in found:
                raise QueryError(f"{modality} is given twice; a prediction takes each modality once.")
            assert not isinstance(part.content, ItemAssets)  # their modality is no raw name
            found[modality] = part.content
    return found


def _read(model: Model, contents: Mapping[str, Content]) -> dict[str, NDArray[Any]]:
    """What the model is given, by modality. Raises LocatedError."""
    values: dict[str, NDArray[Any]] = {}
    for i, (modality, content) in enumerate(contents.items()):
        with schemas.located(f"/inputs/{i}"):
            values[modality] = model.embedder.read(modality, content)
            if "rgb" in contents:
                check_same_view(modality, content, contents["rgb"])
    return values


def _overview(model: Model, contents: Mapping[str, Content], predicted: Mapping[str, Predicted]) -> str:
    given = {raw: shown_value(model, raw, content) for raw, content in contents.items()}
    row = {raw: value for raw, value in given.items() if value is not None} | dict(predicted)
    buffer = io.BytesIO()
    draw_overview([row], classes=model.parts.classes).save(buffer, "PNG")
    return _data_uri(".png", buffer.getvalue())


def _targets(model: Model, words: Sequence[str]) -> list[str]:
    """What to predict, each once. Raises LocatedError."""
    targets: list[str] = []
    for i, word in enumerate(words):
        with schemas.located(f"/to/{i}"):
            targets.append(raw_name(word))
            if targets[-1] not in model.targets:
                raise ModelError(
                    f"Model {model.name!r} cannot predict {word!r}; it predicts {', '.join(model.targets)}."
                )
    return list(dict.fromkeys(targets))


def _predicted_out(predicted: Predicted, classes: Sequence[str]) -> dict[str, Any]:
    """One modality for the answer: a value, or an ordinary file."""
    raw = predicted.modality
    out: dict[str, Any] = {"modality": raw, "value": None, "file": None, "problem": predicted.problem}
    if predicted.value is None:
        return out
    suffix, content = encode_value(raw, predicted.value, classes=classes)
    if suffix == ".json":
        out["value"] = json.loads(content)
    elif suffix == ".txt":
        out["value"] = content.decode()
    else:
        out["file"] = {"name": f"{raw}{suffix}", "data": _data_uri(suffix, content)}
    return out


def _data_uri(suffix: str, content: bytes) -> str:
    kind = mimetypes.types_map.get(suffix, "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
