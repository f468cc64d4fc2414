"""Turns of predictions: one runs, few wait, and whoever goes away gives up the place."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from anyseek.search import SearchEngine, create_app
from anyseek.search.predicting import MAX_WAITING, GoneError, Turns
from anyseek.search.problems import RefusedError


def test_one_prediction_runs_and_few_wait() -> None:
    turns, stay, running = Turns(max_waiting=2), threading.Event(), threading.Event()
    here = threading.Event()

    def run() -> None:
        with turns.take(here):
            running.set()
            assert stay.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run)
        assert running.wait(60)
        gone = threading.Event()
        gone.set()
        with pytest.raises(GoneError), turns.take(gone):
            pass
        second = pool.submit(run)
        while turns.num_places:
            pass
        with pytest.raises(RefusedError, match="again"), turns.take(here):
            pass
        stay.set()
        first.result(60)
        second.result(60)
    assert turns.num_places == 2


def test_a_failure_gives_the_turn_back() -> None:
    turns = Turns(max_waiting=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.take(threading.Event()):
            raise ZeroDivisionError


class EndlessPredictor:
    """Works until it is stopped."""

    def __init__(self) -> None:
        self.started, self.stopped = threading.Event(), threading.Event()

    def predict(self, *_: Any, progress: Callable[[str, int, int], None], **__: Any) -> list[dict[str, Any]]:
        self.started.set()
        try:
            while True:
                progress("predict caption", 1, 2)
        finally:
            self.stopped.set()


def test_a_prediction_ends_when_its_client_goes_away(engine: SearchEngine, model: Any) -> None:
    """Straight ASGI: a client that sends its request, waits a little and leaves."""
    model.predictor = EndlessPredictor()
    body = {"inputs": [{"modality": "color_palette", "values": ["#20324a"]}], "to": ["caption"]}
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        while not model.predictor.started.is_set():
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    app = create_app(engine)
    asyncio.run(app(scope, receive, send))
    assert model.predictor.stopped.is_set()
    assert app.state.turns.num_places == MAX_WAITING
    assert sent[0]["status"] == 499
