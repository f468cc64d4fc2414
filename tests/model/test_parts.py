"""Parts of a model: each is read when it is first needed, once, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import CheckpointError, InputError, ModelError
from anyseek.model import MODELS, Model, ModelSource, load_model
from anyseek.model import parts as parts_module
from anyseek.model.checkpoint import load_tokenizer, save_checkpoint
from anyseek.model.classes import COCO_CLASSES
from anyseek.model.modalities import RAW_NAMES
from anyseek.model.parts import ModelParts, Once
from anyseek.model.tensor_file import TensorFile
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig

DrawValues = Callable[..., dict[str, np.ndarray]]


def open_parts(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> ModelParts:
    source = replace(ModelSource.from_folder(folder), **changes)
    return ModelParts(source, torch.device("cpu"), dtype)


def bytes_of(path: Path, *, part: str) -> int:
    """Header of a tokenizer file, and what its encoder or decoder consists of, codes included."""
    file = TensorFile(path)
    other = {"encoder": ("decoder", "post_quant_proj"), "decoder": ("encoder", "quant_proj", "cls_emb")}[part]
    return file.bytes_read + sum(
        info.end - info.start for name, info in file.tensors.items() if name.partition(".")[0] not in other
    )


@pytest.fixture
def parts(any_bundle: Path) -> ModelParts:
    return open_parts(any_bundle)


# --- what there is


def test_every_modality_goes_in_and_all_with_tokens_come_out(parts: ModelParts) -> None:
    assert set(parts.inputs) == set(RAW_NAMES)
    assert set(parts.targets) == set(RAW_NAMES) - {"t5_caption"}
    assert parts.spaces == ("dinov2_global", "imagebind_global")
    assert parts.classes == ("person", "dog", "hot dog", "sky", "wall")


def test_pixels_go_in_as_they_are_and_come_out_as_tokens(parts: ModelParts) -> None:
    assert parts.inputs["rgb"].name == "rgb@64"
    assert parts.targets["rgb"].name == "tok_rgb@64"


def test_modalities_without_their_tokenizer_are_neither_read_nor_predicted(any_bundle: Path) -> None:
    tokenizers = ModelSource.from_folder(any_bundle).tokenizers
    few = {raw: tokenizers[raw] for raw in ("depth", "imagebind_global")}
    parts = open_parts(any_bundle, tokenizers=few)
    texts = {"caption", "det", "metadata", "color_palette"}
    assert set(parts.inputs) == texts | {"rgb", "t5_caption", "depth", "imagebind_global"}
    assert set(parts.targets) == texts | {"depth", "imagebind_global"}
    with pytest.raises(ModelError, match=r"no tokenizer for 'semseg'. Known: depth, imagebind_global"):
        parts.encoder("semseg")


def test_published_models_name_twelve_tokenizers(any_bundle: Path) -> None:
    source = MODELS["4m21-b"]
    assert len(set(source.tokenizers.values())) == 12
    assert set(source.tokenizers) == set(RAW_NAMES) - {
        "caption",
        "det",
        "metadata",
        "color_palette",
        "t5_caption",
    }
    assert source.tokenizers["canny_edge"] == "EPFL-VILAB/4M_tokenizers_edge_8k_224-512"
    assert source.tokenizers["human_poses"] == "EPFL-VILAB/4M_tokenizers_human-poses_1k_8"
    assert source.semseg_classes == COCO_CLASSES
    assert set(source.tokenizers) == set(ModelSource.from_folder(any_bundle).tokenizers)


def test_super_resolution_is_a_model_with_the_same_tokenizers(parts: ModelParts) -> None:
    finer = parts.super_resolution
    assert finer is not None
    assert {raw: row.name for raw, row in finer.targets.items()} == {
        raw: f"tok_{raw}@128" for raw in ("rgb", "depth", "normal", "semseg", "clip")
    }
    assert finer.inputs["rgb"].name == "rgb@64"
    assert finer.decoder("depth") is parts.decoder("depth")
    assert finer.fourm(["rgb"], ["depth"]).targets == ("tok_depth@128",)
    assert finer.super_resolution is None


# --- bytes


def test_opening_reads_the_configuration_alone(parts: ModelParts, any_bundle: Path) -> None:
    assert parts.bytes_read == TensorFile(any_bundle / "fourm.safetensors").bytes_read


@pytest.mark.parametrize("raw", ["depth", "canny_edge", "semseg", "human_poses", "sam_instance", "dinov2"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_of_a_tokenizer_is_read_without_the_other(parts: ModelParts, raw: str, part: str) -> None:
    before = parts.bytes_read
    network = getattr(parts, part)(raw)
    path = Path(parts.source.tokenizers[raw])
    assert parts.bytes_read - before == bytes_of(path, part=part) < path.stat().st_size
    assert hasattr(network, "encoder") == (part == "encoder")
    assert hasattr(network, "decoder") == (part == "decoder")


def test_a_depth_query_reads_the_depth_encoder_and_nothing_else(
    any_bundle: Path, any_model: Model, draw_values: DrawValues
) -> None:
    model = load_model(any_bundle, device="cpu", dtype="float32")
    item = {"depth": draw_values(any_model)["depth"]}
    for expected in (bytes_of(any_bundle / "depth.safetensors", part="encoder"), 0):
        before = model.bytes_read
        model.embedder.embed([item])
        assert model.bytes_read - before == expected


def test_bytes_of_a_decoder_play_no_part_in_a_query(
    any_bundle: Path, any_model: Model, draw_values: DrawValues, tmp_path: Path
) -> None:
    folder = shutil.copytree(any_bundle, tmp_path / "model")
    file = TensorFile(folder / "depth.safetensors")
    with file.path.open("r+b") as data:
        for name, info in file.tensors.items():
            if name.startswith("decoder."):
                data.seek(info.start)
                data.write(b"\xff" * (info.end - info.start))
    item = {"depth": draw_values(any_model)["depth"]}
    found = load_model(folder, device="cpu", dtype="float32").embedder.embed([item])
    for space, embeddings in any_model.embedder.embed([item]).items():
        assert (found[space].vectors == embeddings.vectors).all()


def test_a_model_opened_for_some_inputs_and_spaces_reads_only_these(any_bundle: Path) -> None:
    one = load_model(any_bundle, inputs=["depth"], spaces=["dinov2_global"])
    read = {
        name: TensorFile(any_bundle / name) for name in ("fourm.safetensors", "dinov2_global.safetensors")
    }
    tensors = read["fourm.safetensors"].tensors
    unused = sum(
        info.end - info.start
        for name, info in tensors.items()
        if name.startswith(("encoder_embeddings.", "decoder_embeddings."))
        and not name.startswith(("encoder_embeddings.tok_depth", "decoder_embeddings.tok_dinov2_global"))
    )
    size = sum((any_bundle / name).stat().st_size for name in (*read, "text.json"))
    samples = 2 * 4096 * sum(len(file.tensors) for file in read.values())  # of the fingerprint
    assert one.bytes_read <= size - unused + samples
    assert one.bytes_read < load_model(any_bundle).bytes_read / 2


def test_a_model_opened_without_spaces_reads_no_weights(any_bundle: Path) -> None:
    model = load_model(any_bundle, spaces=[])
    text = (any_bundle / "text.json").stat().st_size
    tensors = TensorFile(any_bundle / "fourm.safetensors")
    assert model.bytes_read <= text + tensors.bytes_read + 2 * 4096 * len(tensors.tensors)
    assert not model.spaces
    with pytest.raises(ModelError, match="without embedding spaces"):
        model.embedder.embed([{"caption": model.embedder.read("caption", "a dog")}])


# --- when


def test_missing_tokenizers_matter_to_their_modality_only(
    any_bundle: Path, any_model: Model, draw_values: DrawValues, tmp_path: Path
) -> None:
    folder = shutil.copytree(any_bundle, tmp_path / "model")
    (folder / "depth.safetensors").rename(folder / "gone")
    item = draw_values(any_model)
    embed = load_model(folder, device="cpu", dtype="float32").embedder.embed
    embed([{"normal": item["normal"]}])
    with pytest.raises(CheckpointError, match=r"depth\.safetensors"):
        embed([{"depth": item["depth"]}])
    (folder / "gone").rename(folder / "depth.safetensors")
    embed([{"depth": item["depth"]}])


def test_many_threads_read_a_part_once(any_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, barrier, loads = open_parts(any_bundle), Barrier(8), list[Any]()
    real = parts_module.load_tokenizer

    def load(*arguments: Any, **options: Any) -> Any:
        loads.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(parts_module, "load_tokenizer", load)

    def ask(raw: str) -> Any:
        barrier.wait()
        return parts.encoder(raw)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, ["canny_edge", "sam_edge"] * 4))
    assert len({id(one) for one in found}) == 1  # both kinds of edges have one tokenizer
    assert len(loads) == 1


def test_what_could_not_be_made_is_tried_again() -> None:
    tries = iter([OSError("away"), "there"])

    def make(key: str) -> str:
        outcome = next(tries)
        if isinstance(outcome, OSError):
            raise outcome
        return key + outcome

    once = Once[str, str](make)
    with pytest.raises(OSError, match="away"):
        once["is "]
    assert once.made() == []
    assert [once["is "], once["is "]] == ["is there", "is there"]
    assert once.made() == ["is there"]


def test_encoders_compute_in_float32_whatever_the_model_does(any_bundle: Path) -> None:
    parts = open_parts(any_bundle, torch.bfloat16)
    assert {p.dtype for p in parts.encoder("depth").parameters()} == {torch.float32}
    assert {p.dtype for p in parts.decoder("depth").parameters()} == {torch.bfloat16}


# --- what does not fit


@pytest.mark.parametrize(
    ("raw", "file", "message"),
    [
        ("clip", "dinov2", "768 channels, the model needs 512 channels: take its own"),
        ("depth", "rgb", "3 channels in patches of 16 px, the model needs 1 channels in patches of 16 px"),
        ("depth", "dinov2_global", "16 codebooks of 32 ids, the model needs 1 codebooks of 64 ids"),
        ("human_poses", "sam_instance", "1 codebooks of 1024 ids, the model needs 8 codebooks of 1024 ids"),
        ("sam_instance", "depth", "1 codebooks of 64 ids, the model needs 1 codebooks of 1024 ids"),
    ],
)
def test_tokenizers_of_other_modalities_are_refused(
    any_bundle: Path, raw: str, file: str, message: str
) -> None:
    tokenizers = {**ModelSource.from_folder(any_bundle).tokenizers, raw: any_bundle / f"{file}.safetensors"}
    with pytest.raises(ModelError, match=f"The tokenizer of {raw} has {message}"):
        open_parts(any_bundle, tokenizers=tokenizers).encoder(raw)


def test_tokenizers_with_other_patches_are_refused(any_bundle: Path, tmp_path: Path) -> None:
    own = load_tokenizer(any_bundle / "sam_instance.safetensors").config
    config = replace(own, codebook_size=64, patch_size=8)
    assert isinstance(config, TokenizerConfig)
    save_checkpoint(VQVAE(config), tmp_path / "depth.safetensors")
    tokenizers = {**ModelSource.from_folder(any_bundle).tokenizers, "depth": tmp_path / "depth.safetensors"}
    with pytest.raises(ModelError, match="in patches of 8 px, the model needs 1 channels in patches of 16"):
        open_parts(any_bundle, tokenizers=tokenizers).encoder("depth")


def test_features_may_be_of_another_width(any_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(any_bundle, tmp_path / "bundle")
    content = json.loads((folder / "model.json").read_text())
    for raw in ("dinov2", "dinov2_global"):
        config = load_tokenizer(any_bundle / f"{raw}.safetensors").config
        assert isinstance(config, TokenizerConfig)
        save_checkpoint(VQVAE(replace(config, n_channels=24)), folder / f"{raw}.safetensors")
    with pytest.raises(ModelError, match="24 channels, the model needs 768 channels"):
        open_parts(folder).encoder("dinov2")
    widths = {"dinov2": 24, "dinov2_global": 24}
    (folder / "model.json").write_text(json.dumps(content | {"channels": widths}))
    parts = open_parts(folder)
    assert {raw: row.channels for raw, row in parts.inputs.items() if raw in widths} == widths
    assert {raw: row.channels for raw, row in parts.targets.items() if raw in widths} == widths
    assert parts.inputs["clip"].channels == 512
    assert parts.encoder("dinov2").config.n_channels == 24
    model = load_model(folder, dtype="float32")
    read = model.embedder.read("dinov2", np.ones((24, 6, 6), np.float32))
    assert read.shape == (24, 6, 6)
    with pytest.raises(InputError, match="24"):
        model.embedder.read("dinov2", np.ones((768, 6, 6), np.float32))
    vectors = model.embedder.embed([{"dinov2": read}, {"dinov2_global": np.ones(24, np.float32)}])
    assert vectors["dinov2_global"].vectors.shape == (2, 24)
    assert vectors["imagebind_global"].vectors.shape == (2, 1280)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_classes_must_be_as_many_as_the_labels(any_bundle: Path, part: str) -> None:
    parts = open_parts(any_bundle, semseg_classes=COCO_CLASSES)
    with pytest.raises(ModelError, match=r"has 6 labels.*needs 134 labels"):
        getattr(parts, part)("semseg")


@pytest.mark.parametrize(
    "change",
    [
        {"semseg_classes": "person"},
        {"semseg_classes": ["person", 3]},
        {"semseg_classes": [""]},
        {"semseg_classes": ["x"] * 255},
        {"channels": {"depth": 3}},
        {"channels": {"dinov2": 0}},
        {"channels": {"dinov2": True}},
        {"channels": {"dinov2": "768"}},
        {"channels": {"dinov2": 10**9}},
        {"channels": ["dinov2"]},
        {"super_resolution": "../fourm.safetensors"},
        {"super_resolution": 3},
    ],
)
def test_wrong_descriptions_are_refused(any_bundle: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    content = json.loads((any_bundle / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        ModelSource.from_folder(tmp_path)
