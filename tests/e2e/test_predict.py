"""Predicting on the command line, over HTTP and from Python: files, names, refusals, pictures."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyseek import Library
from anyseek.cli import main
from anyseek.errors import InputError
from anyseek.model import RAW_NAMES
from anyseek.search import schemas
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from PIL import Image

QUICK = ("depth", "semseg", "clip", "color_palette", "dinov2_global")
Opened = tuple[Library, TestClient]

pytestmark = pytest.mark.usefixtures("quick_predictions", "any_library")


@pytest.fixture
def photos(scenes: Path, tmp_path: Path) -> Path:
    """A folder with two photos, one.png and two.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(scenes / "0001.png", folder / "one.png")
    shutil.copy(scenes / "0003.png", folder / "two.png")
    return folder


def predict(*words: object) -> Result:
    result = CliRunner().invoke(main, ["predict", *map(str, words)])
    assert "Traceback" not in result.output
    return result


def test_files_are_named_after_their_photos_and_can_be_given_back(
    photos: Path, tmp_path: Path, any_bundle: Path
) -> None:
    out = tmp_path / "new" / "out"
    result = predict(photos / "one.png", photos / "two.png", "--to", ",".join(QUICK), "--out", out, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    names = {f"{item}.{raw}" for item in ("one", "two") for raw in QUICK}
    assert {path.stem for path in out.iterdir()} == {*names, "overview"}
    assert {Path(path).stem for files in told["files"].values() for path in files.values()} == names
    assert (told["model"], told["license"], told["errors"]) == (str(any_bundle), "Apache-2.0", {})
    with Image.open(out / "overview.png") as sheet:
        assert sheet.width > sheet.height / 4
    again = predict("--depth", out / "one.depth.png", "--to", "dinov2_global", "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b" / "one.dinov2_global.npy").is_file()
    assert "Licence of the weights: Apache-2.0" in again.stderr


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--caption", "a dog", "--to", "semseg", "--seed", seed, "--out", tmp_path / name)
        assert predict(*words).exit_code == 0
        contents[name] = (tmp_path / name / "predicted.semseg.png").read_bytes()
    assert contents["a"] == contents["b"] != contents["c"]


def test_everything_known_of_all_photos_is_given_by_options(photos: Path, tmp_path: Path) -> None:
    words = ("--caption", "a dog", "--palette", "#20324a,#e0a35a", "--metadata", '{"brightness": 90}')
    result = predict(
        photos / "one.png", photos / "two.png", *words, "--to", "semseg", "--out", tmp_path / "o"
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "o").iterdir()} == {
        "one.semseg.png",
        "two.semseg.png",
        "overview.png",
    }
    lone = predict("--caption", "a dog", "--to", "semseg", "--out", tmp_path / "p", "--super-resolution")
    assert lone.exit_code == 0, lone.output
    with Image.open(tmp_path / "p" / "predicted.semseg.png") as picture:
        assert picture.size == (128, 128)


def test_what_is_given_is_never_replaced_and_other_files_only_if_asked(photos: Path) -> None:
    depth, edges, sheet = photos / "one.depth.png", photos / "one.rgb.png", photos / "overview.png"
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(depth)
    for path in (edges, sheet):
        shutil.copy(photos / "one.png", path)
    before = {path: path.read_bytes() for path in photos.iterdir()}
    for words, said in (
        ((sheet, "--to", "semseg", "--overwrite"), "overview.png is given"),
        ((photos / "one.png", "--edges", sheet, "--to", "semseg", "--overwrite"), "overview.png is given"),
        (("--depth", depth, "--edges", edges, "--to", "rgb", "--overwrite"), "one.rgb.png is given"),
        ((photos / "one.png", "--to", "depth"), "--overwrite"),
    ):
        result = predict(*words, "--out", photos / ".." / photos.name)
        assert (result.exit_code, said in result.stderr) == (2, True), result.output
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    result = predict("--depth", depth, "--to", "semseg", "--out", photos, "--overwrite")
    assert result.exit_code == 0, result.output
    changed = {path.name for path in photos.iterdir() if path.read_bytes() != before.get(path)}
    assert changed == {"one.semseg.png", "overview.png"}


