"""Grids and pictures of items."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.errors import InputError, LimitError
from anyseek.model import Lettering
from anyseek.search import RGB, Caption, Hit, Palette, SearchEngine, draw_grid, pictures
from anyseek.search.pictures import shown_asset, thumbnail
from anyseek.storage import Asset
from PIL import Image

TILE = 100


def bytes_of(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def test_a_grid_has_a_row_for_each_query_and_a_column_for_each_hit(
    engine: SearchEngine, library: Any
) -> None:
    queries = [Caption("red ball") - 0.5 * Palette("#ff0000"), Caption("dog")]
    rows = [(query, engine.search("photos", query, limit=5)) for query in queries]
    sheet = draw_grid(rows, library.store.assets, tile=TILE, columns=4)
    alone = draw_grid(rows[:1], library.store.assets, tile=TILE, columns=4)
    wide = draw_grid(rows, library.store.assets, tile=TILE, columns=9)
    assert sheet.mode == "RGB"
    assert sheet.height > 1.8 * alone.height
    assert wide.width - sheet.width >= TILE
    assert np.asarray(alone).tobytes() == np.asarray(sheet)[: alone.height].tobytes()


def test_a_hits_picture_is_in_its_place(tmp_path: Path, library: Any) -> None:
    Image.new("RGB", (50, 50), (250, 0, 250)).save(tmp_path / "x.png")
    hit = Hit("x", 0.5, assets=[Asset("caption", value="words"), Asset("rgb", path=str(tmp_path / "x.png"))])
    pixels = np.asarray(draw_grid([(Caption("a"), [hit])], library.store.assets, tile=TILE))
    assert (pixels[:, 2 * TILE :] == (250, 0, 250)).all(-1).sum() == TILE * TILE
    asked = draw_grid([(RGB(tmp_path / "x.png"), [])], library.store.assets, tile=TILE)
    assert (np.asarray(asked)[:, : 2 * TILE] == (250, 0, 250)).all(-1).sum() > 50 * 50


@pytest.mark.parametrize(
    "assets",
    [
        [],
        [Asset("caption", value="a long caption " * 50)],
        [Asset("caption", value="unbreakable" * 100)],
        [
            Asset("metadata", value={"brightness": 3}),
            Asset("det", value=[{"box": [0, 0, 1, 1], "label": "dog"}]),
        ],
        [Asset("rgb", path="/nowhere/at/all.png")],
        [Asset("rgb", sha256="0" * 64)],
        [Asset("caption", path="/nowhere/words.txt")],
    ],
)
def test_items_without_a_picture_still_have_a_place(library: Any, assets: list[Asset]) -> None:
    hit = Hit("some/long/id/that/does/not/fit/" + "x" * 100, 0.5, assets=assets)
    pixels = np.asarray(draw_grid([(Caption("a\nb"), [hit])], library.store.assets, tile=TILE))
    place = pixels[12 : 12 + TILE, 12 + 2 * TILE : 12 + 3 * TILE]
    assert ((place < 100).all(-1).sum() > 0) == bool(place.size)  # words in dark ink


def test_a_file_that_is_no_picture_is_not_called_gone(
    tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.eye(4))
    written: list[str] = []
    monkeypatch.setattr(Lettering, "wrap", lambda _self, words, *_: written.append(words) or [])
    for path in ("x.npy", "none.npy"):
        hit = Hit("x", 0.5, assets=[Asset("depth", path=str(tmp_path / path))])
        draw_grid([(Caption("a"), [hit])], library.store.assets, tile=TILE)
    assert written[1::2] == ["no picture of this depth", "the file is gone"]


def test_a_grid_of_nothing_is_a_picture(library: Any) -> None:
    assert draw_grid([], library.store.assets).width > 100
    assert draw_grid([(Caption("a"), [])], library.store.assets).height > 100


def test_the_photo_is_shown_before_other_pictures() -> None:
    assets = [Asset("depth", sha256="0"), Asset("caption", value="x"), Asset("rgb", path="x")]
    assert shown_asset(assets) == assets[2]
    assert shown_asset(assets[:2]) == assets[0]
    assert shown_asset(assets[1:2]) is None


def test_values_in_pictures_become_visible(tmp_path: Path) -> None:
    depth = (np.linspace(1000, 1100, 64 * 64).reshape(64, 64)).astype(np.uint16)
    Image.fromarray(depth).save(tmp_path / "depth.png")
    shown = np.asarray(thumbnail(tmp_path / "depth.png", "depth", 64))
    assert shown.min() < 10
    assert shown.max() > 245
    labels = np.repeat(np.arange(8, dtype=np.uint8), 8)[None].repeat(64, 0)
    shown = np.asarray(thumbnail(bytes_of(Image.fromarray(labels)), "semseg", 64))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 8
    painted = Image.fromarray(labels)
    painted.putpalette([value for i in range(8) for value in (200, 10 * i, 0)])
    assert set(np.asarray(thumbnail(bytes_of(painted), "semseg", 64))[..., 0].flat) == {200}
    assert set(np.asarray(thumbnail(bytes_of(painted.convert("RGB")), "semseg", 64))[..., 0].flat) == {200}


@pytest.mark.parametrize("modality", ["rgb", "depth", "semseg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_any_mode_of_picture_is_shown_in_rgb(modality: str, mode: str) -> None:
    image = Image.new(mode, (40, 20))
    content = bytes_of(image, "TIFF" if mode == "CMYK" else "PNG")
    shown = thumbnail(content, modality, 16)
    assert (shown.mode, shown.size) == ("RGB", (16, 8))


@pytest.mark.parametrize("modality", ["rgb", "depth"])
@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\nxx"]
)
def test_broken_pictures_are_input_errors(modality: str, content: bytes) -> None:
    with pytest.raises(InputError):
        thumbnail(content, modality, 64)


def test_pictures_too_large_to_show_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (10_000, 9_000)).save(path)
    with pytest.raises(LimitError):
        thumbnail(path, "depth", 64)
    monkeypatch.setattr(pictures, "LIMITS", pictures.ImageLimits(max_bytes=100))
    with pytest.raises(LimitError, match="bytes"):
        thumbnail(path, "rgb", 64)
