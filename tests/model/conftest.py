"""Tiny seeded models, for tests of everything that opens one, and values of every modality."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.model import Model, load_model
from anyseek.model.checkpoint import save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.modalities import Modality
from anyseek.model.presets import FourMConfig
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.token_data import TokenData
from anyseek.model.training.vocabulary import build_vocabulary, table_sizes
from anyseek.model.transfer import TransferConfig
from anyseek.model.values import INSTANCE, PERSON

INPUTS = ("rgb@32", "caption", "det", "metadata", "color_palette")
SPACES = {"dinov2_global": 24, "imagebind_global": 40}


def write_bundle(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Write a model of a few thousand weights into `folder`; `config` goes to FourMConfig."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = build_vocabulary(["a red cube stands behind a small dog"], ["dog", "hot dog"])
    (folder / "text.json").write_bytes(vocabulary)
    num_ids = len(json.loads(vocabulary)["model"]["vocab"])
    targets = tuple(f"tok_{space}" for space in SPACES)
    sizes = dict.fromkeys(INPUTS[1:], num_ids) | dict.fromkeys(targets, 32)
    options: dict[str, Any] = {
        "encoder_depth": 2,
        "decoder_depth": 2,
        "dim": 64,
        "num_heads": 4,
        "patch_size": 8,
        "share_modality_embeddings": False,
        **config,
    }
    torch.manual_seed(seed)
    fourm = FourM(FourMConfig(INPUTS, targets, vocab_overrides=sizes, **options))
    with torch.no_grad():
        for name, parameter in fourm.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            if "to_logits" in name:
                parameter.mul_(4)  # distributions with a mode, as after training
    save_checkpoint(fourm, folder / "fourm.safetensors")
    mlp = "BottleneckMLP/B_1-Wi_32"
    for space, dim in SPACES.items():
        shape = TokenizerConfig(
            n_channels=dim, enc_type=mlp, dec_type=mlp, codebook_size=32, num_codebooks=16, latent_dim=64
        )
        save_checkpoint(VQVAE(shape), folder / f"{space}.safetensors")
    content = {
        "name": "tiny",
        "license": "Apache-2.0",
        "description": "Seeded noise.",
        "fourm": "fourm.safetensors",
        "text_tokenizer": "text.json",
        "tokenizers": {space: f"{space}.safetensors" for space in SPACES},
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """`write_bundle`."""
    return write_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `load_model` opens; not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def any_model(any_bundle: Path) -> Model:
    """Takes and gives every modality, in float32 on the processor."""
    return load_model(any_bundle, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def draw_values() -> Callable[..., dict[str, np.ndarray]]:
    """`draw_item`."""
    return draw_item


def draw_item(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values of every modality that a model takes, as its reader gives them."""
    random = np.random.default_rng(seed)
    texts: dict[str, Any] = {
        "caption": "a red cube stands behind a small dog"[: 8 + seed % 20],
        "det": [{"box": [0.1, 0.2, 0.5, 0.9], "label": "dog"}] * (1 + seed % 3),
        "metadata": {"brightness": int(random.integers(256)), "contrast": 30},
        "color_palette": [random.integers(0, 256, 3).tolist() for _ in range(1 + seed % 4)],
    }
    item: dict[str, np.ndarray] = {}
    for raw, row in model.parts.inputs.items():
        size, channels = row.image_size or 0, row.channels or 0
        if raw in texts:
            item[raw] = model.embedder.read(raw, texts[raw])
        elif raw in ("rgb", "normal"):
            item[raw] = random.integers(0, 256, (size, size, 3), np.uint8)
        elif raw == "semseg":
            item[raw] = random.integers(0, len(model.parts.classes) + 1, (size, size)).astype(np.uint8)
        elif raw in ("canny_edge", "sam_edge"):
            item[raw] = 255 * (random.random((size, size)) < 0.2).astype(np.uint8)
        elif raw == "human_poses":
            item[raw] = draw_people(random, 1 + seed % 3)
        elif raw == "sam_instance":
            item[raw] = draw_instances(random, 1 + seed % 4)
        else:
            shapes = {"depth": (size, size), "t5_caption": (1 + seed % 9, channels)}
            grid = (channels, *(row.grid or ())) if row.positions == "2d" else (channels,)
            item[raw] = random.standard_normal(shapes.get(raw, grid), np.float32)
    return item


