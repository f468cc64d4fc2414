"""A tiny seeded model as a folder, for tests of everything that opens one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyseek.model.checkpoint import save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.presets import FourMConfig
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.training.vocabulary import build_vocabulary

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
