# ruff: noqa: D102  (the kinds of filter do what Filter's docstrings say)
"""Conditions on attributes: `(F.year >= 2024) & F.license.isin(["cc0"])`.

A filter is a small frozen tree. It evaluates on the attribute table of a snapshot (one row per item, one
column per key, null where an item lacks the key) to one bool per item.

Missing values: every condition on a key that an item lacks is false, `!=` included; `~` of it is therefore
true. `F.year != 2024` asks for items that *have* another year, `~(F.year == 2024)` for all but those of 2024.

The wire form (`Filter.to_wire`, `from_wire`) is the one that Qdrant's users know:
`{"must": [...], "should": [...], "must_not": [...]}` over conditions `{"key": k, "match": v}`,
`{"key": k, "any": [v, ...]}`, `{"key": k, "range": {"gte": v, "lt": v}}`, `{"key": k, "contains": v}` and
`{"key": k, "exists": true}`. `where.py` reads the short text form.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute
from numpy.typing import NDArray

from ..errors import QueryError

pc: Any = _compute  # its functions are made at import and have no types

Value: TypeAlias = bool | int | float | str
Mask: TypeAlias = "NDArray[np.bool_]"

MAX_CONDITIONS = 256
MAX_VALUES = 10_000
RANGE_OPS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_INT64 = range(-(2**63), 2**63)


class Filter(ABC):
    """A condition on an item's attributes. Join with `&`, `|` and `~`, each side in parentheses."""

    @abstractmethod
    def mask(self, attributes: pa.Table) -> Mask:
        """One bool per row of `attributes` (num_items,): whether that item passes.

        Raises:
            QueryError: a key that the table lacks (code filter.unknown_key), or a value of another type than
                the column's (code filter.type).
        """

    @abstractmethod
    def condition(self) -> dict[str, Any]:
        """The wire form as one entry of a `must`, `should` or `must_not` list."""

    def to_wire(self) -> dict[str, Any]:
        """The wire form: an object with `must`, `should` or `must_not`."""
        condition = self.condition()
        return {"must": [condition]} if "key" in condition else condition

    def __and__(self, other: Filter) -> Filter:
        return And((*_operands(self, And), *_operands(other, And)))

    def __or__(self, other: Filter) -> Filter:
        return Or((*_operands(self, Or), *_operands(other, Or)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        raise QueryError(
            "A filter is neither true nor false by itself: join filters with &, | and ~ instead of and, or "
            "and not, put each side in parentheses, and write (2020 <= F.year) & (F.year <= 2024) instead of "
            "2020 <= F.year <= 2024.",
            code="filter.syntax",
        )


@dataclass(frozen=True)
class Compare(Filter):
    """One attribute against one value; `op` is one of ==, <, <=, >, >=."""

    key: str
    op: str
    value: Value

    def __post_init__(self) -> None:
        _checked_key(self.key)
        _checked_value(self.key, self.value)
        if self.op not in ("==", *RANGE_OPS.values()):
            raise QueryError(
                f"No comparison {self.op!r} on {self.key!r}; known: ==, <, <=, >, >=.", code="filter.syntax"
            )

    def mask(self, attributes: pa.Table) -> Mask:
        column = _column(attributes, self.key)
        _check_type(self.key, column.type, [self.value], self.op)
        exact = _exact(column.type, self.op, self.value)
        if isinstance(exact, bool):  # decided by the column's range of values
            return _to_mask(column.is_valid()) if exact else np.zeros(len(column), dtype=bool)
        op, value = exact
        function = {
            "==": pc.equal,
            "<": pc.less,
            "<=": pc.less_equal,
            ">": pc.greater,
            ">=": pc.greater_equal,
        }[op]
        return _to_mask(function(column, pa.scalar(value, column.type)))

    def condition(self) -> dict[str, Any]:
        if self.op == "==":
            return {"key": self.key, "match": self.value}
        name = next(name for name, op in RANGE_OPS.items() if op == self.op)
        return {"key": self.key, "range": {name: self.value}}

    def __str__(self) -> str:
        return f"{_name(self.key)} {self.op} {_literal(self.value)}"


@dataclass(frozen=True)
class IsIn(Filter):
    """The attribute equals one of the values; none of an empty list."""

    key: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        _checked_key(self.key)
        for value in self.values:
            _checked_value(self.key, value)
        if len(self.values) > MAX_VALUES:
            raise QueryError(
                f"{len(self.values)} values for {self.key!r}; at most {MAX_VALUES} can be asked."
            )

    def mask(self, attributes: pa.Table) -> Mask:
        column = _column(attributes, self.key)
        _check_type(self.key, column.type, self.values, "==")
        exact = [_exact(column.type, "==", value) for value in self.values]
        values = [pair[1] for pair in exact if not isinstance(pair, bool)]
        return _to_mask(pc.is_in(column, value_set=pa.array(values, column.type)))

    def condition(self) -> dict[str, Any]:
        return {"key": self.key, "any": list(self.values)}

    def __str__(self) -> str:
        return f"{_name(self.key)} in [{', '.join(map(_literal, self.values))}]"


@dataclass(frozen=True)
class Contains(Filter):
    """The list attribute holds the text as one of its own; or the text attribute has it somewhere in it."""

    key: str
    value: str

    def __post_init__(self) -> None:
        _checked_key(self.key)
        if not isinstance(cast(object, self.value), str):
            raise QueryError(
                f"Texts and lists hold text: contains({self.value!r}) on {self.key!r} needs a string.",
                code="filter.type",
            )

    def mask(self, attributes: pa.Table) -> Mask:
        column = _column(attributes, self.key)
        if _type_name(column.type) == "str":
            return _to_mask(pc.match_substring(column, self.value, ignore_case=True))
        if _type_name(column.type) != "list of str":
            raise QueryError(
                f"'contains' asks a text or a list, but {self.key!r} is {_type_name(column.type)}; "
                "use == or 'in'.",
                code="filter.type",
            )
        lists = column.combine_chunks()
        found = np.asarray(pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), self.value)))
        mask = np.zeros(len(column), dtype=bool)
        mask[found] = True
        return mask

    def condition(self) -> dict[str, Any]:
        return {"key": self.key, "contains": self.value}

    def __str__(self) -> str:
        return f"{_name(self.key)} contains {_literal(self.value)}"


