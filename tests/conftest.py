"""Options and fixtures that several rooms share."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples in every run: a change that passed here passes elsewhere. No deadline on shared machines.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=ROOT / "tests" / "golden",
        metavar="DIR",
        help="folder of recorded reference outputs for tests/model/test_golden.py (default: tests/golden)",
    )


ANY_CLASSES = ("person", "dog", "hot dog", "sky", "wall")
_ANY_GRIDS = ("rgb", "normal", "depth", "semseg", "clip", "dinov2", "imagebind", "sam_edge", "canny_edge")
_ANY_FEATURES = {"clip": 512, "dinov2": 768, "imagebind": 1280}
_ANY_SPACES = {"dinov2_global": 768, "imagebind_global": 1280}
_ANY_WORDS = (
    "a red cube stands behind a small dog",
    "human pose global camera shape none point polygon",
    "person sky wall",
)


def _any_grid(raw: str) -> str:
    # Published DINOv2 and ImageBind grids differ from all others too.
    return f"tok_{raw}@{96 if raw in ('dinov2', 'imagebind') else 64}"


def write_any_bundle(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a tiny model with every modality of 4M-21 in and out, and one that doubles its resolution.

    Squares of 64 pixels in 4 x 4 tokens (DINOv2 and ImageBind: 6 x 6), 64 codes each; poses, instances, words
    and channels of features as published. `config` goes to FourMConfig.
    """
    import torch
    from anyseek.model.checkpoint import save_checkpoint
    from anyseek.model.fourm import FourM
    from anyseek.model.presets import FourMConfig
    from anyseek.model.training.vocabulary import build_vocabulary, table_sizes

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = build_vocabulary(_ANY_WORDS, ANY_CLASSES[:3])
    (folder / "text.json").write_bytes(vocabulary)
    sizes = table_sizes(vocabulary)
    sizes |= dict.fromkeys(("human_poses", "sam_instance"), sizes["det"])
    grids = [_any_grid(raw) for raw in _ANY_GRIDS]
    outputs = (*sizes, *grids, *(f"tok_{space}" for space in _ANY_SPACES))
    sizes |= dict.fromkeys(grids, 64) | {f"tok_{space}": 32 for space in _ANY_SPACES}
    options: dict[str, Any] = {
        "encoder_depth": 2,
        "decoder_depth": 2,
        "dim": 32,
        "num_heads": 4,
        "share_modality_embeddings": False,
        **config,
    }
    torch.manual_seed(seed)
    _save_fourm(
        FourM(FourMConfig(("t5_caption", "rgb@64", *outputs), outputs, vocab_overrides=sizes, **options)),
        folder / "fourm.safetensors",
    )
    seven = ("rgb", "normal", "depth", "semseg", "clip")
    finer = tuple(f"tok_{raw}@128" for raw in seven)
    inputs = ("rgb@64", "rgb@128", "caption", "det", *(_any_grid(raw) for raw in seven), *finer)
    sizes = {name: size for name, size in sizes.items() if name in inputs} | dict.fromkeys(finer, 64)
    _save_fourm(
        FourM(FourMConfig(inputs, finer, vocab_overrides=sizes, **options)),
        folder / "super_resolution.safetensors",
    )
    tokenizers = _any_tokenizers()
    for name, tokenizer in tokenizers.items():
        save_checkpoint(tokenizer, folder / f"{name}.safetensors", dtype=torch.float16)
    files = {raw: f"{raw}.safetensors" for raw in tokenizers if raw != "edge"}
    files |= dict.fromkeys(("canny_edge", "sam_edge"), "edge.safetensors")
    content = {
        "name": "any",
        "license": "Apache-2.0",
        "description": "Seeded noise, every modality to every modality.",
        "fourm": "fourm.safetensors",
        "super_resolution": "super_resolution.safetensors",
        "text_tokenizer": "text.json",
        "tokenizers": files,
        "semseg_classes": ANY_CLASSES,
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def write_narrow_bundle(folder: Path, whole: Path) -> Path:
    """Write a tiny model of pictures and captions that predicts global embeddings alone.

    `whole` is a folder of `write_any_bundle`, whose tokenizers it takes.
    """
    import torch
    from anyseek.model.checkpoint import load_fourm
    from anyseek.model.fourm import FourM

    known = load_fourm(whole / "fourm.safetensors").config
    spaces = tuple(f"tok_{space}" for space in _ANY_SPACES)
    shutil.copytree(whole, folder)
    torch.manual_seed(0)
    sizes = {name: known.vocab_overrides[name] for name in ("caption", *spaces)}
    config = replace(known, domains_in=("rgb@64", "caption"), domains_out=spaces, vocab_overrides=sizes)
    _save_fourm(FourM(config), folder / "fourm.safetensors")
    content = json.loads((folder / "model.json").read_text()) | {"name": "narrow"}
    del content["super_resolution"]
    content["tokenizers"] = {space: content["tokenizers"][space] for space in _ANY_SPACES}
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def _save_fourm(fourm: Any, path: Path) -> None:
    import torch
    from anyseek.model.checkpoint import save_checkpoint

    with torch.no_grad():
        for name, parameter in fourm.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
            if "to_logits" in name:
                parameter.mul_(4)  # distributions with a mode, as after training
    save_checkpoint(fourm, path, dtype=torch.float16)


def _any_tokenizers() -> dict[str, Any]:
    """By the user's name, each with the networks of its published counterpart; `edge` is for both edges."""
    from anyseek.model.tokenizers.divae import DiffusionTokenizerConfig, DiVAE
    from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig

    vit: dict[str, Any] = {
        "enc_type": "vit_d16l1h2_enc",
        "quant_type": "lucid",
        "codebook_size": 64,
        "num_codebooks": 1,
        "latent_dim": 8,
        "image_size": 128,
        "post_mlp": True,
    }
    unet = {"model_channels": 32, "num_res_blocks": 1, "attention_factors": [2], "channel_mult": [1, 1]}
    uvit = {
        "block_channels": [32, 32],
        "resnets_per_block": 1,
        "transformer_blocks": 1,
        "transformer_width": 16,
        "transformer_heads": 2,
    }
    common: dict[str, Any] = {
        "prediction_type": "sample",
        "thresholding": False,
        "zero_terminal_snr": True,
        "scheduler": "ddim",
    }
    depth = DiffusionTokenizerConfig(
        n_channels=1,
        dec_type="unet_tiny",
        beta_schedule="linear",
        conditioning="add",
        presets={"unet_tiny": unet},
        **vit,
        **common,
    )
    edge = replace(
        depth,
        dec_type="uvit_tiny",
        beta_schedule="shifted_cosine:0.5",
        thresholding=True,
        conditioning="concat",
        image_size_enc=64,
        presets={"uvit_tiny": uvit},
    )
    image = TokenizerConfig(n_channels=1, dec_type="vit_d16l1h2_dec", **vit)
    mlp = "BottleneckMLP/B_1-Wi_32"
    vector = TokenizerConfig(
        207, mlp, mlp, codebook_size=1024, num_codebooks=8, latent_dim=32, patch_proj=False
    )
    made: dict[str, Any] = {
        "rgb": DiVAE(replace(depth, n_channels=3, clip_sample=True)),
        "normal": DiVAE(replace(depth, n_channels=3, clip_sample=True)),
        "depth": DiVAE(depth),
        "edge": DiVAE(edge),
        "semseg": VQVAE(replace(image, n_channels=8, n_labels=1 + len(ANY_CLASSES))),
        "sam_instance": VQVAE(
            replace(image, codebook_size=1024, latent_dim=16, image_size=64, out_conv=True)
        ),
        "human_poses": VQVAE(vector),
    }
    for raw, channels in _ANY_FEATURES.items():
        made[raw] = VQVAE(replace(image, n_channels=channels, patch_proj=False))
    for space, channels in _ANY_SPACES.items():
        made[space] = VQVAE(
            replace(vector, n_channels=channels, codebook_size=32, num_codebooks=16, latent_dim=64)
        )
    return made


@pytest.fixture(scope="module")
def quick_predictions() -> Iterator[int]:
    """Predictions of two diffusion steps and few words, where length is not the point; how many words."""
    from anyseek.model import plans, predictor
    from anyseek.model.tokenizers import divae

    words = 24
    texts = {name: (min(length, words), heat) for name, (length, heat) in plans._TEXT.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "_TEXT", texts)
        patch.setattr(predictor, "INSTANCES_PLAN", replace(predictor.INSTANCES_PLAN, max_tokens=words))
        patch.setattr(divae, "DEFAULT_STEPS", 2)
        yield words


@pytest.fixture(scope="session", name="write_any_bundle")
def make_any_bundle() -> Callable[..., Path]:
    """`write_any_bundle`."""
    return write_any_bundle


@pytest.fixture(scope="session")
def any_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `load_model` opens, with every modality in and out; not to be changed."""
    return write_any_bundle(tmp_path_factory.mktemp("any") / "bundle")


@pytest.fixture(scope="session")
def narrow_bundle(tmp_path_factory: pytest.TempPathFactory, any_bundle: Path) -> Path:
    """A model of pictures and captions that predicts global embeddings alone; not to be changed."""
    return write_narrow_bundle(tmp_path_factory.mktemp("narrow") / "bundle", any_bundle)
