"""Opening models: what is found, what is read, what identifies them."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import CheckpointError, ModelError
from anyseek.model import MODELS, ModelSource, load_model, sources
from anyseek.model.checkpoint import load_fourm, save_checkpoint
from anyseek.model.modalities import RAW_NAMES
from anyseek.model.token_likelihood import LIKELIHOOD_SHARE
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.text import TextTokenizer


def test_names_come_with_licences() -> None:
    assert list(MODELS) == ["scenes", "4m21-b", "4m21-l", "4m21-xl"]
    for name, source in MODELS.items():
        assert source.name == name
        assert source.description
        restricted = ("non-commercial", "human_poses: SMPL", "imagebind, imagebind_global: ImageBind")
        assert name == "scenes" or all(words in source.license for words in restricted)


def test_a_folder_opens_and_tells_what_it_is(bundle: Path) -> None:
    model = load_model(str(bundle))
    assert (model.name, model.license) == (str(bundle.resolve()), "Apache-2.0")
    assert model.inputs == ("rgb", "caption", "det", "metadata", "color_palette")
    space = model.spaces["imagebind_global"]
    assert (space.dim, space.num_tokens, space.codebook_size) == (40, 16, 32)


def test_only_what_is_needed_is_read(bundle: Path) -> None:
    whole = load_model(bundle)
    part = load_model(bundle, inputs=["rgb"], spaces=["dinov2_global"])
    assert part.inputs == ("rgb",)
    assert list(part.spaces) == ["dinov2_global"]
    assert part.bytes_read < whole.bytes_read


def test_fingerprint_ignores_how_the_model_was_opened(bundle: Path, tmp_path: Path) -> None:
    fingerprint = load_model(bundle).fingerprint
    copy = shutil.copytree(bundle, tmp_path / "elsewhere")
    assert load_model(copy, inputs=["caption"], dtype="float32", device="cpu").fingerprint == fingerprint
    assert len(fingerprint) == 64
    assert load_model(bundle, spaces=["dinov2_global"]).fingerprint != fingerprint


def test_fingerprint_changes_with_weights_and_vocabulary(
    make_bundle: Callable[..., Path], bundle: Path, tmp_path: Path
) -> None:
    seen = {load_model(bundle).fingerprint}
    seen.add(load_model(make_bundle(tmp_path / "other", seed=1)).fingerprint)
    tuned = shutil.copytree(bundle, tmp_path / "tuned")
    fourm = load_fourm(tuned / "fourm.safetensors")
    with torch.no_grad():
        fourm.decoder_norm.weight.add_(0.01)
    save_checkpoint(fourm, tuned / "fourm.safetensors")
    seen.add(load_model(tuned).fingerprint)
    words = shutil.copytree(bundle, tmp_path / "words")
    vocabulary = json.loads((words / "text.json").read_text())
    (words / "text.json").write_text(json.dumps(vocabulary, indent=1))
    seen.add(load_model(words).fingerprint)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "4m21-xxl"}, "Known: scenes, 4m21-b, 4m21-l, 4m21-xl; a folder"),
        ({"source": Path("/nowhere/at/all")}, "Known: scenes"),
        ({"inputs": ["rgb", "depth"]}, "no input 'depth'. Known: rgb, caption, det"),
        ({"inputs": []}, "at least one input"),
        ({"spaces": ["clip"]}, "no space 'clip'. Known: dinov2_global, imagebind_global"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"device": "meta"}, "'meta' is not supported"),
        ({"device": "cuda:99"}, "'cuda:99' is not there"),
        ({"dtype": "float8"}, "known are auto, float32, bfloat16"),
    ],
)
def test_wrong_wishes_list_what_there_is(bundle: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(**{"source": bundle, **options})


def test_a_folder_without_model_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"fourm": 5},
        {"tokenizers": {}},
        {"tokenizers": ["a"]},
        {"name": None},
        {"fourm": "../outside.safetensors"},
        {"text_tokenizer": "/etc/passwd"},
        {"tokenizers": {"dinov2_global": "../../x"}},
        {"tokenizers": {"clip": "dinov2_global.safetensors"}},
        {"tokenizers": {"imagebind_global": "absent.safetensors"}},
        {"tokenizers": {"dinov2_global": "fourm.safetensors"}},
        {"fourm": "absent.safetensors"},
        {"text_tokenizer": "fourm.safetensors"},
        {"space_weights": ["rgb"]},
        {"space_weights": {"rgb": 0.5}},
        {"space_weights": {"rgb": {"clip": 1}}},
        {"space_weights": {"rgb": {"dinov2_global": 0}}},
        {"space_weights": {"rgb": {"dinov2_global": -1, "imagebind_global": 1}}},
        {"space_weights": {"rgb": {"dinov2_global": True}}},
        {"space_weights": {"rgb": {"dinov2_global": "1"}}},
        {"likelihood_shares": 0.5},
        {"likelihood_shares": {"rgb": -0.1}},
        {"likelihood_shares": {"rgb": 1.1}},
        {"likelihood_shares": {"rgb": True}},
        {"likelihood_shares": {"rgb": "1"}},
        {"likelihood_shares": {"rgb": math.nan}},
    ],
)
def test_wrong_bundles_are_refused(bundle: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = shutil.copytree(bundle, tmp_path / "changed")
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(content | change))
    with pytest.raises(CheckpointError):
        load_model(folder)


def test_spaces_count_as_the_bundle_says_for_what_is_asked_by(bundle: Path, tmp_path: Path) -> None:
    assert load_model(bundle).space_weights({"rgb": 1.0}) == {"dinov2_global": 0.5, "imagebind_global": 0.5}
    folder = shutil.copytree(bundle, tmp_path / "weighed")
    content = json.loads((folder / "model.json").read_text())
    content["space_weights"] = {
        "rgb": {"dinov2_global": 0.4},
        "caption": {"dinov2_global": 0.1, "imagebind_global": 0.9},
    }
    (folder / "model.json").write_text(json.dumps(content))
    model = load_model(folder)
    assert model.space_weights({"rgb": 2.0}) == {"dinov2_global": 1}
    assert model.space_weights({"caption": 0.0}) == {"dinov2_global": 0.5, "imagebind_global": 0.5}
    mixed = model.space_weights({"rgb": 1.0, "caption": 2.0, "det": 1.0})
    assert mixed == pytest.approx({"dinov2_global": 1.7 / 4, "imagebind_global": 2.3 / 4})
    one = load_model(folder, spaces=["imagebind_global"])
    assert one.space_weights({"rgb": 1.0}) == {"imagebind_global": 1}
    assert model.fingerprint == load_model(bundle).fingerprint


def test_likelihood_counts_as_the_bundle_says_for_what_is_asked_by(bundle: Path, tmp_path: Path) -> None:
    assert load_model(bundle).likelihood_share({"rgb": 1.0}) == LIKELIHOOD_SHARE
    folder = shutil.copytree(bundle, tmp_path / "weighed")
    content = json.loads((folder / "model.json").read_text())
    content["likelihood_shares"] = {"rgb": 0, "caption": 0.5}
    (folder / "model.json").write_text(json.dumps(content))
    model = load_model(folder)
    assert model.likelihood_share({"rgb": 2.0}) == 0
    assert model.likelihood_share({"rgb": 0.0}) == model.likelihood_share({"det": 3.0}) == LIKELIHOOD_SHARE
    mixed = model.likelihood_share({"rgb": 1.0, "caption": 2.0, "det": 1.0})
    assert mixed == pytest.approx((0 + 2 * 0.5 + LIKELIHOOD_SHARE) / 4)
    assert model.fingerprint == load_model(bundle).fingerprint


def test_tokenizer_of_another_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "mixed")
    mlp = "BottleneckMLP/B_1-Wi_32"
    other = TokenizerConfig(24, mlp, mlp, codebook_size=64, num_codebooks=16, latent_dim=64)
    save_checkpoint(VQVAE(other), folder / "dinov2_global.safetensors")
    with pytest.raises(ModelError, match=r"codebooks of 64 .* codebooks of 32 "):
        load_model(folder)


def test_a_model_of_every_modality_tells_what_goes_in_and_out(any_bundle: Path) -> None:
    model = load_model(any_bundle)
    assert set(model.inputs) == set(RAW_NAMES)
    assert set(model.targets) == set(RAW_NAMES) - {"t5_caption"}
    assert set(model.spaces) == {"dinov2_global", "imagebind_global"}
    assert load_model(any_bundle, inputs=["depth"], spaces=["dinov2_global"]).targets == model.targets


def test_tokenizers_that_only_read_play_no_part_in_the_fingerprint(any_bundle: Path, tmp_path: Path) -> None:
    whole = load_model(any_bundle)
    assert load_model(any_bundle, inputs=["depth", "caption"]).fingerprint == whole.fingerprint
    folder = shutil.copytree(any_bundle, tmp_path / "without")
    (folder / "depth.safetensors").unlink()
    assert load_model(folder).fingerprint == whole.fingerprint
    shutil.copy(folder / "sam_instance.safetensors", folder / "imagebind_global.safetensors")
    with pytest.raises(ModelError, match="tokenizer of imagebind_global"):
        load_model(folder)


def test_predictions_take_contents_and_any_word_for_a_modality(any_bundle: Path) -> None:
    model = load_model(any_bundle, inputs=["color_palette", "rgb"], spaces=[], device="cpu", dtype="float32")
    given = {"palette": ["#102030"], "rgb": np.zeros((9, 9, 3), np.uint8)}
    found = model.predict(given, ["edges", "metadata"], seed=3, diffusion_steps=2)
    assert list(found) == ["canny_edge", "metadata"]
    assert found["canny_edge"].tokens.shape == (4, 4)
    again = model.predict(given, ["edges", "metadata"], seed=3, diffusion_steps=2)
    for raw, one in found.items():
        assert (one.tokens == again[raw].tokens).all()
    assert list(model.predict(given, "depth", diffusion_steps=2)) == ["depth"]
    with pytest.raises(ModelError, match="does not take 'det'"):
        model.predict({"boxes": []}, ["depth"])
    with pytest.raises(ModelError, match="Unknown modality 'sound'"):
        model.predict(given, ["sound"])


def test_models_with_qk_norm_run_too(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    model = load_model(make_bundle(tmp_path, qk_norm=True), device="cpu", dtype="float32")
    read = model.embedder.read
    items = [{"caption": read("caption", "a dog")}, {"rgb": read("rgb", np.zeros((9, 9, 3), np.uint8))}]
    together = model.embedder.embed(items)
    for space, found in together.items():
        for i, item in enumerate(items):
            assert found.vectors[i] @ model.embedder.embed([item])[space].vectors[0] >= 0.99999


def test_published_models_take_their_vocabulary_from_the_cache(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = (bundle / "text.json").as_uri()
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path)
    source = ModelSource.from_folder(bundle)
    sha256 = TextTokenizer.from_file(bundle / "text.json").sha256
    remote = ModelSource("remote", "somewhere", "none", "", source.fourm, source.tokenizers, served, sha256)
    monkeypatch.setattr(sources, "MODELS", {"remote": remote})
    assert load_model("remote").fingerprint == load_model(bundle).fingerprint
    assert [path.stem for path in (tmp_path / "tokenizers").iterdir()] == [sha256]


def test_importing_the_room_stays_free_of_torch() -> None:
    code = "import sys, anyseek.model; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist() -> None:
    from anyseek import model

    for name in model.__all__:
        assert getattr(model, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.nonsense  # pyright: ignore