@dataclass(frozen=True)
class Exists(Filter):
    """The item has the attribute, whatever its value."""

    key: str

    def __post_init__(self) -> None:
        _checked_key(self.key)

    def mask(self, attributes: pa.Table) -> Mask:
        return _to_mask(_column(attributes, self.key).is_valid())

    def condition(self) -> dict[str, Any]:
        return {"key": self.key, "exists": True}

    def __str__(self) -> str:
        return f"{_name(self.key)} exists"


@dataclass(frozen=True)
class And(Filter):
    """All of the filters hold; with none given, every item passes."""

    filters: tuple[Filter, ...]

    def mask(self, attributes: pa.Table) -> Mask:
        mask = np.ones(attributes.num_rows, dtype=bool)
        for inner in self.filters:
            mask &= inner.mask(attributes)
        return mask

    def condition(self) -> dict[str, Any]:
        return {"must": [inner.condition() for inner in self.filters]}

    def __str__(self) -> str:
        return " and ".join(
            f"({inner})" if isinstance(inner, Or | And) else str(inner) for inner in self.filters
        )


@dataclass(frozen=True)
class Or(Filter):
    """At least one of the filters holds."""

    filters: tuple[Filter, ...]

    def mask(self, attributes: pa.Table) -> Mask:
        mask = np.zeros(attributes.num_rows, dtype=bool)
        for inner in self.filters:
            mask |= inner.mask(attributes)
        return mask

    def condition(self) -> dict[str, Any]:
        return {"should": [inner.condition() for inner in self.filters]}

    def __str__(self) -> str:
        return " or ".join(
            f"({inner})" if isinstance(inner, Or | And) else str(inner) for inner in self.filters
        )


@dataclass(frozen=True)
class Not(Filter):
    """The filter does not hold; true where a key that it asks for is missing."""

    filter: Filter

    def mask(self, attributes: pa.Table) -> Mask:
        return ~self.filter.mask(attributes)

    def condition(self) -> dict[str, Any]:
        return {"must_not": [self.filter.condition()]}

    def __str__(self) -> str:
        return f"not {self.filter}" if isinstance(self.filter, Exists) else f"not ({self.filter})"