def draw_people(random: np.random.Generator, count: int) -> np.ndarray:
    people = np.zeros(count, PERSON)
    for name in PERSON.names or ():
        people[name] = random.uniform(0, 1, people[name].shape)
    return people


def draw_instances(random: np.random.Generator, count: int) -> np.ndarray:
    found = np.zeros(count, INSTANCE)
    found["point"] = random.integers(0, 224, (count, 2))
    found["box"] = np.sort(random.integers(0, 224, (count, 2, 2)), axis=1).reshape(count, 4)
    found["mask"] = random.integers(0, 2, (count, 64, 64))
    return found


@dataclass(frozen=True)
class TinyTraining:
    """A model of four modalities and samples of them, as training takes them."""

    config: FourMConfig
    text: TextTokenizer
    data: TokenData

    @property
    def rows(self) -> dict[str, Modality]:
        return {name: self.config.modality(name) for name in self.config.domains_in}


@pytest.fixture
def detection_run(any_bundle: Path) -> Callable[..., Callable[..., TransferConfig]]:
    """`short_detection` with a model."""
    return partial(short_detection, any_bundle)


def short_detection(
    bundle: Path, folder: Path, task: str, raw: str, *, learning_rate: float
) -> Callable[..., TransferConfig]:
    """Settings, which keywords change, of 70 rounds over pictures in `train` and `val` and a file of each."""

    def make(**changed: Any) -> TransferConfig:
        data = {
            part: {"rgb": str(folder / part), raw: str(folder / f"{part}.json")} for part in ("train", "val")
        }
        values: dict[str, Any] = {
            "out": str(folder / "run"),
            "task": task,
            "model": str(bundle),
            "image_size": 64,
            "data": data,
            "head": {"channels": 32, "depth": 1},
            "augment": {"scales": [0.9, 1.1]},
            "recipe": {
                "epochs": 70,
                "batch": 8,
                "learning_rate": learning_rate,
                "layer_decay": 0.9,
                "evaluate_every": 70,
            },
        }
        return TransferConfig.model_validate(values | changed)

    return make


@pytest.fixture(scope="session")
def tiny_training() -> TinyTraining:
    return make_tiny_training()


def make_tiny_training() -> TinyTraining:
    vocabulary = build_vocabulary(["a red cube stands behind a small dog"], ["dog"])
    text, sizes = TextTokenizer(vocabulary), table_sizes(vocabulary)
    names = ("rgb@32", "tok_depth@32", "caption", "metadata")
    config = FourMConfig(
        names,
        names[1:],
        dim=32,
        num_heads=2,
        encoder_depth=2,
        decoder_depth=2,
        patch_size=8,
        vocab_overrides={"tok_depth@32": 16} | {name: sizes[name] for name in ("caption", "metadata")},
    )
    random, count = np.random.default_rng(0), 40
    captions = np.zeros((count, 1, 2, 9), np.int16)
    for row in captions.reshape(-1, 9):
        length = random.integers(3, 9)
        row[:length] = random.integers(40, 60, length)
    statistics = [text.encode(f"v1=10 v0={n} v1=11 v0={n + 1} v1=12 v0={n + 2}") for n in range(count)]
    data = TokenData(
        {
            "rgb@32": random.integers(1, 256, (count, 2, 32, 32, 3), np.uint8),
            "tok_depth@32": random.integers(0, 16, (count, 2, 1, 16)).astype(np.int16),
            "caption": captions,
            "metadata": np.stack(statistics).astype(np.int16)[:, None, None],
        }
    )
    return TinyTraining(config, text, data)


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Products that several cores share are summed in another order than those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
