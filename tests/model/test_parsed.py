"""Poses and instances as strings, and generated sequences read back, whatever they are."""

import numpy as np
import pytest
from anyseek.errors import ModelError
from anyseek.model.tokenizers.instances import (
    FRAME,
    InstanceCode,
    PointInstances,
    grid_points,
    instances_to_string,
    string_to_instances,
)
from anyseek.model.tokenizers.parsed import Parsed, parse_sequence
from anyseek.model.tokenizers.poses import SECTION_NAMES, Pose, poses_to_string, string_to_poses
from anyseek.model.tokenizers.sequences import Box, boxes_to_string, metadata_to_string, palette_to_string
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = "human pose global camera shape point polygon none a red cube stands behind a small dog"
TOKENIZER = TextTokenizer(build_vocabulary([WORDS], ["dog", "hot dog"]))
SEQUENCES = ("caption", "det", "metadata", "color_palette", "human_poses", "sam_instance")

fractions = st.floats(0, 1)
codes = st.integers(0, 1023)


def of(values: st.SearchStrategy[float], count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[values] * count)


poses = st.builds(
    Pose,
    of(fractions, 4),
    st.tuples(*[codes] * 8),
    of(st.floats(-1, 1), 9),
    of(st.floats(-1, 19), 3),
    of(st.floats(-3, 3), 10),
)
pixels = st.integers(0, FRAME - 1)
instances = st.builds(InstanceCode, of(pixels, 4), st.tuples(*[codes] * 16))
points = st.builds(PointInstances, pixels, pixels, st.lists(instances, max_size=3).map(tuple))


@given(st.lists(st.tuples(poses, st.permutations(SECTION_NAMES)), max_size=3))
@settings(max_examples=50, deadline=None)
def test_poses_survive_a_round_trip_within_their_resolution(people: list[tuple[Pose, list[str]]]) -> None:
    text = poses_to_string([pose for pose, _ in people], [order for _, order in people])
    found = string_to_poses(TOKENIZER.decode(TOKENIZER.encode(text)))
    assert len(found) == len(people)
    for (pose, _), back in zip(people, found, strict=True):
        assert back.codes == pose.codes
        assert back.box == pytest.approx(pose.box, abs=0.51 / 999)
        assert back.rotation == pytest.approx(pose.rotation, abs=0.51 / 499.5)
        assert back.camera == pytest.approx(pose.camera, abs=0.51 / 49.95)
        assert back.shape == pytest.approx(pose.shape, abs=0.51 / 166.5)


def test_pose_values_out_of_range_are_clamped() -> None:
    pose = Pose((-1, 2, 0, 1), (0,) * 8, (-9,) * 9, (99,) * 3, (9,) * 10)
    (back,) = string_to_poses(poses_to_string([pose]))
    assert back.box == (0, 1, 0, 1)
    assert (back.rotation[0], back.camera[0], back.shape[0]) == pytest.approx((-1, 19, 3))


@given(st.lists(points, max_size=7))
@settings(max_examples=50, deadline=None)
def test_instances_survive_a_round_trip(asked: list[PointInstances]) -> None:
    text = instances_to_string(asked)
    assert string_to_instances(TOKENIZER.decode(TOKENIZER.encode(text))) == asked


def test_grid_points_lie_evenly_inside_the_frame() -> None:
    grid = grid_points(7)
    assert (len(grid), grid[0], grid[1], grid[-1]) == (49, (28, 28), (28, 56), (196, 196))
    assert grid_points(1) == [(112, 112)]


BOXES = [Box(0.1, 0.2, 0.3, 0.4, "hot dog"), Box(0.5, 0.5, 0.9, 1.0, "red cube")]
VALUES = {"brightness": 100.0, "n_humans": 3}
EXAMPLES = {
    "caption": "a red cube behind a hot dog",
    "det": boxes_to_string(BOXES),
    "metadata": metadata_to_string(VALUES),
    "color_palette": palette_to_string([(1, 2, 3), (255, 0, 9)]),
    "human_poses": poses_to_string([Pose((0, 0, 1, 1), (700,) * 8, (0.5,) * 9, (2,) * 3, (1,) * 10)]),
    "sam_instance": instances_to_string(
        [PointInstances(3, 4, (InstanceCode((10, 20, 30, 40), (600,) * 16),)), PointInstances(9, 9)]
    ),
}


