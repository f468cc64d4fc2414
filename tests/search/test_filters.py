"""Filters against plain Python on the same rows, and their wire and text forms."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from anyseek.errors import QueryError
from anyseek.search import F, Filter, parse_filter
from anyseek.search.filters import And, Compare, Contains, Exists, IsIn, Not, Or, from_wire
from hypothesis import given
from hypothesis import strategies as st

TYPES = {
    "b": pa.bool_(),
    "i": pa.int64(),
    "x": pa.float64(),
    "s s": pa.string(),
    "tags": pa.list_(pa.string()),
}

ints = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])
floats = st.sampled_from([-1.5, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 1e300])
words = st.sampled_from(["", "a", "b", 'qu"ote', "über", "in", "true", "2024", "a b\\"])
rows = st.fixed_dictionaries(
    {
        "b": st.none() | st.booleans(),
        "i": st.none() | ints,
        "x": st.none() | floats,
        "s s": st.none() | words,
        "tags": st.none() | st.lists(words, max_size=3),
    }
)
values = {
    "b": st.booleans(),
    "i": ints | floats | st.sampled_from([2**70, -(2**70), 2.5, -2.5]),
    "x": floats | st.integers(-3, 3) | st.just(10**400),
    "s s": words,
}
ORDERS = ["<", "<=", ">", ">="]


@st.composite
def conditions(draw: st.DrawFn) -> Filter:
    key = draw(st.sampled_from(list(TYPES)))
    if key == "tags":
        return draw(st.just(Exists(key)) | words.map(lambda word: Contains(key, word)))
    value = values[key]
    kinds = [
        st.just(Exists(key)),
        value.map(lambda v: Compare(key, "==", v)),
        value.map(lambda v: F[key] != v),
        st.lists(value, max_size=4).map(lambda v: IsIn(key, tuple(v))),
    ]
    if key != "b":
        kinds.append(st.tuples(st.sampled_from(ORDERS), value).map(lambda pair: Compare(key, *pair)))
    return draw(st.one_of(kinds))


filters = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: And(tuple(some))),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: Or(tuple(some))),
    ),
    max_leaves=8,
)


def holds(filter_: Filter, row: dict[str, Any]) -> bool:
    """What the filter means, said in Python."""
    match filter_:
        case And(inner):
            return all(holds(one, row) for one in inner)
        case Or(inner):
            return any(holds(one, row) for one in inner)
        case Not(inner):
            return not holds(inner, row)
        case Exists(key):
            return row[key] is not None
        case Contains(key, value):
            return row[key] is not None and value in row[key]
        case IsIn(key, some):
            return row[key] is not None and row[key] in some
        case Compare(key, op, value):
            held = row[key]
            if held is None:
                return False
            return {"==": held == value, "<": held < value, "<=": held <= value, ">": held > value}.get(
                op, held >= value
            )
    raise AssertionError(filter_)


def table_of(some: list[dict[str, Any]]) -> pa.Table:
    return pa.table({key: pa.array([row[key] for row in some], type_) for key, type_ in TYPES.items()})


@given(filters, st.lists(rows, max_size=8))
def test_a_filter_lets_through_what_python_would(filter_: Filter, some: list[dict[str, Any]]) -> None:
    assert filter_.mask(table_of(some)).tolist() == [holds(filter_, row) for row in some]


@given(filters)
def test_the_wire_form_survives_json(filter_: Filter) -> None:
    wire = json.loads(json.dumps(filter_.to_wire()))
    assert from_wire(wire) == filter_
    assert {"must", "should", "must_not"} & wire.keys()


@given(filters)
def test_the_text_form_reads_back(filter_: Filter) -> None:
    assert parse_filter(str(filter_)) == filter_


def test_columns_of_several_chunks_are_read_as_one() -> None:
    table = pa.concat_tables(
        [table_of([{"b": True, "i": i, "x": 1.0, "s s": "a", "tags": [str(i)]}]) for i in range(3)]
    )
    assert (F.i >= 1).mask(table).tolist() == [False, True, True]
    assert F.tags.contains("2").mask(table).tolist() == [False, False, True]


def test_contains_of_a_text_is_a_part_of_it_and_no_pattern() -> None:
    texts = ["A red Cone.", "a cone of 3.5 m", None, "", "CONE (old)", "Straße"]
    table = pa.table({"t": pa.array(texts, pa.string())})

    def found(value: str) -> list[int]:
        return np.flatnonzero(F.t.contains(value).mask(table)).tolist()

    assert found("cone") == [0, 1, 4]
    assert found("RED cone") == [0]
    assert found("3.5") == [1]
    assert found("e.") == [0]  # a dot is a dot
    assert found("(old") == [4]
    assert found("STRASSE") == []
    assert found("") == [0, 1, 3, 4, 5]
    assert found("\\") == []


@pytest.mark.parametrize(
    "filter_", [F.i == 1, F.tags.contains("a"), F.i.isin([1]), F.i.exists(), ~(F.i == 1)]
)
def test_a_table_without_rows_gives_an_empty_mask(filter_: Filter) -> None:
    mask = filter_.mask(table_of([]))
    assert mask.dtype == np.bool_
    assert mask.shape == (0,)


def test_missing_values_fail_every_comparison_and_pass_its_negation() -> None:
    table = pa.table({"year": pa.array([2024, None])})
    assert (F.year != 2023).mask(table).tolist() == [True, False]
    assert (~(F.year == 2023)).mask(table).tolist() == [True, True]


def test_operators_build_one_flat_list() -> None:
    joined = (F.a == 1) & (F.b == 2) & (F.c == 3)
    assert joined == And((F.a == 1, F.b == 2, F.c == 3))
    assert ((F.a == 1) | (F.b == 2) | (F.c == 3)).to_wire()["should"][2] == {"key": "c", "match": 3}


def test_keys_with_spaces_and_method_names_can_be_asked() -> None:
    assert (F["key with space"] == 1).to_wire() == {"must": [{"key": "key with space", "match": 1}]}
    assert (F["isin"] == 1).to_wire() == {"must": [{"key": "isin", "match": 1}]}


def test_pythons_own_logic_is_refused_with_the_way_out() -> None:
    with pytest.raises(QueryError, match="&"):
        _ = (F.a == 1) and (F.b == 2)
    with pytest.raises(QueryError, match="&"):
        _ = not F.a.exists()
    with pytest.raises(QueryError, match=r"\(2020 <= F\.year\)"):
        _ = 2020 <= F.year <= 2024
    with pytest.raises(QueryError, match="exists"):
        bool(F.year)
    with pytest.raises(QueryError, match="parentheses"):
        (F.year >= 2024) & "cc0"  # type: ignore[operator]
    with pytest.raises(QueryError, match="parentheses"):
        (F.year >= 2024) & F.a  # type: ignore[operator]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, [1], {"a": 1}, b"x", F.b])
def test_values_that_no_attribute_can_have_are_refused(value: Any) -> None:
    with pytest.raises(QueryError):
        F.a == value  # noqa: B015
    with pytest.raises(QueryError):
        F.a.isin([value])


def test_isin_of_a_bare_string_is_a_mistake() -> None:
    with pytest.raises(QueryError, match="list"):
        F.license.isin("cc0")


def test_an_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(QueryError, match=r"'yaer'.*b, i, s s, tags, x") as caught:
        (F.yaer == 1).mask(table_of([]))
    assert caught.value.code == "filter.unknown_key"
    with pytest.raises(QueryError, match="none"):
        (F.a == 1).mask(pa.table({}))


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        (F.i == "2024", "'i' holds int.*str '2024'"),
        (F["s s"] == 1, "'s s' holds str.*int 1"),
        (F.b == 1, "'b' holds bool.*int"),
        (F.i == True, "'i' holds int.*bool"),  # noqa: E712
        (F.b < True, "order"),
        (F.tags == "a", "contains"),
        (F.i.contains("a"), "is int"),
        (F.i.isin([1, "2"]), "str '2'"),
    ],
)
def test_a_value_of_another_type_names_both(filter_: Filter, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        filter_.mask(table_of([]))
    assert caught.value.code == "filter.type"


def test_a_wire_object_with_several_clauses_asks_for_all() -> None:
    wire = {
        "must": [{"key": "i", "range": {"gte": 1, "lt": 3}}],
        "should": [{"key": "s s", "match": "a"}, {"key": "s s", "any": ["b"]}],
        "must_not": [{"key": "b", "exists": False}, {"key": "x", "match": 0.5}],
    }
    expected = And(
        (And((F.i >= 1, F.i < 3)), Or((F["s s"] == "a", F["s s"].isin(["b"]))), ~~F.b.exists(), ~(F.x == 0.5))
    )
    assert from_wire(wire) == expected
    assert from_wire({}).mask(table_of([])).tolist() == []
    assert from_wire({"should": []}) == And(())


@pytest.mark.parametrize(
    ("wire", "place"),
    [
        ([], "/"),
        ({"must": {}}, "/must"),
        ({"must": [3]}, "/must/0"),
        ({"most": []}, "most"),
        ({"must": [{"key": "a"}]}, "/must/0"),
        ({"must": [{"key": "a", "match": 1, "any": [1]}]}, "/must/0"),
        ({"must": [{"key": "", "match": 1}]}, "/must/0"),
        ({"must": [{"key": 7, "match": 1}]}, "/must/0"),
        ({"must": [{"key": "a", "any": "b"}]}, "/must/0/any"),
        ({"must": [{"key": "a", "range": {}}]}, "/must/0/range"),
        ({"must": [{"key": "a", "range": {"above": 1}}]}, "/must/0/range"),
        ({"must": [{"key": "a", "match": {"value": 1}}]}, "/must/0"),
        ({"must": [{"key": "a", "contains": 3}]}, "/must/0"),
        ({"must_not": [{"should": [{"key": "a", "exists": "yes"}]}]}, "/must_not/0/should/0/exists"),
    ],
)
def test_a_wire_form_that_cannot_be_read_names_the_place(wire: Any, place: str) -> None:
    with pytest.raises(QueryError, match=place.replace("/", "[/]")):
        from_wire(wire)


def test_a_flood_of_conditions_or_values_is_refused() -> None:
    with pytest.raises(QueryError, match="256"):
        from_wire({"must": [{"key": "a", "match": 1}] * 300})
    with pytest.raises(QueryError, match="10000"):
        F.a.isin(range(10_001))
