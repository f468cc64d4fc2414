"""One writer per library: a lock that ends with its process, and a note of who holds it."""

import fcntl
import json
import os
import shlex
import socket
import sys
import weakref
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import WriterBusyError
from .files import disk_errors

_held: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


class WriterLock:
    """The lock on `writer.lock`, held from construction to `release` or to the end of the process.

    flock, not lockf: it also keeps a second writer of the same process out.

    Raises:
        WriterBusyError: held already; names process, host, command and start of the holder.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        with disk_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 65536)
            os.close(descriptor)
            raise WriterBusyError(_busy_message(path, holder)) from None
        self._descriptor = descriptor
        _held.add(self)
        note = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join(sys.argv)[:1000],
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(note).encode(), 0)

    @property
    def is_held(self) -> bool:
        """Whether it has not been released."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock back. Twice is fine."""
        if self._descriptor is not None:
            # Emptied, not deleted: deleting would let two processes lock two files of one name.
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            # Closing is not enough while a forked child has yet to close its copy of the handle.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close this process's handle only, in a forked child: it must not outlive its parent's lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _busy_message(path: Path, note: bytes) -> str:
    try:
        holder: dict[str, Any] = json.loads(note)
        who = f"process {holder['pid']} on {holder['host']} ({holder['command']}), since {holder['started']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"  # it took the lock a moment ago and has not written its note yet
    return f"The library '{path.parent}' is being written by {who}. Wait for it to end, or stop it."


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
