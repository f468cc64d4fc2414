import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, StorageError
from anyseek.indexer.reading import ItemReader, NewItem, ReadItem
from anyseek.indexer.sources import FolderSource


class Assets:
    """Takes content as the store's asset files do."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def add(self, content: Any) -> str:
        self.kept.append(content)
        return f"{len(self.kept):064x}"


@pytest.fixture
def assets() -> Assets:
    return Assets()


@pytest.fixture
def read(model: Any, assets: Assets) -> Callable[[Path], dict[str, ReadItem]]:
    def all_items(root: Path) -> dict[str, ReadItem]:
        source = FolderSource(root)
        reader = ItemReader(model, assets, source.name)  # type: ignore[arg-type]
        return {item.id: reader.read(item) for item in source.scan()}

    return all_items


@pytest.fixture
def read_one(read: Callable[[Path], dict[str, ReadItem]]) -> Callable[[Path], ReadItem]:
    def only(root: Path) -> ReadItem:
        (item,) = read(root).values()
        return item

    return only


def failures(read: ReadItem) -> list[tuple[str, str]]:
    return [(error.modality, error.code) for error in read.errors]


def test_a_whole_item(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    path = picture(tmp_path / "may/a.png")
    picture(tmp_path / "may/a.depth.png")
    (tmp_path / "may/a.caption.txt").write_text("a harbour")
    (tmp_path / "may/a.json").write_text('{"year": 2024, "width": 7}')
    read = read_one(tmp_path)
    assert set(read.inputs) == {"rgb", "caption"}
    assert {asset.modality: (asset.path, asset.media_type) for asset in read.item.assets} == {
        "rgb": (str(path), "image/png"),
        "depth": (str(path.with_name("a.depth.png")), "image/png"),
        "caption": (str(path.with_name("a.caption.txt")), "text/plain"),
    }
    assert read.item.attributes == {
        "modalities": ["caption", "depth", "rgb"],
        "folder": "may",
        "file_name": "a.png",
        "file_bytes": path.stat().st_size,
        "width": 7,  # its own attributes win
        "height": 9,
        "year": 2024,
    }
    assert read.errors == ()


def test_a_broken_part_costs_only_itself(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.caption.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "a.json").write_text("{")
    read = read_one(tmp_path)
    assert set(read.inputs) == {"rgb"}
    assert failures(read) == [("caption", "input.unexpected"), ("attributes", "attributes.not_json")]
    assert [asset.modality for asset in read.item.assets] == ["rgb"]
    assert read.item.attributes["modalities"] == ["rgb"]


def test_a_map_of_another_view_than_its_photo_is_listed(
    tmp_path: Path,
    picture: Callable[..., Path],
    model: Any,
    assets: Assets,
    read_one: Callable[[Path], ReadItem],
) -> None:
    model.inputs = ("rgb", "depth", "normal", "semseg")
    model.embedder.read = lambda *_: np.zeros(1)
    picture(tmp_path / "a.jpg", size=(80, 60))
    picture(tmp_path / "a.depth.png", size=(60, 80))
    picture(tmp_path / "a.normal.png", size=(37, 28))
    picture(tmp_path / "a.semseg.png", size=(32, 32))
    read = read_one(tmp_path)
    assert failures(read) == [("depth", "input.invalid")]
    assert "60 x 80 pixels, but the photo has 80 x 60" in read.errors[0].message
    assert [asset.modality for asset in read.item.assets] == ["rgb", "normal", "semseg"]
    paths = {"rgb": tmp_path / "a.jpg", "depth": tmp_path / "a.depth.png"}
    for contents in (paths, {raw: path.read_bytes() for raw, path in paths.items()}):
        new = ItemReader(model, assets, "added").read_new(NewItem("a", contents))
        assert failures(new) == [("depth", "input.invalid")]
        assert [asset.modality for asset in new.item.assets] == ["rgb"]


def test_the_signature_tells_what_failed(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    picture(tmp_path / "a.png")
    whole = read_one(tmp_path).item.signature
    (tmp_path / "a.caption.txt").write_text("")
    broken = read_one(tmp_path).item.signature
    assert broken.endswith("!caption")
    assert not whole.endswith("!caption")


def test_one_bad_attribute_is_listed_and_the_others_kept(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"x": NaN, "y": {}, "year": 1}')
    read = read_one(tmp_path)
    assert read.item.attributes["year"] == 1
    assert failures(read) == [("attributes", "attributes.unusable")]
    assert "'x'" in read.errors[0].message
    assert "'y'" in read.errors[0].message


def test_an_item_of_nothing_that_the_model_takes_says_so(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    picture(tmp_path / "a.depth.png")
    read = read_one(tmp_path)
    assert failures(read) == [("", "item.no_input")]
    assert "rgb, caption" in read.errors[0].message
    assert "depth" in read.errors[0].message


def test_a_file_that_says_nothing_is_kept_without_being_an_error(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem]
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.caption.txt").write_text("\n")
    read = read_one(tmp_path)
    assert read.errors == ()
    assert set(read.inputs) == {"rgb"}
    assert {asset.modality for asset in read.item.assets} == {"rgb", "caption"}


def test_a_file_without_bytes_is_an_error(
    tmp_path: Path, read: Callable[[Path], dict[str, ReadItem]]
) -> None:
    for name in ("a.jpg", "b.caption.txt", "c.det.json"):
        (tmp_path / name).write_bytes(b"")
    items = read(tmp_path)
    assert [failures(items[id_])[0][0] for id_ in ("a", "b", "c")] == ["rgb", "caption", "det"]


def test_files_that_vanish_or_turn_into_pipes_are_listed(
    tmp_path: Path, picture: Callable[..., Path], model: Any, assets: Assets
) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    found = list(FolderSource(tmp_path).scan())
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    reader = ItemReader(model, assets, "here")  # type: ignore[arg-type]
    assert [failures(reader.read(item)) for item in found] == [
        [("rgb", "input.unreadable")],
        [("rgb", "source.not_a_file")],
    ]


def test_a_file_that_may_not_be_read_is_listed(
    tmp_path: Path,
    picture: Callable[..., Path],
    read_one: Callable[[Path], ReadItem],
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture(tmp_path / "a.png")

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(model.embedder, "read", refuse)
    read = read_one(tmp_path)
    assert failures(read) == [("rgb", "input.unreadable")]
    assert read.errors[0].message == "Permission denied."


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError(), ZeroDivisionError("x"), AssertionError(), EOFError()]
)
def test_whatever_a_decoder_raises_is_the_files_fault(
    tmp_path: Path,
    picture: Callable[..., Path],
    read_one: Callable[[Path], ReadItem],
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    picture(tmp_path / "a.png")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(model.embedder, "read", fail)
    assert failures(read_one(tmp_path)) == [("rgb", "input.unexpected")]


def test_an_interrupt_is_nobodys_fault(
    tmp_path: Path,
    picture: Callable[..., Path],
    read_one: Callable[[Path], ReadItem],
    model: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture(tmp_path / "a.png")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model.embedder, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_one(tmp_path)


def test_messages_can_be_stored_whatever_they_quote(
    tmp_path: Path, read_one: Callable[[Path], ReadItem], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "caf\udce9.jpg").write_bytes(b"x")

    def fail(_: str, content: Path) -> None:
        raise InputError(f"{content}: \ud800 " + "x" * 5000)

    monkeypatch.setattr(model.embedder, "read", fail)
    (error,) = read_one(tmp_path).errors
    error.path.encode()
    error.message.encode()
    assert len(error.message) <= 1000


def test_a_file_whose_name_no_database_holds_is_kept_by_content(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem], assets: Assets
) -> None:
    path = picture(tmp_path / "a.png").rename(tmp_path / "caf\udce9.png")
    (asset,) = read_one(tmp_path).item.assets
    assert asset.path is None
    assert asset.sha256 is not None
    assert assets.kept == [path]


def test_a_full_disk_is_no_files_fault(
    tmp_path: Path, picture: Callable[..., Path], read_one: Callable[[Path], ReadItem], assets: Assets
) -> None:
    def fail(_: Any) -> str:
        raise StorageError("No space left on device.")

    picture(tmp_path / "a.png").rename(tmp_path / "caf\udce9.png")
    assets.add = fail  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        read_one(tmp_path)


def test_new_items_keep_bytes_in_the_library_and_values_in_the_catalog(
    tmp_path: Path, picture: Callable[..., Path], model: Any, assets: Assets
) -> None:
    content = picture(tmp_path / "a.png").read_bytes()
    model.embedder.read = lambda _modality, _content: np.zeros(3, np.int32)
    reader = ItemReader(model, assets, "added")  # type: ignore[arg-type]
    values = ["#ff0000"]
    new = NewItem("x", {"rgb": content, "caption": "a ball", "color_palette": values}, {"n": 1})
    read = reader.read_new(new)
    assert {asset.modality: (asset.sha256 is not None, asset.value) for asset in read.item.assets} == {
        "rgb": (True, None),
        "caption": (False, "a ball"),
        "color_palette": (False, values),
    }
    assert read.item.assets[0].media_type == "image/png"
    assert read.item.attributes["n"] == 1
    assert read.item.attributes["width"] == 12
    assert assets.kept == [content]


@pytest.mark.parametrize("value", [{"x": float("nan")}, {1, 2}, np.zeros(3), object(), ["x" * (1 << 20)]])
def test_values_that_no_catalog_holds_are_listed(model: Any, assets: Assets, value: Any) -> None:
    reader = ItemReader(model, assets, "added")  # type: ignore[arg-type]
    read = reader.read_new(NewItem("x", {"human_poses": value, "caption": "ok"}))
    assert [error.modality for error in read.errors] == ["human_poses"]
    json.dumps([asset.value for asset in read.item.assets], allow_nan=False)
