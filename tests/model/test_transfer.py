"""Transfer runs end to end on tiny models and small data: what is learnt, kept, resumed and refused."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.cli import main
from anyseek.errors import CheckpointError, ConfigError, InputError, ModelError
from anyseek.model.scenes import SEMSEG_CLASSES
from anyseek.model.transfer import TransferConfig, TransferRun, open_transfer, read_config
from anyseek.model.transfer.building import open_backbone, parameter_groups
from anyseek.model.transfer.heads import ClassHead, TransferModel
from click.testing import CliRunner
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_core")

SIZE = 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of red, three quarters at the left or one at the right, and blue; what is red is far."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for i in range(count):
            red = np.zeros((SIZE, SIZE), bool)
            if i % 2:
                red[:, 3 * SIZE // 4 :] = True
            else:
                red[:, : 3 * SIZE // 4] = True
            pixels = np.where(red[..., None], [200, 30, 30], [30, 30, 200])
            pixels = (pixels + rng.integers(-20, 20, pixels.shape)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            Image.fromarray(red.astype(np.uint8)).save(folder / f"{i}.semseg.png")
            Image.fromarray(np.where(red, 4000, 1000).astype(np.uint16)).save(folder / f"{i}.depth.png")
            (folder / f"{i}.json").write_text(json.dumps({"main": "blue" if i % 2 else "red"}))
    return tmp_path / "data"


@pytest.fixture
def settings(data: Path, tmp_path: Path, any_bundle: Path) -> Callable[..., TransferConfig]:
    """Settings of a short run on them; sections given are merged into these."""

    def make(task: str, out: str = "run", **changed: Any) -> TransferConfig:
        values: dict[str, Any] = {
            "out": str(tmp_path / out),
            "task": task,
            "model": str(any_bundle),
            "image_size": SIZE,
            "data": {"train": str(data / "train"), "val": str(data / "val")},
            "head": {"width": 64, "cells": 2, "depth": 1},
            "augment": {"mirror": 0.0, "scales": [0.8, 1.2], "areas": [0.6, 1.0]},
            "recipe": {
                "epochs": 10,
                "batch": 4,
                "learning_rate": 5e-3,
                "layer_decay": 0.9,
                "evaluate_every": 5,
            },
        }
        if task == "segmentation":
            values["data"] |= {"num_classes": 2}
        if task == "depth":
            values["data"] |= {"depth_scale": 0.001}
        if task == "classification":
            values["data"] |= {"attribute": "main"}
        for key, value in changed.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
        return TransferConfig.model_validate(values)

    return make


def test_segmentation_of_two_colours_is_learnt(settings: Callable[..., TransferConfig]) -> None:
    result = TransferRun(settings("segmentation"), device="cpu").run()
    assert result["best"]["mean_iou"] > 0.9


def test_depth_is_learnt_in_metres(settings: Callable[..., TransferConfig], data: Path) -> None:
    config = settings("depth", recipe={"epochs": 20})
    result = TransferRun(config, device="cpu").run()
    assert result["best"]["delta1"] > 0.85
    found = open_transfer(config.out, device="cpu").predict(np.array(Image.open(data / "val" / "0.png")))
    assert found.shape == (SIZE, SIZE)
    assert np.median(found[:, :32]) == pytest.approx(4, abs=0.6)
    assert np.median(found[:, -12:]) == pytest.approx(1, abs=0.6)


def test_an_attribute_is_learnt_and_opened_again(settings: Callable[..., TransferConfig], data: Path) -> None:
    config = settings("classification", recipe={"ema": 0.5})
    result = TransferRun(config, device="cpu").run()
    assert result["best"]["top1"] == 1.0
    assert result == json.loads((config.out / "result.json").read_text())
    opened = open_transfer(config.out, device="cpu")
    assert opened.classes == ("blue", "red")
    assert opened.metrics["top1"] == 1.0
    for name, label in (("0", "red"), ("1", "blue")):
        shares = opened.predict(np.array(Image.open(data / "val" / f"{name}.png")))
        assert shares.sum() == pytest.approx(1, abs=1e-5)
        assert opened.classes[int(shares.argmax())] == label


def test_folders_name_classes_and_pictures_are_mixed(
    tmp_path: Path, settings: Callable[..., TransferConfig]
) -> None:
    for split in ("train", "val"):
        for name, value in (("dark", 30), ("light", 220)):
            folder = tmp_path / "folders" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(np.full((40, 50, 3), value + i, np.uint8)).save(folder / f"{i}.png")
    config = settings(
        "classification",
        data={
            "train": str(tmp_path / "folders/train"),
            "val": str(tmp_path / "folders/val"),
            "attribute": None,
        },
        augment={
            "mixup": 0.2,
            "cutmix": 1.0,
            "label_smoothing": 0.1,
            "rand_augment": 1.0,
            "center_share": 0.9,
        },
        recipe={"epochs": 20},
    )
    assert TransferRun(config, device="cpu").run()["best"]["top1"] == 1.0


@pytest.mark.parametrize("depth_as", ["tokens", "pixels"])
def test_depth_joins_as_tokens_or_pixels(
    settings: Callable[..., TransferConfig], depth_as: str, data: Path
) -> None:
    config = settings(
        "segmentation", inputs=["rgb", "depth"], depth_as=depth_as, head={"readout": ["rgb", "depth"]}
    )
    run = TransferRun(config, device="cpu")
    assert run.model.encoder.layer("depth").takes_ids == (depth_as == "tokens")
    assert run.run()["best"]["mean_iou"] > 0.8
    folder = data / "val"
    found = open_transfer(config.out, device="cpu").predict(
        np.array(Image.open(folder / "1.png")), np.array(Image.open(folder / "1.depth.png"))
    )
    assert (found == np.array(Image.open(folder / "1.semseg.png"))).mean() > 0.8


def test_depth_alone_tells_what_colour_hides(settings: Callable[..., TransferConfig], data: Path) -> None:
    for path in data.rglob("?.png"):
        Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8)).save(path)
    blind = TransferRun(settings("segmentation", "blind"), device="cpu").run()
    both = {"inputs": ["rgb", "depth"], "depth_as": "pixels", "recipe": {"epochs": 20}}
    seeing = TransferRun(settings("segmentation", "seeing", **both), device="cpu").run()
    assert blind["best"]["mean_iou"] + 0.25 < seeing["best"]["mean_iou"]


def test_an_interrupted_run_ends_in_the_same_weights(settings: Callable[..., TransferConfig]) -> None:
    recipe = {"epochs": 4, "evaluate_every": 1, "ema": 0.9, "drop_path": 0.3, "accumulate": 2}
    whole, parts = (settings("segmentation", out, recipe=recipe) for out in ("whole", "parts"))
    TransferRun(whole, device="cpu").run()
    for until in (2, 7, None):
        run = TransferRun(parts, device="cpu")
        assert run.run(lambda run=run, until=until: run.step == until)["steps"] == (until or 12)
    first, second = (open_transfer(config.out, device="cpu") for config in (whole, parts))
    assert first.metrics == second.metrics
    for name, value in first._model.state_dict().items():
        assert torch.equal(value, second._model.state_dict()[name]), name
    logs = [
        [json.loads(line) for line in (c.out / "log.jsonl").read_text().splitlines()] for c in (whole, parts)
    ]
    assert [{k: v for k, v in one.items() if k != "s"} for one in logs[0]] == [
        {k: v for k, v in one.items() if k != "s"} for one in logs[1]
    ]


@pytest.mark.slow
def test_a_killed_run_goes_on(settings: Callable[..., TransferConfig], tmp_path: Path) -> None:
    recipe = {"epochs": 4, "evaluate_every": 1, "save_every": 1}
    whole, killed = (settings("segmentation", out, recipe=recipe) for out in ("whole", "killed"))
    TransferRun(whole, device="cpu").run()
    code = (
        "import os, sys; from pathlib import Path; from anyseek.model.transfer import *\n"
        "stop = lambda s: os._exit(9) if s['stage'] == 'train' and s['done'] == 5 else None\n"
        "TransferRun(read_config(Path(sys.argv[1])), device='cpu', show=stop).run()"
    )
    path = tmp_path / "killed.yaml"
    path.write_text(killed.model_dump_json())  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 9
    assert TransferRun(killed, device="cpu").step == 4
    TransferRun(killed, device="cpu").run()
    first, second = (open_transfer(config.out, device="cpu") for config in (whole, killed))
    for name, value in first._model.state_dict().items():
        assert torch.equal(value, second._model.state_dict()[name]), name


def test_a_folder_belongs_to_one_run(settings: Callable[..., TransferConfig]) -> None:
    TransferRun(settings("segmentation"), device="cpu").run(lambda: True)
    with pytest.raises(ConfigError, match=r"recipe.learning_rate 0.005, now 0.001"):
        TransferRun(settings("segmentation", recipe={"learning_rate": 1e-3}), device="cpu")
    state = settings("segmentation").out / "training.ckpt"
    state.write_bytes(b"\x80\x04 no state")
    with pytest.raises(ConfigError, match="no training state"):
        TransferRun(settings("segmentation"), device="cpu")


def test_random_weights_differ_and_lora_freezes_the_blocks(settings: Callable[..., TransferConfig]) -> None:
    plain = open_backbone(settings("segmentation"), "cpu").encoder
    fresh = open_backbone(settings("segmentation", init="random"), "cpu").encoder
    assert not torch.equal(
        plain.state_dict()["blocks.0.attn.qkv.weight"], fresh.state_dict()["blocks.0.attn.qkv.weight"]
    )
    config = settings("segmentation", recipe={"lora_rank": 2})
    run = TransferRun(config, device="cpu")
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    assert run.run()["best"]["mean_iou"] > 0.7
    changed = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
    in_blocks = {name for name in changed if name.startswith("encoder.blocks.")}
    assert in_blocks
    assert all("lora_" in name for name in in_blocks)
    assert open_transfer(config.out, device="cpu").metrics["mean_iou"] > 0.7


def test_a_run_goes_on_from_another_at_another_size(settings: Callable[..., TransferConfig]) -> None:
    first = settings("classification", "first", recipe={"epochs": 2})
    TransferRun(first, device="cpu").run()
    learnt = open_transfer(first.out, device="cpu")._model.encoder.state_dict()
    config = settings(
        "segmentation", start_from=str(first.out), image_size=96, inputs=["rgb", "depth"], depth_as="pixels"
    )
    found = open_backbone(config, "cpu").encoder.state_dict()
    for name, value in found.items():
        if name.startswith("inputs.depth.") or name.endswith("positions"):
            continue
        assert torch.equal(value, learnt[name]), name
    assert found["inputs.rgb.positions"].shape[1] == 36
    with pytest.raises(CheckpointError, match=r"best.safetensors"):
        open_backbone(settings("segmentation", start_from=str(first.out.parent)), "cpu")


def test_layers_learn_the_slower_the_lower(settings: Callable[..., TransferConfig]) -> None:
    config = settings(
        "segmentation",
        inputs=["rgb", "depth"],
        depth_as="pixels",
        recipe={"layer_decay": 0.5, "weight_decay": 0.1},
    )
    backbone = open_backbone(config, "cpu")
    model = TransferModel(backbone.encoder, ClassHead(backbone.encoder.dim, 3))
    groups = parameter_groups(model, config, backbone.new)
    names = {id(p): name for name, p in model.named_parameters()}
    scale = {names[id(p)]: (g["scale"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    assert set(scale) == set(names.values())
    assert scale["head.linear.weight"] == (1, 0.1)
    assert scale["head.linear.bias"] == (1, 0)
    assert scale["encoder.norm.weight"] == (1, 0)
    assert scale["encoder.blocks.1.mlp.fc1.weight"] == (0.5, 0.1)
    assert scale["encoder.blocks.0.attn.qkv.weight"] == (0.25, 0.1)
    assert scale["encoder.inputs.rgb.content.weight"] == (0.125, 0.1)
    assert scale["encoder.inputs.rgb.mod_emb"] == (0.125, 0)
    assert scale["encoder.inputs.depth.content.weight"] == (1, 0.1)


def test_what_does_not_fit_is_told(settings: Callable[..., TransferConfig], data: Path, bundle: Path) -> None:
    with pytest.raises(ModelError, match="do not fill 72 px"):
        TransferRun(settings("segmentation", image_size=72), device="cpu")
    with pytest.raises(ModelError, match="no depth tokens; take `depth_as: pixels`"):
        open_backbone(
            settings("segmentation", model=str(bundle), inputs=["rgb", "depth"], depth_as="tokens"), "cpu"
        )
    (data / "val" / "0.json").write_text('{"main": "green"}')
    with pytest.raises(InputError, match=r"0.png: its class 'green' is not among .* blue, red"):
        TransferRun(settings("classification"), device="cpu")
    (data / "train" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(InputError, match=r"3.png"):
        TransferRun(settings("segmentation"), device="cpu").run()


def test_only_weights_of_a_run_are_opened(settings: Callable[..., TransferConfig]) -> None:
    config = settings("segmentation", recipe={"epochs": 1})
    TransferRun(config, device="cpu").run()
    opened = open_transfer(config.out, device="cpu")
    with pytest.raises(InputError, match="without depth"):
        opened.predict(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8)))
    with pytest.raises(InputError, match=r"float64 \(8, 8\)"):
        opened.predict(np.zeros((8, 8)))
    assert opened.predict(np.zeros((20, 40, 3), np.uint8)).shape == (20, 40)
    text = (config.out / "config.yaml").read_text()
    (config.out / "config.yaml").write_text(text.replace("width: 64", "width: 32"))
    with pytest.raises(CheckpointError, match="not of the network"):
        open_transfer(config.out, device="cpu")


def test_command_trains_and_tells(settings: Callable[..., TransferConfig], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(settings("segmentation", recipe={"epochs": 1}).model_dump_json())  # JSON is YAML
    env = {"ANYSEEK_DEVICE": "cpu"}
    told = CliRunner().invoke(main, ["train", "transfer", str(path), "--json"], env=env)
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["finished"]
    table = CliRunner().invoke(main, ["train", "transfer", str(path)], env=env)  # nothing is left to do
    assert "mean_iou" in table.stdout
    path.write_text("task: segmentation")
    wrong = CliRunner().invoke(main, ["train", "transfer", str(path)], env=env)
    assert (wrong.exit_code, "missing key out" in wrong.stderr) == (2, True)


@pytest.mark.slow
def test_processes_that_read_change_nothing(settings: Callable[..., TransferConfig]) -> None:
    for workers in (0, 2):
        recipe = {"epochs": 1, "workers": workers}
        TransferRun(settings("segmentation", f"workers{workers}", recipe=recipe), device="cpu").run()
    alone, helped = (open_transfer(settings("segmentation", f"workers{n}").out, device="cpu") for n in (0, 2))
    for name, value in alone._model.state_dict().items():
        assert torch.equal(value, helped._model.state_dict()[name]), name


def test_settings_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    base = "out: x\ntask: segmentation\ndata: {train: a, val: b, num_classes: 3}\n"
    path.write_text(base)
    config = read_config(path)
    assert config.head.width == 6144
    assert config.recipe.layer_decay == 0.75
    for text, told in (
        (base + "recipe: {epoch: 3}\n", r"epoch.*epochs"),
        (base + "head: {width: 100, cells: 4}\n", r"width 100 is no multiple"),
        (base + "inputs: [depth]\n", "rgb"),
        (base.replace(", num_classes: 3", ""), "num_classes"),
        (base + "recipe: {batch: 5, accumulate: 2}\n", "accumulate"),
        (base + "augment: {areas: [1.0, 0.5]}\n", "areas"),
        ("task: [", "YAML"),
        ("- a", "must map|expected"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_config(path)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "docs" / "transfer").glob("*.yaml")), ids=lambda p: p.stem
)
def test_settings_of_the_docs_are_valid(path: Path) -> None:
    read_config(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["segmentation_rgbd", "depth_rgb", "detection_rgbd", "detection3d_rgbd", "main_color_rgb"]
)
def test_the_real_case_of_the_docs_reads_scenes_as_they_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    bench = importlib.import_module("transfer")
    for number, (part, count) in enumerate((("train", 40), ("val", 10))):
        bench.write(tmp_path / "scenes", part, count, seed=11 + number)
    config = bench.settings(name, "pretrained", tmp_path)
    assert name != "segmentation_rgbd" or config.data.num_classes == len(SEMSEG_CLASSES)
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"epochs": 1})})
    assert TransferRun(config).run()["best"]["step"] == 40 // config.recipe.batch
