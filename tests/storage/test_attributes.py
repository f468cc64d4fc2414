"""One type per attribute and collection; values come back as they were given."""

from typing import Any

import pyarrow as pa
import pytest
from anyseek.errors import InputError
from anyseek.storage import Item, Rows, Store, Writer
from anyseek.storage.attributes import ID_COLUMN, conform, merge, to_table

_NO_ROWS = Rows((), (), {}, {})


def _commit(writer: Writer, *attributes: dict[str, Any], start: int = 0) -> None:
    items = [Item(f"i{start + number}", attributes=each) for number, each in enumerate(attributes)]
    writer.commit("photos", items=items, rows=_NO_ROWS)


def test_every_type_survives_the_catalog_and_the_generation(store: Store, writer: Writer) -> None:
    given = {
        "bool": True, "int": -(2**63), "float": 1e-300, "str": "größe \U0001f600", "tags": ["b", "a", ""],
        "empty": [], "with space": 1, "a.b": "c", "'quoted\"": "%s",
    }  # fmt: skip
    _commit(writer, given, {})
    for _ in range(2):
        snapshot = store.snapshot("photos")
        assert snapshot.attributes.to_pylist() == [given, dict.fromkeys(given)]
        assert store.catalog.items("photos", ["i0"])[0].attributes == given
        writer.publish("photos")
    types = {"bool": "bool", "int": "int", "float": "float", "str": "str", "tags": "list[str]"}
    assert types.items() <= store.collection("photos").attributes.items()


def test_none_means_absent(store: Store, writer: Writer) -> None:
    _commit(writer, {"year": None, "name": "x"})
    assert store.collection("photos").attributes == {"name": "str"}


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("first", [2, 2.5])
def test_int_and_float_mix_to_float(store: Store, writer: Writer, publish: bool, first: float) -> None:
    second = 4.5 - first
    _commit(writer, {"size": first})
    if publish:
        writer.publish("photos")
    store.snapshot("photos")
    _commit(writer, {"size": second}, start=1)
    column = store.snapshot("photos").attributes.column("size")
    assert column.type == pa.float64()
    assert column.to_pylist() == [first, second]


@pytest.mark.parametrize("publish", [False, True])
def test_an_int_too_long_for_a_float_is_rounded(store: Store, writer: Writer, publish: bool) -> None:
    _commit(writer, {"size": 2**62 + 1})
    if publish:
        writer.publish("photos")
    _commit(writer, {"size": 0.5}, start=1)
    assert store.snapshot("photos").attributes.column("size").to_pylist() == [float(2**62), 0.5]


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [(1, "1", ("int", "str")), (True, 1, ("bool", "int")), (1.5, False, ("float", "bool")),
     ("a", ["a"], ("str", "list[str]"))],
)  # fmt: skip
def test_another_type_is_refused_by_name(
    store: Store, writer: Writer, old: Any, new: Any, names: tuple[str, str]
) -> None:
    _commit(writer, {"year": old})
    with pytest.raises(InputError) as caught:
        _commit(writer, {"year": new}, start=1)
    for part in ("'year'", "'i1'", *names):
        assert part in str(caught.value)
    assert caught.value.code == "input.attribute_type"
    assert store.collection("photos").num_items == 1
    with pytest.raises(InputError):  # within one commit, too
        _commit(writer, {"other": old}, {"other": new}, start=2)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**63,
        10**5000,
        "a\0b",
        "\ud800",
        {"a": 1},
        [1],
        [["a"]],
        ["\0"],
        b"x",
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_column_can_hold_is_refused(writer: Writer, value: Any) -> None:
    with pytest.raises(InputError, match=r"'size' of item 'i0'|of type"):
        _commit(writer, {"size": value})


@pytest.mark.parametrize("key", ["", "a\0", "\udcff"])
def test_a_key_that_is_no_name_is_refused(writer: Writer, key: str) -> None:
    with pytest.raises(InputError):
        _commit(writer, {key: 1})


def test_merge_keeps_what_it_was_given() -> None:
    known = {"a": "int"}
    assert merge(known, [("i", {"a": 1.5, "b": "x"})]) == {"a": "float", "b": "str"}
    assert known == {"a": "int"}


def test_an_older_table_gets_the_newer_columns() -> None:
    older = to_table({"a": "int"}, ["x", "y"], [{"a": 1}, {}])
    newer = conform(older, {"a": "float", "b": "list[str]"})
    assert newer.column_names == [ID_COLUMN, "a", "b"]
    assert newer.column("a").to_pylist() == [1.0, None]
    assert newer.column("b").to_pylist() == [None, None]
