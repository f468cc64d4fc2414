"""Every modality goes in by the command line, over HTTP and from Python, to search and to predict from; what
is wrong gets an error that names the file, what is wrong and what is accepted, whichever way it is sent.

The model is seeded noise: what comes out is not looked at, only that it does.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek import Library, QueryPart
from anyseek.cli import main
from anyseek.errors import InputError
from anyseek.model import RAW_NAMES
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

pytestmark = pytest.mark.usefixtures("quick_predictions")

Content = bytes | str
SIDE = 96
TARGET = "dinov2_global"  # a single pass
OTHER_TARGET = "imagebind_global"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).random(shape, np.float32) + 0.1


def picture(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def photo(width: int = SIDE, height: int = SIDE) -> np.ndarray:
    return (noise(height, width, 3) * 200).astype(np.uint8)


def ids(largest: int) -> np.ndarray:
    return np.repeat(np.arange(SIDE, dtype=np.uint8)[:, None] % (largest + 1), SIDE, 1)


def painted(legend: dict[str, str]) -> bytes:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = (255, 0, 0)
    info = PngInfo()
    info.add_text("anyseek:classes", json.dumps(legend))
    return picture(pixels, pnginfo=info)


def lines() -> np.ndarray:
    edges = np.zeros((SIDE, SIDE), np.uint8)
    edges[::16] = 255
    return edges


def tiff_of_ten_channels() -> bytes:
    """Written by hand: no library here writes one."""
    width = height = 8
    entries = [(256, 3, width), (257, 3, height), (259, 3, 1), (262, 3, 1), (277, 3, 10), (278, 3, height)]
    start = 8 + 2 + 12 * (len(entries) + 3) + 4
    fields = [struct.pack("<HHIHH", tag, kind, 1, value, 0) for tag, kind, value in entries]
    fields.append(struct.pack("<HHII", 258, 3, 10, start))
    fields.append(struct.pack("<HHII", 273, 4, 1, start + 20))
    fields.append(struct.pack("<HHII", 279, 4, 1, width * height * 10))
    head = b"II*\0" + struct.pack("<IH", 8, len(fields)) + b"".join(sorted(fields)) + bytes(4)
    return head + struct.pack("<10H", *[8] * 10) + bytes(width * height * 10)


def person(**change: Any) -> dict[str, Any]:
    turned = np.tile(np.eye(3), (23, 1, 1)).tolist()
    return {
        "box": [0.1, 0.1, 0.6, 0.9],
        "pose": turned,
        "rotation": np.eye(3).tolist(),
        "camera": [1.0, 0.1, 10.0],
        "shape": [0.1] * 10,
        **change,
    }


def coco(box: list[float], polygon: list[float]) -> dict[str, Any]:
    return {
        "images": [{"width": 200, "height": 160}],
        "annotations": [{"bbox": box, "category_id": 1, "segmentation": [polygon]}],
        "categories": [{"id": 1, "name": "dog"}],
    }


COCO = coco([60, 40, 50, 50], [60, 40, 110, 40, 110, 90, 60, 90])

GOOD: dict[str, dict[str, Content]] = {
    "rgb": {"a.png": picture(photo()), "a.jpg": picture(photo(120, 90), "JPEG")},
    "caption": {"a.txt": "a red cube", "long.txt": "cube " * 10_000},
    "det": {
        "a.json": json.dumps([{"box": [0.1, 0.2, 0.5, 0.9], "label": "dog"}]),
        "coco.json": json.dumps(COCO),
    },
    "depth": {
        "a.png": picture((noise(SIDE, SIDE) * 50_000).astype(np.uint16)),
        "eight.png": picture((noise(70, SIDE) * 200).astype(np.uint8)),
        "a.npy": npy(noise(SIDE, SIDE, 1)),
        "a.npz": npz(depth=noise(SIDE, SIDE)),
    },
    "normal": {"a.png": picture(photo()), "a.npy": npy(noise(SIDE, SIDE, 3) - 0.5)},
    "semseg": {
        "ids.png": picture(ids(4)),
        "a.npy": npy(ids(4).astype(np.int64)),
        "painted.png": painted({"#ff0000": "hot dog", "#000000": "nothing"}),
    },
    "clip": {"a.npy": npy(noise(512, 4, 4)), "rows.npy": npy(noise(16, 512))},
    "t5_caption": {
        "a.npy": npy(noise(5, 4096)),
        "a.npz": npz(emb=noise(5, 4096), mask_valid=np.ones(5, bool)),
    },
    "metadata": {"a.json": '{"brightness": 120, "walkability": 0.3}', "photo.png": picture(photo())},
    "human_poses": {"a.json": json.dumps([person(), person(pose=[0.1] * 69)])},
    "color_palette": {
        "a.json": '["#20324a", [200, 10, 30]]',
        "a.txt": "#20324a, #e0a35a",
        "b.png": picture(photo()),
    },
    "sam_instance": {"coco.json": json.dumps(COCO), "ids.png": picture(ids(3))},
    "canny_edge": {
        "a.png": picture(lines()),
        "ink.png": picture(255 - lines()),
        "photo.png": picture(photo()),
    },
    "sam_edge": {"a.png": picture(lines()), "a.npy": npy(lines())},
    "dinov2": {"a.npy": npy(noise(768, 6, 6))},
    "imagebind": {"a.npy": npy(noise(6, 6, 1280))},
    "dinov2_global": {"a.npy": npy(noise(768))},
    "imagebind_global": {"a.npz": npz(vector=noise(1, 1280))},
}
"""Ordinary files of each modality."""

_nan = noise(SIDE, SIDE)
_nan[:3, :4] = np.nan
_PNG = picture(photo())

WRONG: list[tuple[str, str, Content, tuple[str, ...]]] = [
    ("rgb", "cut.png", _PNG[: len(_PNG) // 2], ("damaged",)),
    ("rgb", "cut.jpg", picture(photo(), "JPEG")[:200], ("damaged",)),
    ("rgb", "empty.png", b"", ("empty", "PNG")),
    ("rgb", "words.png", b"no picture at all", ("format", "PNG")),
    ("rgb", "ten.tif", tiff_of_ten_channels(), ("samples per pixel", "1 to 4 channels")),
    ("rgb", "array.npy", npy(photo()), ("format", "PNG")),
    ("caption", "latin.txt", "ä".encode("latin-1"), ("UTF-8",)),
    ("caption", "blank.txt", "  \n", ("nothing to read",)),
    ("det", "outside.json", json.dumps([{"box": [0.5, 0.5, 1.7, 0.9], "label": "dog"}]), ("1.7", "0..1")),
    ("det", "pixels.json", json.dumps([{"box": [10, 20, 300, 400], "label": "dog"}]), ("300", "width")),
    ("det", "coco_outside.json", json.dumps(coco([150, 40, 90, 50], [0, 0, 1, 1, 1, 0])), ("bbox",)),
    ("det", "cut.json", '[{"box": [0.1, 0.2', ("JSON",)),
    ("det", "no_label.json", '[{"box": [0, 0, 1, 1]}]', ("label",)),
    ("depth", "nan.npy", npy(_nan), ("12", "NaN")),
    ("depth", "flat.png", picture(np.full((SIDE, SIDE), 7, np.uint16)), ("near and far",)),
    ("depth", "color.png", picture(photo()), ("channel",)),
    ("depth", "ten.npy", npy(noise(32, 32, 10)), ("(32, 32, 10)", "channel")),
    ("depth", "complex.npy", npy(noise(32, 32) * 1j), ("complex", "real numbers")),
    ("depth", "objects.npy", npy(np.array([{"a": 1}], object)), ("object", "real numbers")),
    ("depth", "cut.npy", npy(noise(SIDE, SIDE))[:500], ("too soon",)),
    ("depth", "words.png", b"no picture", ("PNG", ".npy")),
    ("normal", "grey.png", picture(lines()), ("one channel", "three")),
    ("normal", "far.npy", npy(noise(32, 32, 3) * 9), ("-1..1",)),
    ("normal", "ten.npy", npy(noise(32, 32, 10)), ("(32, 32, 10)", "three")),
    ("semseg", "unknown.png", picture(ids(40)), ("5", "classes")),
    ("semseg", "cat.png", painted({"#ff0000": "hot dgo", "#000000": "nothing"}), ("hot dgo", "hot-dog")),
    ("semseg", "color.png", painted({"#00ff00": "dog"}), ("#", "pixels")),
    ("semseg", "mixed.png", painted({"#ff0000": "dog", "3": "sky"}), ("colours and ids",)),
    ("semseg", "legend.png", painted({"red": "dog"}), ("#rrggbb",)),
    ("clip", "channels.npy", npy(noise(100, 4, 4)), ("100 channels", "512")),
    ("clip", "grid.npy", npy(noise(512, 9, 9)), ("9 x 9", "4 x 4")),
    ("clip", "integers.npy", npy(np.ones((512, 4, 4), np.int64)), ("int64", "real numbers")),
    ("dinov2", "class_token.npy", npy(noise(37, 768)), ("class token",)),
    ("imagebind", "zero.npy", npy(np.zeros((1280, 6, 6), np.float32)), ("zero",)),
    ("dinov2_global", "size.npy", npy(noise(512)), ("512", "768")),
    ("imagebind_global", "nan.npy", npy(np.full(1280, np.nan)), ("NaN",)),
    ("t5_caption", "small.npy", npy(noise(5, 768)), ("768", "4096")),
    ("metadata", "unknown.json", '{"brightnes": 1}', ("brightnes", "brightness")),
    ("metadata", "nan.json", '{"brightness": NaN}', ("NaN",)),
    ("color_palette", "nine.json", json.dumps(["#000000"] * 9), ("7", "9")),
    ("color_palette", "words.txt", "red, green", ("#rrggbb",)),
    ("human_poses", "keypoints.json", json.dumps([{"keypoints": [[1, 2, 1]] * 17}]), ("keypoints",)),
    ("human_poses", "stretched.json", json.dumps([person(rotation=(2 * np.eye(3)).tolist())]), ("rotation",)),
    ("human_poses", "short.json", json.dumps([person(pose=[0.0] * 60)]), ("pose", "(60,)", "(23, 3)")),
    ("sam_instance", "outside.json", json.dumps(coco([0, 0, 9, 9], [300, 0, 400, 0, 400, 90])), ("outside",)),
    ("sam_instance", "two.json", json.dumps([{"polygon": [[0, 0], [1, 1]]}]), ("polygon",)),
    ("sam_edge", "photo.png", picture(photo()), ("lines", "canny_edge")),
    ("canny_edge", "float.npy", npy(noise(SIDE, SIDE)), ("float32", "uint8")),
]
"""Modality, file, what it holds, and what the error must say besides the file's name."""


