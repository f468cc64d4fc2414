"""Metrics on cases whose answers were worked out by hand."""

import numpy as np
import pytest
from anyseek.model.images import nearest_square
from anyseek.model.tasks.coco import average_precision
from anyseek.model.tasks.depth import depth_errors, fit_affine
from anyseek.model.tasks.joints import aligned_joint_error, joint_error, procrustes
from anyseek.model.tasks.neighbors import rank_classes
from anyseek.model.tasks.normals import ALL_SIGNS, AngularError, mean_normals, unit_normals
from anyseek.model.tasks.segmentation import ClassOverlap, vote
from anyseek.model.tasks.task import Means
from PIL import Image

EVERYWHERE = np.ones((2, 2), bool)


def test_depth_up_to_scale_and_shift_is_perfect() -> None:
    truth = np.random.default_rng(0).uniform(1, 9, (20, 20))
    errors = depth_errors(0.2 * truth - 3, truth, np.ones_like(truth, bool))
    assert errors == pytest.approx({"l1": 0, "abs_rel": 0, "delta1": 1}, abs=1e-4)


def test_depth_errors_of_four_pixels() -> None:
    # Of 4 pixels the middle 80 % are the first three by size: `int(0.1 n)` to `int(0.9 n)`.
    truth, predicted = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 2], [3, 10]])
    # Both have mean 2 and deviation 1 over 1, 2, 3: standardised -1, 0, 1 and 2 or 8, which differ by 6.
    # The line through (1, 1), (2, 2), (3, 3), (10, 4): slope 14 / 50, shift 1.38,
    # which gives 1.66, 1.94, 2.22 and 4.18.
    errors = depth_errors(predicted, truth, EVERYWHERE)
    assert errors["l1"] == pytest.approx(6 / 4, rel=1e-5)
    assert errors["abs_rel"] == pytest.approx((0.66 / 1 + 0.06 / 2 + 0.78 / 3 + 0.18 / 4) / 4)
    assert errors["delta1"] == 0.5  # 1.66 / 1 and 3 / 2.22 are beyond 1.25, 2 / 1.94 and 4.18 / 4 are not


def test_depth_where_it_is_unknown_does_not_count() -> None:
    truth, predicted = np.array([[1.0, 2, 3], [4, 5, 0]]), np.array([[1.0, 2, 3], [4, 5, 1e6]])
    assert depth_errors(predicted, truth, truth > 0)["abs_rel"] == pytest.approx(0, abs=1e-9)


def test_affine_fit_is_least_squares() -> None:
    assert fit_affine(np.array([0.0, 1, 2]), np.array([1.0, 2, 6])) == pytest.approx([0.5, 3, 5.5])


def test_angles_of_known_normals() -> None:
    truth = np.array([[[0, 0, 1.0], [0, 0, 2]], [[1, 0, 0], [0, 0, 0]]])
    predicted = np.array([[[0, 0, 1.0], [0, 1, 0]], [[np.cos(0.3), np.sin(0.3), 0], [1, 0, 0]]])
    errors = AngularError()
    errors.add(predicted, truth, truth.any(-1))  # 0, 90 and 17.19 degrees
    found = errors.metrics()
    assert found["mean_degrees"] == pytest.approx((0 + 90 + np.degrees(0.3)) / 3)
    assert [found[name] for name in ("below_11_25", "below_22_5", "below_30")] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3]
    )


@pytest.mark.parametrize("signs", ALL_SIGNS)
def test_axes_of_a_data_set_are_found(signs: tuple[int, int, int]) -> None:
    truth = np.random.default_rng(1).normal(size=(8, 8, 3))
    predicted = truth / np.linalg.norm(truth, axis=-1, keepdims=True) * signs
    errors = AngularError(ALL_SIGNS)
    errors.add(predicted, truth, np.ones((8, 8), bool))
    assert errors.best == signs
    assert errors.metrics()["mean_degrees"] == pytest.approx(0, abs=1e-3)


def test_one_choice_of_axes_counts_for_the_whole_data_set() -> None:
    truth = np.tile([0, 0, 1.0], (2, 2, 1))
    errors = AngularError(ALL_SIGNS)
    errors.add(truth, truth, EVERYWHERE)
    errors.add(-truth, truth, EVERYWHERE)
    assert errors.metrics()["mean_degrees"] == pytest.approx(90)


def test_colours_are_normals_and_grey_is_none() -> None:
    colors = np.array([[[255, 128, 128], [128, 128, 128]]], np.uint8)
    assert unit_normals(colors) == pytest.approx(np.array([[[1, 0, 0], [0, 0, 0]]]), abs=0.01)
    between = mean_normals([np.uint8([[[255, 128, 128]]]), np.uint8([[[128, 255, 128]]])])
    assert between == pytest.approx(np.array([[[0.5**0.5, 0.5**0.5, 0]]]), abs=0.01)


def test_overlap_of_two_classes() -> None:
    truth = np.array([[1, 1, 2, 0], [1, 1, 2, 0]], np.uint8)
    predicted = np.array([[1, 1, 2, 1], [1, 2, 0, 3]], np.uint8)
    # Class 1: 3 right of 4, predicted 3 where it counts: 3 / 4. Class 2: 1 right, union 1 + 1 + 1: 1 / 3.
    overlap = ClassOverlap(3)
    overlap.add(predicted, truth)
    assert overlap.per_class() == pytest.approx([3 / 4, 1 / 3, np.nan], nan_ok=True)
    assert overlap.metrics() == pytest.approx({"mean_iou": (3 / 4 + 1 / 3) / 2, "pixel_accuracy": 4 / 6})


