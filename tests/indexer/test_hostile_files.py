"""Files as they come: read properly, or listed with a reason, and the job goes on."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek.indexer import FolderSource, Indexer, IndexReport
from anyseek.model.inputs import InputReader
from anyseek.model.modalities import MODALITIES
from anyseek.storage import Item, Store
from PIL import Image

Write = Callable[[Path], object]
RED = (200, 30, 30)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, RED).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def file(content: bytes | Callable[[], bytes]) -> Write:
    return lambda path: path.write_bytes(content() if callable(content) else content)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    return png(12_000, 12_000, zlib.compress(bytes(36_000_000), 9))


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)
    Image.fromarray(ramp).save(buffer, "PNG")
    return buffer.getvalue()


def palette_with_alpha() -> bytes:
    buffer = io.BytesIO()
    Image.new("P", (40, 30), 3).save(buffer, "PNG", transparency=3)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), color) for color in (RED, (0, 255, 0), (0, 0, 255))]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


READABLE: dict[str, Write] = {
    "plain.jpg": file(encoded("JPEG")),
    "png-named.jpg": file(encoded("PNG")),
    "webp-named.gif": file(encoded("WEBP")),
    "cmyk.jpg": file(encoded("JPEG", "CMYK")),
    "grey.jpg": file(encoded("JPEG", "L")),
    "progressive.jpg": file(encoded("JPEG", progressive=True)),
    "one-bit.png": file(encoded("PNG", "1")),
    "sixteen-bits.png": file(sixteen_bits),
    "palette-with-alpha.png": file(palette_with_alpha),
    "alpha.png": file(encoded("PNG", "RGBA")),
    "rotated.jpg": file(rotated),
    "animated.gif": file(lambda: animated("GIF")),
    "animated.webp": file(lambda: animated("WEBP")),
    "one-pixel.png": file(encoded("PNG", size=(1, 1))),
    "very-wide.png": file(encoded("PNG", size=(5000, 1))),
    "bitmap.bmp": file(encoded("BMP")),
    "tagged.tif": file(encoded("TIFF")),
    "trailing.jpg": file(encoded("JPEG") + b"PK\3\4 and more"),
}
BROKEN: dict[str, Write] = {
    "empty.jpg": file(b""),
    "text.jpg": file(b"this is a text, not a picture"),
    "html.png": file(b"<!doctype html><title>404</title>"),
    "truncated.jpg": file(encoded("JPEG", size=(400, 300))[:-900]),
    "truncated.png": file(encoded("PNG", size=(400, 300))[:-60]),
    "header-only.png": file(encoded("PNG")[:24]),
    "magic-only.jpg": file(b"\xff\xd8\xff"),
    "bomb-by-header.png": file(png(60_000, 60_000, b"")),
    "bomb-by-data.png": file(zip_bomb),
    "no-data.png": file(png(40, 30, b"")),
    "flipped-bit.png": file(lambda: encoded("PNG")[:50] + b"\xff" + encoded("PNG")[51:]),
    "svg.png": file(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "postscript.jpg": file(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "pickle.png": file(b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "float.tif": file(encoded("TIFF", "F")),
    "pipe.jpg": os.mkfifo,
    "link.jpg": lambda path: path.symlink_to("nowhere.jpg"),
}


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, IndexReport, dict[str, Item]]:
    """Index one folder of all of them, with the reader of real models."""
    from stand_in import StandInModel

    home = tmp_path_factory.mktemp("hostile")
    root = home / "files"
    (root / "folder.jpg").mkdir(parents=True)
    for name, write in {**READABLE, **BROKEN, "folder.jpg/inside.png": file(encoded("PNG"))}.items():
        write(root / name)
    model = StandInModel(["rgb"])
    model.embedder.read = InputReader({"rgb": MODALITIES["rgb@224"]}, None).read  # type: ignore[method-assign]
    with Store.open(home / "library.anyseek", create=True) as store:
        report = Indexer(store, model, batch_size=4, items_per_segment=8).index("c", FolderSource(root))  # type: ignore[arg-type]
        errors = list(report.errors)
        assert len(errors) == len(report.errors)
        items = store.catalog.items("c", list(store.snapshot("c").item_ids))
        files = {Path(asset.path or "").name: item for item in items for asset in item.assets}
        object.__setattr__(report, "errors", errors)  # outlives the store
    return root, report, files


def test_the_job_ends_well(everything: tuple[Path, IndexReport, dict[str, Item]]) -> None:
    _, report, _ = everything
    assert (report.state, report.done) == ("done", len(READABLE) + 1)


@pytest.mark.parametrize("name", [*READABLE, "inside.png"])
def test_it_is_read(everything: tuple[Path, IndexReport, dict[str, Item]], name: str) -> None:
    _, report, files = everything
    assert name in files, [error for error in report.errors if name in error.path]
    assert files[name].attributes["width"]


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_listed_once_with_its_reason(
    everything: tuple[Path, IndexReport, dict[str, Item]], name: str
) -> None:
    root, report, files = everything
    assert name not in files
    (error,) = [error for error in report.errors if error.path == str(root / name)]
    assert error.modality == "rgb"
    assert error.code.startswith(("input.", "source."))
    assert error.message


def test_limits_are_named(everything: tuple[Path, IndexReport, dict[str, Item]]) -> None:
    _, report, _ = everything
    codes = {Path(error.path).name: error.code for error in report.errors}
    assert codes["bomb-by-header.png"] == codes["bomb-by-data.png"] == "input.too_large"
    assert codes["pipe.jpg"] == "source.not_a_file"
    assert codes["link.jpg"] == "source.unreadable"


def test_facts_are_those_of_what_is_shown(everything: tuple[Path, IndexReport, dict[str, Item]]) -> None:
    _, _, files = everything
    rotated_ = files["rotated.jpg"].attributes
    assert (rotated_["width"], rotated_["height"]) == (30, 40)
    media_types = {name: files[name].assets[0].media_type for name in ("png-named.jpg", "webp-named.gif")}
    assert media_types == {"png-named.jpg": "image/png", "webp-named.gif": "image/webp"}
