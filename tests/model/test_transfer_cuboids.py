"""Transfer to boxes in three dimensions: volumes, files, views, the head's parts, and a run that learns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError, LimitError
from anyseek.model.scenes import Scene, cuboids, render, write_cuboids, write_scenes
from anyseek.model.transfer import TransferConfig, TransferRun, open_transfer
from anyseek.model.transfer.augment import scaled
from anyseek.model.transfer.boxes import MAX_BOXES, placed
from anyseek.model.transfer.cuboids import overlaps, placed_camera, placed_cuboids, projected, with_cuboids
from anyseek.model.transfer.detector import CENTER, CLASSES, assign
from anyseek.model.transfer.detector import CORNERS as BOX_CORNERS
from anyseek.model.transfer.detector3d import (
    DEPTH,
    FLAT,
    PLACE,
    SIDES,
    TURN,
    corners_of,
    cuboid_loss,
    lifted,
    matrix,
    measured,
)
from anyseek.model.transfer.goals import Detection3d
from anyseek.model.transfer.measures import CuboidPrecision
from anyseek.model.transfer.samples import Boxes, Cuboids, TransferSample, find_samples
from PIL import Image
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_core")

WIDTH, HEIGHT = 64, 48
CAMERA = np.array([80.0, 80.0, 32.0, 24.0])


def turned(rng: np.random.Generator) -> Tensor:
    return matrix(torch.from_numpy(rng.normal(size=6)))


def cuboid(middle: Any, sides: Any, turn: Tensor | None = None) -> np.ndarray:
    turn = torch.eye(3, dtype=torch.float64) if turn is None else turn
    return corners_of(torch.tensor(middle).double(), torch.tensor(sides).double(), turn).numpy()


def aside(angle: float) -> Tensor:
    """About the axis that points down."""
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)


# Volumes


@pytest.mark.parametrize(
    ("middle", "sides", "wanted"),
    [
        ((0, 0, 0), (2, 2, 2), 1),
        ((1, 0, 0), (2, 2, 2), 4 / 12),
        ((1, 1, 1), (2, 2, 2), 1 / 15),
        ((2, 0, 0), (2, 2, 2), 0),  # faces touch
        ((0.3, -0.2, 0.1), (1, 1, 1), 1 / 8),  # within
        ((0, 0, 0), (2, 2, 1), 1 / 2),  # four faces in common planes
        ((0.5, 0, 0), (1, 2, 2), 1 / 2),  # five
        ((9, 0, 0), (2, 2, 2), 0),
    ],
)
def test_known_volumes_wherever_and_however_they_lie(middle: Any, sides: Any, wanted: float) -> None:
    rng = np.random.default_rng(5)
    pair = cuboid((0, 0, 0), (2, 2, 2)), cuboid(middle, sides)
    for _ in range(8):
        turn, shift = turned(rng).numpy(), rng.normal(size=3) * 5
        one, other = ((corners @ turn.T + shift).astype(np.float32) for corners in pair)
        assert overlaps(one[None], other[None])[0, 0] == pytest.approx(wanted, abs=2e-5)
        assert overlaps(other[None], one[None])[0, 0] == pytest.approx(wanted, abs=2e-5)


def test_volumes_of_turned_cuboids_are_those_that_points_count() -> None:
    rng = np.random.default_rng(7)
    num_shared = 0
    for _ in range(40):
        frames = [(rng.normal(size=3) * 0.5, rng.uniform(0.5, 2.0, 3), turned(rng)) for _ in range(2)]
        found = overlaps(*(cuboid(*frame)[None] for frame in frames))[0, 0]
        points = rng.uniform(-3.5, 3.5, (200_000, 3))
        inside = [
            (np.abs((points - middle) @ turn.numpy()) < sides / 2).all(1) for middle, sides, turn in frames
        ]
        both, either = (inside[0] & inside[1]).sum(), (inside[0] | inside[1]).sum()
        share = both / either
        num_shared += both > 0
        assert found == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / either) + 1e-3)
    assert num_shared > 25


def test_the_same_cuboid_with_its_corners_named_otherwise() -> None:
    one = cuboid((1, 2, 5), (1, 2, 3))
    other = cuboid((1, 2, 5), (3, 2, 1), aside(np.pi / 2))
    assert overlaps(one[None], other[None])[0, 0] == pytest.approx(1)


# Scenes


def test_a_scenes_cuboids_hold_what_is_seen_of_its_objects() -> None:
    num_seen = 0
    for index in range(6):
        scene, size = Scene.sample(3, index), 96
        view, image = scene.view(), render(scene, size)
        focal = size / 2 / np.tan(view.field_of_view / 2)
        ticks = (np.arange(size) + 0.5 - size / 2) / focal
        x, y = np.meshgrid(ticks, ticks)
        points = np.stack([x, y, np.ones_like(x)], -1) * image.depth[..., None]
        for number, corners in enumerate(cuboids(scene, view), start=1):
            seen = points[image.instances == number]
            middle, sides, turn = (
                values[0].numpy() for values in measured(torch.from_numpy(corners[None].astype(np.float64)))
            )
            assert np.linalg.det(turn) == pytest.approx(1, abs=1e-4)
            # Depth and owner are of one ray of the pixel, up to a pixel from its middle.
            slack = 1.5 * image.depth[image.instances == number, None] / focal
            assert (np.abs((seen - middle) @ turn) <= sides / 2 + slack).all()
            num_seen += len(seen) > 0
    assert num_seen > 12


def test_scenes_are_read_back_from_their_file(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 3, seed=4, size=32, modalities=("rgb",))
    write_cuboids(tmp_path / "all.json", 3, seed=4, size=32)
    samples = find_samples({"rgb": tmp_path / "scenes"}, [])
    found = with_cuboids({"rgb": tmp_path / "scenes", "det3d": tmp_path / "all.json"}, samples)
    for index, sample in enumerate(found):
        scene = Scene.sample(4, index)
        counts = ~np.array(sample.boxes.crowds)
        kinds = [item.kind for item in scene.objects]
        for label, corners in zip(
            np.array(sample.boxes.labels)[counts], sample.cuboids.corners[counts], strict=True
        ):
            wanted = cuboids(scene, scene.view())[[n for n, kind in enumerate(kinds) if kind == label]]
            assert min(np.abs(corners - one).max() for one in wanted) < 1e-4
    assert sum((~np.array(sample.boxes.crowds)).sum() for sample in found) > 3


# Files


def omni(**changed: Any) -> dict[str, Any]:
    """One picture with one cuboid."""
    image = {
        "id": 4,
        "file_path": "room/a.png",
        "width": WIDTH,
        "height": HEIGHT,
        "K": [[80.0, 0, 32.0], [0, 80.0, 24.0], [0, 0, 1]],
    }
    one = {
        "id": 9,
        "image_id": 4,
        "category_id": 7,
        "bbox3D_cam": cuboid((0.2, 0.1, 4), (1, 0.8, 0.6), aside(0.4)).tolist(),
        "valid3D": True,
        "behind_camera": False,
        "visibility": -1,
        "bbox2D_trunc": [1, 2, 33, 42],
        "note": "more is allowed",
    }
    return {"images": [image], "annotations": [one], "categories": [{"id": 7, "name": "chair"}]} | changed


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "pictures/room").mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "pictures/room/a.png")
    return {"rgb": tmp_path / "pictures", "det3d": tmp_path / "omni.json"}


def read(source: dict[str, Path], content: dict[str, Any]) -> TransferSample:
    source["det3d"].write_text(json.dumps(content))
    (sample,) = with_cuboids(source, find_samples({"rgb": source["rgb"]}, []))
    return sample


def test_a_cuboid_is_read_with_its_box_and_camera(source: dict[str, Path]) -> None:
    sample = read(source, omni())
    corners = np.array(omni()["annotations"][0]["bbox3D_cam"])
    np.testing.assert_allclose(sample.cuboids.corners[0], corners, rtol=1e-6)
    places = corners[:, :2] / corners[:, 2:] * 80 + [32, 24]
    wanted = np.concatenate([places.min(0), places.max(0)]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    np.testing.assert_allclose(sample.boxes.corners[0], wanted, rtol=1e-5)
    assert (sample.boxes.labels, sample.boxes.crowds) == (("chair",), (False,))
    np.testing.assert_allclose(sample.cuboids.camera, CAMERA / [WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.mark.parametrize(
    "change",
    [
        {"visibility": 0.3},
        {"truncation": 0.5},
        {"segmentation_pts": 0},
        {"lidar_pts": 0},
        {"depth_error": 0.6},
        {"behind_camera": True},
        {"valid3D": False, "bbox3D_cam": [[-1, -1, -1]] * 8},
        {"bbox3D_cam": cuboid((0, 0, 4), (1, 0, 1)).tolist()},
        {"bbox3D_cam": cuboid((0, 0, 0.2), (1, 1, 1)).tolist()},  # around the camera
        {"bbox3D_cam": cuboid((0, 0, 90), (1, 1, 1)).tolist()},  # lower than 1/16
        {"bbox3D_cam": cuboid((2, 0, 4), (1.6, 1, 1)).tolist()},  # more than a third outside
    ],
)
def test_what_omni3d_ignores_is_neither_learnt_nor_counted(
    source: dict[str, Path], change: dict[str, Any]
) -> None:
    values = omni()
    values["annotations"].append(values["annotations"][0] | {"id": 10} | change)
    assert read(source, values).boxes.crowds == (False, True)
    with pytest.raises(InputError, match="holds no cuboids that count"):
        read(source, omni(annotations=values["annotations"][1:]))


def test_a_cuboid_whose_own_axes_are_left_handed_is_the_same(source: dict[str, Path]) -> None:
    values = omni()
    corners = np.array(values["annotations"][0]["bbox3D_cam"])
    values["annotations"][0]["bbox3D_cam"] = corners[[1, 0, 3, 2, 5, 4, 7, 6]].tolist()
    np.testing.assert_allclose(read(source, values).cuboids.corners[0], corners, rtol=1e-6)


def test_what_is_not_in_the_picture_at_all_is_left_out(source: dict[str, Path]) -> None:
    values = omni()
    change = {"bbox3D_cam": cuboid((9, 0, 4), (1, 1, 1)).tolist()}
    values["annotations"].append(values["annotations"][0] | change)
    values["annotations"].append(values["annotations"][0] | {"valid3D": False, "bbox2D_trunc": [-1] * 4})
    assert len(read(source, values).boxes.labels) == 1


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("annotations", {"image_id": 5}, "annotation 9 is of image 5, which is not listed"),
        ("annotations", {"category_id": 5}, "annotation 9 has category_id 5"),
        ("annotations", {"image_id": "4"}, "annotation 9: image_id"),
        (
            "annotations",
            {"bbox3D_cam": cuboid((0, 0, 4), (1, 1, 1))[[1, 0, 2, 3, 4, 5, 6, 7]].tolist()},
            "annotation 9: bbox3D_cam is no cuboid",
        ),
        ("annotations", {"bbox3D_cam": [[0, 0, 1]] * 7}, "annotation 9: bbox3D_cam is no cuboid"),
        ("annotations", {"bbox3D_cam": [[0, 0, None]] * 8}, "annotation 9: bbox3D_cam"),
        ("images", {"K": [[80.0, 0, 32.0], [0, 80.0, 24.0]]}, "image 4: K is the camera's"),
        ("images", {"K": [[-80.0, 0, 0], [0, 80.0, 0], [0, 0, 1]]}, "image 4: K is the camera's"),
        ("images", {"file_path": "../a.png"}, "image 4: file_path leads out"),
        ("images", {"file_path": "/room/a.png"}, "image 4: file_path leads out"),
        ("images", {"file_path": "room/b.png"}, r"lists 1 pictures that are not there, first .*b\.png"),
        ("images", {"width": 0}, "image 4: width"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    source: dict[str, Path], where: str, change: dict[str, Any], message: str
) -> None:
    values = omni()
    values[where][0] |= change
    with pytest.raises(InputError, match=message):
        read(source, values)


def test_a_place_has_to_be_named_and_boxes_are_limited(source: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="Omni3D's format"):
        with_cuboids({"rgb": source["rgb"]}, [])
    with pytest.raises(LimitError, match=r"a\.png: 257 boxes, the limit is 256"):
        read(source, omni(annotations=omni()["annotations"] * (MAX_BOXES + 1)))


# Views


def test_cuboids_are_seen_where_their_boxes_are_moved_to() -> None:
    rng = np.random.default_rng(2)
    for number in range(40):
        corners = cuboid(rng.uniform([-0.5, -0.5, 3], [0.5, 0.5, 6]), rng.uniform(0.3, 0.8, 3), turned(rng))
        shares = (CAMERA / [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
        known = Cuboids(corners[None].astype(np.float32), shares)
        view = scaled(WIDTH, HEIGHT, 128, rng.uniform(0.5, 2.0), rng.random(2))
        view = view.mirror() if number % 2 else view
        moved, camera = placed_cuboids(known, view), placed_camera(CAMERA, view)
        seen = projected(moved[0], camera)
        places = projected(corners, shares)
        box = Boxes(np.concatenate([places.min(0), places.max(0)])[None].astype(np.float32), ("a",), (False,))
        wanted = placed(box, view, WIDTH, HEIGHT)[0]
        seen = np.concatenate([seen.min(0), seen.max(0)]).clip(0, [view.width, view.height] * 2)
        np.testing.assert_allclose(seen, wanted, atol=1e-2)
        assert np.linalg.det(measured(torch.from_numpy(moved))[2][0].numpy()) == pytest.approx(1, abs=1e-3)


# The head's parts

SIZE = 64
BOX = [16.0, 16.0, 40.0, 40.0]


def cells() -> Tensor:
    """Maps over 64 px: cells of 8 and of 16 px."""
    return torch.tensor(
        [
            [x, y, stride]
            for stride in (8, 16)
            for y in range(stride // 2, SIZE, stride)
            for x in range(stride // 2, SIZE, stride)
        ],
        dtype=torch.float32,
    )


def told_of(corners: Tensor, camera: Tensor) -> Tensor:
    """What a perfect head says of a cuboid (12,)."""
    middle, sides, turn = (values[0] for values in measured(corners[None]))
    place = middle[:2] / middle[2] * camera[:2] + camera[2:]
    depth = (middle[2] * SIZE / (camera[0] * camera[1]).sqrt()).log()
    return torch.cat([place, depth[None], sides.log(), turn[:, 0], turn[:, 1]]).float()


def test_what_a_perfect_head_says_is_lifted_to_the_cuboid() -> None:
    rng = np.random.default_rng(1)
    for focal in (40.0, 90.0):
        camera = torch.tensor([focal, 1.2 * focal, 30, 35], dtype=torch.float64)
        corners = torch.from_numpy(cuboid(rng.normal((0, 0, 6)), (1, 2, 3), turned(rng)))
        found = lifted(told_of(corners, camera), camera.float(), SIZE)
        np.testing.assert_allclose(found, corners, atol=1e-4)


def answer(corners: Tensor, camera: Tensor, **changed: Tensor | float) -> Tensor:
    """Of one object of class 0 of 2: (1, L, 12 + 8 + 2)."""
    known, box = cells(), torch.tensor([BOX])
    output = torch.full((1, len(known), FLAT.start + 10), -12.0)
    output[0, :, : FLAT.start] = told_of(corners, camera)
    for name, value in changed.items():
        column = {"place": PLACE, "depth": DEPTH, "sides": SIDES, "turn": TURN}[name]
        output[0, :, column] = (output[0, :, column] + value) if name != "turn" else value
    flat = output[0, :, FLAT]
    flat[:, :3] = known
    flat[:, BOX_CORNERS] = box[0]
    owner = assign(known, box)
    flat[owner == 0, CLASSES.start] = 12.0
    sides = torch.cat([known[:, :2] - box[:, :2], box[:, 2:] - known[:, :2]], dim=1).clamp(min=1e-3)
    ratios = torch.minimum(sides[:, :2], sides[:, 2:]) / torch.maximum(sides[:, :2], sides[:, 2:])
    flat[:, CENTER] = torch.logit(ratios.prod(1).sqrt(), eps=1e-6)
    return output


def truth_of(corners: Tensor, camera: Tensor, crowd: int = 0) -> Tensor:
    truth = torch.full((1, 4, 34), -1.0)
    truth[0, :, 30:] = camera
    truth[0, 0, :30] = torch.tensor([*BOX, 0, crowd, *corners.flatten().tolist()])
    return truth


SEEN_BY = torch.tensor([60.0, 60.0, 32.0, 32.0])


def test_the_loss_is_least_for_the_right_cuboid_however_its_turn_is_said() -> None:
    turn = aside(0.3)
    corners = torch.from_numpy(cuboid((0.1, 0.2, 5), (1, 2, 1.5), turn))
    truth = truth_of(corners, SEEN_BY)
    best = cuboid_loss(answer(corners, SEEN_BY), truth, SIZE)
    for name, change in {"place": 4.0, "depth": 0.2, "sides": 0.2}.items():
        assert cuboid_loss(answer(corners, SEEN_BY, **{name: change}), truth, SIZE) > best + 0.05, name

    def said(angle: float, length: float = 1.0) -> Tensor:
        columns = aside(angle) * length
        return cuboid_loss(
            answer(corners, SEEN_BY, turn=torch.cat([columns[:, 0], columns[:, 1]]).float()), truth, SIZE
        )

    assert said(0.3 + np.pi) == pytest.approx(best.item(), abs=1e-4)  # the same cuboid
    assert said(0.3, 7.0) == pytest.approx(best.item(), abs=1e-4)
    assert said(0.3 + np.pi / 2) > best + 0.05  # sides differ
    assert said(0.4) > best + 0.01


def test_what_does_not_count_is_not_learnt_and_nothing_is_no_reason_to_fail() -> None:
    corners = torch.from_numpy(cuboid((0.1, 0.2, 5), (1, 2, 1.5)))
    right, wrong = (answer(corners, SEEN_BY, depth=change) for change in (0.0, 3.0))
    crowd = truth_of(corners, SEEN_BY, crowd=1)
    assert torch.equal(cuboid_loss(right, crowd, SIZE), cuboid_loss(wrong, crowd, SIZE))
    output = right.clone().requires_grad_()
    cuboid_loss(output, torch.full((1, 4, 34), -1.0), SIZE).backward()
    assert output.grad is not None
    assert output.grad[..., : FLAT.start].abs().max() == 0


# The measure


def found_of(corners: Tensor, score: float, number: int) -> Tensor:
    return torch.cat([torch.tensor([*BOX, score, number]), told_of(corners, SEEN_BY)])[None, None]


def test_average_precision_of_known_cuboids() -> None:
    corners = torch.from_numpy(cuboid((0.1, 0.2, 5), (1, 2, 1.5), aside(0.3)))
    truth = truth_of(corners, SEEN_BY)

    def measured_of(*found: Tensor, truth: Tensor = truth) -> dict[str, float]:
        measure = CuboidPrecision(2, SIZE)
        measure.add(torch.cat(found, dim=1), truth)
        return measure.result()

    assert measured_of(found_of(corners, 0.9, 0)) == pytest.approx({"ap3d": 1, "ap3d_25": 1, "ap3d_50": 1})
    # Deeper by half its side: of the volumes a third is shared, enough for thresholds up to 0.3.
    deeper = torch.from_numpy(cuboid((0.1, 0.2, 5), (1, 2, 1.5))) + torch.tensor([0, 0, 0.75])
    straight = truth_of(torch.from_numpy(cuboid((0.1, 0.2, 5), (1, 2, 1.5))), SEEN_BY)
    assert measured_of(found_of(deeper, 0.9, 0), truth=straight) == pytest.approx(
        {"ap3d": 0.6, "ap3d_25": 1, "ap3d_50": 0}
    )
    assert measured_of(found_of(corners, 0.9, 1))["ap3d"] == 0
    # A surer wrong answer halves the precision; in the box of one that does not count it is no mistake.
    wrong = found_of(corners + torch.tensor([0, 0, 40.0]), 0.95, 0)
    assert measured_of(wrong, found_of(corners, 0.9, 0))["ap3d"] == pytest.approx(0.5)
    ignored = truth.clone()
    ignored[0, 1] = truth_of(corners + torch.tensor([0, 0, 80.0]), SEEN_BY, crowd=1)[0, 0]
    assert measured_of(wrong, found_of(corners, 0.9, 0), truth=ignored)["ap3d"] == pytest.approx(1)
    assert CuboidPrecision(2, SIZE).result() == {"ap3d": 0, "ap3d_25": 0, "ap3d_50": 0}


# Runs

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def picture(color: str, corners: np.ndarray, scale: int = 1) -> np.ndarray:
    """The face in front, on grey."""
    pixels = np.full((HEIGHT * scale, WIDTH * scale, 3), 120, np.uint8)
    x0, y0, x1, y1 = (
        round(v) for v in (projected(corners[:4], CAMERA * scale)[[0, 2]]).flatten().clip(0, 999)
    )
    pixels[y0:y1, x0:x1] = COLORS[color]
    return pixels


@pytest.fixture
def settings(
    tmp_path: Path, detection_run: Callable[..., Callable[..., TransferConfig]]
) -> Callable[..., TransferConfig]:
    """Of a short run on cubes of a metre, seen from before: red ones and blue ones."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        (tmp_path / split).mkdir()
        categories = [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]
        values = omni(images=[], annotations=[], categories=categories)
        for key in range(count):
            corners = cuboid(rng.uniform([-0.5, -0.4, 3.5], [0.5, 0.4, 5.5]), (1, 1, 1))
            color = ("red", "blue")[key % 2]
            Image.fromarray(picture(color, corners)).save(tmp_path / split / f"{key}.png")
            values["images"].append(omni()["images"][0] | {"id": key, "file_path": f"{key}.png"})
            one = {"image_id": key, "category_id": 7 - 4 * (key % 2), "bbox3D_cam": corners.tolist()}
            values["annotations"].append(one)
        (tmp_path / f"{split}.json").write_text(json.dumps(values))

    return detection_run(tmp_path, "detection3d", "det3d", learning_rate=3e-3)


