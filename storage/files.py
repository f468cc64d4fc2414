"""Files that appear whole or not at all, and stay after a power cut."""

import errno
import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..errors import StorageError

# What a crash leaves under this prefix belongs to nobody: readers pass over it, the next writer deletes it.
TEMPORARY = ".tmp-"


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Generator[Path]:
    """Yield a temporary path to write to; at the end it is `path`, durably, or it is gone.

    Raises:
        StorageError: the disk is full or not writable (code `storage.full` for the former).
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}-{path.name}")
    try:
        with disk_errors(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """Yield a temporary folder to fill with files; at the end it is `path`, durably, or it is gone.

    Raises:
        StorageError: the disk is full or not writable (code `storage.full` for the former).
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}-{path.name}")
    try:
        with disk_errors(path):
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            temporary.rename(path)
            sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync_new_folder(path: Path) -> None:
    """Make a folder, with its parents, whose name survives a power cut; an existing one is fine."""
    if path.is_dir():
        return
    sync_new_folder(path.parent)
    with disk_errors(path):
        path.mkdir(exist_ok=True)
        sync(path.parent)


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn what the system says of a failed write into a StorageError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "Free some space and run it again." if full else "Check the folder and its permissions."
        raise StorageError(
            f"Cannot write '{path}': {error.strerror or error}. {advice}",
            code="storage.full" if full else None,
        ) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Delete a file or folder that nobody needs any more; what cannot be deleted now stays for later."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