class Field:
    """An attribute by its key, from `F.year` or `F["key with space"]`; comparing it makes a `Filter`."""

    __hash__ = None  # type: ignore[assignment]  # == makes a filter

    def __init__(self, key: str) -> None:
        self._key = _checked_key(key)

    def __eq__(self, value: Value) -> Filter:  # type: ignore[override]
        return Compare(self._key, "==", value)

    def __ne__(self, value: Value) -> Filter:  # type: ignore[override]
        return And((Exists(self._key), Not(Compare(self._key, "==", value))))

    def __lt__(self, value: Value) -> Filter:
        return Compare(self._key, "<", value)

    def __le__(self, value: Value) -> Filter:
        return Compare(self._key, "<=", value)

    def __gt__(self, value: Value) -> Filter:
        return Compare(self._key, ">", value)

    def __ge__(self, value: Value) -> Filter:
        return Compare(self._key, ">=", value)

    def isin(self, values: Iterable[Value]) -> Filter:
        """The attribute equals one of `values`."""
        if isinstance(values, str):
            raise QueryError(f"isin takes a list: F[{self._key!r}].isin([{values!r}]).", code="filter.syntax")
        return IsIn(self._key, tuple(values))

    def contains(self, value: str) -> Filter:
        """The list attribute holds `value`; or the text attribute, in upper or lower case, somewhere."""
        return Contains(self._key, value)

    def exists(self) -> Filter:
        """The item has the attribute."""
        return Exists(self._key)

    def __bool__(self) -> bool:
        raise QueryError(
            f"An attribute alone is no condition: compare it, as in F[{self._key!r}] == 1, or ask "
            f"F[{self._key!r}].exists().",
            code="filter.syntax",
        )


class Fields:
    """Makes a `Field` of any key: `F.year`, `F["key with space"]`."""

    def __getattr__(self, key: str) -> Field:
        if key.startswith("__"):
            raise AttributeError(key)
        return Field(key)

    def __getitem__(self, key: str) -> Field:
        return Field(key)


F = Fields()


def from_wire(wire: Mapping[str, Any]) -> Filter:
    """Read the wire form (see above). Where several clauses stand in one object, all must hold.

    Raises:
        QueryError: anything that is not that form, naming the place in it as a JSON pointer.
    """
    return _from_wire(wire, "", [0])


def _from_wire(wire: Any, at: str, count: list[int]) -> Filter:
    count[0] += 1
    if count[0] > MAX_CONDITIONS:
        raise QueryError(f"The filter has more than {MAX_CONDITIONS} conditions.", code="filter.syntax")
    if not isinstance(wire, Mapping):
        raise _syntax(at, f"expected an object, got {type(wire).__name__}")
    fields = cast("Mapping[str, Any]", wire)
    if "key" in fields:
        return _condition_from_wire(fields, at)
    _only(fields, {"must", "should", "must_not"}, at)
    clauses: dict[str, tuple[Filter, ...]] = {}
    for name, inner in fields.items():
        if not isinstance(inner, list):
            raise _syntax(f"{at}/{name}", f"expected a list, got {type(inner).__name__}")
        entries = cast("list[Any]", inner)
        clauses[name] = tuple(_from_wire(entry, f"{at}/{name}/{i}", count) for i, entry in enumerate(entries))
    joined = list(clauses.get("must", ()))
    if should := clauses.get("should"):
        joined.append(should[0] if len(should) == 1 else Or(should))
    joined += [Not(entry) for entry in clauses.get("must_not", ())]
    return joined[0] if len(joined) == 1 else And(tuple(joined))


def _condition_from_wire(fields: Mapping[str, Any], at: str) -> Filter:
    kinds = {"match", "any", "range", "contains", "exists"}
    _only(fields, {"key", *kinds}, at)
    given = kinds & fields.keys()
    if len(given) != 1:
        raise _syntax(at, f"a condition has exactly one of {', '.join(sorted(kinds))}, got {sorted(given)}")
    key, (kind,) = fields["key"], given
    asked = fields[kind]
    try:
        if kind == "match":
            return Compare(key, "==", asked)
        if kind == "any" and isinstance(asked, list):
            return IsIn(key, tuple(cast("list[Any]", asked)))
        if kind == "contains":
            return Contains(key, asked)
        if kind == "exists" and isinstance(asked, bool):
            return Exists(key) if asked else Not(Exists(key))
        if kind == "range" and isinstance(asked, dict) and asked:
            bounds = cast("dict[str, Any]", asked)
            _only(bounds, set(RANGE_OPS), f"{at}/range")
            parts = tuple(Compare(key, RANGE_OPS[name], bound) for name, bound in bounds.items())
            return parts[0] if len(parts) == 1 else And(parts)
    except QueryError as error:
        raise QueryError(f"{error} (at {at or '/'} of the filter)", code=error.code) from error
    expected = {"any": "a list", "exists": "true or false", "range": "an object with gt, gte, lt or lte"}[
        kind
    ]
    raise _syntax(f"{at}/{kind}", f"expected {expected}, got {json.dumps(asked, default=str)[:80]}")


