"""Queries to JSON and back."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from anyseek.errors import InputError
from anyseek.search import RGB, Caption, Like, Query, QueryPart, Semseg
from anyseek.search.examples import PNG
from anyseek.search.schemas import (
    LocatedError,
    SearchRequest,
    filter_from_wire,
    query_from_wire,
    query_to_wire,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

weights = st.floats(-1000, 1000)
json_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
parts = st.one_of(
    st.builds(QueryPart, st.just("caption"), st.text(max_size=30), weights),
    st.builds(QueryPart, st.sampled_from(["rgb", "depth"]), st.binary(max_size=30), weights),
    st.builds(QueryPart, st.just("det"), st.lists(json_values, max_size=3), weights),
    st.builds(
        QueryPart, st.just("metadata"), st.dictionaries(st.text(max_size=5), json_values, max_size=3), weights
    ),
    st.builds(
        Like, st.text(min_size=1, max_size=9), st.lists(st.sampled_from(["rgb", "det"]), max_size=2), weights
    ),
)


def parsed(wire: Any) -> SearchRequest:
    return SearchRequest.model_validate_json(json.dumps({"parts": wire}))


@given(st.lists(parts, min_size=1, max_size=6).map(lambda some: Query(tuple(some))))
def test_a_query_survives_the_wire(query: Query) -> None:
    assert query_from_wire(parsed(query_to_wire(query)).parts, {}) == query


def test_a_file_travels_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG rest")
    assert query_from_wire(parsed(query_to_wire(RGB(path))).parts, {}) == Query(
        (QueryPart("rgb", b"\x89PNG rest"),)
    )
    with pytest.raises(InputError, match=r"gone\.png"):
        query_to_wire(RGB(tmp_path / "gone.png"))


def test_classes_beside_a_segmentation_go_into_its_file() -> None:
    wire = {"modality": "semseg", "data": PNG, "classes": {"#000000": "dog"}}
    (part,) = query_from_wire(parsed([wire]).parts, {})
    assert part == Semseg(base64.b64decode(PNG.partition(",")[2]), {"#000000": "dog"})


def test_an_upload_is_found_by_name() -> None:
    wire = parsed([{"modality": "rgb", "upload": "photo"}]).parts
    assert query_from_wire(wire, {"photo": b"bytes"}).parts[0].content == b"bytes"
    with pytest.raises(LocatedError, match="uploaded: other") as caught:
        query_from_wire(wire, {"other": b""})
    assert caught.value.pointer == "/parts/0"


@pytest.mark.parametrize(
    "part",
    [
        {"modality": "caption"},
        {"modality": "caption", "text": "a", "values": []},
        {"modality": "caption", "text": "a", "use": ["rgb"]},
        {"modality": "rgb", "text": "/etc/passwd"},
        {"modality": "rgb", "data": "/etc/passwd"},
        {"modality": "rgb", "data": "file:///etc/passwd"},
        {"modality": "rgb", "data": "http://localhost/x.png"},
        {"modality": "rgb", "data": "data:image/png;base64,***"},
        {"modality": "rgb", "data": "data:image/png,plain"},
        {"modality": "rgb", "id": "an/item"},
        {"modality": "item", "text": "an/item"},
        {"modality": "caption", "text": "a", "weight": 1e9},
        {"modality": "caption", "text": "a", "classes": {"#000000": "dog"}},
        {"modality": "depth", "data": PNG, "classes": {"#000000": "dog"}},
        {"modality": "semseg", "data": "data:image/jpeg;base64,/9j/", "classes": {"#000000": "dog"}},
        {"modality": "det", "values": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]},
    ],
)
def test_a_part_without_one_clear_content_is_refused_with_its_place(part: Any) -> None:
    with pytest.raises(LocatedError) as caught:
        query_from_wire(parsed([{"modality": "caption", "text": "first"}, part]).parts, {})
    assert caught.value.pointer == "/parts/1"


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"parts": [{"modality": "caption", "text": "a"}] * 33},
        {"parts": [{"modality": "", "text": "a"}]},
        {"parts": [{"modality": "caption", "text": "a" * (2**20 + 1)}]},
        {"parts": [{"modality": "caption", "text": "a", "weight": "1"}]},
        {"parts": [{"modality": "caption", "text": "a", "wieght": 1}]},
        {"limit": 0},
        {"limit": 10**30},
        {"limit": 1.5},
        {"limit": "10"},
        {"offset": -1},
        {"view": ""},
        {"composition": "best"},
        {"spaces": {"a": None}},
        {"where": 3},
        {"filter": {}},
        {"explain": 1},
    ],
)
def test_requests_are_read_strictly(change: Any) -> None:
    body = {"parts": [{"modality": "caption", "text": "a"}]} | change
    with pytest.raises(ValidationError):
        SearchRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_weights_without_a_finite_value_are_refused(number: str) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate_json(
            f'{{"parts": [{{"modality": "caption", "text": "a", "weight": {number}}}]}}'
        )


def test_both_forms_of_a_filter_are_read() -> None:
    assert filter_from_wire("a >= 1") == filter_from_wire({"must": [{"key": "a", "range": {"gte": 1}}]})
    assert filter_from_wire(None) is None
    for wrong in ("a >", {"must": 3}):
        with pytest.raises(LocatedError) as caught:
            filter_from_wire(wrong)  # type: ignore[arg-type]
        assert caught.value.pointer == "/where"


def test_a_query_can_be_sent_as_it_is_written() -> None:
    assert query_to_wire(Caption("a") - 0.5 * Like("x", ["rgb"])) == [
        {"modality": "caption", "weight": 1.0, "text": "a"},
        {"modality": "item", "weight": -0.5, "id": "x", "use": ["rgb"]},
    ]
