"""Token counts always add up to the grid; temperatures fall and stay positive."""

import pytest
from anyseek.errors import QueryError
from anyseek.model.schedule import (
    MIN_TEMPERATURE,
    TOKEN_SCHEDULES,
    cosine_schedule,
    temperature_schedule,
    token_schedule,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(sorted(TOKEN_SCHEDULES))
STEPS, TOKENS = st.integers(1, 300), st.integers(0, 900)


@given(NAMES, STEPS, TOKENS)
def test_counts_add_up_and_are_never_negative(name: str, num_steps: int, num_tokens: int) -> None:
    counts = token_schedule(name, num_steps, num_tokens)
    assert sum(counts) == num_tokens
    assert all(count >= 0 for count in counts)
    assert len(counts) <= num_steps


def test_rounding_that_takes_a_token_too_many_is_given_back() -> None:
    assert cosine_schedule(8, 16)[-1] == -1  # as recorded from the reference
    assert token_schedule("cosine", 8, 16) == [1, 2, 3, 3, 3, 3, 1, 0]


def test_linear_schedule_has_no_empty_steps() -> None:
    assert token_schedule("linear", 50, 16) == [1] * 16


@given(
    st.sampled_from(["constant", "linear", "onex:0.5:0.5", "onex:0:2", "onex:3:1"]),
    st.floats(0, 100),
    NAMES,
    STEPS,
    TOKENS,
)
def test_temperatures_match_the_steps_and_are_finite(
    name: str, temperature: float, tokens: str, num_steps: int, num_tokens: int
) -> None:
    counts = token_schedule(tokens, num_steps, num_tokens)
    found = temperature_schedule(name, temperature, counts)
    assert len(found) == len(counts)
    assert all(0 <= value <= max(temperature, 3, MIN_TEMPERATURE) for value in found)
    if name == "linear":
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    "name", ["", "warm", "onex", "onex:1", "onex:a:b", "onex:1:-1", "onex:1:nan", "linear:2"]
)
def test_unknown_temperature_schedules_are_named(name: str) -> None:
    with pytest.raises(QueryError, match=r"onex|0\.\.1000"):
        temperature_schedule(name, 1.0, [4])


def test_unknown_token_schedule_lists_the_known() -> None:
    with pytest.raises(QueryError, match="linear, cosine"):
        token_schedule("sigmoid", 4, 16)
    with pytest.raises(QueryError, match="steps"):
        token_schedule("linear", 0, 16)