def _only(fields: Mapping[str, Any], known: set[str], at: str) -> None:
    if unknown := sorted(map(str, fields.keys() - known)):
        raise _syntax(at, f"unknown {', '.join(unknown)[:80]!r}; known: {', '.join(sorted(known))}")


def _syntax(at: str, problem: str) -> QueryError:
    return QueryError(f"The filter cannot be read at {at or '/'}: {problem}.", code="filter.syntax")


def _operands(side: object, kind: type[And] | type[Or]) -> Sequence[Filter]:
    """`a & b & c` is one list of three, not a chain, so that long filters stay shallow."""
    if isinstance(side, kind):
        return side.filters
    if isinstance(side, Filter):
        return (side,)
    raise QueryError(
        f"A filter joins with another filter, got {type(side).__name__}; put comparisons in parentheses: "
        "(F.year >= 2024) & (F.license == 'cc0').",
        code="filter.syntax",
    )


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise QueryError(f"An attribute's key is text, got {key!r}.", code="filter.syntax")
    return key


def _checked_value(key: str, value: object) -> None:
    if isinstance(value, Field):
        raise QueryError(
            f"{key!r} can be compared with a value, not with another attribute.", code="filter.type"
        )
    if not isinstance(value, bool | int | float | str):
        raise QueryError(
            f"{key!r} can be compared with text, a number or a bool, got {type(value).__name__}"
            + ("; ask for missing values with exists()." if value is None else "."),
            code="filter.type",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise QueryError(
            f"{key!r} can be compared with finite numbers only, got {value!r}.", code="filter.type"
        )


def _column(attributes: pa.Table, key: str) -> pa.ChunkedArray:
    if key not in attributes.column_names:
        known = ", ".join(sorted(attributes.column_names)[:50]) or "none, the items have no attributes"
        raise QueryError(
            f"No attribute {key!r} in this collection; known: {known}.", code="filter.unknown_key"
        )
    return attributes.column(key)


def _type_name(type_: pa.DataType) -> str:
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_integer(type_):
        return "int"
    if pa.types.is_floating(type_):
        return "float"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "str"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return "list of str"
    return str(type_)


def _check_type(key: str, type_: pa.DataType, values: Iterable[Value], op: str) -> None:
    held = _type_name(type_)
    if held == "list of str":
        raise QueryError(f"{key!r} is a list of str: ask {key} contains VALUE.", code="filter.type")
    for value in values:
        asked = type(value).__name__
        if not (asked == held or {asked, held} == {"int", "float"}):
            raise QueryError(
                f"{key!r} holds {held}, but the filter compares it with {asked} {value!r}.",
                code="filter.type",
            )
    if held == "bool" and op != "==":
        raise QueryError(f"{key!r} is bool, which has no order; ask == true or == false.", code="filter.type")


def _exact(type_: pa.DataType, op: str, value: Value) -> tuple[str, Value] | bool:
    """The comparison in the column's own type, or its outcome where every value of the type gives the same.

    An int column asked for `>= 2.5` is asked for `>= 3`; Arrow would round its large numbers to doubles.
    Float columns compare as doubles.
    """
    if isinstance(value, float) and pa.types.is_integer(type_):
        if value.is_integer():
            value = int(value)
        elif op == "==":
            return False
        else:
            op, value = (">=", math.ceil(value)) if op[0] == ">" else ("<=", math.floor(value))
    if isinstance(value, int) and pa.types.is_integer(type_) and value not in _INT64:
        return op != "==" and (value > 0) == (op[0] == "<")
    if isinstance(value, int) and pa.types.is_floating(type_):
        try:
            value = float(value)
        except OverflowError:  # beyond every double
            return op != "==" and (value > 0) == (op[0] == "<")
    return op, value


def _to_mask(result: pa.ChunkedArray) -> Mask:
    return np.asarray(result.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _name(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][\w.]*", key) and key not in RESERVED else json.dumps(key)


def _literal(value: Value) -> str:
    return json.dumps(value)


RESERVED = {"and", "or", "not", "in", "contains", "exists", "true", "false"}