def read(modality: str, text: str, *after: int) -> Parsed:
    return parse_sequence(modality, [*TOKENIZER.encode(text).tolist(), *after], TOKENIZER)


@pytest.mark.parametrize("modality", SEQUENCES)
def test_what_is_written_well_is_read_without_a_problem(modality: str) -> None:
    for after in ((), (TOKENIZER.eos_id,), (TOKENIZER.eos_id, 7, 10**9)):
        parsed = read(modality, EXAMPLES[modality], *after)
        assert parsed.problem is None
        assert parsed.value
        assert parsed.text == EXAMPLES[modality].strip()


def test_values_are_those_that_were_written() -> None:
    assert read("caption", EXAMPLES["caption"]).value == EXAMPLES["caption"]
    assert [box.label for box in read("det", EXAMPLES["det"]).value] == ["hot dog", "red cube"]  # type: ignore[union-attr]
    assert read("metadata", EXAMPLES["metadata"]).value == {"brightness": pytest.approx(96.9), "n_humans": 3}
    assert read("color_palette", EXAMPLES["color_palette"]).value == [(1, 2, 3), (255, 0, 9)]
    assert read("human_poses", "none") == Parsed("none", [], None)
    assert read("det", "") == Parsed("", [], None)


@pytest.mark.parametrize(
    ("modality", "text"),
    [
        ("caption", ""),
        ("metadata", ""),
        ("metadata", "a red cube"),
        ("metadata", "v1=999 v0=1"),
        ("det", "dog v0=1 v1=2"),
        ("det", "v0=9 v1=9 v2=3 v3=3 dog"),
        ("color_palette", "v1=1 v0=300 v0=2 v0=3"),
        ("human_poses", ""),
        ("human_poses", "human v0=1 v1=2 v2=3 v3=4 pose"),
        ("sam_instance", "none"),
        ("sam_instance", "point v0=1"),
    ],
)
def test_what_says_nothing_is_reported(modality: str, text: str) -> None:
    parsed = read(modality, text)
    assert parsed.value is None
    assert parsed.problem


@pytest.mark.parametrize("modality", SEQUENCES[1:])
def test_what_is_broken_is_left_out_and_reported(modality: str) -> None:
    parsed = read(modality, f"{EXAMPLES[modality]} v3=7 v2=7")
    assert parsed.problem
    parsed = read(modality, EXAMPLES[modality], TOKENIZER.sentinels[3])
    assert parsed.value
    assert parsed.problem


@given(st.sampled_from(SEQUENCES), st.lists(st.integers(-5, 2**31), max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_ids_are_read_or_reported(modality: str, ids: list[int]) -> None:
    check(parse_sequence(modality, ids, TOKENIZER))


@given(st.sampled_from(SEQUENCES), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_damaged_sequences_are_read_or_reported(modality: str, seed: int) -> None:
    """Words of all modalities, cut, swapped and repeated: nearer to sense than random ids."""
    random = np.random.default_rng(seed)
    ids = TOKENIZER.encode(" ".join(random.permutation(list(EXAMPLES.values())))).tolist()
    for _ in range(int(random.integers(1, 6))):
        i, j = sorted(random.integers(0, len(ids), 2).tolist())
        ids = [ids[:i] + ids[j:], ids[j:] + ids[:j], ids[:j] + ids[i:], ids[i:j]][
            int(random.integers(4))
        ] or [1]
    check(parse_sequence(modality, ids, TOKENIZER))


def check(parsed: Parsed) -> None:
    assert isinstance(parsed.text, str)
    if parsed.value is None:
        assert parsed.problem


def test_unknown_modality_lists_the_known() -> None:
    with pytest.raises(ModelError, match="caption, det"):
        parse_sequence("depth", [1], TOKENIZER)
