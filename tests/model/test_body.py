"""The body behind poses: rotations, joints in space, joints in the picture, and a user's body model."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from anyseek.errors import InputError
from anyseek.model.body import (
    DEFAULT_CAMERA,
    FACING_CAMERA,
    JOINTS,
    PARENTS,
    REST,
    all_rotations,
    find_joints,
    nearest_rotations,
    place_joints,
    project,
    rotation_matrices,
)
from anyseek.model.smpl import read_body_model
from anyseek.model.values import PERSON
from hypothesis import given
from hypothesis import strategies as st

RNG = np.random.default_rng(0)
VECTORS = st.tuples(*[st.floats(-4, 4)] * 3)


def upright(num: int = 1) -> np.ndarray:
    people = np.zeros(num, PERSON)
    people["box"], people["camera"] = [0.2, 0, 0.6, 1], DEFAULT_CAMERA
    people["pose"], people["rotation"] = np.eye(3), FACING_CAMERA
    return people


def bent(people: np.ndarray, joint: str, vector: list[float]) -> np.ndarray:
    changed = people.copy()
    changed["pose"][:, JOINTS.index(joint) - 1] = rotation_matrices(np.array(vector))
    return changed


def place(people: np.ndarray, joint: str) -> np.ndarray:
    return find_joints(people)[0, JOINTS.index(joint)]


@given(VECTORS)
def test_rotations_agree_with_opencv(vector: tuple[float, ...]) -> None:
    found = rotation_matrices(np.array(vector))
    np.testing.assert_allclose(found, cv2.Rodrigues(np.array(vector))[0], atol=1e-9)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)


def test_tiny_and_half_turns_are_exact() -> None:
    np.testing.assert_array_equal(rotation_matrices(np.zeros((2, 3))), np.eye(3)[None].repeat(2, 0))
    np.testing.assert_allclose(rotation_matrices(np.array([1e-12, 0, 0]))[2, 1], 1e-12, rtol=1e-9)
    np.testing.assert_allclose(rotation_matrices(np.array([np.pi, 0, 0])), FACING_CAMERA, atol=1e-12)


@given(VECTORS, st.floats(0, 0.2))
def test_nearest_rotations_mend_noise_and_never_mirror(vector: tuple[float, ...], noise: float) -> None:
    exact = rotation_matrices(np.array(vector))
    noisy = exact + noise * np.random.default_rng(1).uniform(-1, 1, (3, 3))
    found = nearest_rotations(noisy[None])[0]
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(found) > 0
    assert np.linalg.norm(found - noisy) <= np.linalg.norm(exact - noisy) + 1e-9
    assert np.linalg.det(nearest_rotations(-exact)) > 0


def test_the_skeleton_is_a_tree_with_mirrored_sides() -> None:
    assert len(JOINTS) == len(PARENTS) == len(REST) == len(set(JOINTS)) == 24
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    for i, name in enumerate(JOINTS):
        if name.startswith("left_"):
            right = JOINTS.index("right_" + name.removeprefix("left_"))
            np.testing.assert_allclose(REST[right], REST[i] * (-1, 1, 1))
            assert REST[i, 0] > 0
    assert 1.5 < REST[:, 1].max() - REST[:, 1].min() < 1.7


def test_joints_turn_with_what_they_hang_on() -> None:
    still = np.eye(3)[None].repeat(24, 0)
    np.testing.assert_allclose(place_joints(still), REST, atol=1e-12)
    turned = rotation_matrices(RNG.normal(size=(5, 24, 3)))
    placed = place_joints(turned)
    lengths = np.linalg.norm(REST[1:] - REST[list(PARENTS[1:])], axis=-1)
    bones = placed[:, 1:] - placed[:, list(PARENTS[1:])]
    np.testing.assert_allclose(np.linalg.norm(bones, axis=-1), lengths[None].repeat(5, 0))
    np.testing.assert_allclose(placed[3], place_joints(turned[3]))
    quarter = still.copy()  # the left elbow bends forward: only what hangs on it moves, to where it points
    quarter[JOINTS.index("left_elbow")] = rotation_matrices(np.array([0, -np.pi / 2, 0]))
    moved = place_joints(quarter)
    changed = np.abs(moved - REST).max(-1) > 1e-9
    assert {JOINTS[i] for i in np.flatnonzero(changed)} == {"left_wrist", "left_hand"}
    forearm = moved[JOINTS.index("left_wrist")] - REST[JOINTS.index("left_elbow")]
    assert forearm.argmax() == 2


def test_a_body_that_looks_into_the_camera_stands_in_its_box() -> None:
    people = upright()
    x, y = find_joints(people)[0].T
    assert np.abs(np.clip(y, 0, 1) - y).max() == 0
    assert place(people, "head")[1] < place(people, "pelvis")[1] < place(people, "left_foot")[1]
    assert place(people, "left_hand")[0] > 0.4 > place(people, "right_hand")[0]  # as in a photo, not a mirror
    np.testing.assert_allclose((x.min() + x.max()) / 2, 0.4, atol=0.01)
    lifted = bent(people, "left_shoulder", [0, 0, 1.2])
    assert place(lifted, "left_hand")[1] < place(people, "left_hand")[1]


def test_the_camera_scales_and_shifts_about_the_middle_of_the_box() -> None:
    box = np.array([0.25, 0.0, 0.75, 1.0])
    found = project(np.array([[0.0, 0, 5], [1, 0, 0], [0, -1, 9]]), box, np.array([1.0, 0, 0]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [1, 0.5], [0.5, 0]])
    found = project(np.zeros((1, 3)), box, np.array([0.5, 0.2, -0.4]))
    np.testing.assert_allclose(found, [[0.55, 0.4]])
    assert find_joints(upright(3)).shape == (3, 24, 2)
    assert find_joints(upright(0)).shape == (0, 24, 2)


# --- a user's body model


def body_arrays(num_vertices: int = 60, **changes: Any) -> dict[str, Any]:
    """A made-up body: vertices around the joints, each joint the mean of some."""
    rng = np.random.default_rng(3)
    regressor = rng.dirichlet(np.full(num_vertices, 0.1), 24)
    return {
        "v_template": rng.normal(size=(num_vertices, 3)),
        "shapedirs": 0.1 * rng.normal(size=(num_vertices, 3, 16)),
        "J_regressor": regressor,
        "kintree_table": np.stack([np.array((2**32 - 1, *PARENTS[1:])), np.arange(24)]),
        "weights": rng.random((num_vertices, 24)),
    } | changes


def saved(folder: Path, **changes: Any) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value for key, value in body_arrays(**changes).items() if value is not None})
    (folder / "smpl.npz").write_bytes(buffer.getvalue())
    return folder / "smpl.npz"


def test_joints_of_a_body_model_follow_shape_and_rotations(tmp_path: Path) -> None:
    arrays, model = body_arrays(), read_body_model(saved(tmp_path))
    people = upright(2)
    people["shape"] = RNG.normal(size=(2, 10))
    people["pose"] = rotation_matrices(RNG.normal(size=(2, 23, 3)))
    found = model.joints(people)
    for person, joints in zip(people, found, strict=True):
        shape = person["shape"].astype(np.float64)
        vertices = arrays["v_template"] + arrays["shapedirs"][..., :10] @ shape
        rest, rotations = arrays["J_regressor"] @ vertices, all_rotations(person).astype(np.float64)
        transforms: list[np.ndarray] = []  # the textbook's way: 4 x 4 matrices along the tree
        for joint, parent in enumerate(PARENTS):
            step = np.eye(4)
            step[:3, :3] = rotations[joint]
            step[:3, 3] = rest[joint] - (rest[parent] if joint else 0)
            transforms.append(transforms[parent] @ step if joint else step)
        np.testing.assert_allclose(joints, [matrix[:3, 3] for matrix in transforms], atol=1e-9)
    assert (model.joints(people[0]) == found[0]).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"J_regressor": None}, "lacks the array J_regressor"),
        ({"v_template": np.zeros((50, 3))}, "are no SMPL body"),
        ({"shapedirs": np.zeros((60, 3, 9))}, "are no SMPL body"),
        ({"J_regressor": np.zeros((55, 60))}, "are no SMPL body"),  # SMPL-X
        ({"v_template": np.full((60, 3), np.nan)}, "NaN"),
        ({"kintree_table": np.zeros((2, 24), int)}, "hang together in another way"),
        ({"weights": np.array([{}])}, None),  # what is not needed is not read
    ],
)
def test_other_files_are_no_body_model(tmp_path: Path, changes: dict[str, Any], reason: str | None) -> None:
    path = saved(tmp_path, **changes)
    if reason is None:
        assert read_body_model(path).mean.shape == (24, 3)
        return
    with pytest.raises(InputError, match=rf"smpl.npz: .*{reason}"):
        read_body_model(path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"\x80\x02}q\x01.")
    with pytest.raises(InputError, match="npz"):
        read_body_model(tmp_path / "SMPL_NEUTRAL.pkl")
