"""Tokenizers of every kind learn on tiny synthetic data, go on bit for bit when killed, and load strictly."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anyseek.cli import main
from anyseek.errors import ConfigError, InputError, ModelError
from anyseek.model.body import rotation_matrices
from anyseek.model.checkpoint import load_tokenizer, open_checkpoint, save_checkpoint
from anyseek.model.tokenizers.build import build_tokenizer, parse_tokenizer_config
from anyseek.model.tokenizers.divae import DiVAE
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.judge import draw_reconstructions, judge
from anyseek.model.training.modality_files import modality_files
from anyseek.model.training.run_files import read_values
from anyseek.model.training.teacher_recipes import read_teacher_run
from anyseek.model.training.tokenizer_recipes import NETWORKS, read_tokenizer_run
from anyseek.model.training.tokenizer_runs import TokenizerTraining, run_tokenizer
from anyseek.model.training.train_divae import DivaeRecipe, train_divae
from anyseek.model.training.train_vq import (
    LOSSES,
)
from anyseek.model.training.value_arrays import ValueArray, load_values, prepared, reader_row
from anyseek.model.training.value_draws import ValueDraws, mirrored
from click.testing import CliRunner
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_core")

VIT = {
    "enc_type": "vit_d32l1h2_enc",
    "dec_type": "vit_d32l1h2_dec",
    "codebook_size": 16,
    "latent_dim": 8,
    "patch_size": 4,
}
UNET = {"model_channels": 32, "num_res_blocks": 1, "attention_factors": [2], "channel_mult": [1, 1]}
MLP = {
    "enc_type": "BottleneckMLP/B_1-Wi_32",
    "dec_type": "BottleneckMLP/B_1-Wi_32",
    "codebook_size": 16,
    "latent_dim": 32,
    "num_codebooks": 4,
}
FAST = {"batch_size": 16, "learning_rate": 3e-3, "warmup": 20, "precision": "float32", "ema": 0.95}
SIZE = 16


# --- data: pictures of a few rectangles each, and what else there is of them


def scene(rng: np.random.Generator) -> np.ndarray:
    """Labels (S, S) of two rectangles on nothing, on a grid of 4 pixels."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for label in (1, 2):
        top, left = 4 * rng.integers(0, 3, size=2)
        labels[top : top + 8, left : left + 8] = label
    return labels


