"""A file or folder is there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from anyseek.errors import StorageError
from anyseek.storage.files import new_file, new_folder, sync_new_folder


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _break_off(path: Path) -> None:
    path.write_text("new")
    raise ZeroDivisionError


def test_a_failed_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), new_file(path) as temporary:
        _break_off(temporary)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _full)
    with (
        pytest.raises(StorageError, match="No space left") as caught,
        new_file(tmp_path / "file") as temporary,
    ):
        temporary.write_text("new")
    assert caught.value.code == "storage.full"
    with pytest.raises(StorageError, match="No space left"), new_folder(tmp_path / "folder") as temporary:
        (temporary / "inside").write_text("new")
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "folder").exists()
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["a"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    sync_new_folder(tmp_path / "a" / "b")
    sync_new_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
