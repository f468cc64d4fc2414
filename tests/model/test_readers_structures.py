"""Features, people, instances and boxes from files: read as they were meant, or refused with a reason."""

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from anyseek.errors import InputError, LimitError
from anyseek.model.body import DEFAULT_CAMERA, FACING_CAMERA, rotation_matrices
from anyseek.model.modalities import get_modality
from anyseek.model.readers.arrays import read_array, read_arrays
from anyseek.model.readers.features import read_features, read_t5, read_vector
from anyseek.model.readers.frames import clip_polygon
from anyseek.model.readers.instances import read_instances
from anyseek.model.readers.masks import fill_polygons, inner_point
from anyseek.model.readers.poses import read_poses
from anyseek.model.readers.rle import decode_rle, encode_rle
from anyseek.model.readers.texts import parse_boxes
from anyseek.model.values import INSTANCE, PERSON
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image

DINO, VECTOR, T5 = map(get_modality, ("tok_dinov2@224", "tok_dinov2_global", "t5_caption"))
POSES, INSTANCES = map(get_modality, ("human_poses", "sam_instance"))
RNG = np.random.default_rng(0)
MAX_BYTES = 10**7


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


# --- NumPy files


@pytest.mark.parametrize("dtype", ["?", "u1", ">i2", "<i8", "f2", ">f4", "f8"])
def test_arrays_come_as_they_were_saved(dtype: str, tmp_path: Path) -> None:
    for order in ("C", "F"):
        saved = np.array(RNG.integers(0, 2, (3, 4, 5)), dtype, order=order)
        (tmp_path / "x.npy").write_bytes(npy(saved))
        for content in (npy(saved), npz(depth=saved), tmp_path / "x.npy", saved):
            found = read_array(content, name="x", max_bytes=MAX_BYTES)
            assert (found == saved).all()
            if not isinstance(content, np.ndarray):
                assert found.dtype == saved.dtype.newbyteorder("=")
                assert found.flags.c_contiguous


def test_archives_say_which_array_is_meant() -> None:
    two = npz(a=np.zeros(3), b=np.ones(3))
    assert read_array(two, name="x", max_bytes=999, keys=("c", "b")).sum() == 3
    assert set(read_arrays(two, ("a", "c"), name="x", max_bytes=999)) == {"a"}
    with pytest.raises(InputError, match=r"x: holds the arrays a, b; expected one only"):
        read_array(two, name="x", max_bytes=999)
    with pytest.raises(InputError, match=r"x: holds the arrays a, b; known are c"):
        read_arrays(two, ("c",), name="x", max_bytes=999)