def test_a_bad_photo_is_told_and_the_others_go_on(photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff and no more")
    words = (photos / "bad.jpg", photos / "one.png", "--to", "semseg", "--out", tmp_path / "out", "--json")
    result = predict(*words)
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert list(told["errors"]) == ["bad"]
    assert "bad.jpg" in told["errors"]["bad"]["message"]
    assert list(told["files"]) == ["one"]
    alone = predict(photos / "bad.jpg", "--to", "semseg", "--out", tmp_path / "none")
    assert (alone.exit_code, "bad.jpg" in alone.stderr) == (2, True)


def test_wrong_use_says_what_to_do(photos: Path, tmp_path: Path) -> None:
    one, out = photos / "one.png", ("--out", tmp_path / "out")
    (photos / "more").mkdir()
    shutil.copy(one, photos / "more" / "one.jpg")
    cases = [
        (("--to", "depth", *out), 2, "--caption"),
        ((one, "--rgb", one, "--to", "depth", *out), 2, "not both"),
        ((one, photos / "more" / "one.jpg", "--to", "depth", *out), 2, "'one'"),
        ((one, "--to", "smell", *out), 3, "sam_instance"),
        ((one, "--to", ",", *out), 3, "depth"),
        ((one, "--to", "t5_caption", *out), 3, "imagebind_global"),
        ((one, "--to", "rgb", *out), 2, "given"),
        ((one, "--to", "depth", "--seed", "-1", *out), 2, "seed"),
        ((photos / "none.png", "--to", "depth", *out), 2, "none.png"),
        ((one, "--to", "depth", "--out", one), 2, "one.png"),
        ((one, "--to", "depth", "--out", one / "below"), 2, "cannot be written"),
        (("--metadata", '{"brightness"', "--to", "depth", *out), 2, "metadata"),
    ]
    for words, code, said in cases:
        result = predict(*words)
        assert (result.exit_code, said in result.stderr) == (code, True), (words, result.output)


def test_a_model_says_what_it_cannot_predict(photos: Path, narrow_bundle: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    result = predict(photos / "one.png", "--to", "depth", "--model", narrow_bundle, *out)
    assert result.exit_code == 3
    assert "dinov2_global" in result.stderr
    assert "4M-21" in result.stderr


MAPS: list[tuple[str, Any]] = [
    ("semseg", np.zeros((20, 60), np.uint8)),
    ("depth", np.arange(1200, dtype=np.uint16).reshape(60, 20) * 50),
    ("normal", np.full((20, 60, 3), 90, np.uint8)),
]


@pytest.mark.parametrize(("raw", "pixels"), MAPS)
def test_a_map_of_another_view_than_the_photo_is_refused_every_way(
    raw: str, pixels: np.ndarray, any_library: Opened, photos: Path, tmp_path: Path
) -> None:
    photo, path = photos / "one.png", photos / f"one.{raw}.png"
    Image.fromarray(pixels).save(path)
    size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
    command = predict(photo, f"--{raw}", path, "--to", "dinov2_global", "--out", tmp_path / "out")
    assert command.exit_code == 2
    assert str(path) in command.stderr
    with pytest.raises(InputError, match=size) as caught:
        any_library[0].model().predict({"rgb": photo, raw: path}, ["dinov2_global"])
    inputs = [{"modality": "rgb", "upload": "a"}, {"modality": raw, "upload": "b"}]
    answer = any_library[1].post(
        "/v1/predict",
        data={"request": json.dumps({"inputs": inputs, "to": ["dinov2_global"]})},
        files={"a": photo.read_bytes(), "b": path.read_bytes()},
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/inputs/1"
    for told in (command.stderr, str(caught.value), answer.json()["detail"]):
        assert size in told
        assert "proportions" in told


def file_of(uri: str, kind: str) -> bytes:
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.partition(",")[2])


def test_predictions_over_http_are_values_and_ordinary_files(any_library: Opened, photos: Path) -> None:
    request = {
        "inputs": [{"modality": "rgb", "upload": "a"}],
        "to": [*QUICK, "palette"],
        "overview": True,
        "seed": 7,
    }
    answer = any_library[1].post(
        "/v1/predict",
        data={"request": json.dumps(request)},
        files={"a": (photos / "one.png").read_bytes()},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    schemas.PredictAnswer.model_validate(body, strict=True)
    assert [one["modality"] for one in body["predicted"]] == list(QUICK)
    by_name = {one["modality"]: one for one in body["predicted"]}
    for raw in ("depth", "semseg"):
        with Image.open(io.BytesIO(file_of(by_name[raw]["file"]["data"], "image/png"))) as picture:
            assert picture.size == (64, 64)
    vector = np.load(io.BytesIO(file_of(by_name["clip"]["file"]["data"], "application/octet-stream")))
    assert vector.shape == (512, 4, 4)
    assert by_name["clip"]["file"]["name"] == "clip.npy"
    assert all(color.startswith("#") for color in by_name["color_palette"]["value"] or [])
    with Image.open(io.BytesIO(file_of(body["overview"], "image/png"))) as sheet:
        assert sheet.width > 600
    assert (body["seed"], body["license"]) == (7, "Apache-2.0")
    assert "predict;dur=" in answer.headers["server-timing"]
    same = any_library[0].model().predict({"rgb": photos / "one.png"}, QUICK, seed=7)
    assert np.array_equal(same["clip"].value, vector)  # type: ignore[arg-type]


TEXT = {"modality": "caption", "text": "a dog"}


@pytest.mark.parametrize(
    ("request_", "status", "code", "pointer"),
    [
        ({"inputs": [TEXT]}, 422, "request.invalid", "/to"),
        ({"inputs": [TEXT], "to": []}, 422, "request.invalid", "/to"),
        ({"inputs": [], "to": ["depth"]}, 422, "request.invalid", "/inputs"),
        ({"inputs": [TEXT], "to": ["depth"], "seed": -1}, 422, "request.invalid", "/seed"),
        ({"inputs": [TEXT], "to": ["depth"], "seed": 2**63}, 422, "request.invalid", "/seed"),
        ({"inputs": [TEXT], "to": ["depth"], "out": "/etc"}, 422, "request.invalid", "/out"),
        ({"inputs": [TEXT | {"weight": 0.5}], "to": ["depth"]}, 422, "query.weight", "/inputs/0"),
        ({"inputs": [TEXT, TEXT], "to": ["depth"]}, 422, "query.invalid", "/inputs/1"),
        ({"inputs": [{"modality": "item", "id": "a"}], "to": ["depth"]}, 422, "model.invalid", "/inputs/0"),
        (
            {"inputs": [{"modality": "smell", "data": "x"}], "to": ["depth"]},
            422,
            "query.content",
            "/inputs/0",
        ),
        (
            {"inputs": [{"modality": "depth", "data": "/etc/passwd"}], "to": ["rgb"]},
            422,
            "query.content",
            "/inputs/0",
        ),
        ({"inputs": [TEXT], "to": ["depth", "smell"]}, 422, "model.invalid", "/to/1"),
        ({"inputs": [TEXT], "to": ["t5_caption"]}, 422, "model.invalid", "/to/0"),
        ({"inputs": [TEXT], "to": ["caption"]}, 422, "query.invalid", None),
        ({"inputs": [TEXT], "to": ["depth"], "model": "/etc"}, 422, "model.invalid", "/model"),
    ],
)
def test_every_wrong_prediction_over_http_is_a_problem(
    any_library: Opened, request_: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = any_library[1].post("/v1/predict", json=request_)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ([pointer] if pointer else [])


def test_classes_of_a_painted_map_are_named_over_http(any_library: Opened) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 0, 0)).save(buffer, "PNG")
    data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    for word, status in (("hot dog", 200), ("hot dgo", 422)):
        part = {"modality": "semseg", "data": data, "classes": {"#ff0000": word}}
        answer = any_library[1].post("/v1/collections/photos/search", json={"parts": [part]})
        assert answer.status_code == status, answer.text
    assert "hot-dog" in answer.json()["detail"]


def test_models_and_modalities_tell_what_can_be_predicted(any_library: Opened) -> None:
    client = any_library[1]
    (model,) = client.get("/v1/models").json()["models"]
    rows = {row["name"]: row for row in client.get("/v1/modalities").json()["modalities"]}
    assert tuple(rows) == RAW_NAMES
    assert {raw for raw, row in rows.items() if row["predicted_by"]} == set(model["targets"])
    assert set(model["targets"]) == set(RAW_NAMES) - {"t5_caption"}
    assert all(row["models"] == [model["name"]] for row in rows.values())


def test_whatever_an_item_holds_has_a_picture(any_library: Opened, scenes: Path) -> None:
    """Also what the model of the collection does not read as this file has it, which is told."""
    client = any_library[1]
    values = {"caption": "a red cube", "color_palette": ["#20324a"], "metadata": {"brightness": 90.0}}
    values |= {"det": [{"box": [0.1, 0.1, 0.5, 0.5], "label": "dog"}]}
    assets: list[dict[str, Any]] = [{"modality": raw, "upload": raw} for raw in ("rgb", "depth", "normal")]
    assets += [
        {"modality": raw, "text" if raw == "caption" else "values": value} for raw, value in values.items()
    ]
    files = {"rgb": scenes / "0001.png"} | {raw: scenes / f"0001.{raw}.png" for raw in ("depth", "normal")}
    added = client.post(
        "/v1/collections/photos/items",
        data={"request": json.dumps({"items": [{"id": "all", "assets": assets}]})},
        files={raw: path.read_bytes() for raw, path in files.items()},
    )
    assert added.status_code == 200, added.text
    for raw in (*files, *values):
        shown = client.get(
            f"/v1/collections/photos/items/all/media/{raw}", params={"as": "picture", "size": 200}
        )
        assert shown.status_code == 200, shown.text
        with Image.open(io.BytesIO(shown.content)) as picture:
            assert picture.width == 200
        assert "sandbox" in shown.headers["content-security-policy"]
    base = "/v1/collections/photos/items/all/media"
    assert client.get(f"{base}/clip", params={"as": "picture"}).status_code == 404
    assert client.get(f"{base}/rgb", params={"as": "sculpture"}).status_code == 422
    assert client.get(f"{base}/rgb", params={"as": "picture", "size": 10**6}).status_code == 422
