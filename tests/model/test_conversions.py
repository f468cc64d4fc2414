"""What a photo stands for: its edges, colours and statistics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, LimitError
from anyseek.model.conversions import (
    is_drawing,
    main_colors,
    photo_edges,
    picture_metadata,
    picture_palette,
    picture_statistics,
)
from anyseek.model.images import ImageLimits
from anyseek.model.inputs import InputLimits, InputReader
from anyseek.model.modalities import get_modality
from anyseek.model.scenes import Scene, describe_scene
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from PIL import Image, ImageDraw

TOKENIZER = TextTokenizer(build_vocabulary(["a dog"], ["dog"]))
LIMITS = InputLimits(image=ImageLimits(max_bytes=400_000, max_pixels=1_000_000), max_text_bytes=1000)
MEASURED = ("metadata", "color_palette")
READER = InputReader({raw: get_modality(raw) for raw in (*MEASURED, "det", "caption")}, TOKENIZER, LIMITS)


def two_colors(width: int = 400, height: int = 300) -> Image.Image:
    image = Image.new("RGB", (width, height), (200, 40, 40))
    image.paste((20, 60, 220), (0, 0, width, height // 4))
    return image


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def test_palette_finds_flat_colors() -> None:
    image = np.zeros((96, 96, 3), dtype=np.uint8)
    image[:, :48] = (255, 0, 0)
    image[:24, 48:] = (0, 0, 255)
    assert main_colors(image, 3) == ["#ff0000", "#000000", "#0000ff"]


def test_palette_of_one_color_has_one_entry() -> None:
    assert main_colors(np.full((96, 96, 3), 7, dtype=np.uint8)) == ["#070707"]


def test_statistics_of_pictures_with_known_answers() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert picture_statistics(grey) == {
        "colorfulness": 0,
        "brightness": 100,
        "contrast": 0,
        "saturation": 0,
        "entropy": 0,
    }
    half = grey.copy()
    half[:4] = 200
    found = picture_statistics(half)
    assert (found["brightness"], found["contrast"], found["entropy"]) == (150, 50, 1)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert picture_statistics(red)["saturation"] == 255
    assert picture_statistics(red)["colorfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5), abs=1e-3)


def test_a_picture_gives_what_its_scene_says_of_it() -> None:
    record = describe_scene(Scene.sample(7))
    image = Image.fromarray(record.rendering.rgb)
    assert picture_palette(image) == record.values["color_palette"]
    measured = picture_metadata(image)
    assert measured == {name: record.values["metadata"][name] for name in measured}


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 2), (333, 500)])
def test_any_shape_is_measured(size: tuple[int, int]) -> None:
    image = two_colors(*size)
    assert (picture_metadata(image)["original_width"], picture_metadata(image)["original_height"]) == size
    assert all(np.isfinite(value) for value in picture_metadata(image).values())
    assert 1 <= len(picture_palette(image)) <= 7


@pytest.mark.parametrize("modality", MEASURED)
def test_a_picture_stands_for_what_is_measured_of_it(modality: str, tmp_path: Path) -> None:
    image = two_colors()
    measure = {"metadata": picture_metadata, "color_palette": picture_palette}[modality]
    expected = READER.read(modality, json.dumps(measure(image)))
    path = saved(image, tmp_path / "photo.png")
    for content in (path, path.read_bytes(), np.asarray(image), saved(image, tmp_path / "misnamed.bmp")):
        assert (READER.read(modality, content) == expected).all()
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    assert (READER.read(modality, turned) == expected).all()


@pytest.mark.parametrize("modality", MEASURED)
def test_pictures_and_texts_keep_their_own_limits(modality: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    READER.read(modality, saved(Image.fromarray(noise), tmp_path / "large.png"))
    with pytest.raises(LimitError, match=r"pixels, the limit is 1,000,000"):
        READER.read(modality, saved(two_colors(2000, 2000), tmp_path / "huge.png"))
    for content in (b" " * 1001, b"\x89PNG\r\n\x1a\n" + b" " * 400_000):
        with pytest.raises(LimitError, match=r"bytes"):
            READER.read(modality, content)
    with pytest.raises(InputError, match=f"^{modality}: the image is damaged"):
        READER.read(modality, b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("modality", ["caption", "det"])
def test_a_picture_is_no_text(modality: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"photo\.png: not UTF-8 text"):
        READER.read(modality, saved(two_colors(20, 20), tmp_path / "photo.png"))


def test_edges_lie_where_colours_meet() -> None:
    edges = photo_edges(np.asarray(two_colors()))
    rows = np.flatnonzero(edges.any(1))
    assert set(np.unique(edges)) == {0, 255}
    assert len(rows)
    assert (abs(rows - 75) <= 1).all()


def drawn(ground: Any, line: Any, width: int = 5) -> np.ndarray:
    image = Image.new("RGB", (300, 300), ground)
    ImageDraw.Draw(image).ellipse((40, 40, 260, 260), outline=line, width=width)
    return np.asarray(image)


def test_drawings_are_told_from_photos() -> None:
    assert is_drawing(drawn("white", "black"))
    assert is_drawing(drawn("black", "white"))
    assert is_drawing(drawn((250, 245, 235), (50, 45, 60), 20))
    assert not is_drawing(drawn((120, 120, 120), "black"))
    assert not is_drawing(drawn((120, 180, 250), "black"))
    assert not is_drawing(np.asarray(two_colors()))
    gradient = np.linspace(0, 255, 300).astype(np.uint8)
    assert not is_drawing(np.broadcast_to(gradient[:, None, None], (300, 300, 3)))