def test_overlap_is_of_all_pixels_not_of_pictures() -> None:
    overlap = ClassOverlap(1)
    overlap.add(np.array([[1]]), np.array([[1]]))
    overlap.add(np.array([[1, 0, 0]]), np.array([[1, 1, 1]]))
    assert overlap.metrics()["mean_iou"] == 0.5


def test_most_votes_win_and_of_equals_the_lowest() -> None:
    samples = [np.array([[1, 3]]), np.array([[2, 2]]), np.array([[2, 1]])]
    assert vote(samples, 3).tolist() == [[2, 1]]


def test_joint_error_moves_the_root_and_nothing_else() -> None:
    truth = np.array([[0, 0, 0], [0, 1, 0.0]])
    assert joint_error(truth + 5, truth) == pytest.approx(0)
    assert joint_error(truth * 1.1, truth) == pytest.approx(50)  # 0 and 100 mm
    assert joint_error(truth @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]), truth) == pytest.approx(
        1000 * 2**0.5 / 2
    )


def test_alignment_takes_rotation_scale_and_shift_but_no_mirror() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(24, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    assert aligned_joint_error(0.3 * truth @ rotation + [1, 2, 3], truth) == pytest.approx(0, abs=1e-6)
    assert aligned_joint_error(truth * [-1, 1, 1], truth) > 100
    assert aligned_joint_error(np.zeros((24, 3)), truth) == pytest.approx(
        1000 * np.linalg.norm(truth - truth.mean(0), axis=1).mean()
    )


def test_alignment_of_a_flat_case() -> None:
    # A square whose corner went from (1, 1) to (1, 1, 1): no turn can undo it, and the fit is symmetric.
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
    found = procrustes(square, square)
    assert found == pytest.approx(square)


def test_neighbours_vote_with_their_likeness() -> None:
    keys = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    labels = np.array([0, 1, 1])
    query = np.array([[1, 0]], np.float32)
    # Cosines 1, 0.8 and 0: at temperature 1 class 1 has e^0.8 + e^0 = 3.23 against e^1 = 2.72.
    assert rank_classes(query, keys, labels, num_classes=3, k=3, temperature=1).tolist() == [[1, 0, 2]]
    # At 0.07 likeness decides: e^14.3 against e^11.4.
    assert rank_classes(query, keys, labels, num_classes=3, k=3)[0, 0] == 0
    assert rank_classes(query, keys, labels, num_classes=3, k=1, temperature=1)[0, 0] == 0


def test_neighbours_agree_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyseek.model.tasks.neighbors._KEYS_AT_ONCE", 7)
    monkeypatch.setattr("anyseek.model.tasks.neighbors._QUERIES_AT_ONCE", 3)
    rng = np.random.default_rng(3)
    keys, queries = rng.normal(size=(50, 8)), rng.normal(size=(11, 8))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    labels = rng.integers(6, size=50)
    ranked = rank_classes(queries, keys, labels, num_classes=6, k=20, top=6)
    for query, found in zip(queries, ranked, strict=True):
        cosine = keys @ query
        votes = [0.0] * 6
        for i in np.argsort(-cosine)[:20]:
            votes[labels[i]] += np.exp(cosine[i] / 0.07)
        assert found.tolist() == sorted(range(6), key=lambda label: (-votes[label], label))


def annotation(key: int, image: int, mask: np.ndarray, **more: float) -> dict[str, object]:
    from pycocotools import mask as coder

    coded = coder.encode(np.asfortranarray(mask, np.uint8))
    area = int(mask.sum())
    return {
        "id": key,
        "image_id": image,
        "category_id": 1,
        "segmentation": coded,
        "area": area,
        "iscrowd": 0,
        **more,
    }


def test_average_precision_of_two_instances() -> None:
    full, half = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    full[:, :5] = True
    half[:, :3] = True  # IoU 0.6 with `full`: right at 0.5, 0.55 and 0.6, wrong at the other seven thresholds
    truth = [annotation(1, 0, full), annotation(2, 1, full)]
    found = [annotation(1, 0, full, score=1.0), annotation(2, 1, half, score=1.0)]
    precision = average_precision(truth, found, "segm")
    assert precision["ap50"] == pytest.approx(1)
    assert precision["ap75"] == pytest.approx(51 / 101)
    # Above 0.6 half of the truth is found, first in rank: precision 1 at recalls 0 to 0.5, 51 of 101 points.
    assert precision["ap"] == pytest.approx((3 * 1 + 7 * 51 / 101) / 10)
    assert set(average_precision(truth, [], "segm").values()) == {0.0}


def test_maps_are_cut_where_their_picture_is() -> None:
    values = np.arange(6)[None].repeat(2, 0)  # 2 x 6: the central square is columns 2 and 3
    assert nearest_square(values, 2).tolist() == [[2, 3], [2, 3]]
    assert nearest_square(values, 4)[0].tolist() == [2, 2, 3, 3]
    assert nearest_square(np.arange(16).reshape(4, 4), 2).tolist() == [[5, 7], [13, 15]]
    for side in (1, 9, 64, 99, 197, 640):
        labels = np.random.default_rng(side).integers(0, 256, (side, side)).astype(np.uint8)
        expected = Image.fromarray(labels).resize((224, 224), Image.Resampling.NEAREST)
        assert np.array_equal(nearest_square(labels, 224), np.asarray(expected))


def test_means_of_groups() -> None:
    means = Means()
    means.add({"l1": 1}, "indoors")
    means.add({"l1": 2}, "indoors")
    means.add({"l1": 6}, "outdoor")
    assert means.metrics() == {"l1": 3, "l1_indoors": 1.5, "l1_outdoor": 6}
