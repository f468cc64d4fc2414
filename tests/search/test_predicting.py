"""Turns of predictions: one runs, few wait, and whoever goes away gives up the place."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from anyseek.search.predicting import GoneError, Turns
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
