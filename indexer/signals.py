"""Stop a job in an orderly way when the terminal or the system asks for it."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(on_stop: Callable[[], None] | None = None) -> Generator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a request to stop, to pass to `Indexer.index` as `should_stop`.

    The job then ends after the shard it is working on. A second signal interrupts at once, which loses that
    shard's work and nothing else. Only for the main thread of a process, as signals are.

    Args:
        on_stop: called at the first signal, to tell the user. It runs inside a signal handler: keep it short.

    Yields:
        Whether to stop.
    """
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if on_stop is not None:
            on_stop()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