def write_depth(labels: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    np.save(path.with_suffix(".npy"), np.float32([5, 3, 1])[labels] + 0.01 * rng.random(labels.shape))


def write_rgb(labels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    colors = np.uint8([[20, 30, 200], [230, 40, 30], [240, 240, 60]])
    Image.fromarray(colors[labels]).save(path.with_suffix(".png"))


def write_normal(labels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    colors = np.uint8([[128, 128, 255], [255, 128, 128], [0, 128, 128]])
    Image.fromarray(colors[labels]).save(path.with_suffix(".png"))


def write_semseg(labels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    Image.fromarray(np.uint8([255, 0, 1])[labels]).save(path.with_suffix(".png"))


def write_edges(labels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    edges = np.zeros((SIZE, SIZE), np.uint8)
    edges[1:][labels[1:] != labels[:-1]] = 255
    Image.fromarray(edges).save(path.with_suffix(".png"))


def write_features(labels: np.ndarray, path: Path, _: np.random.Generator) -> None:
    kinds = np.random.default_rng(7).normal(size=(3, 12)).astype(np.float32)
    np.save(path.with_suffix(".npy"), kinds[labels[::4, ::4]].transpose(2, 0, 1))


def write_vector(_: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    kinds = np.random.default_rng(8).normal(size=(4, 24)).astype(np.float32)
    np.save(path.with_suffix(".npy"), rng.normal(size=4).astype(np.float32) @ kinds)


def write_poses(_: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    bend = np.zeros((23, 3))
    bend[::2, 0], bend[1::2, 2] = rng.uniform(-1.2, 1.2, size=2)
    person = {"box": [0.1, 0.1, 0.9, 0.9], "pose": rotation_matrices(bend).tolist()}
    path.with_suffix(".json").write_text(json.dumps([person, person]))


def write_instances(_: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    x, y, size = (int(n) for n in rng.integers(20, 90, size=3))
    corners = [[x, y], [x + size, y], [x + size, y + size], [x, y + size]]
    polygon = [corner for i, corner in enumerate(corners) if i != x % 4]
    path.with_suffix(".json").write_text(json.dumps([{"polygon": polygon}]))


WRITERS: dict[str, Callable[[np.ndarray, Path, np.random.Generator], None]] = {
    "depth": write_depth,
    "rgb": write_rgb,
    "normal": write_normal,
    "semseg": write_semseg,
    "sam_edge": write_edges,
    "dinov2": write_features,
    "dinov2_global": write_vector,
    "human_poses": write_poses,
    "sam_instance": write_instances,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty items in the layout with a folder per modality."""
    folder = tmp_path_factory.mktemp("data")
    for raw in WRITERS:
        (folder / raw).mkdir()
    for item in range(50):
        rng = np.random.default_rng(item)
        labels = scene(rng)
        for raw, write in WRITERS.items():
            write(labels, folder / raw / f"{item:03}", rng)
    return folder


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run_values(data: Path, output: Path, modality: str, **more: Any) -> dict[str, Any]:
    vectors = modality in ("dinov2_global", "human_poses")
    base: dict[str, Any] = {
        "kind": "memcodes" if vectors else "vq",
        "modality": modality,
        "data": str(data),
        "held_out": 0.2,
        "output": str(output),
        "image_size": SIZE,
        "margin": 1.0,
        "mirror": False,
        "device": "cpu",
        "tokenizer": MLP if vectors else VIT,
        "training": FAST | {"steps": 150, "log_every": 50, "save_every": 75},
    }
    if modality == "semseg":
        base["classes"] = ["first", "second"]
        base["tokenizer"] = VIT | {"n_channels": 8}
    if modality == "sam_instance":
        base["tokenizer"] = VIT | {"patch_size": 16}
        base["training"] |= {"steps": 120, "batch_size": 8}
    if vectors:
        base["training"] |= {"steps": 300, "save_every": 150, "batch_size": 32}
    return base | more


ERRORS: dict[str, Callable[[dict[str, float]], float]] = {
    "rgb": lambda found: found["l1"],
    "normal": lambda found: found["mean_degrees"],
    "depth": lambda found: found["abs_rel"],
    "semseg": lambda found: 1 - found["mean_iou"],
    "sam_edge": lambda found: found["l1"],
    "dinov2": lambda found: 1 - found["cosine"],
    "dinov2_global": lambda found: 1 - found["cosine"],
    "human_poses": lambda found: found["degrees"],
    "sam_instance": lambda found: 1 - found["iou"],
}


class Collapsed:
    """Stands for a tokenizer with one code, which decodes to the best single answer."""

    def __init__(self, raw: str, values: np.ndarray, config: TokenizerConfig) -> None:
        self.config = config
        middle = np.median(values.astype(np.float32), 0)
        self._raw, self._answer = raw, middle.astype(values.dtype)

    def codebook(self) -> torch.Tensor:
        return torch.zeros(1)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        shape = (
            (len(values), self.config.num_codebooks) if self.config.num_codebooks > 1 else (len(values), 1, 1)
        )
        return torch.zeros(shape, dtype=torch.int64)

    def decode(self, ids: torch.Tensor, **_: Any) -> torch.Tensor:
        one = prepared(self._raw, self._answer[None]).float()
        if self._raw == "semseg":
            one = torch.nn.functional.one_hot(one.long(), 3).movedim(-1, 1).float()
        if self._raw == "sam_instance":
            one = 2 * one - 1
        return one.expand(len(ids), *one.shape[1:])


@pytest.mark.parametrize("modality", WRITERS)
def test_each_modality_is_learned_and_loads_strictly(modality: str, data: Path, tmp_path: Path) -> None:
    config = read_tokenizer_run(written(tmp_path, run_values(data, tmp_path / "out", modality)))
    report = run_tokenizer(config)
    tokenizer = load_tokenizer(tmp_path / "out")  # the folder itself opens as the best tokenizer
    assert tokenizer.config.codebook_size == 16
    values = TokenizerTraining(config, lambda *_: None).judged
    error = ERRORS[modality]
    after, rebuilt = judge(tokenizer, modality, values)
    untrained, _ = judge(build_tokenizer(tokenizer.config).eval(), modality, values)
    collapsed, _ = judge(Collapsed(modality, values, tokenizer.config), modality, values)  # pyright: ignore
    assert error(after) < 0.6 * min(error(untrained), error(collapsed)), (after, untrained, collapsed)
    assert after["perplexity"] > 1.5
    assert after["codes_used"] * 16 >= 3  # segmentations have three kinds of patches
    assert rebuilt.shape == values.shape
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["perplexity"] == round(after["perplexity"], 5)
    with Image.open(tmp_path / "out" / "reconstructions.png") as picture:
        assert picture.width > 4 * 2 * 100
    assert (tmp_path / "out" / "last.safetensors").exists()
    assert read_values(tmp_path / "out" / "config.yaml")["training"]["seed"] == 0


def test_a_diffusion_decoder_learns_over_frozen_codes(data: Path, tmp_path: Path) -> None:
    run_tokenizer(read_tokenizer_run(written(tmp_path, run_values(data, tmp_path / "vq", "depth"))))
    network = VIT | {"dec_type": "unet_tiny", "presets": {"unet_tiny": UNET}}
    values = run_values(
        data,
        tmp_path / "divae",
        "depth",
        kind="diffusion",
        tokenizer=network,
        start_from=str(tmp_path / "vq"),
        decoding_steps=5,
        num_judged=4,
        training=FAST | {"steps": 60, "log_every": 30, "save_every": 60, "batch_size": 8},
    )
    report = run_tokenizer(read_tokenizer_run(written(tmp_path, values)))
    assert report["l1"] < 0.6  # a constant map is 0.8 from a standardised one, noise 1.1
    log = [json.loads(line) for line in (tmp_path / "divae" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["denoised"] < 0.7 * log[0]["denoised"]
    first, second = load_tokenizer(tmp_path / "vq"), load_tokenizer(tmp_path / "divae")
    assert isinstance(second, DiVAE)
    assert open_checkpoint(tmp_path / "divae").config["prediction_type"] == "sample"
    assert torch.equal(first.codebook(), second.codebook())
    depth = torch.randn(4, 1, SIZE, SIZE)
    assert torch.equal(first.encode(depth), second.encode(depth))


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_a_diffusion_tokenizer_learns_from_nothing(prediction: str) -> None:
    colors = torch.tensor([-1.0, 1.0])

    def draw(number: int) -> torch.Tensor:
        patches = torch.randint(2, (8, 1, 2, 2), generator=torch.Generator().manual_seed(number))
        return colors[patches].repeat_interleave(8, 2).repeat_interleave(8, 3)

    values = NETWORKS["diffusion"]["normal"] | VIT | {"n_channels": 1, "image_size": 16, "patch_size": 8}
    values |= {"dec_type": "unet_tiny", "presets": {"unet_tiny": UNET}, "prediction_type": prediction}
    config = parse_tokenizer_config(values)
    recipe = DivaeRecipe(steps=80, batch_size=8, learning_rate=3e-3, warmup=10, precision="float32")
    tokenizer = train_divae(config, draw, recipe)  # pyright: ignore[reportArgumentType]
    batch = draw(10_000)
    rebuilt = tokenizer.decode(tokenizer.encode(batch), num_steps=5)
    assert ((rebuilt > 0) == (batch > 0)).float().mean() > 0.9


def test_training_a_decoder_that_cannot_start_is_refused() -> None:
    values = (
        NETWORKS["diffusion"]["depth"] | VIT | {"n_channels": 1, "image_size": 16, "dec_type": "unet_tiny"}
    )
    config = parse_tokenizer_config(values | {"presets": {"unet_tiny": UNET}, "prediction_type": "epsilon"})
    with pytest.raises(ModelError, match="pure noise"):
        train_divae(config, lambda _: torch.zeros(1, 1, 16, 16), DivaeRecipe(steps=1))  # pyright: ignore


def test_an_encoder_of_another_shape_is_refused(data: Path, tmp_path: Path) -> None:
    other = TokenizerConfig(1, **VIT | {"quant_type": "lucid", "num_codebooks": 1, "latent_dim": 4})
    save_checkpoint(VQVAE(other), tmp_path / "other.safetensors")
    network = VIT | {"dec_type": "unet_tiny", "presets": {"unet_tiny": UNET}}
    values = run_values(data, tmp_path / "out", "depth", kind="diffusion", tokenizer=network)
    values["start_from"] = str(tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="latent_dim 4 in place of 8"):
        run_tokenizer(read_tokenizer_run(written(tmp_path, values)))


# --- whole runs


def test_a_killed_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    """The process is killed while it trains; the weights are those of a run that was not."""
    modality = "depth"
    training = FAST | {"steps": 40, "log_every": 5, "save_every": 10, "precision": "bfloat16"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    common = {"training": training, "margin": 1.25, "mirror": True, "num_judged": 2}
    run_tokenizer(
        read_tokenizer_run(
            written(tmp_path / "whole", run_values(data, tmp_path / "whole", modality, **common))
        )
    )
    path = written(tmp_path / "killed", run_values(data, tmp_path / "killed", modality, **common))
    code = (
        "import os, signal, sys, torch; from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "from anyseek.model.training.tokenizer_recipes import read_tokenizer_run\n"
        "from anyseek.model.training.tokenizer_runs import run_tokenizer\n"
        "def tell(stage, done, total):\n"
        "    if stage == 'train' and done == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_tokenizer(read_tokenizer_run(Path(sys.argv[1])), tell)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(path), "24"], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "report.json").exists()
    run_tokenizer(read_tokenizer_run(path))
    for file in ("model.safetensors", "last.safetensors"):
        whole, again = (load_tokenizer(tmp_path / name / file).state_dict() for name in ("whole", "killed"))
        assert all(torch.equal(value, again[name]) for name, value in whole.items())
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "killed")]
    assert reports[0] | {"output": ""} == reports[1] | {"output": ""}


def test_a_run_that_is_told_to_stop_goes_on_later(data: Path, tmp_path: Path) -> None:
    values = run_values(data, tmp_path / "out", "dinov2_global")
    values["training"] = {"steps": 9, "warmup": 1, "save_every": 20, "log_every": 2}
    config = read_tokenizer_run(written(tmp_path, values))
    stopped = run_tokenizer(config, should_stop=lambda: True)
    assert (stopped["finished"], stopped["steps"]) == (False, 1)
    values["output"] = str(tmp_path / "whole")
    whole = run_tokenizer(read_tokenizer_run(written(tmp_path, values)))
    again = run_tokenizer(config)
    assert again["finished"]
    assert again | {"output": ""} == whole | {"output": ""}


def test_a_run_with_other_settings_is_refused(data: Path, tmp_path: Path) -> None:
    values = run_values(data, tmp_path / "out", "dinov2_global", training={"steps": 2, "warmup": 1})
    run_tokenizer(read_tokenizer_run(written(tmp_path, values)))
    values["tokenizer"] = MLP | {"codebook_size": 32}
    with pytest.raises(ConfigError, match="tokenizer was"):
        run_tokenizer(read_tokenizer_run(written(tmp_path, values)))


# --- data


def test_files_are_found_in_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "side" / "sub").mkdir(parents=True)
    for name in (
        "a.png",
        "a.depth.png",
        "sub/b.jpg",
        "sub/b.depth.npy",
        "a.caption.txt",
        ".c.depth.png",
        "v.1.png",
    ):
        (tmp_path / "side" / name).write_bytes(b"")
    assert list(modality_files(tmp_path / "side", "depth")) == ["a", "sub/b"]
    assert list(modality_files(tmp_path / "side", "rgb")) == ["a", "sub/b", "v.1"]
    (tmp_path / "tree" / "depth" / "part").mkdir(parents=True)
    for name in ("part/1.png", "part/1.npy", "2.tif", "notes.md"):
        (tmp_path / "tree" / "depth" / name).write_bytes(b"")
    found = modality_files(tmp_path / "tree", "depth")
    assert {name: path.name for name, path in found.items()} == {"2": "2.tif", "part/1": "1.png"}
    with pytest.raises(InputError, match="holds no semseg"):
        modality_files(tmp_path / "tree", "semseg")
    with pytest.raises(InputError, match="is no folder"):
        modality_files(tmp_path / "none", "depth")


def test_a_bad_file_is_listed_and_left_out(data: Path, tmp_path: Path) -> None:
    files = dict(list(modality_files(data, "depth").items())[:3])
    files["flat"] = tmp_path / "flat.npy"
    np.save(files["flat"], np.ones((8, 8), np.float32))
    array = load_values(files, reader_row("depth", 16, files["flat"]), tmp_path / "cache")
    assert array.names == ("000", "001", "002")
    assert "needs near and far" in array.failures["flat"]
    with pytest.raises(InputError, match="None of 1 files"):
        load_values({"flat": files["flat"]}, reader_row("depth", 16, files["flat"]), tmp_path / "other")


def test_the_cache_is_read_again_only_when_files_change(data: Path, tmp_path: Path) -> None:
    files = dict(list(modality_files(data, "sam_edge").items())[:4])
    row = reader_row("sam_edge", 16, next(iter(files.values())))
    told: list[tuple[int, int]] = []
    first = load_values(files, row, tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == (4, 4)
    again = load_values(files, row, tmp_path, progress=lambda *now: told.append(now))
    assert len(told) == 4
    assert np.array_equal(first.values, again.values)
    load_values(dict(list(files.items())[:3]), row, tmp_path, progress=lambda *now: told.append(now))
    assert told[-1] == (3, 3)


def test_values_of_several_people_become_rows_of_their_item(data: Path, tmp_path: Path) -> None:
    files = dict(list(modality_files(data, "human_poses").items())[:3])
    array = load_values(files, reader_row("human_poses", 0, next(iter(files.values()))), tmp_path)
    assert array.values.shape == (6, 23, 3, 3)
    assert array.names == ("000", "000", "001", "001", "002", "002")
    train, held = array.split(frozenset({"001"}))
    assert (train.tolist(), held.tolist()) == ([0, 1, 4, 5], [2, 3])


def test_cuts_and_mirrors_keep_a_value_what_it_is() -> None:
    rng = np.random.default_rng(0)
    depth = ValueArray("depth", rng.normal(size=(4, 20, 20)).astype(np.float16), ("a", "b", "c", "d"), {})
    draws = ValueDraws(depth, np.arange(4), 64, 0, size=16, mirror=True)
    batch = draws(3)
    assert batch.shape == (64, 1, 16, 16)
    assert torch.equal(batch, draws(3))
    assert not torch.equal(batch, draws(4))
    middle = batch.flatten(1).sort().values[:, 25:-25]
    assert middle.mean(1).abs().max() < 0.02
    assert (middle.std(1) - 1).abs().max() < 0.02
    normals = np.uint8([[[[200, 10, 20], [128, 30, 40]]]])
    assert mirrored("normal", normals).tolist() == [[[[127, 30, 40], [55, 10, 20]]]]


def test_features_and_poses_are_neither_cut_nor_mirrored() -> None:
    features = ValueArray("dinov2", np.arange(96, dtype=np.float16).reshape(1, 6, 4, 4), ("a",), {})
    batch = ValueDraws(features, np.arange(1), 8, 0, size=2, mirror=True)(0)
    assert torch.equal(batch, torch.arange(96.0).view(1, 6, 4, 4).expand(8, 6, 4, 4))


def test_every_modality_with_a_tokenizer_has_a_loss_and_a_network() -> None:
    known = {raw for rows in NETWORKS.values() for raw in rows}
    assert known == set(LOSSES)


def test_reconstructions_of_any_number_are_drawn() -> None:
    values = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)
    picture = draw_reconstructions("rgb", values, 255 - values, size=32, columns=4)
    assert picture.height > 2 * 32
    assert picture.getpixel((8 + 4, 8 + 4)) != picture.getpixel((8 + 32 + 2 + 4, 8 + 4))


# --- the YAML


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kindd": "vq"}, "unknown key kindd"),
        (
            {"training": {"step": 3}},
            r"unknown key training.step \(did you mean steps\?\); known are steps, batch_size",
        ),
        ({"training": {"steps": 0}}, "training.steps: .*greater than or equal to 1"),
        ({"training": {"precision": "half"}}, "training.precision"),
        ({"modality": "smell"}, "Unknown modality 'smell'"),
        ({"modality": "dinov2_global"}, "this kind is for rgb, .*; dinov2_global takes kind memcodes"),
        ({"tokenizer": {"enc_typo": 1}}, "enc_typo"),
        ({"tokenizer": {"codebook_size": "many"}}, "codebook_size"),
        ({"data": []}, "data: .*at least 1 item"),
        ({"kind": "gan"}, "known are vq, diffusion, memcodes, wordpiece"),
        ({"held_out": 1.5}, "held_out"),
    ],
)
def test_mistakes_in_the_yaml_are_named(
    change: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    values = run_values(data, tmp_path / "out", "depth") | change
    with pytest.raises(ConfigError, match=message):
        read_tokenizer_run(written(tmp_path, values))


@pytest.mark.parametrize(
    "content", ["- a", "{", "a: &b [*b]\n1: 2", "\x00", "!!python/object/apply:os.system [ls]"]
)
def test_what_is_no_mapping_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError):
        read_tokenizer_run(tmp_path / "run.yaml")


def test_a_saved_configuration_reads_back(data: Path, tmp_path: Path) -> None:
    values = run_values(
        data, tmp_path / "out", "dinov2_global", training={"steps": 2, "learning_rate": "1e-3"}
    )
    config = read_tokenizer_run(written(tmp_path, values))
    run_tokenizer(config)
    assert read_tokenizer_run(tmp_path / "out" / "config.yaml") == config


# --- vocabularies


WORDS = [
    "a",
    "red",
    "cube",
    "stands",
    "behind",
    "the",
    "large",
    "blue",
    "sphere",
    "beside",
    "a",
    "small",
    "wooden",
    "table",
    "near",
    "the",
    "lake",
]


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    rng = np.random.default_rng(0)
    (folder / "caption").mkdir()
    for i in range(100):
        (folder / "caption" / f"{i}.txt").write_text(" ".join(rng.choice(WORDS, 8)) + ".")
    (folder / "caption" / "latin.txt").write_bytes(b"caf\xe9")
    return folder


def test_a_vocabulary_has_the_published_layout(captions: Path, tmp_path: Path) -> None:
    values = {"kind": "wordpiece", "data": str(captions), "output": str(tmp_path / "out"), "vocab_size": 6000}
    values["class_names"] = ["zebra", "hot dog", "cube"]
    report = run_tokenizer(read_tokenizer_run(written(tmp_path, values)))
    assert report["unknown"] == 0
    assert report["same"] == 1
    assert report["tokens_per_word"] < 1.2  # letter by letter it would be 4
    assert "not UTF-8" in report["failures"]["0/latin"]
    text = TextTokenizer.from_file(tmp_path / "out" / "text_tokenizer.json")
    assert (text.pad_id, text.unk_id, text.sos_id, text.eos_id) == (0, 1, 2, 3)
    assert text.sentinels == tuple(range(5, 204))
    assert (text.id_of("v0=0"), text.id_of("v3=999")) == (204, 4203)
    assert [text.id_of(name) for name in ("cube", "hot dog", "zebra")] == [4204, 4205, 4206]
    spelt = text.tokens(text.encode("v0=7 v1=9 Hot Dog polygon xylophone 42 [S_1]"))
    assert spelt[:4] == ["v0=7", "v1=9", "hot dog", "polygon"]
    assert spelt[-1] == "[S_1]"
    assert "[UNK]" not in spelt


# --- the command


def test_the_command_trains_and_tells(data: Path, captions: Path, tmp_path: Path) -> None:
    values = run_values(data, tmp_path / "out", "dinov2_global", training={"steps": 3, "warmup": 1})
    ran = CliRunner().invoke(main, ["train", "tokenizer", str(written(tmp_path, values)), "--json"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["steps"] == 3
    assert json.loads(ran.stderr.splitlines()[-1]) == {"stage": "train", "done": 3, "total": 3}
    words = {
        "kind": "wordpiece",
        "data": str(captions),
        "output": str(tmp_path / "words"),
        "vocab_size": 6000,
    }
    ran = CliRunner().invoke(main, ["train", "tokenizer", str(written(tmp_path, words))])
    assert ran.exit_code == 0, ran.output
    assert "tokens_per_word" in ran.stdout
    assert "not UTF-8" in ran.stderr
    ran = CliRunner().invoke(main, ["train", "tokenizer", str(written(tmp_path, words | {"kind": "x"}))])
    assert ran.exit_code == 2
    assert "known are vq, diffusion, memcodes, wordpiece" in ran.stderr


def test_the_command_for_teachers_reads_its_yaml(tmp_path: Path) -> None:
    ran = CliRunner().invoke(
        main, ["train", "teachers", str(written(tmp_path, {"kind": "dino", "data": "x"}))]
    )
    assert ran.exit_code == 2
    assert "missing key output" in ran.stderr


def test_the_examples_of_the_docs_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training-tokenizers.md").read_text()
    kinds: list[str] = []
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        values = yaml.safe_load(block)
        read = read_teacher_run if values["kind"] == "dino" else read_tokenizer_run
        kinds.append(read(written(tmp_path, values)).kind)
    assert kinds == ["vq", "diffusion", "wordpiece", "dino"]
