"""Transfer to boxes: files, views, the detector's parts with known answers, and runs that learn."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError, LimitError
from anyseek.model.transfer import TransferConfig, TransferRun, open_transfer
from anyseek.model.transfer.augment import cut, scaled
from anyseek.model.transfer.boxes import MAX_BOXES, placed, with_boxes
from anyseek.model.transfer.detector import (
    CENTER,
    CLASSES,
    CORNERS,
    NUM_FOUND,
    assign,
    detection_loss,
    detections,
    focal_loss,
    generalized_overlap,
)
from anyseek.model.transfer.measures import AveragePrecision
from anyseek.model.transfer.samples import Boxes, find_samples
from PIL import Image
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_core")

WIDTH, HEIGHT = 64, 48
THINGS = {"a": ("red", (8, 8, 24, 24)), "b": ("blue", (30, 10, 54, 34)), "c": ("red", (4, 20, 60, 44))}
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def picture(
    color: str, box: tuple[int, int, int, int], size: tuple[int, int] = (WIDTH, HEIGHT)
) -> np.ndarray:
    pixels = np.full((size[1], size[0], 3), 120, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = COLORS[color]
    return pixels


def fractions(box: tuple[int, int, int, int]) -> list[float]:
    return [u / side for u, side in zip(box, (WIDTH, HEIGHT) * 2, strict=True)]


def coco(**changed: Any) -> dict[str, Any]:
    """The things above as one file for all pictures."""
    numbers = {"red": 7, "blue": 3}
    images = [
        {"id": key, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for key, name in enumerate(THINGS)
    ]
    annotations = [
        {
            "id": 100 + key,
            "image_id": key,
            "category_id": numbers[color],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }
        for key, (color, (x0, y0, x1, y1)) in enumerate(THINGS.values())
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories} | changed


@pytest.fixture
def layouts(tmp_path: Path) -> Mapping[str, Path | dict[str, Path]]:
    """The same three pictures with their boxes, in each layout."""
    for folder in ("side", "rooms/rgb", "rooms/det", "one"):
        (tmp_path / folder).mkdir(parents=True)
    for name, (color, box) in THINGS.items():
        for folder in ("side", "rooms/rgb", "one"):
            Image.fromarray(picture(color, box)).save(tmp_path / folder / f"{name}.png")
        listed = [{"box": fractions(box), "label": color}]
        whole = {"instances": listed, "width": WIDTH, "height": HEIGHT}
        (tmp_path / "side" / f"{name}.det.json").write_text(json.dumps(whole))
        (tmp_path / "rooms/det" / f"{name}.json").write_text(json.dumps(whole))
    (tmp_path / "one.json").write_text(json.dumps(coco()))
    return {
        "side": tmp_path / "side",
        "rooms": tmp_path / "rooms",
        "one": {"rgb": tmp_path / "one", "det": tmp_path / "one.json"},
    }


def read(source: Path | dict[str, Path]) -> dict[str, Boxes]:
    samples = with_boxes(source, find_samples(source, []))
    return {sample.files["rgb"].stem: sample.boxes for sample in samples}


# Files


@pytest.mark.parametrize("layout", ["side", "rooms", "one"])
def test_the_layouts_give_the_same_boxes(layouts: Mapping[str, Any], layout: str) -> None:
    found = read(layouts[layout])
    assert found.keys() == THINGS.keys()
    for name, (color, box) in THINGS.items():
        assert found[name].labels == (color,)
        np.testing.assert_allclose(found[name].corners, [fractions(box)], atol=1e-6)


def test_a_picture_without_a_file_has_nothing_in_it(layouts: Mapping[str, Any]) -> None:
    (layouts["side"] / "b.det.json").unlink()
    assert [len(boxes.labels) for boxes in read(layouts["side"]).values()] == [1, 0, 1]
    for name in "ac":
        (layouts["side"] / f"{name}.det.json").write_text('{"instances": [], "width": 64, "height": 48}')
    with pytest.raises(InputError, match="holds no boxes"):
        read(layouts["side"])


def test_a_list_is_of_the_central_square_and_refused_for_other_pictures(layouts: Mapping[str, Any]) -> None:
    listed = json.dumps([{"box": [0.1, 0.1, 0.5, 0.5], "label": "red"}])
    (layouts["side"] / "a.det.json").write_text(listed)
    with pytest.raises(InputError, match=r"a\.det\.json.*central square.*64 x 48"):
        read(layouts["side"])
    Image.fromarray(picture("red", (4, 4, 20, 20), (40, 40))).save(layouts["side"] / "a.png")
    np.testing.assert_allclose(read(layouts["side"])["a"].corners, [[0.1, 0.1, 0.5, 0.5]], atol=1e-6)


def test_only_listed_pictures_count_and_crowds_are_known(layouts: Mapping[str, Any]) -> None:
    values = coco()
    values["images"] = values["images"][1:]
    values["annotations"] = values["annotations"][1:]
    values["annotations"][0]["iscrowd"] = 1
    values["annotations"].append(values["annotations"][1] | {"id": 9, "bbox": [5, 5, 0, 4]})  # without area
    layouts["one"]["det"].write_text(json.dumps(values))
    found = read(layouts["one"])
    assert {name: boxes.crowds for name, boxes in found.items()} == {"b": (True,), "c": (False,)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "annotation 100 is of image 77, which is not listed"),
        ({"category_id": 77}, "annotation 100 has category_id 77"),
        ({"category_id": [7]}, "annotation 100 has category_id"),
        ({"bbox": [1, 2, 3]}, 'annotation 100: expected "bbox"'),
        ({"bbox": [1, 2, "x", 4]}, "annotation 100: bbox"),
        ({"bbox": [60, 2, 10, 4]}, r"annotation 100: bbox \[60, 2, 10, 4\].*64 x 48"),
        ({"bbox": [6, 2, -1, 4]}, "annotation 100: bbox"),
    ],
)
def test_what_is_wrong_in_a_data_set_is_named(
    layouts: Mapping[str, Any], change: dict[str, Any], message: str
) -> None:
    values = coco()
    values["annotations"][0] |= change
    layouts["one"]["det"].write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        read(layouts["one"])


def test_missing_pictures_and_places_and_too_many_boxes_are_told(layouts: Mapping[str, Any]) -> None:
    (layouts["one"]["rgb"] / "c.png").unlink()
    with pytest.raises(InputError, match=r"lists 1 pictures that are not there, first .*c\.png"):
        read(layouts["one"])
    with pytest.raises(InputError, match="No place is named for det; named are rgb"):
        read({"rgb": layouts["one"]["rgb"]})
    many = {"instances": [{"box": [0, 0, 1, 1], "label": "red"}] * (MAX_BOXES + 1), "width": 64, "height": 48}
    (layouts["side"] / "a.det.json").write_text(json.dumps(many))
    with pytest.raises(LimitError, match=r"a\.png: 257 boxes, the limit is 256"):
        read(layouts["side"])


# Views


def test_boxes_move_with_their_pixels() -> None:
    rng = np.random.default_rng(3)
    num_cut = 0
    for number in range(60):
        x0, y0 = rng.integers(0, 60), rng.integers(0, 30)
        box = (int(x0), int(y0), int(x0 + rng.integers(12, 30)), int(y0 + rng.integers(12, 20)))
        width, height, size = 90, 50, 128
        view = scaled(width, height, size, rng.uniform(0.5, 2.0), rng.random(2))
        view = view.mirror() if number % 2 else view
        labels = np.zeros((height, width), np.int32)
        labels[box[1] : box[3], box[0] : box[2]] = 1
        shown = cut(labels, view, size, 0)
        corners = np.array([box], np.float32) / np.array([width, height] * 2, np.float32)
        boxes = Boxes(corners, ("red",), (False,))
        found = placed(boxes, view, width, height)[0]
        if not shown.any():
            # A sliver may lie between the middles of pixels.
            assert (found[2] - found[0] < 2) or (found[3] - found[1] < 2)
            num_cut += 1
            continue
        rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        # Nearest pixels: an edge is off by less than a magnified pixel's half.
        np.testing.assert_allclose(found, seen, atol=1.6)
    assert num_cut < 40


# The detector's parts


def cells() -> Tensor:
    """Two maps over 64 px: cells of 8 and of 16 px."""
    rows: list[list[float]] = []
    for stride in (8, 16):
        steps = range(stride // 2, 64, stride)
        rows += [[x, y, stride] for y in steps for x in steps]
    return torch.tensor(rows, dtype=torch.float32)


def test_cells_answer_for_boxes_of_their_size_near_the_centre() -> None:
    known = cells()
    small, large = [16.0, 16.0, 32.0, 32.0], [0.0, 0.0, 64.0, 64.0]
    owner = assign(known, torch.tensor([small, large]))
    assert owner.shape == (len(known),)
    taken = {number: known[owner == number] for number in (0, 1)}
    # The small one is in reach of cells of 8 px; those of 16 px are for boxes beyond 64.
    assert taken[0][:, 2].unique().tolist() == [8]
    assert ((taken[0][:, :2] - 24).abs() < 12).all()
    assert len(taken[0]) == 4  # of nine cells around the centre, those within the box
    # The large one is in reach of cells of 8 px (up to 64) where the small one does not win.
    assert ((taken[1][:, :2] - 32).abs() < 1.5 * taken[1][:, 2:]).all()
    assert (assign(known, torch.zeros(0, 4)) == -1).all()


def test_generalized_overlap_of_known_boxes() -> None:
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(4, 4)
    other = torch.tensor([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [3, 0, 4, 2]], dtype=torch.float32)
    # IoU 1, 1/3, 0 and 0; of the hull unused 0, 0, 0 and 2 of 8.
    assert generalized_overlap(one, other).tolist() == pytest.approx([1, 1 / 3, 0, -1 / 4], abs=1e-6)


def test_focal_loss_of_known_shares() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0])
    truth = torch.tensor([1.0, 0.0, 1.0])
    shares = [1 / (1 + np.exp(-x)) for x in (0.0, 2.0, -1.0)]
    wanted = (
        -0.25 * (1 - shares[0]) ** 2 * np.log(shares[0])
        - 0.75 * shares[1] ** 2 * np.log(1 - shares[1])
        - 0.25 * (1 - shares[2]) ** 2 * np.log(shares[2])
    )
    assert focal_loss(logits, truth).item() == pytest.approx(wanted, rel=1e-5)


def answer(boxes: Tensor, classes: list[int], num_classes: int = 2) -> Tensor:
    """What a perfect head says (1, L, 8 + K)."""
    known = cells()
    output = torch.full((1, len(known), 8 + num_classes), -12.0)
    output[0, :, :3] = known
    output[0, :, CORNERS] = torch.cat([known[:, :2] - 4, known[:, :2] + 4], dim=1)
    owner = assign(known, boxes)
    for number, label in enumerate(classes):
        rows = owner == number
        output[0, rows, CORNERS] = boxes[number]
        output[0, rows, CLASSES.start + label] = 12.0
        sides = torch.cat([known[rows, :2] - boxes[number, :2], boxes[number, 2:] - known[rows, :2]], dim=1)
        ratios = torch.minimum(sides[:, :2], sides[:, 2:]) / torch.maximum(sides[:, :2], sides[:, 2:])
        output[0, rows, CENTER] = torch.logit(ratios.prod(1).sqrt(), eps=1e-6)
    return output


def truth_of(boxes: Tensor, classes: list[int], crowds: list[int] | None = None) -> Tensor:
    truth = torch.full((1, 8, 6), -1.0)
    truth[0, : len(boxes), :4] = boxes
    truth[0, : len(boxes), 4] = torch.tensor(classes, dtype=torch.float32)
    truth[0, : len(boxes), 5] = torch.tensor(crowds or [0] * len(boxes), dtype=torch.float32)
    return truth


BOXES = torch.tensor([[16.0, 16.0, 32.0, 32.0], [30.0, 24.0, 62.0, 60.0]])


def test_the_loss_is_least_for_the_right_answer() -> None:
    right, truth = answer(BOXES, [0, 1]), truth_of(BOXES, [0, 1])
    best = detection_loss(right, truth)
    wrong = {
        "boxes": answer(BOXES + 2, [0, 1]),
        "classes": answer(BOXES, [1, 0]),
        "missing": answer(BOXES[:1], [0]),
    }
    for name, output in wrong.items():
        assert detection_loss(output, truth) > best + 0.1, name
    # A box too many costs, and a crowd is as none.
    assert detection_loss(right, truth_of(BOXES[:1], [0])) > best + 0.1
    crowd = truth_of(BOXES, [0, 1], [0, 1])
    assert torch.equal(detection_loss(right, crowd), detection_loss(right, truth_of(BOXES[:1], [0])))
    nothing = torch.full((1, 8, 6), -1.0)
    assert detection_loss(answer(BOXES[:0], []), nothing) < 1e-3


def test_of_boxes_on_each_other_the_surest_of_a_class_stays() -> None:
    output = torch.full((1, 5, 10), -12.0)
    output[..., CENTER] = 12.0
    output[0, :, CORNERS] = torch.tensor(
        [[0, 0, 20, 20], [1, 0, 20, 20], [0, 0, 20, 20], [40, 40, 90, 60], [50, 5, 60, 9]],
        dtype=torch.float32,
    )
    for row, (label, logit) in enumerate([(0, 1.0), (0, 2.0), (1, 0.5), (1, 3.0), (0, -9.0)]):
        output[0, row, CLASSES.start + label] = logit
    found = detections(output, 64)
    assert found.shape == (1, NUM_FOUND, 6)
    kept = found[0, found[0, :, 5] >= 0]
    assert kept[:, 5].tolist() == [1, 0, 1]
    assert kept[:, :4].tolist() == [[40, 40, 64, 60], [1, 0, 20, 20], [0, 0, 20, 20]]
    share = 1 / (1 + np.exp(-3.0))
    assert kept[0, 4].item() == pytest.approx(np.sqrt(share), rel=1e-4)


def test_average_precision_of_known_answers() -> None:
    truth = truth_of(BOXES, [0, 1])
    perfect = torch.cat([BOXES, torch.tensor([[0.9, 0], [0.8, 1]])], dim=1)[None]
    measure = AveragePrecision(2)
    measure.add(perfect, truth)
    assert measure.result() == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})
    measure = AveragePrecision(2)  # the class of the second is wrong, and its class is found nowhere
    measure.add(torch.cat([BOXES, torch.tensor([[0.9, 0], [0.8, 0]])], dim=1)[None], truth)
    assert measure.result()["ap50"] == pytest.approx(0.5)
    measure = AveragePrecision(2)  # a second answer for a crowd is no mistake
    measure.add(perfect.flip(1), truth_of(BOXES, [0, 1], [0, 1]))
    assert measure.result()["ap"] == pytest.approx(1)
    assert AveragePrecision(2).result() == {"ap": 0, "ap50": 0, "ap75": 0}


# Runs


@pytest.fixture
def settings(
    tmp_path: Path, detection_run: Callable[..., Callable[..., TransferConfig]]
) -> Callable[..., TransferConfig]:
    """Of a short run on pictures of red and blue rectangles, in COCO's format."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        folder = tmp_path / split
        folder.mkdir()
        values = coco(images=[], annotations=[])
        for key in range(count):
            color = ("red", "blue")[key % 2]
            x0, y0 = int(rng.integers(0, 34)), int(rng.integers(0, 22))
            box = (x0, y0, x0 + int(rng.integers(16, 30)), y0 + int(rng.integers(16, 26)))
            Image.fromarray(picture(color, box)).save(folder / f"{key}.png")
            values["images"].append({"id": key, "file_name": f"{key}.png", "width": WIDTH, "height": HEIGHT})
            values["annotations"].append(
                {
                    "id": key,
                    "image_id": key,
                    "category_id": 7 if color == "red" else 3,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                }
            )
        (tmp_path / f"{split}.json").write_text(json.dumps(values))

    return detection_run(tmp_path, "detection", "det", learning_rate=1e-2)


def test_coloured_rectangles_are_learnt_and_found_in_pixels(
    settings: Callable[..., TransferConfig],
) -> None:
    config = settings()
    result = TransferRun(config, device="cpu").run()
    assert result["best"]["ap50"] > 0.8
    opened = open_transfer(config.out, device="cpu")
    assert opened.classes == ("blue", "red")
    box = (60, 20, 120, 80)
    found = opened.predict(picture("blue", box, (WIDTH * 2, HEIGHT * 2)))
    assert found.shape[1] == 6
    assert opened.classes[int(found[0, 5])] == "blue"
    assert (np.diff(found[:, 4]) <= 0).all()
    one, other = (torch.tensor(np.array([row], np.float32)) for row in (found[0, :4], box))
    assert generalized_overlap(one, other).item() > 0.5


def test_classes_of_validation_are_known_from_training(
    settings: Callable[..., TransferConfig], tmp_path: Path
) -> None:
    path = tmp_path / "val.json"
    path.write_text(path.read_text().replace('"blue"', '"green"'))
    with pytest.raises(
        InputError, match="its class 'green' is not among those of the training samples: blue, red"
    ):
        TransferRun(settings(), device="cpu")
