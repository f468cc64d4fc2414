"""The text form of filters."""

from contextlib import suppress

import pytest
from anyseek.errors import QueryError
from anyseek.search import F, Filter, parse_filter
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year>=2024 and license in [cc0,by]", (F.year >= 2024) & F.license.isin(["cc0", "by"])),
        ("year = 2024", F.year == 2024),
        ("year == '2024'", F.year == "2024"),
        ("x != -1.5e3", F.x != -1500.0),
        ("taken >= 2024-01-01", F.taken >= "2024-01-01"),
        ("license == cc-by-4.0", F.license == "cc-by-4.0"),
        ("flag == true or flag == false", (F.flag == True) | (F.flag == False)),  # noqa: E712
        ("a == 1 or b == 2 and c == 3", (F.a == 1) | ((F.b == 2) & (F.c == 3))),
        ("(a == 1 or b == 2) and c == 3", ((F.a == 1) | (F.b == 2)) & (F.c == 3)),
        ("not a == 1 and b == 2", ~(F.a == 1) & (F.b == 2)),
        ("not (a == 1)", ~(F.a == 1)),
        ("not not a exists", ~~F.a.exists()),
        ("a not in [1, 2]", ~F.a.isin([1, 2])),
        ("a in []", F.a.isin([])),
        ("tags contains sea", F.tags.contains("sea")),
        ("tags contains 2024", F.tags.contains("2024")),
        ('"key with space" == "a \\"b\\""', F["key with space"] == 'a "b"'),
        ("'it\\'s' exists", F["it's"].exists()),
        ("exists exists", F.exists.exists()),
        ("predicted.brightness > 100", F["predicted.brightness"] > 100),
        ("predicted.caption contains cone", F["predicted.caption"].contains("cone")),
        ("müller == straße", F.müller == "straße"),
        ("  a==1\n\tand b==2  ", (F.a == 1) & (F.b == 2)),
    ],
)
def test_text_is_read(text: str, expected: Filter) -> None:
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("year", 5),
        ("year >=", 8),
        ("year >= and", None),
        ("year >> 2", 7),
        ("year ! 2", 6),
        ("a == 1 b == 2", 8),
        ("a == 1 and", 11),
        ("(a == 1", 8),
        ("a == 1)", 7),
        ("a in 1", 6),
        ("a in [1 2]", 9),
        ("a in [1,]", 9),
        ("a in [1", 8),
        ("a not like b", 7),
        ("a == 'open", 6),
        ("a == 1 and and", 12),
        ("'' == 1", None),
        ('"\\x" == 1', 1),
        ("2020 <= year <= 2024", 14),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int | None) -> None:
    if text == "year >= and":
        assert parse_filter(text) == (F.year >= "and")  # a value may be any word
        return
    with pytest.raises(QueryError) as caught:
        parse_filter(text)
    assert caught.value.code == "filter.syntax"
    if column is not None:
        assert f"column {column}:" in str(caught.value)
        _, line, pointer = str(caught.value).split("\n")
        assert line[: pointer.index("^")].strip() == text[: column - 1].strip()


@given(st.text(max_size=60) | st.text(alphabet="ab12 ()[],=!<>'\"\\andornti", max_size=60))
def test_any_text_gives_a_filter_or_a_query_error(text: str) -> None:
    with suppress(QueryError):
        parse_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "a==1",
        "not " * 2000 + "a==1",
        " and ".join(["a==1"] * 1000),
        "a==" + "9" * 9000,
        "x" * 20_000,
    ],
)
def test_texts_that_would_exhaust_a_parser_are_refused(text: str) -> None:
    with pytest.raises(QueryError):
        parse_filter(text)