def test_small_files_cannot_become_large_arrays() -> None:
    bomb = npz(a=np.zeros(10**6), b=np.zeros(10**5))
    assert len(bomb) < 10**4
    with pytest.raises(LimitError, match=r"bomb: a: float64 \(1000000,\) takes 8,000,000 bytes"):
        read_arrays(bomb, ("a",), name="bomb", max_bytes=10**6)
    with pytest.raises(LimitError):  # each is within the limit, both are not
        read_arrays(bomb, ("a", "b"), name="bomb", max_bytes=8 * 10**6)
    with pytest.raises(LimitError, match="more than 100 bytes"):
        read_array(npy(np.zeros(10**4)), name="x", max_bytes=100)
    promise = npy(np.zeros((2, 3))).replace(b"(2, 3), }", b"(2,3" + b"0" * 4 + b")}")
    with pytest.raises(InputError):
        read_array(promise, name="x", max_bytes=MAX_BYTES)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", r"not one of NumPy files \(.npy, or .npz"),
        ("x.npy", "got str"),
        (npy(np.array([Bomb()]), allow_pickle=True), "an array of object"),
        (npz(a=np.array([Bomb()])), "a: an array of object"),
        (npy(np.zeros(2, complex)), "complex128"),
        (npy(np.array(["a"])), "<U1"),
        (npy(np.zeros(2, [("a", int)])), "an array of"),
        (npy(np.zeros((0, 3))), r"shape \(0, 3\) holds no values"),
        (npy(np.zeros(8))[:-5], "ends too soon, 59 of 64 bytes"),
        (npy(np.zeros(8))[:30], "damaged"),
        (npy(np.zeros((2, 3))).replace(b"(2, 3)", b"(2,-3)"), "holds no values"),
        (npy(np.zeros(8)).replace(b"(8,)", b"[8,]"), "damaged"),
        (npz(a=np.zeros(50))[:100], "damaged"),
        ([[1, 2], [3]], "no array of numbers"),
        (["a"], "no array of numbers"),
        ({"a": 1}, "got dict"),
    ],
)
def test_other_arrays_are_refused(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^x: .*{reason}"):
        read_array(content, name="x", max_bytes=MAX_BYTES)


def test_odd_compressions_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy(np.zeros(3)))
    with pytest.raises(InputError, match="compressed in a way"):
        read_array(buffer.getvalue(), name="x", max_bytes=MAX_BYTES)


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_a_changed_byte_is_read_or_refused(place: int, byte: int, is_archive: bool) -> None:
    original = npz(a=np.arange(20.0)) if is_archive else npy(np.arange(20.0))
    damaged = bytearray(original)
    damaged[place % len(damaged)] = byte
    with contextlib.suppress(InputError):
        assert read_array(bytes(damaged), name="x", max_bytes=MAX_BYTES).size


# --- features, vectors, T5 states

GRID = RNG.normal(size=(768, 16, 16))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_features_are_read_in_every_layout(dtype: str) -> None:
    values = GRID.astype(dtype)
    rows = values.reshape(768, 256).T
    for layout in (
        values,
        values.transpose(1, 2, 0),
        rows,
        values[None],
        rows[None],
        rows.reshape(16, 16, 768)[None],
    ):
        for content in (layout, npy(layout), npz(features=layout)):
            found = read_features(content, name="f", row=DINO, max_bytes=MAX_BYTES)
            assert found.dtype == np.float32
            assert found.flags.c_contiguous
            assert (found == values.astype(np.float32)).all()