def test_cubes_are_learnt_and_found_in_metres(settings: Callable[..., TransferConfig]) -> None:
    config = settings()
    result = TransferRun(config, device="cpu").run()
    assert result["metric"] == "ap3d"
    assert result["best"]["ap3d"] > 0.4
    opened = open_transfer(config.out, device="cpu")
    assert opened.classes == ("blue", "red")
    corners = cuboid((0.1, 0, 4.5), (1, 1, 1))
    # Twice the pixels with twice the focal length: the same metres.
    for scale in (1, 2):
        found = opened.predict(picture("blue", corners, scale), camera=tuple(CAMERA * scale))
        assert found.shape[1] == 30
        assert opened.classes[int(found[0, 5])] == "blue"
        told = found[0, 6:].reshape(1, 8, 3)
        assert overlaps(told, corners[None])[0, 0] > 0.25
        seen = projected(told[0], CAMERA * scale)
        np.testing.assert_allclose(
            (seen.min(0) + seen.max(0)) / 2, found[0, :4].reshape(2, 2).mean(0), atol=8 * scale
        )
    with pytest.raises(InputError, match=r"camera=\(fx, fy, cx, cy\)"):
        opened.predict(picture("blue", corners))
    for wrong in ((80.0, 80.0, 32.0), (0.0, 80.0, 32.0, 24.0), (80.0, float("nan"), 32.0, 24.0)):
        with pytest.raises(InputError, match="camera: expected fx, fy, cx, cy"):
            opened.predict(picture("blue", corners), camera=wrong)


def test_an_untrained_head_says_what_is_usual(settings: Callable[..., TransferConfig]) -> None:
    run = TransferRun(settings(recipe={"epochs": 1}), device="cpu")
    assert isinstance(run.goal, Detection3d)
    # Sides of a metre at 3.5 to 5.5 m, with a focal length of 80 pixels of 64.
    assert np.exp(run.goal.start) == pytest.approx([4.5 * 64 / 80, 1, 1, 1], rel=0.15)
    assert np.exp(run.goal.start[1:]) == pytest.approx([1, 1, 1], rel=1e-3)
    told = run.model.state_dict()["head.cuboids.bias"]
    assert told.tolist() == pytest.approx([0, 0, *run.goal.start, 1, 0, 0, 0, 1, 0])
