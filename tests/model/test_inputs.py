"""Values and files from outside: read properly or refused with a reason, never anything else."""

import contextlib
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, LimitError, ModelError
from anyseek.model.images import ImageLimits, array_image, crop_resize, decode_image
from anyseek.model.inputs import InputLimits, InputReader, normalize_pixels
from anyseek.model.modalities import get_modality
from anyseek.model.readers.texts import parse_boxes
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from PIL import Image, ImageOps

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
NAMES = ("rgb@32", "caption", "det", "metadata", "color_palette")
ROWS = {row.raw: row for row in (get_modality(name, patch_size=8) for name in NAMES)}
TOKENIZER = TextTokenizer(build_vocabulary(["a red cube and a small dog"], ["dog", "hot dog"]))
READER = InputReader(ROWS, TOKENIZER, InputLimits(max_text_bytes=10_000))


def spelt(modality: str, content: Any) -> str:
    return " ".join(TOKENIZER.tokens(READER.read(modality, content)))


def picture(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"0" * 100)) + chunk(b"IEND", b"")


def test_preparation_matches_the_published_one() -> None:
    golden = np.load(GOLDEN / "preproc.npz")
    prepared = crop_resize(Image.fromarray(golden["rgb/crop_in_u8"]), 224)
    assert (prepared == golden["rgb/crop_resize_u8"]).all()
    normalized = normalize_pixels(golden["rgb/u8"][None])[0]
    assert np.abs(normalized - golden["rgb/imagenet"]).max() < 1e-5


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_pictures_come_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(), kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert (np.asarray(decode_image(content)) == np.asarray(expected)).all()


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"nonsense"])
def test_damaged_exif_does_not_matter(exif: bytes) -> None:
    assert decode_image(encoded(picture(), "PNG", exif=exif)).size == (40, 30)


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((5, 6), value, np.uint16))


def translucent(mode: str, color: Any, alpha: int) -> Image.Image:
    image = Image.new(mode, (4, 4), color)
    image.putalpha(Image.new("L", (4, 4), alpha))
    return image


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (encoded(grey16(0xABCD), "PNG"), (0xAB,) * 3),
        (encoded(grey16(0xABCD), "TIFF"), (0xAB,) * 3),
        (encoded(Image.new("L", (4, 4), 9), "JPEG"), (9,) * 3),
        (encoded(Image.new("1", (4, 4), 1), "PNG"), (255,) * 3),
        (encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encoded(translucent("L", 10, 0), "PNG"), (255,) * 3),
        (encoded(translucent("L", 10, 255), "PNG"), (10,) * 3),
        (encoded(translucent("RGB", (255, 0, 0), 51), "PNG"), (255, 204, 204)),
        (encoded(translucent("RGB", (255, 0, 0), 51), "WEBP", lossless=True), (255, 204, 204)),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255,) * 3),
        (encoded(Image.new("L", (4, 4), 7), "PNG", transparency=7), (255,) * 3),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)).quantize(2), "PNG", transparency=bytes(2)), (255,) * 3),
        (encoded(Image.new("RGB", (4, 4), (8, 16, 24)).quantize(2), "GIF"), (8, 16, 24)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(content: bytes, color: tuple[int, int, int]) -> None:
    image = decode_image(content)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - color).max() <= 1


