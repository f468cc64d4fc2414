"""One writer at a time, and the lock dies with its process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from anyseek.errors import StorageError, WriterBusyError
from anyseek.storage import Store
from anyseek.storage.lock import WriterLock

_HOLD = """
import sys
from pathlib import Path
from anyseek.storage.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock `tmp_path / "lock"`."""
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_writes(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(WriterBusyError) as caught:
        WriterLock(tmp_path / "lock")
    note = json.loads((tmp_path / "lock").read_text())
    assert note["pid"] == holder.pid
    for part in (str(holder.pid), note["host"], note["command"], note["started"]):
        assert part in str(caught.value)


def test_a_killed_process_lets_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    WriterLock(tmp_path / "lock").release()


def test_a_second_writer_of_the_same_process_is_refused(store: Store) -> None:
    with store.writer(), pytest.raises(WriterBusyError, match=str(os.getpid())):
        store.writer()
    with store.writer():
        pass


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
def test_a_broken_note_does_not_hide_that_someone_writes(tmp_path: Path, note: bytes) -> None:
    lock = WriterLock(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(note)
    with pytest.raises(WriterBusyError, match="another process"):
        WriterLock(tmp_path / "lock")
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # lives until the pipe closes
        os.close(write)
        os.read(read, 1)
        os._exit(0 if not lock.is_held else 1)
    lock.release()
    WriterLock(tmp_path / "lock").release()
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0


def test_a_closed_writer_changes_nothing(store: Store) -> None:
    writer = store.writer()
    writer.close()
    writer.close()
    with store.writer(), pytest.raises(StorageError, match="closed"):
        writer.delete_collection("photos")
