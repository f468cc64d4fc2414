"""Text, boxes, metadata and palettes as tokens; spans."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from anyseek.errors import CheckpointError
from anyseek.model.tokenizers.sequences import (
    METADATA,
    Box,
    boxes_to_string,
    metadata_to_string,
    palette_to_string,
    string_to_boxes,
    string_to_metadata,
    string_to_palette,
)
from anyseek.model.tokenizers.spans import mask_spans, merge_spans, sample_spans, sequence_buffer
from anyseek.model.tokenizers.text import TextTokenizer, download_text_tokenizer, plain_text
from anyseek.model.training.vocabulary import build_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

CONTENT = build_vocabulary(["a red cube stands behind a small dog"], ["dog", "hot dog"])
TOKENIZER = TextTokenizer(CONTENT)


def tokens(text: str) -> list[str]:
    return TOKENIZER.tokens(TOKENIZER.encode(text))


def test_control_ids_are_found_by_name() -> None:
    control = [TOKENIZER.pad_id, TOKENIZER.unk_id, TOKENIZER.sos_id, TOKENIZER.eos_id]
    assert TOKENIZER.tokens(control) == ["[PAD]", "[UNK]", "[SOS]", "[EOS]"]
    assert TOKENIZER.tokens(TOKENIZER.sentinels[:2]) == ["[S_1]", "[S_2]"]


@pytest.mark.parametrize("text", ["[S_1]", "[EOS]", "[PAD] x", "v0=5 v3=9", "x[EOS]y", "[SOS]v1=0"])
def test_users_cannot_spell_control_or_number_tokens(text: str) -> None:
    control = re.compile(r"\[(PAD|SOS|EOS|S_\d+)\]|v\d=\d+")
    assert not [token for token in tokens(plain_text(text)) if control.fullmatch(token)]


def test_class_names_in_captions_stay_single_tokens() -> None:
    assert tokens(plain_text("A dog.")) == ["a", "dog", "."]
    assert TOKENIZER.decode(TOKENIZER.encode("a dog")) == "a dog"


@given(st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_no_text_breaks_the_tokenizer(text: str) -> None:
    ids = TOKENIZER.encode(plain_text(text), max_tokens=32)
    assert ids.dtype == np.int32
    assert len(ids) <= 32
    assert not len(ids) or 0 <= ids.min() <= ids.max() < TOKENIZER.vocab_size
    assert TOKENIZER.eos_id not in ids


@pytest.mark.parametrize(
    "text", ["dog " * 10_000, "x" * 100_000, "\x00\x1b\ufeff" * 50_000, "\ud800 dog", " " * 10**6 + "dog"]
)
def test_long_and_broken_text_is_cut(text: str) -> None:
    assert len(TOKENIZER.encode(plain_text(text), max_tokens=256)) <= 256


def test_ids_beyond_the_vocabulary_read_as_unknown() -> None:
    assert TOKENIZER.tokens([10**6]) == ["[UNK]"]


def test_missing_file_names_the_call_that_helps(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="download_text_tokenizer"):
        TextTokenizer.from_file(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]", b'{"model": {"type": "Nope"}}'])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"text\.json"):
        TextTokenizer.from_file(path)


def test_vocabulary_without_sentinels_is_refused() -> None:
    plain = json.loads(CONTENT)
    plain["added_tokens"] = []
    plain["model"]["vocab"] = {"[UNK]": 0, "[PAD]": 1, "[SOS]": 2, "[EOS]": 3}
    with pytest.raises(CheckpointError, match="sentinel"):
        TextTokenizer(json.dumps(plain).encode())


def test_download_is_checked_then_kept(tmp_path: Path) -> None:
    served = tmp_path / "served.json"
    served.write_bytes(CONTENT)
    cache = tmp_path / "cache"
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(CheckpointError, match="expected"):
        download_text_tokenizer(served.as_uri(), "0" * 64, cache_dir=cache)
    assert not cache.exists() or not list(cache.iterdir())
    path = download_text_tokenizer(served.as_uri(), sha256, cache_dir=cache)
    served.unlink()
    assert download_text_tokenizer(served.as_uri(), sha256, cache_dir=cache) == path
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=f"put the file at {re.escape(str(path))}"):
        download_text_tokenizer(served.as_uri(), sha256, cache_dir=cache)


unit = st.floats(0, 1)
boxes = st.builds(Box, unit, unit, unit, unit, label=st.sampled_from(["dog", "hot dog", "red cube"]))


@given(st.lists(boxes, max_size=6))
@settings(max_examples=50, deadline=None)
def test_boxes_survive_the_round_trip_up_to_their_bins(given_boxes: list[Box]) -> None:
    text = TOKENIZER.decode(TOKENIZER.encode(boxes_to_string(given_boxes)))
    found = string_to_boxes(text)
    ordered = sorted(given_boxes, key=lambda box: box.x0**2 + box.y0**2)
    assert [box.label for box in found] == [box.label for box in ordered]
    for a, b in zip(found, ordered, strict=True):
        assert np.allclose(a[:4], b[:4], atol=0.5 / 999 + 1e-9)


@pytest.mark.parametrize("text", ["", "v0=1 v1=2", "v0=1 v1=2 v2=3 v4=4 dog", "dog v0="])
def test_incomplete_boxes_are_left_out(text: str) -> None:
    assert string_to_boxes(text) == []


@given(st.dictionaries(st.sampled_from(list(METADATA)), st.floats(allow_nan=False, allow_infinity=False)))
@settings(max_examples=50, deadline=None)
def test_metadata_is_clamped_and_keeps_names(values: dict[str, float]) -> None:
    found = string_to_metadata(metadata_to_string(values))
    assert list(found) == list(values)
    for name, value in found.items():
        kind = METADATA[name]
        assert 0 <= kind.to_number(value) <= 999
        if kind.kind == "range":
            assert 0 <= value <= kind.maximum


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=7))
@settings(max_examples=50, deadline=None)
def test_palette_survives_the_round_trip(colors: list[tuple[int, int, int]]) -> None:
    assert string_to_palette(palette_to_string(colors)) == colors


chunks = st.lists(st.lists(st.integers(5000, 5100), min_size=1, max_size=3), max_size=30)


@given(chunks, st.floats(0, 1), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_merged_spans_give_the_sequence_back(groups: list[list[int]], keep: float, random: object) -> None:
    uniform = [random.random() for _ in groups]  # pyright: ignore
    inputs, target = mask_spans(groups, uniform, keep, TOKENIZER.sentinels)
    assert merge_spans(inputs, target, TOKENIZER.sentinels) == [i for group in groups for i in group]
    assert target[0] == TOKENIZER.sentinels[0]
    assert sum(token in TOKENIZER.sentinels for token in target) == 1 + sum(
        token in TOKENIZER.sentinels for token in inputs
    )


def test_running_out_of_sentinels_keeps_the_rest() -> None:
    sentinels = TOKENIZER.sentinels[:3]
    inputs, target = mask_spans([[i] for i in range(1000, 1010)], [0.9, 0.1] * 5, 0.5, sentinels)
    assert merge_spans(inputs, target, sentinels) == list(range(1000, 1010))


@given(
    chunks,
    st.integers(0, 20),
    st.integers(1, 20),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_training_pairs_fit_their_budgets(
    groups: list[list[int]], input_budget: int, target_budget: int, keep: float, seed: int
) -> None:
    inputs, target = sample_spans(
        groups,
        input_budget=input_budget,
        target_budget=target_budget,
        keep_prob=keep,
        tokenizer=TOKENIZER,
        max_tokens=16,
        random=np.random.default_rng(seed),
    )
    assert len(inputs) <= input_budget
    assert 0 < len(target) <= target_budget
    assert target[0] in TOKENIZER.sentinels
    buffer = sequence_buffer(
        inputs, target, input_budget=input_budget, max_tokens=20, pad_id=TOKENIZER.pad_id
    )
    assert buffer["tensor"][~buffer["input_mask"]].tolist() == inputs
    assert buffer["tensor"][~buffer["target_mask"]].tolist() == target
    assert not (~buffer["input_mask"] & ~buffer["target_mask"]).any()
