"""Teachers of one's own: they learn, do not collapse, go on when stopped, and write what tokenizers take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anyseek.errors import CheckpointError, ConfigError, InputError
from anyseek.model.training.crops import random_crops
from anyseek.model.training.fit import CHECKPOINT
from anyseek.model.training.own_teacher import load_own_teacher, look_at, save_teacher
from anyseek.model.training.teacher_networks import Tower, TowerConfig
from anyseek.model.training.teacher_recipes import read_teacher_run
from anyseek.model.training.teacher_runs import run_teacher
from anyseek.model.training.tokenizer_recipes import read_tokenizer_run
from anyseek.model.training.tokenizer_runs import run_tokenizer
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_core")

SIZE = 24
TOWER = {"image_size": SIZE, "patch_size": 8, "width": 32, "depth": 1, "num_heads": 2}
COLORS = {"red": (220, 40, 30), "green": (40, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 60)}
PLACES = {"left": 0, "right": SIZE // 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two coloured halves, with captions and depth: 4 x 4 colours, several of each."""
    folder = tmp_path_factory.mktemp("pictures")
    for raw in ("rgb", "caption", "depth"):
        (folder / raw).mkdir()
    names = list(COLORS)
    for item in range(64):
        rng = np.random.default_rng(item)
        left, right = names[item % 4], names[item // 4 % 4]
        pixels = np.zeros((SIZE, SIZE, 3)) + np.asarray(COLORS[left])
        pixels[:, SIZE // 2 :] = COLORS[right]
        pixels += rng.normal(0, 8, pixels.shape)
        name = f"{item:02}"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "rgb" / f"{name}.png")
        (folder / "caption" / f"{name}.txt").write_text(f"{left} on the left and {right} on the right")
        far = np.full((SIZE, SIZE), 5.0, np.float32) + rng.random((SIZE, SIZE), np.float32)
        for half, place in ((0, item % 4), (SIZE // 2, item // 4 % 4)):  # how high something near stands
            far[6 * place : 6 * place + 6, half : half + SIZE // 2] = 1
        np.save(folder / "depth" / f"{name}.npy", far)
    return folder


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "teacher.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def values_of(kind: str, data: Path, output: Path, steps: int = 60, **more: Any) -> dict[str, Any]:
    training: dict[str, Any] = {"steps": steps, "batch_size": 16, "warmup": 5, "learning_rate": 2e-3}
    training |= {"log_every": 10, "save_every": 30, "precision": "float32", "ema": 0.9}
    if kind == "dino":
        training |= {
            "prototypes": 64,
            "head_width": 32,
            "num_local": 2,
            "momentum": 0.95,
            "freeze_prototypes": 5,
        }
        training |= {"local_area": [0.3, 0.6]}
    else:
        training |= {"text_depth": 1}
    base = {"kind": kind, "data": str(data), "output": str(output), "tower": TOWER, "held_out": 0.2}
    return base | {"training": training, "device": "cpu"} | more


@pytest.mark.parametrize("other", ["caption", "depth"])
def test_pictures_find_what_belongs_to_them(other: str, data: Path, tmp_path: Path) -> None:
    values = values_of("contrastive", data, tmp_path / "out", steps=120, other=other)
    report = run_teacher(read_teacher_run(written(tmp_path, values)))
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    # Of 16 in a batch some share their caption, so that ln 16 falls to less than half, but not to 0.
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert report["held_out.recall_1"] > 4 / 13  # chance is 1 in 13
    assert report["held_out.alike"] < 0.8


def test_dino_does_not_collapse_and_its_features_train_tokenizers(data: Path, tmp_path: Path) -> None:
    report = run_teacher(read_teacher_run(written(tmp_path, values_of("dino", data, tmp_path / "out", 150))))
    assert report["held_out.alike"] < 0.9  # 1 where every picture has the same vector
    assert report["held_out.directions"] > 1.5
    assert report["held_out.recall_1"] > 3 / 13
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    # It may fail in two ways: all prototypes alike (loss ln 64), or one prototype for all.
    assert log[-1]["loss"] < 0.95 * np.log(64)
    assert log[-1]["prototypes_in_batch"] >= 3
    features = tmp_path / "out" / "features"
    assert len(list((features / "dinov2_global").iterdir())) == 64
    assert np.load(features / "dinov2" / "00.npy").shape == (32, 3, 3)
    common: dict[str, Any] = {"data": str(features), "held_out": 0.2, "device": "cpu"}
    common["training"] = {"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "warmup": 5, "save_every": 60}
    mlp = {"enc_type": "BottleneckMLP/B_1-Wi_32", "dec_type": "BottleneckMLP/B_1-Wi_32"}
    vector = common | {"kind": "memcodes", "modality": "dinov2_global", "output": str(tmp_path / "vector")}
    vector["tokenizer"] = mlp | {"codebook_size": 16, "latent_dim": 32, "num_codebooks": 4}
    dense = common | {"kind": "vq", "modality": "dinov2", "output": str(tmp_path / "dense")}
    vit = {"enc_type": "vit_d32l1h2_enc", "dec_type": "vit_d32l1h2_dec"}
    dense["tokenizer"] = vit | {"codebook_size": 16, "latent_dim": 8}
    for values in (vector, dense):
        found = run_tokenizer(read_tokenizer_run(written(tmp_path, values)))
        assert found["cosine"] > 0.5
        assert found["failures"] == {}


def test_a_stopped_teacher_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    for name, stop_after in (("whole", 99), ("stopped", 7)):
        values = values_of("dino", data, tmp_path / name, steps=14)
        config = read_teacher_run(written(tmp_path, values))
        steps: list[int] = []
        report = run_teacher(
            config,
            lambda stage, done, _, steps=steps: steps.append(done) if stage == "train" else None,
            lambda steps=steps, last=stop_after: steps[-1] >= last,
        )
        assert report["finished"] == (stop_after == 99)
        assert (tmp_path / name / "features").exists() == report["finished"]
    assert run_teacher(config)["finished"]
    first, second = (
        load_own_teacher(tmp_path / name / "teacher.safetensors")[0].state_dict()
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (tmp_path / "whole" / CHECKPOINT).exists()


def test_a_published_teacher_writes_features(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        def extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
            assert images.shape[1:] == (224, 224, 3)
            assert images.dtype == np.uint8
            vector = images.reshape(len(images), -1)[:, :768].astype(np.float32)
            return {"dinov2_global": vector, "dinov2": np.ones((len(images), 768, 16, 16), np.float32)}

    asked: list[Any] = []
    monkeypatch.setattr(
        "anyseek.model.training.teacher_runs.load_teacher", lambda *args: asked.append(args) or Fake()
    )
    (tmp_path / "few" / "rgb").mkdir(parents=True)
    for name in ("00.png", "01.png"):
        (tmp_path / "few" / "rgb" / name).write_bytes((data / "rgb" / name).read_bytes())
    (tmp_path / "few" / "rgb" / "bad.png").write_bytes(b"no picture")
    values = {
        "kind": "published",
        "name": "dinov2",
        "weights": str(tmp_path / "w.safetensors"),
        "device": "cpu",
    }
    values |= {
        "data": str(tmp_path / "few"),
        "output": str(tmp_path / "out"),
        "write_to": str(tmp_path / "few"),
    }
    report = run_teacher(read_teacher_run(written(tmp_path, values)))
    assert asked[0][:2] == ("dinov2", tmp_path / "w.safetensors")
    assert list(report["failures"]) == ["0/bad"]
    assert np.load(tmp_path / "few" / "dinov2_global" / "01.npy").shape == (768,)
    assert np.load(tmp_path / "few" / "dinov2" / "00.npy").dtype == np.float16


@pytest.mark.parametrize("network", ["vit", "conv"])
def test_towers_of_both_kinds_are_kept_and_opened_strictly(network: str, tmp_path: Path) -> None:
    config = TowerConfig(network=network, image_size=32, patch_size=16, width=64, depth=1, num_heads=2)  # pyright: ignore
    tower = Tower(config).eval()
    path = tmp_path / "teacher.safetensors"
    save_teacher(tower, config, path)
    again, shape = load_own_teacher(path)
    assert shape == config
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    for (a, b), (c, d) in zip(look_at(tower, images), look_at(again, images), strict=True):
        assert a.shape == (64,)
        assert b.shape == (64, 2, 2)
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)
    save_teacher(tower, config.model_copy(update={"depth": 2}), path)
    with pytest.raises(CheckpointError, match="does not hold the tensors"):
        load_own_teacher(path)


def test_crops_are_views_of_their_own_picture() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(8, 1, 32, 32)
    torch.manual_seed(0)
    crops = random_crops(ramp, 16, (0.2, 0.3), mirror=False, recolor=False)
    assert crops.shape == (8, 1, 16, 16)
    rise = crops[:, 0, 0, 1:] - crops[:, 0, 0, :-1]
    assert (rise > -1e-6).all()  # left stays left
    spans = (crops.amax((1, 2, 3)) - crops.amin((1, 2, 3))) / 2
    assert ((spans > 0.3) & (spans < 0.75)).all()
    assert len(spans.unique()) == 8
    whole = random_crops(ramp, 32, (1.0, 1.0), mirror=False, recolor=False)
    assert (whole - ramp).abs().max() < 0.3  # sides still differ by up to 4 : 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tower": TOWER | {"patch_size": 7}}, "patches of 7 do not fill a side of 24"),
        ({"tower": TOWER | {"num_heads": 3}}, "must divide by 4 and by num_heads 3"),
        ({"tower": TOWER | {"network": "conv", "width": 20}}, "convolutions need"),
        ({"tower": {"widht": 3}}, r"unknown key tower.widht \(did you mean width\?\)"),
        (
            {"training": {"steps": 5, "momentom": 0.9}},
            "unknown key training.momentom .*did you mean momentum",
        ),
        ({"features": "depth"}, "features"),
        ({"kind": "gan"}, "known are dino, contrastive, published"),
    ],
)
def test_mistakes_in_the_yaml_are_named(
    change: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_teacher_run(written(tmp_path, values_of("dino", data, tmp_path / "out") | change))


def test_pictures_without_captions_are_no_pairs(data: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "caption").mkdir(parents=True)
    (tmp_path / "data" / "rgb").mkdir()
    (tmp_path / "data" / "caption" / "x.txt").write_text("nothing")
    (tmp_path / "data" / "rgb" / "00.png").write_bytes((data / "rgb" / "00.png").read_bytes())
    values = values_of("contrastive", tmp_path / "data", tmp_path / "out")
    with pytest.raises(InputError, match="has a caption of the same name"):
        run_teacher(read_teacher_run(written(tmp_path, values)))
