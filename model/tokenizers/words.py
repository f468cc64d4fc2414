"""Words that structured texts are made of: numbers `v0=0`..`v3=999`, and codes up to 1023 in two of them."""

from collections.abc import Sequence

HEADS = ("v0", "v1", "v2", "v3")
MAX_NUMBER = 999
CODES_PER_HEAD = 512
"""`v0=` has codes below this, `v1=` those from it on."""


def number_word(head: str, value: float) -> str:
    """Spell a number, rounded and clamped to 0..999."""
    return f"{head}={min(max(round(value), 0), MAX_NUMBER)}"


def code_word(code: int) -> str:
    """Spell a code 0..1023."""
    return f"v0={code}" if code < CODES_PER_HEAD else f"v1={code - CODES_PER_HEAD}"


def read_numbers(words: Sequence[str], heads: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of `v0=12 v1=7 ...` under the expected heads, or None when anything else is there."""
    found = [_read(word) for word in words]
    if len(found) != len(heads):
        return None
    values = [value for (head, value), wanted in zip(found, heads, strict=True) if head == wanted]
    return tuple(values) if len(values) == len(heads) else None


def read_codes(words: Sequence[str], count: int) -> tuple[int, ...] | None:
    """So many codes 0..1023, or None when anything else is there."""
    found = [_read(word) for word in words]
    codes = [
        v + CODES_PER_HEAD * (head == "v1")
        for head, v in found
        if head in ("v0", "v1") and v < CODES_PER_HEAD
    ]
    return tuple(codes) if len(codes) == len(words) == count else None


def split_before(words: Sequence[str], start: str) -> list[list[str]]:
    """Cut a list of words before each `start`; what comes before the first is dropped."""
    groups: list[list[str]] = []
    for word in words:
        if word == start:
            groups.append([])
        if groups:
            groups[-1].append(word)
    return groups


def is_number(word: str) -> bool:
    """Whether a word is a number, `v2=7`."""
    return _read(word)[0] in HEADS


def _read(word: str) -> tuple[str, int]:
    """Head and number, or an empty head."""
    head, _, digits = word.partition("=")
    is_digits = digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_NUMBER))
    return (head, int(digits)) if is_digits else ("", 0)