Opened = tuple[Library, TestClient]


def written(folder: Path, name: str, content: Content) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def target_beside(raw: str) -> str:
    return OTHER_TARGET if raw == TARGET else TARGET


def option(raw: str, path: Path) -> list[str]:
    """The command line's words for it: a caption is given in words, everything else as a file."""
    if raw != "caption":
        return [f"--{raw.replace('_', '-')}", str(path)]
    return ["--caption", path.read_text(encoding="utf-8", errors="surrogateescape")]


def run_command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def told_by_command(result: Result) -> str:
    """What a command said was wrong; nothing where it worked."""
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 2), result.output
    return result.stderr if result.exit_code else ""


def command_search(_: Opened, raw: str, path: Path) -> str:
    return told_by_command(run_command("search", "photos", *option(raw, path), "--json"))


def command_predict(_: Opened, raw: str, path: Path) -> str:
    out = path.parent / "out"
    result = run_command("predict", *option(raw, path), "--to", target_beside(raw), "--out", out, "--json")
    if result.exit_code == 0:
        body = json.loads(result.stdout)
        (files,) = body["files"].values()
        assert np.load(files[target_beside(raw)]).shape[0] in (768, 1280)
        assert Path(body["overview"]).is_file()
        assert body["license"] == "Apache-2.0"
    return told_by_command(result)