def with_value(values: np.ndarray, value: float, place: Any) -> np.ndarray:
    changed = values.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((1024, 16, 16)), r"1024 channels; those of dinov2 are 768: these come from another model"),
        (np.ones((256, 512)), "512 channels"),
        (np.ones((768, 14, 14)), r"a grid of 14 x 14 in place of 16 x 16"),
        (np.ones((196, 768)), "a grid of 196"),
        (np.ones((257, 768)), "the class token; drop it"),
        (np.ones((2, 768, 16, 16)), "no layout that is known"),
        (np.ones(768), "no layout"),
        (np.ones((256, 768), int), "array of int64; dinov2 takes real numbers"),
        (with_value(GRID, np.nan, 0), "256 of 196,608 numbers are NaN or infinite"),
        (with_value(GRID, 1e300, (0, 0, 0)), "1 of 196,608 numbers are NaN or infinite"),
        (with_value(GRID, 0, (slice(None), 3, 4)), "1 of 256 vectors are zero"),
    ],
)
def test_other_features_are_refused_by_what_is_wrong(values: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^room.npy: .*{reason}"):
        read_features(values, name="room.npy", row=DINO, max_bytes=MAX_BYTES)


def test_vectors_are_read_and_checked() -> None:
    vector = RNG.normal(size=768)
    for content in (vector, vector[None], vector[:, None, None], vector.tolist(), npy(vector)):
        found = read_vector(content, name="v", row=VECTOR, max_bytes=MAX_BYTES)
        assert (found == vector.astype(np.float32)).all()
    for bad, reason in (
        (np.ones(1280), r"shape \(1280,\); dinov2_global is one vector \(768,\)"),
        (np.ones((2, 384)), "is one vector"),
        (np.zeros(768), "the vector is zero"),
        (np.full(768, np.nan), "768 of 768 numbers are NaN"),
        (np.ones(16, int), "token ids"),
    ):
        with pytest.raises(InputError, match=reason):
            read_vector(bad, name="v", row=VECTOR, max_bytes=MAX_BYTES)


def test_t5_states_are_cut_and_padding_is_left_out() -> None:
    def read(content: Any) -> np.ndarray:
        return read_t5(content, name="t", row=T5, max_bytes=MAX_BYTES)

    states = RNG.normal(size=(100, 4096)).astype(np.float32)
    assert (read(states) == states[:77]).all()
    valid = np.arange(100) % 3 == 0
    assert (read(npz(emb=states, mask_valid=valid)) == states[valid]).all()
    assert (read(npz(emb=states[None, :5])) == states[:5]).all()
    for bad, reason in (
        (npz(emb=states, mask_valid=valid[:50]), "mask_valid is bool"),
        (npz(emb=states, mask_valid=valid & False), "mask_valid leaves no state"),
        (npz(mask_valid=valid), "no array 'emb'"),
        (states[:, :1024], "4096"),
        (states[0], "4096"),
        (states * 0, "77 of 77 vectors are zero"),
    ):
        with pytest.raises(InputError, match=reason):
            read(bad)


# --- boxes


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [{"id": 7, "width": 640, "height": 480, "file_name": "dog.jpg"}],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 18,
                "iscrowd": 0,
                "bbox": [100, 120, 200, 240],
                "score": 0.9,
            },
            {"id": 2, "image_id": 7, "category_id": 18, "iscrowd": 1, "bbox": [0, 0, 640, 480]},
            {"id": 3, "image_id": 7, "category_id": 18, "bbox": [0, 0, 60, 480.3]},
            {"id": 4, "image_id": 7, "category_id": 18, "bbox": [300, 0, 60, 90], "score": 0.2},
        ],
    } | changes


def annotated(**annotation: Any) -> dict[str, Any]:
    return coco(annotations=[{"category_id": 18, "bbox": [100, 100, 50, 50]} | annotation])


