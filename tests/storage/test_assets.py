"""Asset files are found by the hash of their content, and only there."""

import hashlib
import io
from pathlib import Path

import pytest
from anyseek.errors import CorruptError, InputError, NotFoundError, StorageError
from anyseek.storage import AssetFiles, Store


@pytest.fixture
def assets(store: Store) -> AssetFiles:
    return store.assets


def test_bytes_files_and_streams_of_one_content_are_one_file(assets: AssetFiles, tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "picture").write_bytes(content)
    stream = io.BytesIO(b"head" + content)
    stream.seek(4)
    added = {assets.add(content), assets.add(tmp_path / "picture"), assets.add(stream)}
    assert added == {hashlib.sha256(content).hexdigest()}
    assert [path for path in assets.folder.rglob("*") if path.is_file()] == [assets.path(*added)]
    assert assets.read(*added) == content


def test_a_file_that_cannot_be_read_is_named(assets: AssetFiles, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            assets.add(path)


def test_empty_content_is_content(assets: AssetFiles) -> None:
    assert assets.read(assets.add(b"")) == b""


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0" * 63,
        "0" * 64,
        "A" * 64,
        "../" + "0" * 61,
        "/etc/passwd",
        "0" * 62 + "/.",
        "0" * 64 + "\n",
        "..",
        "é" * 64,
    ],
)
def test_no_name_leads_elsewhere(assets: AssetFiles, name: str) -> None:
    for ask in (assets.path, assets.read):
        with pytest.raises(NotFoundError):
            ask(name)


def test_a_damaged_file_is_not_given_out_and_mends_when_added_again(assets: AssetFiles) -> None:
    sha256 = assets.add(b"content")
    assets.path(sha256).write_bytes(b"c0ntent")
    with pytest.raises(CorruptError, match=sha256):
        assets.read(sha256)
    assert assets.add(b"content") == sha256
    assert assets.read(sha256) == b"content"


def test_a_write_that_fails_leaves_nothing(assets: AssetFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    assets.add(b"first")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageError, match="No space"):
        assets.add(b"second")
    monkeypatch.undo()
    assert sum(path.is_file() for path in assets.folder.rglob("*")) == 1


def test_the_next_writer_deletes_unfinished_files(store: Store, assets: AssetFiles) -> None:
    sha256 = assets.add(b"content")
    unfinished = assets.path(sha256).with_name(".tmp-0-x")
    unfinished.write_bytes(b"con")
    with store.writer():
        assert not unfinished.exists()
        assert assets.read(sha256) == b"content"
