"""Files of predicted values: ordinary ones, which our readers and other people's tools read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, ModelError
from anyseek.model.classes import COCO_CLASSES, class_colors
from anyseek.model.files import encode_value, write_value
from anyseek.model.inputs import InputReader
from anyseek.model.modalities import MODALITIES, RAW_NAMES
from anyseek.model.scenes import Scene, SceneRecord, describe_scene
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from anyseek.model.values import INSTANCE, PERSON
from PIL import Image

SIDE = 64
Read = Callable[[str, Any], np.ndarray]


@pytest.fixture(scope="module")
def scene() -> SceneRecord:
    return describe_scene(Scene.sample(3, 4), SIDE)


@pytest.fixture(scope="module")
def read() -> Read:
    """What a model at 64 pixels reads."""
    words = TextTokenizer(build_vocabulary(["a red cube and a purple sphere"], ["hot dog"]), source="test")
    rows = [row for row in MODALITIES.values() if "@448" not in row.name]
    small = {row.raw: row.at_size(SIDE, 16) if "@" in row.name else row for row in rows}
    return InputReader(small, words).read


def standardised(depth: np.ndarray) -> np.ndarray:
    middle = np.sort(depth, axis=None)[int(0.1 * depth.size) : int(0.9 * depth.size)]
    return ((depth - middle.mean()) / middle.std(ddof=1)).astype(np.float32)


def some_people(num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    people = np.zeros(num, PERSON)
    people["box"] = [0.1, 0.2, 0.6, 0.9]
    people["pose"], _ = np.linalg.qr(rng.standard_normal((num, 23, 3, 3)))
    people["pose"] *= np.linalg.det(people["pose"])[..., None, None]
    people["rotation"] = people["pose"][:, 0]
    people["camera"] = rng.uniform(-1, 19, (num, 3))
    people["shape"] = rng.uniform(-3, 3, (num, 10))
    return people


def ring_and_dots() -> np.ndarray:
    """Shapes that a single polygon does not hold: with a hole, in parts, and of one pixel."""
    rows, columns = np.mgrid[:64, :64]
    radius = np.hypot(rows - 31.5, columns - 31.5)
    instances = np.zeros(3, INSTANCE)
    instances["box"] = [[10, 20, 200, 100], [0, 0, 224, 224], [100, 100, 130, 140]]
    instances["point"] = [[20, 60], [5, 5], [115, 120]]
    instances["mask"][0] = (radius < 32) & (radius > 20)
    instances["mask"][1, :8, :8] = instances["mask"][1, -8:, -8:] = 1
    instances["mask"][2, 32, 32] = 1
    return instances


def test_maps_of_a_scene_are_read_back_as_they_were(scene: SceneRecord, read: Read, tmp_path: Path) -> None:
    image = scene.rendering
    edges = np.where(image.semseg != np.roll(image.semseg, 1, axis=0), 255, 0).astype(np.uint8)
    values = {
        "rgb": image.rgb,
        "normal": np.round((image.normal + 1) * 127.5).astype(np.uint8),
        "semseg": image.semseg,
        "canny_edge": edges,
        "sam_edge": 255 - edges,  # mostly bright: a drawing would be inverted
    }
    for raw, value in values.items():
        path = write_value(raw, value, tmp_path / "photo", classes=COCO_CLASSES)
        assert path == tmp_path / f"photo.{raw}.png"
        np.testing.assert_array_equal(read(raw, path), value, raw)


def test_depth_is_read_back_to_a_thousandth(scene: SceneRecord, read: Read, tmp_path: Path) -> None:
    depth = standardised(np.minimum(scene.rendering.depth, 40))
    path = write_value("depth", depth, tmp_path / "photo")
    np.testing.assert_allclose(read("depth", path), depth, atol=1e-3)


def test_depth_file_says_how_its_pixels_become_depth(scene: SceneRecord, tmp_path: Path) -> None:
    depth = standardised(np.minimum(scene.rendering.depth, 40))
    with Image.open(write_value("depth", depth, tmp_path / "photo")) as image:
        pixels, notes = np.asarray(image), image.info
    assert pixels.dtype == np.uint16
    assert (pixels.min(), pixels.max()) == (0, 65535)
    restored = float(notes["anyseek:offset"]) + float(notes["anyseek:scale"]) * pixels
    assert np.abs(restored - depth).max() <= 0.51 * float(notes["anyseek:scale"])


def test_constant_depth_is_written_and_restored(tmp_path: Path) -> None:
    depth = np.full((5, 5), -0.25, np.float32)
    with Image.open(write_value("depth", depth, tmp_path / "flat")) as image:
        assert float(image.info["anyseek:offset"]) + float(image.info["anyseek:scale"]) * np.asarray(
            image
        ).max() == pytest.approx(-0.25)


def test_segmentation_file_has_the_published_ids_the_colours_and_a_legend(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [18, 133]], np.uint8)
    with Image.open(write_value("semseg", labels, tmp_path / "photo", classes=COCO_CLASSES)) as image:
        np.testing.assert_array_equal(np.asarray(image), [[255, 0], [17, 132]])
        legend = json.loads(image.info["anyseek:classes"])
        colors = np.asarray(image.convert("RGB"))
    assert legend == {"0": "person", "17": "horse", "132": COCO_CLASSES[132]}
    np.testing.assert_array_equal(colors[1], class_colors(133)[[17, 132]])
    assert not colors[0, 0].any()


def test_segmentation_survives_a_model_with_its_classes_in_another_order(read: Read, tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint8).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)
    path = write_value("semseg", labels, tmp_path / "photo", classes=("dog", "cat"))
    found = read("semseg", path)
    names = np.array(["nothing", *COCO_CLASSES])
    assert names[np.unique(found)].tolist() == ["nothing", "cat", "dog"]
    np.testing.assert_array_equal(
        names[found[:: SIDE // 2, :: SIDE // 2]], [["nothing", "dog"], ["cat", "cat"]]
    )


def test_segmentation_without_any_class_is_read_back(read: Read, tmp_path: Path) -> None:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    assert not read("semseg", write_value("semseg", labels, tmp_path / "a", classes=COCO_CLASSES)).any()


def test_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label 3, but there are only 2 classes"):
        write_value("semseg", np.full((2, 2), 3, np.uint8), tmp_path / "photo", classes=("dog", "cat"))


@pytest.mark.parametrize("raw", ["clip", "dinov2", "imagebind"])
def test_features_are_read_back_to_the_bit(raw: str, read: Read, tmp_path: Path) -> None:
    row = MODALITIES[f"tok_{raw}@224"].at_size(SIDE, 16)
    assert row.grid is not None
    value = np.random.default_rng(0).standard_normal((row.channels or 0, *row.grid)).astype(np.float32)
    np.testing.assert_array_equal(read(raw, write_value(raw, value, tmp_path / "photo")), value)


@pytest.mark.parametrize(("raw", "shape"), [("dinov2_global", (768,)), ("t5_caption", (5, 4096))])
def test_vectors_are_read_back_to_their_direction(
    raw: str, shape: tuple[int, ...], read: Read, tmp_path: Path
) -> None:
    value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = write_value(raw, value, tmp_path / "photo")
    assert path.suffix == ".npy"
    found = read(raw, path)
    scale = np.linalg.norm(found) / np.linalg.norm(value) if raw.endswith("global") else 1
    np.testing.assert_allclose(found, scale * value, rtol=1e-5)


def test_words_and_numbers_are_read_back_as_the_values_themselves(
    scene: SceneRecord, read: Read, tmp_path: Path
) -> None:
    values = {raw: scene.values[raw] for raw in ("caption", "det", "metadata", "color_palette")}
    for raw, value in values.items():
        path = write_value(raw, value, tmp_path / "photo")
        np.testing.assert_array_equal(read(raw, path), read(raw, value), raw)
        if raw != "caption":
            assert json.loads(path.read_text(encoding="utf-8")) == value


def test_people_are_read_back(read: Read, tmp_path: Path) -> None:
    people = some_people(2)
    found = read("human_poses", write_value("human_poses", people, tmp_path / "photo"))
    assert found.dtype == PERSON
    for name in PERSON.names or ():
        np.testing.assert_allclose(found[name], people[name], atol=1e-5, err_msg=name)


def test_people_have_the_names_of_smpl(tmp_path: Path) -> None:
    (person,) = json.loads(write_value("poses", some_people(1), tmp_path / "photo").read_text())
    assert {name: np.shape(numbers) for name, numbers in person.items()} == {
        "box": (4,),
        "body_pose": (23, 3, 3),
        "global_orient": (3, 3),
        "camera": (3,),
        "betas": (10,),
    }


def test_instances_with_holes_and_in_parts_are_read_back_to_the_bit(read: Read, tmp_path: Path) -> None:
    instances = ring_and_dots()
    found = read("sam_instance", write_value("sam_instance", instances, tmp_path / "photo"))
    np.testing.assert_array_equal(found, instances)


def test_instances_are_what_coco_tools_expect(tmp_path: Path) -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    content = json.loads(write_value("sam_instance", ring_and_dots(), tmp_path / "photo").read_text())
    assert content["images"] == [{"id": 1, "width": 224, "height": 224}]
    disc, parts, dot = content["annotations"]
    assert disc["bbox"] == [10, 20, 190, 80]
    areas = [
        int(mask_tools.area(mask_tools.merge(mask_tools.frPyObjects(one["segmentation"], 224, 224))))
        for one in (disc, parts)
    ]
    assert areas[0] == pytest.approx(np.pi / 4 * 190 * 80, rel=0.05)
    assert areas[1] == pytest.approx(2 * 28 * 28, rel=0.3)
    assert len(parts["segmentation"]) == 2
    assert len(dot["segmentation"][0]) >= 6, "four numbers would be read as a box"


def test_nothing_found_is_written_as_nothing(tmp_path: Path) -> None:
    for raw, value in (("det", []), ("human_poses", np.zeros(0, PERSON)), ("color_palette", [])):
        assert json.loads(write_value(raw, value, tmp_path / "none").read_text()) == []
    assert json.loads(write_value("metadata", {}, tmp_path / "none").read_text()) == {}
    empty = np.zeros(2, INSTANCE)
    assert json.loads(write_value("sam_instance", empty, tmp_path / "none").read_text())["annotations"] == []


def test_label_that_a_model_wrote_without_end_is_still_read_back(read: Read, tmp_path: Path) -> None:
    boxes = [{"box": [0.0, 0.1, 0.5, 1.0], "label": "dog " * 200}]
    assert len(read("det", write_value("det", boxes, tmp_path / "photo")))


def test_any_text_is_written_as_utf8(tmp_path: Path) -> None:
    words = "Hafen 日本語 نص 😀 \ud800"
    assert write_value("caption", words, tmp_path / "photo").read_text("utf-8") == words[:-1] + "?"


def test_every_modality_has_a_file_that_indexing_takes_for_it(tmp_path: Path) -> None:
    from anyseek.indexer.naming import place_of

    rng = np.random.default_rng(0)
    maps = {"rgb": 3, "normal": 3, "depth": 0, "semseg": 0, "canny_edge": 0, "sam_edge": 0}
    words: dict[str, Any] = {"caption": "a", "det": [], "metadata": {}, "color_palette": []}
    for raw in RAW_NAMES:
        value = words.get(raw)
        if raw in maps:
            value = rng.integers(0, 9, (8, 8, 3)[: 3 if maps[raw] else 2]).astype(np.uint8)
            value = value.astype(np.float32) if raw == "depth" else value
        elif raw in ("human_poses", "sam_instance"):
            value = np.zeros(0, PERSON if raw == "human_poses" else INSTANCE)
        elif value is None:
            value = rng.random((4,) * (1 if "global" in raw else 2 if raw == "t5_caption" else 3))
        path = write_value(raw, value, tmp_path / "my.photo")
        named = place_of(path.name)
        assert named is not None
        assert (named.stem, named.slot) == ("my.photo", raw)
        assert named.rank >= 0
        assert encode_value(raw, value)[1] == path.read_bytes()
    assert len(list(tmp_path.iterdir())) == len(RAW_NAMES), "a second file would be a duplicate to indexing"


def test_written_file_replaces_the_old_one_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_value("caption", "old", tmp_path / "photo")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left") as caught:
        write_value("caption", "new", tmp_path / "photo")
    assert caught.value.code == "output.failed"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path], "no half-written file stays behind"


@pytest.mark.parametrize("name", ["missing/photo", "file/photo", "a\0b", "x" * 300])
def test_folder_that_cannot_be_written_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_value("caption", "words", tmp_path / name)


@pytest.mark.parametrize(
    ("raw", "value", "message"),
    [
        ("rgb", np.zeros((4, 4), np.uint8), r"uint8 \(height, width, 3\), got uint8 \(4, 4\)"),
        ("rgb", np.zeros((0, 4, 3), np.uint8), "got uint8"),
        ("depth", np.array([[0, np.nan]], np.float32), "1 of its numbers"),
        ("depth", np.zeros((4, 4), np.uint16), "float32"),
        ("semseg", np.zeros((4, 4), np.int64), "uint8"),
        ("human_poses", np.full(1, np.nan, PERSON), "not finite"),
        ("sam_instance", np.zeros(1, PERSON), "INSTANCE"),
        ("caption", np.zeros(3, np.int32), "expected text"),
        ("det", np.zeros(3, np.int32), "token ids"),
        ("det", [{"box": [0, 0, 2, 1], "label": "dog"}], "0..1"),
        ("metadata", {"brightnes": 1}, "unknown brightnes"),
        ("color_palette", ["red"], "#rrggbb"),
        ("caption", None, "NoneType"),
        ("dinov2_global", None, "NoneType"),
    ],
)
def test_value_of_another_kind_is_refused(raw: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        write_value(raw, value, tmp_path / "photo")
    assert not list(tmp_path.iterdir())


def test_unknown_modality_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="human_poses"):
        write_value("sound", "la", tmp_path / "photo")
