"""The short text form of a filter, for the command line: `year >= 2024 and license in [cc0, by]`.

    either     := both ("or" both)*
    both       := single ("and" single)*
    single     := "not" single | "(" either ")" | condition
    condition  := key ("==" | "=" | "!=" | "<" | "<=" | ">" | ">=") value
                | key ["not"] "in" "[" value ("," value)* "]"
                | key "contains" value | key "exists"

A key or a value with spaces or signs in it is quoted, with " or '. A bare value that reads as a number is a
number, `true` and `false` are bools, everything else is text; quotes make text of anything ("2024").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ..errors import QueryError
from .filters import MAX_CONDITIONS, And, Field, Filter, Not, Or, Value

MAX_LENGTH = 10_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?: (?P<op> [=!<>]=|[=<>] )
             | (?P<sign> [()\[\],] )
             | (?P<text> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' )
             | (?P<word> [^\s()\[\],=!<>"']+ ) )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def parse_filter(text: str) -> Filter:
    """The filter that `text` says.

    Raises:
        QueryError: `text` does not follow the grammar above; the message points at the column (from 1).
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(f"The filter text has {len(text):,} characters; at most {MAX_LENGTH:,} are read.")
    parser = _Parser(text)
    filter_ = parser.either()
    if parser.token.kind != "end":
        raise parser.error("expected 'and', 'or' or the end")
    return filter_


@dataclass(frozen=True)
class _Token:
    kind: str  # op, sign, text, word or end
    text: str
    column: int  # from 0


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        self.num_conditions = 0
        self.position = 0
        self.token = self._scan()

    def either(self) -> Filter:
        parts = [self.both()]
        while self.accept("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Filter:
        parts = [self.single()]
        while self.accept("and"):
            parts.append(self.single())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def single(self) -> Filter:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} levels of parentheses and 'not'")
        if self.accept("not"):
            filter_: Filter = Not(self.single())
        elif self.accept("("):
            filter_ = self.either()
            self.expect(")")
        else:
            filter_ = self.condition()
        self.depth -= 1
        return filter_

    def condition(self) -> Filter:
        self.num_conditions += 1
        if self.num_conditions > MAX_CONDITIONS:
            raise self.error(f"more than {MAX_CONDITIONS} conditions")
        field = Field(self.key())
        if self.token.kind == "op":
            return self.comparison(field)
        if self.accept("exists"):
            return field.exists()
        if self.accept("contains"):
            return field.contains(str(self.value("'contains'")))
        if self.accept("not"):
            self.expect("in")
            return Not(self.membership(field))
        if self.accept("in"):
            return self.membership(field)
        raise self.error("expected a comparison, 'in', 'contains' or 'exists' after the key")

    def comparison(self, field: Field) -> Filter:
        op = self.take().text
        value = self.value(f"{op!r}")
        match op:
            case "==" | "=":
                return field == value
            case "!=":
                return field != value
            case "<":
                return field < value
            case "<=":
                return field <= value
            case ">":
                return field > value
            case _:
                return field >= value

    def membership(self, field: Field) -> Filter:
        self.expect("[")
        values: list[Value] = []
        if not self.accept("]"):
            values.append(self.value("'['"))
            while self.accept(","):
                values.append(self.value("','"))
            self.expect("]")
        return field.isin(values)

    def key(self) -> str:
        if self.token.kind == "text":
            key = self.unquoted()
        elif self.token.kind == "word" and self.token.text not in ("and", "or", "in", "not"):
            key = self.take().text
        else:
            raise self.error("expected the key of an attribute")
        if not key:
            raise self.error("a key cannot be empty")
        return key

    def value(self, after: str) -> Value:
        if self.token.kind == "text":
            return self.unquoted()
        if self.token.kind != "word":
            raise self.error(f"expected a value after {after}")
        word = self.take().text
        if word in ("true", "false"):
            return word == "true"
        if not _NUMBER.fullmatch(word):
            return word
        return int(word) if re.fullmatch(r"[+-]?\d{1,4000}", word) else float(word)

    def unquoted(self) -> str:
        token = self.token
        try:
            if token.text[0] == '"':
                text: str = json.loads(token.text, strict=False)
            else:
                text = re.sub(r"\\(.)", r"\1", token.text[1:-1])
        except ValueError as error:
            raise self.error("this quoted text has a wrong \\ in it") from error
        self.take()
        return text

    def accept(self, text: str) -> bool:
        """Step over the next word or sign if it is `text`."""
        if self.token.kind in ("word", "sign") and self.token.text == text:
            self.take()
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.error(f"expected {text!r}")

    def take(self) -> _Token:
        token, self.token = self.token, self._scan()
        return token

    def error(self, problem: str) -> QueryError:
        column = self.token.column
        before = self.text[max(0, column - 60) : column]
        line = (before + self.text[column : column + 20]).translate({ord(c): " " for c in "\n\r\t"})
        return QueryError(
            f"The filter cannot be read at column {column + 1}: {problem}.\n  {line}\n  {' ' * len(before)}^",
            code="filter.syntax",
        )

    def _scan(self) -> _Token:
        match = _TOKEN.match(self.text, self.position)
        if match:
            self.position = match.end()
            kind = str(match.lastgroup)
            return _Token(kind, match[kind], match.start(kind))
        rest = self.text[self.position :]
        column = self.position + len(rest) - len(rest.lstrip())
        self.token = _Token("end", "", column)
        if rest.strip():
            problem = (
                "this quote is not closed" if rest.lstrip()[0] in "\"'" else "a sign that means nothing here"
            )
            raise self.error(problem)
        return self.token
