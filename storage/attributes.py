"""Attributes: one type per key and collection, kept as columns that filters read."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from ..errors import InputError
from .checks import check_json
from .records import Attribute, Item

# The column of item ids beside the attributes: no attribute's key is empty, so the two never meet.
ID_COLUMN = ""

_TYPES = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "list[str]": pa.list_(pa.string()),
}


def clean(item: Item) -> dict[str, Attribute]:
    """The attributes of an item that are present, as they are kept. Raises InputError for other values."""
    kept: dict[str, Attribute] = {}
    for key, value in item.attributes.items():
        where = f"attribute '{key}' of item '{item.id}'"
        check_json([key, value], where)
        if not key:
            raise InputError(f"Item '{item.id}' has an attribute without a name.")
        if value is not None:
            type_of(value, where)
            kept[key] = value
    return kept


def type_of(value: Any, where: str) -> str:
    """The name of a value's type. Raises InputError for a value that no column can hold."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "str"
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return "list[str]"
    raise InputError(
        f"The {where} is of type {type(value).__name__}; an attribute is a bool, an int, a float, a text or "
        "a list of texts.",
        code="input.attribute_type",
    )


def merge(known: Mapping[str, str], items: Sequence[tuple[str, Mapping[str, Attribute]]]) -> dict[str, str]:
    """The type of every key after adding (id, attributes) of items; int and float together make float.

    Raises:
        InputError: an item's value has another type than the collection's; names key, both types and item.
    """
    types = dict(known)
    for item_id, attributes in items:
        for key, value in attributes.items():
            new = type_of(value, f"attribute '{key}' of item '{item_id}'")
            old = types.setdefault(key, new)
            if {old, new} == {"int", "float"}:
                types[key] = "float"
            elif old != new:
                raise InputError(
                    f"Attribute '{key}' is of type {old} in this collection, but of type {new} in item "
                    f"'{item_id}'; give it one type or another name.",
                    code="input.attribute_type",
                )
    return types


def to_table(
    types: Mapping[str, str], ids: Sequence[str], attributes: Sequence[Mapping[str, Attribute]]
) -> pa.Table:
    """A table of items: the id column, then one column per key in the order of `types`."""
    columns = [pa.array(ids, pa.string())]
    columns += [_column([row.get(key) for row in attributes], kind) for key, kind in types.items()]
    return pa.Table.from_arrays(columns, schema=schema(types))


def _column(values: Sequence[Attribute | None], kind: str) -> pa.Array:
    if kind == "float":
        # Arrow refuses ints above 2**53 here; float() rounds them.
        values = [value if value is None else float(cast(float, value)) for value in values]
    return pa.array(values, _TYPES[kind])


def conform(table: pa.Table, types: Mapping[str, str]) -> pa.Table:
    """A table written under an older set of types, with today's columns: new ones null, int cast to float."""
    wanted = schema(types)
    if table.schema.equals(wanted):
        return table
    columns = [
        table.column(field.name).cast(field.type, safe=False)  # rounds ints above 2**53
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def schema(types: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of `to_table`."""
    return pa.schema([(ID_COLUMN, pa.string()), *((key, _TYPES[kind]) for key, kind in types.items())])
