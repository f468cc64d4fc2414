"""The arithmetic of queries, and what it refuses."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from anyseek.errors import InputError, QueryError
from anyseek.search import (
    RGB,
    Boxes,
    Caption,
    Depth,
    Features,
    Like,
    Metadata,
    Normal,
    Palette,
    Query,
    QueryPart,
    Semseg,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

weights = st.floats(-10, 10)
parts = st.builds(QueryPart, st.just("caption"), st.text(max_size=20), weights) | st.builds(
    QueryPart, st.just("color_palette"), st.just(["#20324a"]), weights
)
queries = st.lists(parts, min_size=1, max_size=5).map(lambda some: Query(tuple(some)))


def test_arithmetic_keeps_parts_in_order_with_signed_weights() -> None:
    query = Caption("harbour") + 0.5 * RGB("boat.jpg") - Caption("people") * 0.7
    assert [(part.modality, part.weight) for part in query] == [
        ("caption", 1),
        ("rgb", 0.5),
        ("caption", -0.7),
    ]
    assert query.positive == (0, 1)
    assert query.negative == (2,)


@given(queries, queries, queries)
def test_addition_is_associative_and_subtraction_is_adding_the_opposite(a: Query, b: Query, c: Query) -> None:
    assert (a + b) + c == a + (b + c)
    assert a - b == a + -b
    assert -1 * -a == a
    assert sum([a, b, c]) == a + b + c  # type: ignore[arg-type]


@given(queries, queries, st.floats(-5, 5))
def test_scaling_distributes_over_addition(a: Query, b: Query, factor: float) -> None:
    assert factor * (a + b) == factor * a + factor * b == (a + b) * factor


def test_numpy_scalars_are_weights() -> None:
    assert (Caption("a") * np.float32(0.5)).weight == 0.5
    assert Caption("a", weight=np.int64(2)).weight == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1e9, True, "1", None])
def test_a_weight_that_is_no_finite_number_is_refused(weight: object) -> None:
    with pytest.raises(QueryError, match="weight") as caught:
        Caption("a", weight=weight)  # type: ignore[arg-type]
    assert caught.value.code == "query.weight"


def test_scaling_past_the_limit_is_refused() -> None:
    with pytest.raises(QueryError, match="1000"):
        Caption("a", 900) * 900


def test_an_empty_or_endless_query_is_refused() -> None:
    with pytest.raises(QueryError, match="empty"):
        Query(())
    with pytest.raises(QueryError, match="32"):
        Query(tuple(Caption(str(i)) for i in range(33)))


@pytest.mark.parametrize("other", ["people", 3, None, ["a"]])
def test_only_parts_and_queries_can_be_added(other: object) -> None:
    with pytest.raises(QueryError, match="Caption"):
        Caption("a") + other  # type: ignore[operator]


def test_parts_are_values_that_later_changes_do_not_reach() -> None:
    values = {"brightness": 1.0, "more": [1, 2]}
    part = Metadata(values)  # type: ignore[arg-type]
    values["brightness"] = 2.0
    values["more"].append(3)  # type: ignore[attr-defined]
    assert part == Metadata({"brightness": 1.0, "more": [1, 2]})  # type: ignore[dict-item]


def test_strings_are_paths_for_pictures_and_words_for_captions(tmp_path: Path) -> None:
    assert Depth("room.png").content == Path("room.png")
    assert Caption("room.png").content == "room.png"
    assert Caption(tmp_path / "words.txt").content == tmp_path / "words.txt"


def test_pixels_in_memory_become_a_png_of_the_same_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for picture in (pixels, Image.fromarray(pixels)):
        content = RGB(picture).content
        assert isinstance(content, bytes)
        assert content.startswith(b"\x89PNG")
    depth = Depth(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    assert isinstance(depth.content, bytes)


@pytest.mark.parametrize(
    "part",
    [
        Depth(np.ones((3, 4), np.float32)),
        Normal(np.ones((3, 4, 3))),
        Semseg(np.ones((3, 4), np.int64)),
        Features("clip", np.ones((3, 4, 5), np.float16)),
    ],
)
def test_numbers_in_memory_become_an_array_file_of_the_same_numbers(part: QueryPart) -> None:
    assert isinstance(part.content, bytes)
    array = np.load(io.BytesIO(part.content), allow_pickle=False)
    assert array.shape[:2] == (3, 4)
    assert (array == 1).all()


def test_objects_and_unknown_features_are_refused() -> None:
    with pytest.raises(QueryError, match="object"):
        Features("clip", np.array([object()]))
    with pytest.raises(QueryError, match="imagebind_global"):
        Features("smell", np.zeros(3))


def test_named_classes_travel_in_the_picture(tmp_path: Path) -> None:
    painted = np.zeros((4, 6, 3), np.uint8)
    path = tmp_path / "painted.png"
    Image.fromarray(painted).save(path)
    legend = {"#000000": "dog", "#ff0000": "ähre"}
    for picture in (painted, path, str(path), path.read_bytes()):
        content = Semseg(picture, legend).content
        assert isinstance(content, bytes)
        with Image.open(io.BytesIO(content)) as image:
            assert json.loads(image.text["anyseek:classes"]) == legend  # type: ignore[attr-defined]
            assert np.array_equal(np.asarray(image), painted)
    with pytest.raises(QueryError, match="itself"):
        Semseg(Semseg(painted, legend).content, legend)  # type: ignore[arg-type]
    for no_png in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", np.zeros((2, 2))):
        with pytest.raises(QueryError, match="PNG"):
            Semseg(no_png, legend)
    with pytest.raises(InputError, match=r"gone\.png"):
        Semseg(tmp_path / "gone.png", legend)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 7), np.uint8), np.zeros(3, complex), np.zeros((2, 2, 3), float)]
)
def test_arrays_that_are_no_pictures_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(QueryError, match="picture"):
        RGB(pixels)


@pytest.mark.parametrize("modality", ["rgb", "depth", "det", "metadata", "color_palette"])
def test_text_is_never_taken_for_a_path(modality: str) -> None:
    with pytest.raises(QueryError, match="caption"):
        QueryPart(modality, "/etc/passwd")


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}, b"x"])
def test_values_that_json_cannot_say_are_refused(value: object) -> None:
    with pytest.raises(QueryError):
        Metadata({"brightness": value})  # type: ignore[dict-item]


def test_values_nested_without_end_are_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(QueryError, match="nested"):
        Boxes(endless)  # type: ignore[arg-type]


def test_palette_takes_colours_or_one_file() -> None:
    assert Palette("#20324a", (1, 2, 3)).content == ["#20324a", [1, 2, 3]]
    assert Palette(Path("colours.txt"), weight=2).content == Path("colours.txt")
    with pytest.raises(QueryError, match="not both"):
        Palette("#20324a", Path("colours.txt"))


def test_an_item_part_names_its_item_and_modalities() -> None:
    assert Like("a/b", "rgb") == Like("a/b", ["rgb"])
    with pytest.raises(QueryError, match="Like"):
        QueryPart("item", "a/b")
    with pytest.raises(QueryError, match="Like"):
        QueryPart("rgb", Like("a/b").content)


def test_a_query_prints_as_it_is_written() -> None:
    query = Caption("a harbour") + 0.5 * RGB("x/boat.jpg") - 0.7 * Like("2024/1", ["rgb"])
    assert str(query) == 'caption "a harbour" + 0.5 * rgb boat.jpg - 0.7 * item 2024/1 (rgb)'
    assert (
        str(Boxes([{"box": [0, 0, 1, 1], "label": "dog"}]) + Palette("#20324a"))
        == "det dog + color_palette #20324a"
    )
    assert len(str(Caption("x" * 1000))) < 100