def test_cmyk_photo_is_read() -> None:
    red = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(np.asarray(red).astype(int) - (255, 0, 0)).max() < 20


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (5, 5), (80 * i, 0, 0)) for i in (1, 2, 3)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(decode_image(content)).astype(int) - (80, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused_with_their_name(kind: str) -> None:
    content = encoded(picture(), kind)
    for length in (1, 8, 20, len(content) // 2):
        with pytest.raises(InputError, match=r"^holiday: "):
            decode_image(content[:length], name="holiday")


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bytes_are_read_or_refused(kind: str) -> None:
    original = encoded(picture(), kind)
    random = np.random.default_rng(7)
    for _ in range(60):
        damaged = bytearray(original)
        for at in random.integers(0, len(original), 4):
            damaged[at] = random.integers(256)
        with contextlib.suppress(InputError):
            assert decode_image(bytes(damaged)).mode == "RGB"


@pytest.mark.parametrize("content", [b"hello, I am a text named .jpg", b"%PDF-1.7", b"\0" * 100, b"<svg/>"])
def test_other_files_are_refused_and_formats_listed(content: bytes) -> None:
    with pytest.raises(InputError, match=r"JPEG, PNG, WebP, TIFF, BMP and GIF"):
        decode_image(content)


def test_zero_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        decode_image(b"")


def bomb_gif() -> bytes:
    """A GIF whose header says 4 x 4 and whose first frame 65535 x 65535."""
    content = bytearray(encoded(Image.new("P", (4, 4)), "GIF"))
    start = content.index(b"\x2c\0\0\0\0")
    content[start + 5 : start + 9] = b"\xff" * 4
    return bytes(content)


@pytest.mark.parametrize("content", [png_header(60_000, 60_000), png_header(10_000, 9_000), bomb_gif()])
def test_bombs_are_refused_before_decoding(content: bytes) -> None:
    with pytest.raises(LimitError, match="pixels, the limit is 80,000,000"):
        decode_image(content)


def test_pixels_up_to_the_limit_are_decoded() -> None:
    content = encoded(picture(40, 30), "PNG")
    assert decode_image(content, limits=ImageLimits(max_pixels=1200)).size == (40, 30)
    with pytest.raises(LimitError):
        decode_image(content, limits=ImageLimits(max_pixels=1199))
    with pytest.raises(LimitError, match="bytes"):
        decode_image(content, limits=ImageLimits(max_bytes=len(content) - 1))


def test_floating_point_pixels_are_refused() -> None:
    for image in (
        Image.fromarray(np.ones((4, 4), np.float32)),
        Image.fromarray(np.full((4, 4), 2**20, np.int32)),
    ):
        with pytest.raises(InputError, match="16 bits"):
            decode_image(encoded(image, "TIFF"))


def test_reduced_decoding_hardly_changes_the_prepared_picture() -> None:
    smooth = picture(20, 16).resize((1280, 1024), Image.Resampling.BICUBIC)
    content = encoded(smooth, "JPEG", quality=92)
    whole = crop_resize(decode_image(content), 64).astype(int)
    reduced = decode_image(content, min_side=3 * 64)
    assert reduced.size == (320, 256)
    difference = np.abs(crop_resize(reduced, 64) - whole)
    assert difference.mean() < 0.5
    assert difference.max() <= 4


@pytest.mark.parametrize(("size", "expected"), [((1200, 900), (600, 450)), ((1201, 900), (1201, 900))])
def test_reduced_decoding_keeps_the_central_square_on_whole_pixels(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert decode_image(encoded(picture(*size), "JPEG"), min_side=50).size == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (33, 32)])
def test_any_shape_becomes_the_models_square(size: tuple[int, int]) -> None:
    pixels = READER.read("rgb", encoded(picture(*size), "PNG"))
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)


def test_arrays_are_pictures_too() -> None:
    pixels = np.asarray(picture())
    assert (READER.read("rgb", pixels) == READER.read("rgb", encoded(picture(), "PNG"))).all()
    assert np.asarray(array_image(np.zeros((2, 2, 4), np.uint8))).min() == 255
    for wrong in (pixels.astype(np.float32), pixels[None], pixels[:, :, :2], pixels[:0]):
        with pytest.raises(InputError, match="uint8"):
            READER.read("rgb", wrong)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent.jpg", "pipe", ".", "a\0b"):
        with pytest.raises(InputError, match=r"cannot be read|not a regular file"):
            READER.read("rgb", tmp_path / name)
    (tmp_path / "long.txt").write_text("dog " * 5000)
    with pytest.raises(LimitError, match=r"long\.txt"):
        READER.read("caption", tmp_path / "long.txt")


def test_text_is_never_taken_for_a_path() -> None:
    with pytest.raises(InputError, match=r"pathlib\.Path"):
        READER.read("rgb", "/etc/passwd")


def test_unknown_modality_lists_the_known() -> None:
    with pytest.raises(ModelError, match="rgb, caption, det, metadata, color_palette"):
        READER.read("depth", b"")


def test_captions_come_as_text_bytes_or_file(tmp_path: Path) -> None:
    (tmp_path / "a.caption.txt").write_bytes("\ufeffA red dog\n".encode())
    assert spelt("caption", "A red dog") == "a red dog"
    assert spelt("caption", tmp_path / "a.caption.txt") == "a red dog"
    assert spelt("caption", b"A red dog") == "a red dog"
    for wrong in (b"\xff\xfe\x00", {"caption": "x"}, 3, None):
        with pytest.raises(InputError):
            READER.read("caption", wrong)  # pyright: ignore


@pytest.mark.parametrize(
    ("modality", "content"),
    [("caption", " \n\x00"), ("det", []), ("metadata", {}), ("color_palette", []), ("color_palette", "")],
)
def test_values_that_say_nothing_have_a_code_of_their_own(modality: str, content: Any) -> None:
    with pytest.raises(InputError) as caught:
        READER.read(modality, content)
    assert caught.value.code == "input.empty"


def test_long_values_are_cut_at_the_modalitys_limit() -> None:
    assert len(READER.read("caption", "dog " * 10_000)) == 256
    assert len(READER.read("det", [{"box": [0, 0, 1, 1], "label": "dog"}] * 500)) == 256


