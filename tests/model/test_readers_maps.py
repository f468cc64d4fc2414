"""Depth, normals, labels and edges from files and arrays: the right numbers, or a reason."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, LimitError
from anyseek.model.classes import COCO_CLASSES, class_colors
from anyseek.model.files import encode_value
from anyseek.model.images import ImageLimits
from anyseek.model.inputs import InputLimits, InputReader
from anyseek.model.modalities import get_modality
from anyseek.model.readers.pictures import CLASSES_KEY
from anyseek.model.readers.same_view import check_same_view
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

SIZE = 64
MAPS = ("depth", "normal", "semseg", "canny_edge", "sam_edge")
ROWS = {raw: get_modality(f"tok_{raw}@{SIZE}", patch_size=8) for raw in MAPS}
READER = InputReader(ROWS, None)
RANDOM = np.random.default_rng(5)
RAMP = np.linspace(100, 60_000, 90 * 120).reshape(90, 120)  # far at the bottom
LEGEND = {"#00aaff": "sky", "#ff0000": "Dog", "#00ff00": "grass"}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels), kind, **options)


def array_file(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def palette_png(ids: np.ndarray) -> bytes:
    image = Image.fromarray(ids)
    image.putpalette(RANDOM.integers(0, 256, 768, np.uint8).tobytes())
    return encoded(image)


def painting(scale: int = 1, mode: str = "RGB") -> Image.Image:
    """Sky, grass and a dog in a 4:3 picture, drawn with soft edges."""
    image = Image.new(mode, (480, 360), (0, 0, 0, 0) if mode == "RGBA" else "#00aaff")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 240, 480, 360), fill="#00ff00")
    draw.ellipse((180, 120, 300, 300), fill="#ff0000")
    return image.resize((120 * scale, 90 * scale), Image.Resampling.LANCZOS)


def with_legend(image: Image.Image, legend: object) -> bytes:
    info = PngInfo()
    info.add_text(CLASSES_KEY, json.dumps(legend))
    return encoded(image, pnginfo=info)


def names(labels: np.ndarray) -> set[str]:
    return {COCO_CLASSES[label - 1] if label else "nothing" for label in np.unique(labels)}


# --- depth

DEPTHS: dict[str, Any] = {
    "16-bit PNG": picture(RAMP.astype(np.uint16)),
    "16-bit TIFF": picture(RAMP.astype(np.uint16), "TIFF"),
    "32-bit TIFF": picture(RAMP.astype(np.int32), "TIFF"),
    "float TIFF": picture(RAMP.astype(np.float32), "TIFF"),
    "npy": array_file(RAMP),
    "npy in Fortran's order": array_file(np.asfortranarray(RAMP)),
    "npy of big-endian numbers": array_file(RAMP.astype(">f4")),
    "npy of integers": array_file(RAMP.astype(np.int64)),
    "npz": archive(depth=RAMP),
    "array": RAMP,
    "array with an axis for its channel": RAMP[..., None].astype(np.float32),
    "another unit and offset": RAMP / 1000 - 7,
    "tiny unit": RAMP * 1e-300,
    "huge unit": RAMP * 1e290,
}


@pytest.mark.parametrize("content", DEPTHS.values(), ids=DEPTHS)
def test_depth_is_the_same_in_every_format_and_unit(content: Any) -> None:
    found, expected = READER.read("depth", content), READER.read("depth", RAMP.astype(np.uint16))
    assert (found.dtype, found.shape) == (np.float32, (SIZE, SIZE))
    assert np.abs(found - expected).max() < 1e-3
    ordered = np.sort(found, None)[int(0.1 * found.size) : int(0.9 * found.size)]
    assert abs(ordered.mean()) < 1e-5
    assert abs(ordered.std() - 1) < 1e-3
    assert (np.diff(found.mean(1)) > 0).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_grey_depth_may_be_stored_in_colours(mode: str) -> None:
    grey = Image.fromarray((RAMP / 256).astype(np.uint8))
    assert (READER.read("depth", encoded(grey.convert(mode))) == READER.read("depth", encoded(grey))).all()


def test_depth_is_smoothed_not_sampled() -> None:
    noise = RANDOM.random((20 * SIZE, 20 * SIZE))
    noise[:, : 10 * SIZE] += 10
    depth = READER.read("depth", noise)
    assert depth[:, : SIZE // 2 - 1].std() < 0.05


def test_values_at_the_models_size_are_not_resized() -> None:
    values = RANDOM.normal(size=(SIZE, SIZE)).astype(np.float32)
    depth = READER.read("depth", values)
    assert np.abs(np.corrcoef(depth.ravel(), values.ravel())[0, 1] - 1) < 1e-6
    assert np.abs(READER.read("depth", depth) - depth).max() < 1e-5


BROKEN = np.where(RAMP > 59_000, np.nan, RAMP)
WRONG_DEPTHS: dict[str, tuple[Any, str]] = {
    "NaN": (BROKEN, rf"{np.isnan(BROKEN).sum():,} of 10,800 numbers are NaN or infinite"),
    "infinite TIFF": (picture(np.full((9, 9), np.inf, np.float32), "TIFF"), "81 of 81 numbers are NaN"),
    "one depth": (np.full((9, 9), 3.5), "at 3.5; a depth map needs near and far"),
    "black picture": (encoded(Image.new("L", (9, 9))), "needs near and far"),
    "photo": (picture(RANDOM.integers(0, 256, (9, 9, 3), np.uint8)), r"in colours \(81 pixels.*one channel"),
    "transparent": (encoded(Image.new("LA", (9, 9), (7, 100))), "81 pixels are transparent"),
    "10 channels": (np.zeros((9, 9, 10)), r"shape \(9, 9, 10\); a depth map has one channel"),
    "3 channels": (array_file(np.zeros((9, 9, 3))), r"shape \(9, 9, 3\)"),
    "vector": (np.arange(9.0), r"one channel, \(H, W\)"),
    "no pixels": (np.zeros((0, 9)), "no values"),
    "complex": (np.zeros((9, 9), complex), "complex128"),
    "objects": (array_file(np.array([[object()]])), "object"),
    "too far apart": (np.where(RAMP > 3e4, 1e308, -1e308), "too far apart"),
    "two arrays": (archive(a=RAMP, b=RAMP), "holds the arrays a, b"),
    "text": (b"hello, I am a text", "neither a picture .*PNG.* nor an array"),
    "nothing": (b"", "empty"),
    "name": ("depth.png", r"pathlib\.Path, bytes or an array, got str"),
    "cut short": (picture(RAMP.astype(np.uint16))[:300], "damaged"),
    "npy cut short": (array_file(RAMP)[:300], "ends too soon"),
}


@pytest.mark.parametrize(("content", "reason"), WRONG_DEPTHS.values(), ids=WRONG_DEPTHS)
def test_wrong_depth_is_refused_with_the_reason(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"^depth: .*{reason}"):
        READER.read("depth", content)


def test_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "room.depth.npy"
    path.write_bytes(array_file(np.zeros((4, 4))))
    for raw in ("depth", "normal", "canny_edge"):
        with pytest.raises(InputError, match=r"room\.depth\.npy: "):
            READER.read(raw, path)


@pytest.mark.parametrize("raw", MAPS)
def test_sizes_are_checked_before_anything_is_decoded(raw: str) -> None:
    small = InputReader(ROWS, None, InputLimits(image=ImageLimits(max_bytes=50_000, max_pixels=5_000)))
    for content in (
        picture(RAMP.astype(np.uint8)),
        array_file(np.zeros((300, 300), np.uint8)),
        archive(depth=np.zeros((5000, 5000), np.uint8)),
        np.zeros((300, 300), np.uint8),
    ):
        with pytest.raises(LimitError):
            small.read(raw, content)


# --- normals


def test_normals_come_from_pictures_and_vectors_alike() -> None:
    coded = RANDOM.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    vectors = coded / 127.5 - 1
    for content in (coded, vectors, vectors.astype(np.float16), picture(coded), array_file(vectors)):
        found = READER.read("normal", content)
        assert (found.dtype, found.shape) == (np.uint8, (SIZE, SIZE, 3))
        assert (found == coded).all()


def test_no_surface_is_no_direction() -> None:
    nothing = Image.new("RGBA", (9, 9), (10, 200, 30, 0))
    assert (READER.read("normal", encoded(nothing)) == 128).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (picture(RAMP.astype(np.uint8)), "one channel; normals have three"),
        (picture(RAMP.astype(np.uint16)), "one channel; normals have three"),
        (np.zeros((3, 9, 9), np.float32), r"\(3, 9, 9\); normals .* \(H, W, 3\)"),
        (np.zeros((9, 9, 10)), r"\(9, 9, 10\)"),
        (np.zeros((9, 9, 3), np.uint16), "uint16"),
        (np.full((9, 9, 3), 1.5), r"1\.5\.\.1\.5; components of normals lie in -1\.\.1"),
        (np.full((9, 9, 3), np.nan), "243 of 243 numbers are NaN"),
    ],
)
def test_wrong_normals_are_refused(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"^normal: .*{reason}"):
        READER.read("normal", content)


# --- labels

IDS = np.zeros((90, 120), np.uint8)
IDS[:45], IDS[70:], IDS[45:70, 50:70] = 119, 255, 16


@pytest.mark.parametrize(
    "content",
    [
        picture(IDS),
        picture(IDS.astype(np.uint16)),
        picture(IDS, "TIFF"),
        palette_png(IDS),
        encoded(Image.fromarray(IDS).convert("RGB")),
        IDS,
        IDS.astype(np.int64),
        IDS[..., None],
        array_file(IDS),
    ],
)
def test_ids_become_labels_and_none_becomes_nothing(content: Any) -> None:
    labels = READER.read("semseg", content)
    assert (labels.dtype, labels.shape) == (np.uint8, (SIZE, SIZE))
    assert names(labels) == {"nothing", "person", "dog", "sky-other-merged"}
    assert set(labels[:30].ravel()) == {120}
    assert set(labels[-12:].ravel()) == {0}


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("options", [{}, {"kind": "JPEG", "quality": 80}, {"kind": "WEBP"}])
def test_a_painted_map_gives_its_named_classes(scale: int, options: dict[str, Any]) -> None:
    content = {"map": encoded(painting(scale), **options), "classes": LEGEND}
    labels = READER.read("semseg", content)
    assert names(labels) == {"dog", "sky-other-merged", "grass-merged"}
    assert COCO_CLASSES[labels[SIZE // 2, SIZE // 2] - 1] == "dog"
    assert COCO_CLASSES[labels[2, 2] - 1] == "sky-other-merged"
    assert 0.1 < (labels == COCO_CLASSES.index("dog") + 1).mean() < 0.3


def test_unpainted_parts_are_nothing() -> None:
    labels = READER.read("semseg", {"map": encoded(painting(2, "RGBA")), "classes": LEGEND})
    assert names(labels) == {"nothing", "dog", "grass-merged"}


def test_the_legend_may_stand_in_the_file_or_beside_it(tmp_path: Path) -> None:
    expected = READER.read("semseg", {"map": encoded(painting()), "classes": LEGEND})
    assert (READER.read("semseg", with_legend(painting(), LEGEND)) == expected).all()
    path = tmp_path / "park.semseg.png"
    path.write_bytes(encoded(painting()))
    wrong = json.dumps(dict.fromkeys(LEGEND, "person"))
    for better, worse in (
        ("classes.json", None),
        ("park.classes.json", "classes.json"),
        ("park.semseg.classes.json", "park.classes.json"),
    ):
        (tmp_path / better).write_text(json.dumps(LEGEND))
        if worse:
            (tmp_path / worse).write_text(wrong)
        assert (READER.read("semseg", path) == expected).all()
    (tmp_path / "park.semseg.classes.json").write_text("[1]")
    with pytest.raises(InputError, match=r"park\.semseg\.classes\.json: expected"):
        READER.read("semseg", path)


def test_ids_may_be_named_too() -> None:
    ids = np.full((SIZE, SIZE), 7, np.uint8)
    ids[:, 9:], ids[:, 30:] = 200, 255
    labels = READER.read("semseg", {"map": palette_png(ids), "classes": {"7": "dog", "200": None}})
    assert names(labels[:, :9]) == {"dog"}
    assert names(labels[:, 9:]) == {"nothing"}


def test_labels_are_never_mixed() -> None:
    ids = RANDOM.choice(np.array([3, 90, 132], np.uint8), (311, 257))
    assert set(np.unique(READER.read("semseg", ids))) == {4, 91, 133}


def test_a_model_with_other_classes_knows_only_those() -> None:
    reader = InputReader(ROWS, None, classes=("sky", "ground"))
    assert set(reader.read("semseg", np.eye(9, dtype=np.uint8)).ravel()) == {1, 2}
    with pytest.raises(InputError, match=r"1 pixels have id 2; the model's classes are 0\.\.1, 255 is none"):
        reader.read("semseg", np.array([[0, 1], [2, 255]]))
    with pytest.raises(InputError, match="unknown class 'dog'; known are sky, ground"):
        reader.read("semseg", {"map": IDS, "classes": {"0": "dog"}})


def changed(**entries: Any) -> dict[str, Any]:
    legend = {**LEGEND, **{key.replace("_", "#"): value for key, value in entries.items()}}
    return {"map": encoded(painting()), "classes": legend}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(painting()), "in colours .* without classes that name its colours"),
        (changed(_ff0000="dogg"), "unknown class 'dogg'; close are dog, .*docs/formats"),
        (changed(_ff0000="quux"), "unknown class 'quux'; docs/formats"),
        (changed(_ff0000=5), "expected .*#rrggbb.*, got '#ff0000': '5'"),
        (changed(red="dog"), "got 'red': 'dog'"),
        (changed(_12="dog"), "got '#12'"),
        (changed(**{"3": "dog"}), "colours and ids are mixed"),
        ({"map": IDS, "classes": {"999": "dog"}}, "id 999 is beyond"),
        ({"map": IDS, "classes": {"9" * 5000: "dog"}}, "expected"),
        ({"map": IDS, "classes": [1]}, "expected"),
        ({"map": IDS, "classes": "{"}, "JSON"),
        ({"map": IDS, "classes": LEGEND}, r"names? colou?rs, which takes uint8"),
        ({"map": IDS, "classes": {str(i): "dog" for i in range(2000)}}, "2,000 entries"),
        ({"map": IDS, "classes": {"0": "dog", "119": "cat"}}, r"500 pixels have id 16.* 0, 119"),
        ({"map": {"map": IDS, "classes": {}}, "classes": {}}, "got dict"),
        ({"classes": LEGEND}, "expected"),
        ({"map": IDS}, "expected"),
        (IDS + np.uint8(14), r"5,400 pixels have id 133; .* 0\.\.132"),
        (IDS.astype(np.int16) - 1, r"int16 in -1\.\.254; ids are whole numbers in 0\.\.255"),
        (IDS / 2, "float64"),
        (picture(IDS, "JPEG"), "JPEG changes ids"),
        (np.zeros((9, 9, 10), np.uint8), r"\(9, 9, 10\)"),
        ([[1, 2], [3, 4]], "got list"),
    ],
)
def test_wrong_labels_are_refused_with_the_reason(content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"^semseg: .*{reason}"):
        READER.read("semseg", content)


def test_a_colour_without_a_name_is_told_with_its_pixels() -> None:
    pixels = np.array(painting())
    pixels[5:15, 20:30] = (255, 0, 255)
    with pytest.raises(InputError, match="pixels are #ff00ff, which its classes do not name"):
        READER.read("semseg", {"map": pixels, "classes": LEGEND})
    flat = np.full((20, 20, 3), (1, 2, 3), np.uint8)
    with pytest.raises(InputError, match="400 of 400 pixels are #010203"):
        READER.read("semseg", {"map": flat, "classes": LEGEND})


def test_any_legend_of_class_colours_is_told_apart() -> None:
    colors = class_colors(len(COCO_CLASSES))
    legend = {f"#{r:02x}{g:02x}{b:02x}": name for (r, g, b), name in zip(colors, COCO_CLASSES, strict=True)}
    noisy = np.clip(colors[None].astype(int) + RANDOM.integers(-7, 8, colors.shape), 0, 255).astype(np.uint8)
    painted = np.repeat(noisy, len(colors), 0)
    whole = InputReader({"semseg": get_modality("tok_semseg@133", patch_size=7)}, None)
    assert (whole.read("semseg", {"map": painted, "classes": legend}) == np.arange(1, 134)).all()


# --- edges


def drawing(width: int, ink: int = 0) -> Image.Image:
    image = Image.new("L", (800, 600), 255 - ink)
    draw = ImageDraw.Draw(image)
    draw.line((400, 0, 400, 600), fill=ink, width=width)
    draw.line((100, 300, 700, 300), fill=ink, width=width)
    return image


@pytest.mark.parametrize("width", [1, 3, 12])
@pytest.mark.parametrize("raw", ["canny_edge", "sam_edge"])
def test_drawn_lines_become_edges_whatever_the_pen(width: int, raw: str) -> None:
    edges = READER.read(raw, encoded(drawing(width)))
    assert (edges.dtype, edges.shape) == (np.uint8, (SIZE, SIZE))
    assert (edges[:20].max(1) > 120).all()
    assert 0.01 < (edges > 127).mean() < 0.1
    for same in (
        encoded(drawing(width, 255)),
        encoded(drawing(width).convert("RGB")),
        encoded(drawing(width).convert("1")),
        np.asarray(drawing(width).convert("RGB")),
    ):
        assert (READER.read(raw, same) == edges).all()


def test_a_photo_stands_for_its_edges_but_not_for_those_of_sam() -> None:
    photo = painting(4)
    edges = READER.read("canny_edge", encoded(photo, "JPEG", quality=95))
    assert set(np.unique(edges)) == {0, 255}
    assert 0.01 < (edges > 0).mean() < 0.4
    assert (READER.read("canny_edge", encoded(photo.convert("L"))) > 0).any()
    for same in (photo, photo.convert("L")):
        with pytest.raises(InputError, match=r"^sam_edge: .*Segment Anything.*canny_edge"):
            READER.read("sam_edge", encoded(same))


def test_an_array_of_one_channel_is_a_map_as_it_is() -> None:
    values = RANDOM.integers(0, 256, (SIZE, SIZE), np.uint8)
    for content in (values, values[..., None], array_file(values)):
        assert (READER.read("canny_edge", content) == values).all()
    mask = values > 200
    assert (READER.read("sam_edge", mask) == mask * 255).all()


@pytest.mark.parametrize(
    "content",
    [np.zeros((9, 9)), np.zeros((9, 9), np.int64), np.zeros((9, 9, 10), np.uint8), np.full((9, 9), np.nan)],
)
def test_wrong_edges_are_refused(content: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"^canny_edge: .*uint8"):
        READER.read("canny_edge", content)


# --- what is written is read back

VALUES = {
    "normal": RANDOM.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
    "semseg": RANDOM.integers(0, 134, (SIZE, SIZE)).astype(np.uint8),
    "canny_edge": RANDOM.integers(0, 256, (SIZE, SIZE), np.uint8),
    "sam_edge": RANDOM.integers(100, 256, (SIZE, SIZE), np.uint8),
}


@pytest.mark.parametrize("raw", VALUES)
@pytest.mark.parametrize("classes", [(), COCO_CLASSES])
def test_written_values_are_read_back(raw: str, classes: tuple[str, ...]) -> None:
    _, content = encode_value(raw, VALUES[raw], classes=classes)
    assert (READER.read(raw, content) == VALUES[raw]).all()


def test_written_depth_is_read_back() -> None:
    depth = READER.read("depth", RANDOM.random((SIZE, SIZE)))
    _, content = encode_value("depth", depth)
    assert np.abs(READER.read("depth", content) - depth).max() < 1e-3


# --- the view of a photo


@pytest.mark.parametrize("given", ["array", "file", "bytes", "npy", "legend"])
def test_a_map_lies_over_its_photo_or_is_the_square_of_it(given: str, tmp_path: Path) -> None:
    photo = np.zeros((60, 80, 3), np.uint8)

    def content(height: int, width: int) -> Any:
        labels, path = np.zeros((height, width), np.uint8), tmp_path / "map.png"
        Image.fromarray(labels).save(path)
        np.save(tmp_path / "map.npy", labels)
        return {
            "array": labels,
            "file": path,
            "bytes": path.read_bytes(),
            "npy": tmp_path / "map.npy",
            "legend": {"map": path.read_bytes(), "classes": {"0": "sky"}},
        }[given]

    for height, width in ((60, 80), (30, 40), (30, 41), (64, 64)):
        check_same_view("semseg", content(height, width), photo)
    check_same_view("clip", content(80, 60), photo)
    with pytest.raises(InputError, match="60 x 80 pixels, but the photo has 80 x 60"):
        check_same_view("semseg", content(80, 60), photo)
