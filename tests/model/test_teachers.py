"""Teachers: what they make of pictures, against the same quantity computed another way."""

import importlib
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import CheckpointError, InputError, ModelError
from anyseek.model.teachers import TEACHERS, Teacher, TeacherSource, load_teacher
from anyseek.model.teachers import imagebind as port
from anyseek.model.tensor_file import TensorFile
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@pytest.fixture(scope="module")
def packages() -> Iterator[None]:
    """open_clip and timm, also beside a torchvision whose compiled operators do not fit this torch."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    root_level = logging.getLogger().level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError):
            for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm")]:
                del sys.modules[name]
            for schema in OPERATORS:
                library.define(schema)
        try:
            for name in ("torchvision", "timm", "open_clip"):
                importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"open_clip or timm cannot be imported here: {error}")
    yield
    logging.getLogger().setLevel(root_level)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


def standardised(images: np.ndarray) -> Tensor:
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD


def random_state(network: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.06 * torch.randn(tensor.shape, generator=generator) + (tensor.ndim == 1) * 0.5
        for name, tensor in network.state_dict().items()
    }


def state_of(source: TeacherSource) -> dict[str, Tensor]:
    with torch.device("meta"):
        network = source.build(source.architecture, source.image_size)
    return random_state(network)


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


# CLIP


@pytest.fixture
def small_clip(packages: None) -> TeacherSource:  # noqa: ARG001
    import open_clip
    from open_clip.factory import _MODEL_CONFIGS

    vision = {"image_size": 224, "layers": 2, "width": 128, "patch_size": 16}
    _MODEL_CONFIGS["small-clip"] = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": {}}
    assert open_clip.get_model_config("small-clip")
    return replace(TEACHERS["clip"], architecture="small-clip")


def clip_by_hand(state: dict[str, Tensor], pixels: Tensor, num_heads: int) -> Tensor:
    """Patch tokens of CLIP's tower, written down from the paper's model in plain functions."""
    get = {name.removeprefix("visual."): tensor for name, tensor in state.items()}
    x = functional.conv2d(pixels, get["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([get["class_embedding"].expand(len(x), 1, -1), x], 1) + get["positional_embedding"]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], get[f"{name}.weight"], get[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, get[f"{name}.weight"], get[f"{name}.bias"])

    x = norm(x, "ln_pre")
    for i in range(2):
        block = f"transformer.resblocks.{i}"
        y = norm(x, f"{block}.ln_1")
        qkv = functional.linear(y, get[f"{block}.attn.in_proj_weight"], get[f"{block}.attn.in_proj_bias"])
        q, k, v = (part.unflatten(2, (num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        y = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{block}.mlp.c_proj")
    tokens = norm(x, "ln_post")[:, 1:] @ get["proj"]
    return tokens.transpose(1, 2).reshape(len(x), -1, 14, 14)


def test_clip_gives_projected_patch_tokens(
    small_clip: TeacherSource, images: np.ndarray, tmp_path: Path
) -> None:
    state = state_of(small_clip)
    text = {"text_projection": torch.zeros(8, 8), "token_embedding.weight": torch.zeros(5, 8)}
    teacher = load_teacher(small_clip, save(state | text, tmp_path / "clip.safetensors"))
    found = teacher.extract(images)
    assert teacher.modalities == ("clip",)
    assert found["clip"].shape == (3, 48, 14, 14)
    assert found["clip"].dtype == np.float32
    expected = clip_by_hand(state, standardised(images), num_heads=2)
    np.testing.assert_allclose(found["clip"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("packages")
def test_published_clip_has_the_table_s_shape() -> None:
    state = state_of(TEACHERS["clip"])
    assert state["visual.proj"].shape == (768, 512)
    assert state["visual.positional_embedding"].shape == (1 + 14 * 14, 768)
    assert len([name for name in state if name.endswith("attn.in_proj_weight")]) == 12


# DINOv2


@pytest.fixture
def small_dino(packages: None) -> TeacherSource:  # noqa: ARG001
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def small_patch14(**options: Any) -> VisionTransformer:
        # a DINOv2 in everything but its size
        for key in ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(key, None)
        return VisionTransformer(
            patch_size=14, embed_dim=64, depth=2, num_heads=2, init_values=1e-5, **options
        )

    timm.models._registry._model_entrypoints["small_patch14"] = small_patch14
    return replace(TEACHERS["dinov2"], architecture="small_patch14")


def dino_by_hand(state: dict[str, Tensor], pixels: Tensor, positions: Tensor) -> Tensor:
    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = functional.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + positions
    for i in range(2):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        y = linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        x = x + y * state[f"{block}.ls1.gamma"]
        y = linear(functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        x = x + y * state[f"{block}.ls2.gamma"]
    return norm(x, "norm")


def dino_positions(published: Tensor) -> Tensor:
    """Cubic interpolation (a = -0.75) at (i + 0.5) / scale - 0.5 in float64, borders repeated."""
    grid = published[0, 1:].reshape(37, 37, -1).double().numpy()
    scale = 16.1 / 37

    def kernel(d: np.ndarray) -> np.ndarray:
        d, a = np.abs(d), -0.75
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    matrix = np.zeros((16, 37))
    for i in range(16):
        x = (i + 0.5) / scale - 0.5
        for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            matrix[i, min(max(j, 0), 36)] += kernel(np.array(x - j))
    small = np.einsum("ia,jb,abc->ijc", matrix, matrix, grid).reshape(1, 256, -1)
    return torch.cat([published[:, :1], torch.from_numpy(small).float()], 1)


def test_dinov2_gives_normalised_tokens_under_resampled_positions(
    small_dino: TeacherSource, images: np.ndarray, tmp_path: Path
) -> None:
    state = state_of(small_dino)
    state["pos_embed"] = torch.randn(1, 1 + 37 * 37, 64, generator=torch.Generator().manual_seed(2))
    teacher = load_teacher(small_dino, save(state, tmp_path / "dino.safetensors"))
    found = teacher.extract(images)
    tokens = dino_by_hand(state, standardised(images), dino_positions(state["pos_embed"]))
    assert found["dinov2"].shape == (3, 64, 16, 16)
    np.testing.assert_allclose(found["dinov2_global"], tokens[:, 0], rtol=1e-3, atol=2e-4)
    patches = tokens[:, 1:].transpose(1, 2).reshape(3, 64, 16, 16)
    np.testing.assert_allclose(found["dinov2"], patches, rtol=1e-3, atol=2e-4)


def test_positions_of_the_right_size_are_kept(small_dino: TeacherSource, tmp_path: Path) -> None:
    state = state_of(small_dino)
    teacher = load_teacher(small_dino, save(state, tmp_path / "dino.safetensors"))
    network: Any = teacher._network
    torch.testing.assert_close(network.pos_embed, state["pos_embed"], rtol=0, atol=0)


@pytest.mark.usefixtures("packages")
def test_published_dinov2_has_the_table_s_shape() -> None:
    state = state_of(TEACHERS["dinov2"])
    assert state["pos_embed"].shape == (1, 1 + 16 * 16, 768)
    assert state["patch_embed.proj.weight"].shape == (768, 3, 14, 14)
    assert len(state) == 174  # as many as in timm's published file


# ImageBind


@pytest.fixture
def small_bind(monkeypatch: pytest.MonkeyPatch) -> TeacherSource:
    monkeypatch.setitem(port.ARCHITECTURES, "small", port.TrunkConfig(width=48, depth=3, num_heads=4))
    return replace(TEACHERS["imagebind"], architecture="small")


def bind_by_hand(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The trunk on a clip of two frames, with torch's own layers and names where they exist."""
    stem = {name.removeprefix("modality_preprocessors.vision."): t for name, t in state.items()}
    clip = pixels[:, :, None].repeat(1, 1, 2, 1, 1)
    x = functional.conv3d(clip, stem["rgbt_stem.proj.1.weight"], stride=(2, 14, 14))
    x = torch.cat([stem["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + stem["pos_embedding_helper.pos_embed"]
    trunk = {name.removeprefix("modality_trunks.vision."): t for name, t in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (48,), trunk[f"{name}.weight"], trunk[f"{name}.bias"], 1e-6)

    x = norm(x, "pre_transformer_layer.0")
    for i in range(3):
        get = {n.removeprefix(f"blocks.{i}."): t for n, t in trunk.items()}
        y = norm(x, f"blocks.{i}.norm_1")
        qkv = functional.linear(y, get["attn.in_proj_weight"], get["attn.in_proj_bias"])
        q, k, v = (part.unflatten(2, (4, 12)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) / 12**0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        x = x + functional.linear(y, get["attn.out_proj.weight"], get["attn.out_proj.bias"])
        y = functional.linear(norm(x, f"blocks.{i}.norm_2"), get["mlp.fc1.weight"], get["mlp.fc1.bias"])
        x = x + functional.linear(functional.gelu(y), get["mlp.fc2.weight"], get["mlp.fc2.bias"])
    return x


def test_imagebind_gives_trunk_tokens(small_bind: TeacherSource, images: np.ndarray, tmp_path: Path) -> None:
    state = state_of(small_bind)
    other = {
        "modality_heads.vision.0.weight": torch.zeros(48),
        "modality_heads.vision.2.weight": torch.zeros(8, 48),
        "modality_trunks.audio.blocks.0.attn.bias_k": torch.zeros(1, 1, 8),
        "modality_preprocessors.text.pos_embed": torch.zeros(1, 77, 8),
    }
    teacher = load_teacher(small_bind, save(state | other, tmp_path / "bind.safetensors"))
    found = teacher.extract(images)
    tokens = bind_by_hand(state, standardised(images))
    assert found["imagebind"].shape == (3, 48, 16, 16)
    np.testing.assert_allclose(found["imagebind_global"], tokens[:, 0], rtol=1e-3, atol=1e-4)
    patches = tokens[:, 1:].transpose(1, 2).reshape(3, 48, 16, 16)
    np.testing.assert_allclose(found["imagebind"], patches, rtol=1e-3, atol=1e-4)


def test_imagebind_has_the_published_names_and_shapes() -> None:
    """Those of `imagebind_huge.pth`, vision only, without its head."""
    expected = {
        "modality_preprocessors.vision.cls_token": (1, 1, 1280),
        "modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        "modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
        "modality_trunks.vision.pre_transformer_layer.0.weight": (1280,),
        "modality_trunks.vision.pre_transformer_layer.0.bias": (1280,),
    }
    block = {
        "attn.in_proj_weight": (3840, 1280),
        "attn.in_proj_bias": (3840,),
        "attn.out_proj.weight": (1280, 1280),
        "attn.out_proj.bias": (1280,),
        "norm_1.weight": (1280,),
        "norm_1.bias": (1280,),
        "mlp.fc1.weight": (5120, 1280),
        "mlp.fc1.bias": (5120,),
        "mlp.fc2.weight": (1280, 5120),
        "mlp.fc2.bias": (1280,),
        "norm_2.weight": (1280,),
        "norm_2.bias": (1280,),
    }
    expected |= {
        f"modality_trunks.vision.blocks.{i}.{name}": shape for i in range(32) for name, shape in block.items()
    }
    with torch.device("meta"):
        network = port.build("huge", 224)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == expected


# all of them


def opened(source: TeacherSource, folder: Path) -> Teacher:
    return load_teacher(source, save(state_of(source), folder / f"{source.name}.safetensors"))


def test_batch_equals_one_by_one(small_bind: TeacherSource, images: np.ndarray, tmp_path: Path) -> None:
    teacher = opened(small_bind, tmp_path)
    batch = teacher.extract(images)
    for i in range(len(images)):
        for name, alone in teacher.extract(images[i : i + 1]).items():
            np.testing.assert_allclose(alone[0], batch[name][i], rtol=1e-4, atol=1e-5)


def test_no_images_give_no_features(
    small_clip: TeacherSource, small_dino: TeacherSource, small_bind: TeacherSource, tmp_path: Path
) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for source in (small_clip, small_dino, small_bind):
        found = opened(source, tmp_path).extract(np.zeros((0, 224, 224, 3), np.uint8))
        shapes |= {name: value.shape for name, value in found.items()}
    assert shapes == {
        "clip": (0, 48, 14, 14),
        "dinov2": (0, 64, 16, 16),
        "dinov2_global": (0, 64),
        "imagebind": (0, 48, 16, 16),
        "imagebind_global": (0, 48),
    }


def test_bfloat16_points_the_same_way(small_bind: TeacherSource, images: np.ndarray, tmp_path: Path) -> None:
    path = save(state_of(small_bind), tmp_path / "bind.safetensors")
    full = load_teacher(small_bind, path).extract(images)["imagebind_global"]
    half = load_teacher(small_bind, path, dtype=torch.bfloat16).extract(images)["imagebind_global"]
    assert half.dtype == np.float32
    cosines = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() > 0.999


def test_fingerprint_tells_weights_apart_and_not_places(small_bind: TeacherSource, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = opened(small_bind, tmp_path), opened(small_bind, tmp_path / "other")
    assert first.fingerprint == second.fingerprint
    state = state_of(small_bind)
    state["modality_preprocessors.vision.cls_token"][0, 0, 0] += 1
    changed = load_teacher(small_bind, save(state, tmp_path / "changed.safetensors"))
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 448, 448, 3), np.uint8),
        np.zeros((1, 224, 224, 4), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
        np.zeros((1, 224, 224, 3), np.float32),
    ],
    ids=["size", "channels", "no batch", "dtype"],
)
def test_other_arrays_than_pictures_are_refused(
    small_bind: TeacherSource, images: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape("uint8 (B, 224, 224, 3)")):
        opened(small_bind, tmp_path).extract(images)


def test_unknown_teacher_lists_the_known() -> None:
    with pytest.raises(ModelError, match="Known: clip, dinov2, imagebind"):
        load_teacher("dino")


def test_imagebind_without_a_file_says_that_there_is_none_to_fetch() -> None:
    with pytest.raises(ModelError, match="No weights of imagebind are published as safetensors"):
        load_teacher("imagebind")


@pytest.mark.parametrize(("name", "package"), [("clip", "open_clip"), ("dinov2", "timm")])
def test_missing_extra_names_the_command_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = save({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=re.escape("pip install 'anyseek[teachers]'")) as caught:
        load_teacher(name, path)
    assert caught.value.code == "model.extra"


def test_extra_that_fails_to_import_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_extra.py").write_text("raise RuntimeError('operator torchvision::nms is not there')")
    monkeypatch.syspath_prepend(tmp_path)
    source = replace(TEACHERS["dinov2"], package="broken_extra")
    with pytest.raises(ModelError, match=r"fails to import .*torchvision::nms"):
        load_teacher(source, save({"x": torch.zeros(1)}, tmp_path / "x.safetensors"))


def test_pickles_are_not_opened(small_bind: TeacherSource, tmp_path: Path) -> None:
    path = tmp_path / "imagebind_huge.pth"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="pickle"):
        load_teacher(small_bind, path)
    with pytest.raises(CheckpointError, match="pickle"):
        load_teacher(small_bind, tmp_path)


def test_weights_that_are_nowhere_are_named(small_bind: TeacherSource, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a file, nor a folder, nor a hub id"):
        load_teacher(small_bind, tmp_path / "no" / "such" / "file.safetensors")


def test_weights_may_lie_in_a_folder(small_bind: TeacherSource, tmp_path: Path) -> None:
    save(state_of(small_bind), tmp_path / "any_name.safetensors")
    assert load_teacher(small_bind, tmp_path).modalities == ("imagebind", "imagebind_global")


CLS = "modality_preprocessors.vision.cls_token"
NORM = "modality_trunks.vision.blocks.1.norm_1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NORM: None}, f"tensor '{NORM}' and 0 others are missing"),
        ({"modality_trunks.vision.blocks.3.norm_1.weight": torch.zeros(48)}, "are not of it"),
        ({CLS: torch.zeros(1, 1, 47)}, re.escape("should be floating (shape (1, 1, 48))")),
        ({CLS: torch.zeros(1, 1, 48, dtype=torch.int64)}, re.escape("the file has torch.int64 (1, 1, 48)")),
    ],
    ids=["missing", "unexpected", "shape", "type"],
)
def test_weights_must_be_exactly_of_the_network(
    small_bind: TeacherSource, change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {name: tensor for name, tensor in (state_of(small_bind) | change).items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message):
        load_teacher(small_bind, save(state, tmp_path / "bind.safetensors"))


def test_weights_of_another_teacher_are_refused(
    small_bind: TeacherSource, small_dino: TeacherSource, tmp_path: Path
) -> None:
    path = save(state_of(small_dino), tmp_path / "dino.safetensors")
    with pytest.raises(CheckpointError, match="is no imagebind"):
        load_teacher(small_bind, path)
    with pytest.raises(CheckpointError, match="is no dinov2"):
        load_teacher(small_dino, save(state_of(small_bind), tmp_path / "bind.safetensors"))


def test_only_the_towers_that_are_needed_are_read(small_bind: TeacherSource, tmp_path: Path) -> None:
    state = state_of(small_bind)
    path = save(state | {"modality_trunks.audio.x": torch.zeros(10**7)}, tmp_path / "bind.safetensors")
    read: list[int] = []
    original = TensorFile.read

    def counting(self: TensorFile, name: str) -> Tensor:
        tensor = original(self, name)
        read.append(tensor.nbytes)
        return tensor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorFile, "read", counting)
        load_teacher(small_bind, path)
    assert sum(read) == sum(tensor.nbytes for tensor in state.values())