def http(opened: Opened, url: str, request: dict[str, Any], path: Path, pointer: str) -> str:
    answer = opened[1].post(
        url, data={"request": json.dumps(request)}, files={"it": (path.name, path.read_bytes())}
    )
    if answer.status_code == 200:
        return ""
    assert answer.status_code in (413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert [fault["pointer"] for fault in body["errors"]] == [pointer]
    return body["detail"]


def http_search(opened: Opened, raw: str, path: Path) -> str:
    request = {"parts": [{"modality": raw, "upload": "it"}]}
    return http(opened, "/v1/collections/photos/search", request, path, "/parts/0")


def http_predict(opened: Opened, raw: str, path: Path) -> str:
    request = {"inputs": [{"modality": raw, "upload": "it"}], "to": [target_beside(raw)]}
    return http(opened, "/v1/predict", request, path, "/inputs/0")


def python_search(opened: Opened, raw: str, path: Path) -> str:
    try:
        assert len(opened[0]["photos"].search(QueryPart(raw, path))) == 3
    except InputError as error:
        return str(error)
    return ""


def python_predict(opened: Opened, raw: str, path: Path) -> str:
    try:
        predicted = opened[0].model().predict({raw: path}, [target_beside(raw)])
    except InputError as error:
        return str(error)
    assert predicted[target_beside(raw)].value is not None
    return ""


WAYS = (command_search, command_predict, http_search, http_predict, python_search, python_predict)


def test_there_is_a_file_of_every_modality_and_a_wrong_one() -> None:
    assert tuple(GOOD) == RAW_NAMES
    assert {raw for raw, *_ in WRONG} == set(RAW_NAMES)


@pytest.mark.parametrize("raw", RAW_NAMES)
def test_every_modality_goes_in_every_way(raw: str, any_library: Opened, tmp_path: Path) -> None:
    """The first file of a modality in all ways; that the reader takes the others is enough."""
    (name, content), *others = GOOD[raw].items()
    for way in WAYS:
        assert way(any_library, raw, written(tmp_path, name, content)) == "", way.__name__
    for name, content in others:
        assert any_library[0].model().embedder.read(raw, written(tmp_path, name, content)).size


@pytest.mark.parametrize(("raw", "name", "content", "said"), WRONG, ids=[name for _, name, *_ in WRONG])
def test_what_is_wrong_is_told_every_way(
    raw: str,
    name: str,
    content: Content,
    said: tuple[str, ...],
    any_library: Opened,
    tmp_path: Path,
) -> None:
    path = written(tmp_path, name, content)
    for way in WAYS:
        told = way(any_library, raw, path)
        if raw == "caption" and way in (command_search, command_predict) and name == "latin.txt":
            assert told == ""  # a terminal's bytes are words, whatever they are
            continue
        by_name = way not in (http_search, http_predict) and (raw != "caption" or "python" in way.__name__)
        for word in (str(path) if by_name else raw, *said):
            assert word in told, (way.__name__, word, told)
