"""One writer for each store of this process, shared by everybody who writes to it here."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from ..storage import Store, Writer


class _Shared:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.writer: Writer | None = None
        self.num_users = 0


_shared: WeakKeyDictionary[Store, _Shared] = WeakKeyDictionary()
_shared_lock = threading.Lock()


@contextmanager
def writing(store: Store) -> Generator[Writer]:
    """Give the store's writer, opened for the first of overlapping users and closed by the last.

    A library has one writer at a time. Within a process that must not mean one job at a time: an upload is
    committed between two shards of a running job.

    Raises:
        WriterBusyError: another process is writing.
    """
    with _shared_lock:
        shared = _shared.setdefault(store, _Shared())
    with shared.lock:
        writer = shared.writer = shared.writer or store.writer()
        shared.num_users += 1
    try:
        yield writer
    finally:
        with shared.lock:
            shared.num_users -= 1
            if not shared.num_users:
                shared.writer = None
                writer.close()
