import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyseek.errors import InputError, LimitError
from anyseek.indexer.attributes import (
    AttributeTypes,
    check_attributes,
    item_facts,
    picture_facts,
    read_attributes,
)
from PIL import Image


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_every_type_passes(tmp_path: Path) -> None:
    content = {"b": True, "i": -3, "f": 0.5, "s": "ü", "l": ["x", "y"], "empty": [], "absent": None}
    kept, refused = read_attributes(write(tmp_path / "a.json", json.dumps(content)))
    assert kept == {key: value for key, value in content.items() if value is not None}
    assert refused == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"x": NaN, "ok": 1}', "finite"),
        ('{"x": -Infinity, "ok": 1}', "finite"),
        ('{"x": 1e999, "ok": 1}', "finite"),
        ('{"x": {"y": 1}, "ok": 1}', "dict"),
        ('{"x": [1, 2], "ok": 1}', "list"),
        ('{"x": ["a", null], "ok": 1}', "list"),
        ('{"x": 9223372036854775808, "ok": 1}', "64 bits"),
        ('{"x": "\\ud800", "ok": 1}', "Unicode"),
        ('{"\\ud800": 1, "ok": 1}', "name"),
        ('{"": 1, "ok": 1}', "name"),
        ('{"a\\nb": 1, "ok": 1}', "name"),
        ('{"' + "k" * 129 + '": 1, "ok": 1}', "128"),
        ('{"x": "' + "v" * 8193 + '", "ok": 1}', "8192"),
        (json.dumps({"x": ["v"] * 1025, "ok": 1}), "1024"),
    ],
)
def test_a_value_that_cannot_be_an_attribute_costs_that_key_alone(
    tmp_path: Path, text: str, reason: str
) -> None:
    kept, refused = read_attributes(write(tmp_path / "a.json", text))
    assert kept == {"ok": 1}
    assert len(refused) == 1
    assert reason in refused[0]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"{", b"\xff\xfe\x00", b'{"a":' * 100_000, b'{"x": ' + b"9" * 5000 + b"}"]
)
def test_what_is_not_an_object_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError):
        read_attributes(write(tmp_path / "a.json", content))


def test_too_much_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="bytes"):
        read_attributes(write(tmp_path / "a.json", b" " * (1 << 20) + b"{}"))
    with pytest.raises(LimitError, match="256"):
        check_attributes({f"k{i}": i for i in range(257)})


def test_facts_of_an_item_name_its_folder_and_modalities() -> None:
    assert item_facts("2024/may/a", ["rgb", "depth"]) == {
        "folder": "2024/may",
        "modalities": ["depth", "rgb"],
    }
    assert item_facts("a", [])["folder"] == ""


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png", "tif"])
def test_facts_of_a_picture_are_those_it_is_shown_with(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2025:01:01 00:00:00" if suffix != "tif" else "2024:05:01 10:20:30"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 10:20:30"  # Pillow drops this block from a TIFF
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    facts, media_type = picture_facts(path)
    assert facts == {"width": 20, "height": 40, "taken_at": "2024-05-01T10:20:30"}
    assert media_type == {"jpg": "image/jpeg", "tif": "image/tiff"}.get(suffix, f"image/{suffix}")


def test_the_media_type_is_that_of_the_bytes(tmp_path: Path, picture: Callable[..., Path]) -> None:
    path = picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert picture_facts(path)[1] == "image/png"
    assert picture_facts(path.read_bytes())[1] == "image/png"


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "yesterday", "    :  :     :  :  ", ""])
def test_a_camera_without_a_clock_gives_no_time(tmp_path: Path, date: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = date
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert picture_facts(tmp_path / "a.jpg")[0] == {"width": 4, "height": 4}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_costs_nothing_else(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\0")
    assert picture_facts(tmp_path / "a.jpg")[0] == {"width": 4, "height": 4}
    assert picture_facts(b"not a picture") == ({}, None)


@pytest.mark.parametrize(
    ("known", "value", "fits"),
    [
        ("int", 2, True),
        ("int", 2.5, True),
        ("float", 2, True),
        ("int", True, False),
        ("bool", 1, False),
        ("str", 1, False),
        ("int", "1", False),
        ("list[str]", "a", False),
        ("list[str]", [], True),
        ("str", ["a"], False),
    ],
)
def test_a_key_has_one_type(known: str, value: Any, fits: bool) -> None:
    kept, refused = AttributeTypes({"key": known}).admit({"key": value, "other": 1})
    assert kept == ({"key": value, "other": 1} if fits else {"other": 1})
    if not fits:
        assert known in refused["key"]


def test_types_are_learnt_in_order() -> None:
    types = AttributeTypes({})
    assert types.admit({"a": 1})[1] == {}
    assert types.admit({"a": 1.5})[1] == {}
    assert types.admit({"a": "x"})[1] == {"a": "Attribute 'a' is float in this collection, here it is str."}