def test_coco_boxes_move_into_the_central_square() -> None:  # crowds, margins and low scores left out
    sized = {key: value for key, value in coco(width=640, height=480).items() if key != "images"}
    for value in (coco(), sized):
        (found,) = parse_boxes(value)
        assert found.label == "dog"
        assert found[:4] == pytest.approx((20 / 480, 120 / 480, 220 / 480, 360 / 480))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            annotated(bbox=[600, 0, 100, 10]),
            r"bbox \[600, 0, 100, 10\] .* outside the picture of 640 x 480 pixels",
        ),
        (annotated(bbox=[-20, 0, 100, 10]), "outside the picture"),
        (annotated(bbox=[1, 1, -5, 10]), "negative width"),
        (annotated(bbox=[1, 1, 5]), r"expected \"bbox\""),
        (annotated(bbox=[1, 1, 5, "a"]), "must be a number"),
        (annotated(category_id=1), "category_id 1 is none of the file's categories .18 dog"),
        (annotated(category_id=[18]), "category_id"),
        (annotated(image_id=8), "belongs to picture 8, the file describes picture 7"),
        (annotated(bbox=[0, 0, 50, 50]), "holds no boxes to use"),
        (coco(images=[]), "how large the picture is"),
        (coco(images=coco()["images"] * 2), "describes 2 pictures"),
        (coco(images=[{"width": 0, "height": 5}]), "no size"),
        (coco(categories=[{"id": "a"}]), "category 0"),
        (coco(annotations={}), "expected a list"),
        (coco(annotations=[1]), "entry 0"),
        (coco(annotations=[{}] * 1001), "1,001 entries"),
    ],
)
def test_other_coco_boxes_are_refused(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^b.json: .*{reason}"):
        parse_boxes(value, "b.json")


# --- run lengths


@given(arrays_of.arrays(bool, arrays_of.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_agree_with_coco(mask: np.ndarray) -> None:
    reference = pytest.importorskip("pycocotools.mask")
    compressed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (decode_rle(compressed, "x") == mask).all()
    assert (decode_rle(compressed | {"counts": compressed["counts"].decode()}, "x") == mask).all()
    own = encode_rle(mask)
    assert (decode_rle(own, "x") == mask).all()
    assert reference.frPyObjects(own, *mask.shape)["counts"] == compressed["counts"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=30))
def test_any_text_of_run_lengths_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert decode_rle({"size": [4, 4], "counts": text}, "x").shape == (4, 4)


# --- instances


def read_shapes(content: Any, name: str = "i.json") -> np.ndarray:
    return read_instances(content, name=name, row=INSTANCES, max_bytes=MAX_BYTES)


TRIANGLE = [[10, 10], [100, 20], [50, 90]]


def painted(one: np.void) -> np.ndarray:
    """An instance as a mask bool (224, 224)."""
    x0, y0, x1, y1 = one["box"].tolist()
    mask = np.zeros((224, 224), bool)
    mask[y0:y1, x0:x1] = cv2.resize(one["mask"], (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return mask


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def blob(width: int, height: int, seed: int) -> np.ndarray:
    """A polygon (P, 2) around somewhere."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    around = rng.uniform(0.1, 0.3, (12, 1)) * height * np.stack([np.cos(angles), np.sin(angles)], -1)
    return np.clip(rng.uniform(0.3, 0.7, 2) * (width, height) + around, 0, (width, height))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(640, 480), (300, 451), (224, 224)])
def test_polygons_run_lengths_and_maps_tell_the_same(size: tuple[int, int], seed: int) -> None:
    reference = pytest.importorskip("pycocotools.mask")
    width, height = size
    polygon = blob(width, height, seed)
    compressed = reference.merge(reference.frPyObjects([polygon.ravel().tolist()], height, width))
    mask = reference.decode(compressed).astype(bool)
    compressed["counts"] = compressed["counts"].decode()
    side = min(size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    square = mask[top : top + side, left : left + side].astype(np.float32)
    expected = cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA) >= 0.5
    frame = {"width": width, "height": height}
    forms = [
        {"images": [frame], "annotations": [{"segmentation": [polygon.ravel().tolist()]}]},
        {"image": frame, "annotations": [{"segmentation": compressed}]},
        [{"segmentation": encode_rle(mask)}],
        [{"segmentation": mask}],
        json.dumps({"instances": [{"polygon": polygon.tolist()}], **frame}),
        {"map": mask.astype(np.uint8) * 9, **frame},
        png(mask.astype(np.uint8) * 200),
        npy(mask.astype(np.int64) * 70000),
        png(np.stack([mask * 3, mask * 4, mask * 5], -1).astype(np.uint8)),
    ]
    for form in forms:
        (found,) = read_shapes(form)
        assert overlap(painted(found), expected) > 0.93
        x, y = found["point"]
        assert painted(found)[y, x]


def test_polygons_are_filled_as_opencv_does_in_the_stretched_box() -> None:
    (found,) = read_shapes([{"polygon": TRIANGLE, "point": [50, 40]}])
    assert found["box"].tolist() == [10, 10, 100, 90]
    assert found["point"].tolist() == [50, 40]
    assert (found["mask"] == fill_polygons([np.array(TRIANGLE)], (10, 10, 100, 90))).all()
    assert found["mask"].max() == 1


def test_parts_of_an_instance_share_a_box() -> None:
    parts = [[10, 10, 50, 10, 50, 50, 10, 50], [100, 100, 150, 100, 150, 150, 100, 150]]
    (found,) = read_shapes([{"segmentation": parts}])
    assert found["box"].tolist() == [10, 10, 150, 150]
    assert found["mask"][0, 0] == found["mask"][63, 63] == 1
    assert found["mask"][0, 63] == found["mask"][32, 32] == 0


@given(st.lists(st.tuples(st.integers(-300, 500), st.integers(-300, 500)), min_size=3, max_size=9))
def test_clipped_polygons_cover_what_was_inside(points: list[tuple[int, int]]) -> None:
    clipped = clip_polygon(np.array(points, np.float64))
    assert len(clipped) == 0 or (clipped.min() >= -1e-9 and clipped.max() <= 224 + 1e-9)

    def area(polygon: np.ndarray, offset: int) -> np.ndarray:
        canvas = np.zeros((800, 800), np.uint8)
        if len(polygon):
            cv2.fillPoly(canvas, [np.round(polygon + offset).astype(np.int32)], 1)
        return canvas[offset + 2 : offset + 222, offset + 2 : offset + 222]

    differ = area(clipped, 300) != area(np.array(points), 300)
    assert differ.mean() < 0.02  # outlines, rounded


def test_of_many_instances_the_largest_are_kept_in_order() -> None:
    ids = np.zeros((224, 224), np.uint16)
    for i in range(12):
        ids[18 * i : 18 * i + 16, : 20 + 15 * ((5 * i) % 12)] = i + 1
    found = read_shapes(ids)
    assert len(found) == 7
    assert (np.diff(found["box"][:, 1]) > 0).all()
    assert found["box"][:, 2].min() == 20 + 15 * 5
    squares = [
        {"polygon": [[5, 5], [5 + i, 5], [5 + i, 5 + i], [5, 5 + i]], "point": [7, 7]} for i in range(20, 50)
    ]
    shared = read_shapes(squares)  # one point, so that a text holds more
    assert len(shared) == 12
    assert shared["box"][:, 2].min() == 5 + 38


def test_a_point_alone_says_that_nothing_is_there() -> None:
    found = read_shapes([{"point": [3, 200]}, {"polygon": TRIANGLE}])
    assert found["point"][0].tolist() == [3, 200]
    assert not found["box"][0].any()
    assert not found["mask"][0].any()
    beyond = {"width": 640, "height": 224, "instances": [{"polygon": TRIANGLE, "point": [5, 5]}]}
    with pytest.raises(InputError, match="central square"):
        read_shapes(beyond)


def test_values_come_back_as_they_are() -> None:
    value = read_shapes([{"polygon": TRIANGLE}, {"polygon": [[120, 100], [180, 100], [150, 200]]}])
    assert (read_shapes(value) == value).all()
    stored = [
        {"point": one["point"].tolist(), "box": one["box"].tolist(), "mask": encode_rle(one["mask"])}
        for one in value
    ]
    assert (read_shapes(json.dumps(stored)) == value).all()


def test_inner_points_avoid_holes() -> None:
    ring = np.zeros((64, 64), np.uint8)
    cv2.circle(ring, (32, 32), 28, 1, 8)
    x, y = inner_point(ring, (0, 0, 64, 64))
    assert ring[y, x]


RUNS = {"size": [4, 4], "counts": [3, 13]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([{"polygon": TRIANGLE[:2]}], "instance 0: a polygon of 2 points has no inside; give 3 or more"),
        ([{"polygon": TRIANGLE}, {"segmentation": [[1, 2, 3, 4]]}], "instance 1: polygon 0: .* 2 points"),
        ([{"polygon": [[1, 2], [300, 4], [5, 6]]}], r"\(300, 4\) lies outside the picture of 224 x 224"),
        (
            {"instances": [{"polygon": [[1, 2], [630, 4], [5, 490]]}], "width": 640, "height": 480},
            r"\(5, 490\)",
        ),
        ([{"polygon": [1, 2, 3, 4, 5]}], r"got shape \(5,\)"),
        ([{"polygon": [["a", 1]]}], "expected points"),
        ([{"polygon": "x"}], "expected polygons or run lengths"),
        ([{"polygon": [[np.nan, 1], [2, 3], [4, 5]]}], "NaN"),
        ([{"polygon": TRIANGLE, "point": [1]}], "expected a point"),
        ([{"polygon": TRIANGLE, "point": [1, 999]}], r"point: \(1, 999\) lies outside"),
        ([{"segmentation": RUNS | {"counts": [3, 4]}}], "run lengths of 7 pixels; size says 4 x 4 = 16"),
        ([{"segmentation": RUNS | {"counts": "~~"}}], "not COCO's compressed text"),
        ([{"segmentation": RUNS | {"counts": [-3, 19]}}], "0 or more"),
        ([{"segmentation": RUNS | {"size": [4]}}], r"need \"size\""),
        ([{"segmentation": RUNS}, {"segmentation": {"size": [4, 5], "counts": [20]}}], "5 x 4 .* 4 x 4"),
        (
            {"annotations": [{"segmentation": RUNS}], "width": 5, "height": 4},
            "4 x 4 pixels, but the picture has 5 x 4",
        ),
        ({"map": np.ones((4, 4), int), "width": 5, "height": 4}, "4 x 4 pixels, but the picture has 5 x 4"),
        (np.ones((4, 4)), "a map of ids is integers"),
        (np.ones((4, 4, 3), int), "a map of ids is integers"),
        (-np.ones((4, 4), int), "negative"),
        (np.zeros((4, 4), int), "holds no instances"),
        (png(np.zeros((4, 4, 4), np.uint8)), "a map of ids is integers"),
        ([{"polygon": [[1, 1], [3, 1], [2, 3]]}], "none of its 1 instances is large enough"),
        ([{"mask": RUNS, "box": [0, 0, 9, 9]}], "64 x 64"),
        ([{"mask": {"size": [64, 64], "counts": [4096]}, "box": [9, 0, 0, 9]}], "no box within 0..224"),
        ([{}], 'no "polygon"'),
        ([], "holds no instances"),
        ({}, "expected COCO's JSON"),
        (3, "expected COCO's JSON"),
        ("[", "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (np.zeros(0, INSTANCE), "holds no instances"),
        (np.full(1, -1, INSTANCE), "boxes within"),
    ],
)
def test_other_instances_are_refused_by_what_is_wrong(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^i.json: .*{reason}"):
        read_shapes(value)


def test_too_much_is_refused_before_it_is_drawn() -> None:
    huge = {"size": [8000, 9000], "counts": [72_000_000]}
    with pytest.raises(LimitError, match="100 masks of 9000 x 8000"):
        read_shapes([{"segmentation": huge}] * 100)
    with pytest.raises(LimitError, match="the limit is 80,000,000"):
        read_shapes([{"segmentation": {"size": [10**6, 10**6], "counts": []}}])
    with pytest.raises(LimitError, match="1,001 entries"):
        read_shapes([{"polygon": TRIANGLE}] * 1001)


# --- people

MATRICES = rotation_matrices(RNG.normal(size=(24, 3)))
ONE: dict[str, Any] = {
    "box": [0.1, 0.2, 0.5, 0.9],
    "pose": MATRICES[1:].tolist(),
    "rotation": MATRICES[0].tolist(),
    "camera": [1, 0.5, 18],
    "shape": list(range(10)),
}


def read_people(content: Any) -> np.ndarray:
    return read_poses(content, name="p.json", row=POSES, max_bytes=MAX_BYTES)


def test_people_are_read_in_every_spelling() -> None:
    vectors = RNG.normal(size=(24, 3))
    (expected,) = read_people([ONE])
    np.testing.assert_allclose(expected["pose"], MATRICES[1:], atol=1e-6)
    renamed = {"box": ONE["box"], "body_pose": ONE["pose"], "global_orient": [ONE["rotation"]]}
    renamed |= {"pred_cam": ONE["camera"], "betas": [*range(16)]}
    flat = ONE | {"pose": MATRICES[1:].ravel().tolist(), "rotation": MATRICES[0].ravel()}
    whole = {key: value for key, value in ONE.items() if key != "rotation"} | {"pose": MATRICES}
    columns = {key: [value] for key, value in ONE.items()}
    archive = npz(**{key: np.asarray(value) for key, value in columns.items()})
    single = npz(**{key: np.asarray(value) for key, value in ONE.items()})
    for form in ([renamed], [flat], [whole], json.dumps([ONE]), {"people": [ONE]}, columns, archive, single):
        assert (read_people(form) == expected).all()
    by_vectors = read_people([ONE | {"pose": vectors[1:].tolist(), "rotation": vectors[0].tolist()}])
    by_matrices = read_people([ONE | {"pose": rotation_matrices(vectors)}])
    np.testing.assert_allclose(by_vectors["pose"], by_matrices["pose"], atol=1e-6)
    np.testing.assert_allclose(by_vectors["rotation"], by_matrices["rotation"], atol=1e-6)


def test_what_people_need_not_say_is_the_average() -> None:
    (found,) = read_people([{"box": [0, 0, 1, 1], "pose": [0] * 69}])
    assert (found["pose"] == np.eye(3)).all()
    assert (found["rotation"] == FACING_CAMERA).all()
    np.testing.assert_allclose(found["camera"], DEFAULT_CAMERA, rtol=1e-6)
    assert not found["shape"].any()


def estimated(**changes: Any) -> dict[str, Any]:
    """Two people and one at the margin, as 4D-Humans' estimates are saved."""
    return {
        "bbox_xyxy": [[100, 48, 300, 432], [0, 0, 70, 100], [400, 100, 560, 470]],
        "pred_smpl_params": {
            "global_orient": MATRICES[None, :1].repeat(3, 0).tolist(),
            "body_pose": MATRICES[None, 1:].repeat(3, 0).tolist(),
            "betas": [[0.1] * 10] * 3,
        },
        "pred_cam": [[0.9, 0, 0.1]] * 3,
        "img_size": [[640, 480]] * 3,
    } | changes


def test_estimates_in_pixels_move_into_the_central_square() -> None:
    found = read_people(estimated())
    np.testing.assert_allclose(
        found["box"], np.array([[20, 48, 220, 432], [320, 100, 480, 470]]) / 480, rtol=1e-6
    )
    assert (
        read_people(estimated(img_size=None, width=640, height=480) | {"img_size": [640, 480]}) == found
    ).all()
    fractions = {"people": [ONE | {"box": [100 / 640, 0.1, 300 / 640, 0.9]}], "width": 640, "height": 480}
    np.testing.assert_allclose(read_people(fractions)["box"][0], found["box"][0], rtol=1e-6)


def test_small_errors_of_matrices_are_mended_and_exact_ones_are_kept() -> None:
    noisy = MATRICES[1:] + 0.01 * RNG.uniform(-1, 1, (23, 3, 3))
    (found,) = read_people([ONE | {"pose": noisy}])
    np.testing.assert_allclose(
        found["pose"] @ found["pose"].transpose(0, 2, 1), np.eye(3)[None].repeat(23, 0), atol=1e-6
    )
    again = read_people(json.dumps([{name: np.asarray(found[name]).tolist() for name in PERSON.names or ()}]))
    assert (again[0] == found).all()
    assert (read_people(again) == again).all()


def test_of_many_people_the_largest_are_kept_in_order() -> None:
    people = [ONE | {"box": [0, 0, 1, (1 + (3 * i) % 10) / 10], "camera": [i, 0, 0]} for i in range(10)]
    found = read_people(people)
    assert len(found) == 7
    assert (np.diff(found["camera"][:, 0]) > 0).all()
    assert found["box"][:, 3].min() == np.float32(0.4)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            [{"box": [0, 0, 1, 1], "keypoints": [1, 2, 2] * 17}],
            "2-D keypoints only, which do not say how joints turn",
        ),
        ({"people": [{"pose_keypoints_2d": [0.1] * 75}], "version": 1.3}, "2-D keypoints only"),
        (
            {"images": [], "annotations": [{"keypoints": [1, 2, 2] * 17, "bbox": [1, 2, 3, 4]}]},
            "2-D keypoints only",
        ),
        ([{"box": [0, 0, 1, 1]}], 'has no "pose"'),
        ([{"pose": [0] * 69}], r"has no \"box\"; \[0, 0, 1, 1\] is the whole square"),
        ([ONE | {"pose": 2 * MATRICES[1:]}], r"pose: matrix \d+ is no rotation: "),
        ([ONE | {"rotation": -MATRICES[0]}], r"rotation: the matrix is no rotation \(it mirrors\)"),
        ([ONE | {"rotation": np.zeros((3, 3))}], "no rotation"),
        ([ONE | {"pose": [np.nan] * 69}], "pose: 69 of 69 numbers are NaN"),
        ([ONE | {"pose": [0] * 70}], r"pose has the shape \(70,\)"),
        ([ONE | {"pose": "x"}], "pose: expected numbers"),
        ([ONE | {"camera": [1, 2]}], r"camera has the shape \(2,\); expected 3 numbers"),
        ([ONE | {"shape": [1] * 9}], "expected 10 numbers"),
        ([ONE | {"camera": [1, 1e300, 2]}], "camera holds numbers that are NaN or infinite"),
        (estimated(pred_cam={"box": 1}), "columns are of different lengths"),
        (estimated(img_size=[]), "img_size must be the width and height"),
        ({"people": [ONE], "width": [], "height": 3}, "width must be a number"),
        ([ONE | {"box": [0, 0, 1.2, 1]}], r"box \[0, 0, 1.2, 1\] is no rectangle within 0..1"),
        ([ONE | {"box": [0.5, 0, 0.2, 1]}], "no rectangle"),
        (estimated(bbox_xyxy=[[100, 0, 300, 600]] * 3), r"outside|within the picture of 640 x 480 pixels"),
        (estimated(img_size=[[640, 480], [1, 2], [3, 4]]), "one picture"),
        (
            {key: value for key, value in estimated().items() if key != "img_size"},
            'is in pixels; add the "width"',
        ),
        (estimated(pred_cam=[[1, 0, 0]]), "columns are of different lengths .*pred_cam 1"),
        ({"people": [ONE | {"box": [0, 0, 0.01, 1]}], "width": 640, "height": 480}, "none of its 1 people"),
        ([], "holds no people"),
        (np.zeros(0, PERSON), "holds no people"),
        (np.full(1, np.nan, PERSON), "box holds numbers that are NaN"),
        ({}, "got nothing"),
        ([1], "entry 0"),
        (3, "expected a list"),
        (npz(x=np.zeros(3)), "known are box"),
        ("{", "not valid JSON"),
    ],
)
def test_other_people_are_refused_by_what_is_wrong(value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^p.json: .*{reason}"):
        read_people(value)


KEYS = (
    *ONE,
    *("people", "width", "height", "img_size", "bbox_xyxy", "pred_smpl_params", "instances", "polygon"),
    *(
        "segmentation",
        "size",
        "counts",
        "point",
        "mask",
        "annotations",
        "images",
        "image",
        "map",
        "categories",
    ),
    *("id", "name", "bbox", "category_id", "image_id", "iscrowd", "point_coords", "label"),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(ANY_JSON)
def test_whatever_is_given_is_read_or_refused(value: Any) -> None:
    for read in (read_people, read_shapes, parse_boxes):
        with contextlib.suppress(InputError):
            assert len(read(value))


@given(st.sampled_from([coco(), estimated(), [ONE], [{"segmentation": RUNS}]]), st.data())
def test_a_changed_part_is_read_or_refused(value: Any, data: st.DataObject) -> None:
    value = part = json.loads(json.dumps(value))
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
            break
        part = part[key]
    part[key] = data.draw(ANY_JSON)
    for read in (read_people, read_shapes, parse_boxes):
        with contextlib.suppress(InputError):
            assert len(read(value))