def test_ids_beyond_a_small_table_become_unknown() -> None:
    rows = {"caption": get_modality("caption", vocab_size=TOKENIZER.unk_id + 1)}
    ids = InputReader(rows, TOKENIZER).read("caption", "a dog")
    assert set(ids) == {TOKENIZER.unk_id}


def test_boxes_are_spelt_in_order_with_plain_labels() -> None:
    boxes = [
        {"box": [0.5, 0.5, 1, 1], "label": "dog"},
        {"boxes": [0, 0, 0.5, 0.25], "class_name": "v0=7 [EOS]", "score": 0.9},
        {"box": [0, 0, 1, 1], "label": "cat", "score": 0.59},
    ]
    text = spelt("det", boxes)
    assert text.startswith("v0=0 v1=0 v2=500 v3=250 v ##0 [UNK] 7 [UNK] e ##o ##s")
    assert text.endswith("v0=500 v1=500 v2=999 v3=999 dog")
    assert spelt("det", json.dumps(boxes)) == text
    assert spelt("det", {"instances": boxes}) == text


def test_boxes_of_a_whole_picture_move_into_its_square() -> None:
    instances = [
        {"box": [0.25, 0, 0.75, 1], "label": "dog"},
        {"box": [0, 0, 0.2, 1], "label": "gone"},
        {"box": [0.0, 0, 0.5, 0.5], "label": "half"},
    ]
    found = parse_boxes({"instances": instances, "width": 200, "height": 100})
    assert [(tuple(box[:4]), box.label) for box in found] == [
        ((0, 0, 1, 1), "dog"),
        ((0, 0, 0.5, 0.5), "half"),
    ]


@pytest.mark.parametrize(
    "boxes",
    [
        5,
        "dog",
        [5],
        [{"box": [0, 0, 1], "label": "dog"}],
        [{"box": [0, 0, 1, "1"], "label": "dog"}],
        [{"box": [0, 0, 1, True], "label": "dog"}],
        [{"box": [0, 0, 1, float("nan")], "label": "dog"}],
        [{"box": [0, 0, 10**400, 1], "label": "dog"}],
        [{"box": [0, 0, 640, 480], "label": "dog"}],
        [{"box": [0.5, 0, 0.2, 1], "label": "dog"}],
        [{"box": [0, 0, 1, 1], "label": " "}],
        [{"box": [0, 0, 1, 1], "label": "x" * 201}],
        [{"box": [0, 0, 1, 1]}],
        {"instances": [], "width": 5},
        {"instances": [], "width": 0, "height": 5},
        {},
    ],
)
def test_wrong_boxes_are_refused(boxes: Any) -> None:
    with pytest.raises(InputError, match=r"^det"):
        READER.read("det", boxes)


def test_metadata_is_spelt_in_the_tables_order_and_open_at_the_end() -> None:
    expected = "v1=10 v0=19 v1=16 v0=2 [S_1]"
    assert spelt("metadata", {"semantic_diversity": 2, "brightness": 100.0}) == expected
    assert spelt("metadata", b'{"brightness": 100, "semantic_diversity": 2}') == expected


def test_unknown_metadata_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown shininess; known are original_width, .*aesthetic_score"):
        READER.read("metadata", {"shininess": 1})


@pytest.mark.parametrize(
    "text",
    [
        '{"brightness": NaN}',
        '{"brightness": -Infinity}',
        '{"brightness": 1e999}',
        '{"brightness": "5"}',
        '{"brightness": null}',
        '{"brightness": true}',
        '{"brightness": [1]}',
        '{"brightness": ' + "9" * 5000 + "}",
        "[" * 4000 + "]" * 4000,
        "[1, 2]",
        "{",
        "",
    ],
)
def test_wrong_metadata_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^metadata"):
        READER.read("metadata", text)


def test_palettes_come_in_many_spellings(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("#0a141e\n#ffffff\n")
    expected = "v1=2 v0=10 v0=20 v0=30 v0=255 v0=255 v0=255"
    for content in (
        ["#0a141e", "#FFFFFF"],
        [[10, 20, 30], (255, 255, 255.0)],
        np.array([[10, 20, 30], [255, 255, 255]], np.uint8),
        '["#0a141e", [255, 255, 255]]',
        "#0a141e, #ffffff",
        tmp_path / "p.txt",
    ):
        assert spelt("color_palette", content) == expected


@pytest.mark.parametrize(
    "palette",
    [
        {"red": 1},
        ["red"],
        ["#12345"],
        [[1, 2]],
        [[1, 2, 256]],
        [[1, 2, -1]],
        [[1, 2, 2.5]],
        [[1, 2, True]],
        [None],
        [[1, 2, 3]] * 8,
        "#ffffff " * 1000,
        5,
    ],
)
def test_wrong_palettes_are_refused(palette: Any) -> None:
    with pytest.raises(InputError, match=r"^color_palette"):
        READER.read("color_palette", palette)
