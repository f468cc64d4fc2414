import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from anyseek.cli import main
from anyseek.errors import CheckpointError, ConfigError, InputError, ModelError
from anyseek.model import load_model
from anyseek.model.checkpoint import load_fourm, open_checkpoint, save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.modalities import MODALITIES
from anyseek.model.presets import FourMConfig
from anyseek.model.tokens import Tokens
from anyseek.model.training.fourm_recipes import FourMRun, Modalities, read_fourm_run
from anyseek.model.training.fourm_runs import run_fourm
from anyseek.model.training.held_out import HeldOutRetrieval
from anyseek.model.training.setups import set_up
from anyseek.model.training.starting import freeze_all_but, start_from
from anyseek.model.training.token_data import TokenData
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

SHORT: Mapping[str, Any] = {
    "steps": 4,
    "parts": 2,
    "warmup": 1,
    "log_every": 2,
    "save_every": 2,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of four modalities, and a data set of texts alone."""
    folder, random, count = tmp_path_factory.mktemp("tokens"), np.random.default_rng(0), 30
    captions = np.zeros((count, 1, 2, 9), np.int16)
    captions[..., :6] = random.integers(60, 70, (count, 1, 2, 6))
    TokenData(
        {
            "rgb@64": random.integers(1, 256, (count, 2, 64, 64, 3), np.uint8),
            "tok_depth@64": random.integers(0, 64, (count, 2, 1, 16)).astype(np.int16),
            "caption": captions,
            "tok_dinov2_global": random.integers(0, 32, (count, 2, 1, 16)).astype(np.int16),
        }
    ).save(folder / "aligned")
    TokenData({"caption": captions}).save(folder / "texts")
    return folder


def said(tokens: Path, bundle: Path, output: Path, **changes: Any) -> dict[str, Any]:
    budgets = {"num_input_tokens": 24, "num_target_tokens": [8, 24]}
    return {
        "output": str(output),
        "bundle": str(bundle),
        "data": [
            {"tokens": str(tokens / "aligned"), "held_out": 8, "weight": 2, **budgets},
            {"tokens": str(tokens / "texts"), **budgets},
        ],
        "batch_size": 4,
        "training": dict(SHORT),
        "device": "cpu",
        **changes,
    }


def read(path: Path, values: Mapping[str, Any]) -> FourMRun:
    path.write_text(yaml.safe_dump(dict(values)))
    return read_fourm_run(path)


def test_a_run_leaves_a_model_and_all_that_made_it(tokens: Path, any_bundle: Path, tmp_path: Path) -> None:
    run = read(tmp_path / "run.yaml", said(tokens, any_bundle, tmp_path / "run", retrieval=["caption"]))
    report = run_fourm(run)
    assert (report["finished"], report["step"], report["fresh"], report["left_out"]) == (True, 4, [], [])
    log = [json.loads(line) for line in (tmp_path / "run" / "fourm.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [2, 4]
    assert {"loss.caption", "held_out", "held_out.aligned.tok_depth@64", "r@1.caption", "lr"} <= log[
        -1
    ].keys()
    assert report["best"] == min(entry["held_out"] for entry in log)
    assert read_fourm_run(tmp_path / "run" / "config.yaml") == run
    model = load_model(tmp_path / "run", device="cpu")
    assert set(model.spaces) == {"dinov2_global", "imagebind_global"}
    picture = np.zeros((64, 64, 3), np.uint8)
    assert model.predict({"rgb": picture}, ["depth"], num_steps=1)["depth"].value is not None
    assert run_fourm(run)["step"] == 4  # nothing is left to do
    other = run.model_copy(update={"batch_size": 5})
    with pytest.raises(ConfigError, match="batch_size was 4"):
        run_fourm(other)


def test_a_stopped_command_says_so_and_goes_on(tokens: Path, any_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    run = read(path, said(tokens, any_bundle, tmp_path / "run"))
    assert not run_fourm(run, should_stop=lambda: True)["finished"]
    result = CliRunner().invoke(main, ["train", "4m", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["finished"]
    whole = read(path, said(tokens, any_bundle, tmp_path / "whole"))
    run_fourm(whole)
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bach_size": 3}, r"unknown key bach_size \(did you mean batch_size\?\); known are bundle"),
        ({"training": {"step": 3}}, "unknown key training.step"),
        ({"training": {"ema": 1.5}}, "training.ema"),
        ({"data": []}, "data"),
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"bundle": None, "model": {}}, "give model.inputs and model.targets"),
        ({"model": {"preset": "tiny"}}, "brings its sizes"),
        ({"retrieval": ["caption"], "data": [{"tokens": "x"}]}, "retrieval needs held_out"),
    ],
)
def test_configurations_that_cannot_be_meant_are_refused(
    tokens: Path, any_bundle: Path, tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "run.yaml", said(tokens, any_bundle, tmp_path / "run") | changes)


def test_places_are_kept_absolute_and_names_stay_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("scenes", "mine"):
        (tmp_path / name).mkdir()
    assert Modalities(bundle="scenes").bundle == "scenes"
    assert Modalities(bundle="mine").bundle == str(tmp_path / "mine")
    assert Modalities(bundle="scenes", init="EPFL-VILAB/4M-21_B").init == "EPFL-VILAB/4M-21_B"


def test_runs_that_do_not_fit_their_data_are_refused(tokens: Path, any_bundle: Path, tmp_path: Path) -> None:
    def start(**changes: Any) -> None:
        run_fourm(FourMRun.model_validate(said(tokens, any_bundle, tmp_path / "run", **changes)))

    aligned = str(tokens / "aligned")
    with pytest.raises(ConfigError, match="held_out leaves none"):
        start(data=[{"tokens": aligned, "held_out": 30}])
    with pytest.raises(ConfigError, match="mixture names 'depth'"):
        start(data=[{"tokens": aligned, "mixture": [{"inputs": {"depth": 1.0}, "others_out": 1.0}]}])
    with pytest.raises(InputError, match="no modality 'det'; it has"):
        start(data=[{"tokens": aligned, "modalities": ["det"]}])
    with pytest.raises(ModelError, match="no 'rgb@99' there"):
        start(model={"inputs": ["rgb@99"]})
    with pytest.raises(ConfigError, match=r"retrieval: .*det is no input"):
        start(data=[{"tokens": aligned, "held_out": 4}], retrieval=["det"])


def test_a_model_from_scratch_takes_its_vocabularies_from_its_tokenizers(
    tokens: Path, any_bundle: Path, tmp_path: Path
) -> None:
    values = said(tokens, any_bundle, tmp_path / "run", threads=1)
    del values["bundle"]
    values |= {
        "text_tokenizer": str(any_bundle / "text.json"),
        "tokenizers": {
            raw: str(any_bundle / f"{raw}.safetensors") for raw in ("depth", "dinov2_global", "semseg")
        },
        "model": {
            "dim": 32,
            "num_heads": 2,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "inputs": ["rgb@64", "caption", "tok_depth@64"],
            "targets": ["caption", "tok_depth@64", "tok_dinov2_global"],
        },
    }
    run = FourMRun.model_validate(values)
    config = set_up(run).config
    assert config.vocab_overrides["tok_depth@64"] == 64
    assert config.vocab_overrides["tok_dinov2_global"] == 32
    assert config.vocab_overrides["caption"] == set_up(run).text.vocab_size
    run_fourm(run)
    model = load_model(tmp_path / "run", device="cpu")
    assert set(model.inputs) == {"rgb", "caption", "depth"}
    with pytest.raises(ConfigError, match="model: unknown key depht"):
        set_up(FourMRun.model_validate(values | {"model": values["model"] | {"depht": 3}}))


# --- starting from a checkpoint


def _config(names: tuple[str, ...], **changes: Any) -> FourMConfig:
    options: dict[str, Any] = {"dim": 16, "num_heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    sizes = {name: 24 for name in names if MODALITIES[name].vocab_size}
    return FourMConfig(names, names, vocab_overrides=sizes, **(options | changes))


def test_common_modalities_are_taken_over_and_new_ones_start_fresh(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = FourM(_config(("caption", "tok_depth@224", "det")))
    save_checkpoint(old, tmp_path / "old.safetensors")
    new = FourM(_config(("caption", "tok_depth@224", "metadata"), share_modality_embeddings=False))
    start = start_from(new, open_checkpoint(tmp_path / "old.safetensors"))
    assert start.fresh == ("encoder_embeddings.metadata.", "decoder_embeddings.metadata.")
    assert start.left_out == ("encoder_embeddings.det.", "decoder_embeddings.det.")
    state = old.state_dict()
    for name, tensor in new.state_dict().items():
        assert name.startswith(start.fresh) or torch.equal(tensor, state[name])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"act_layer": "GELU"}, ModelError, "act_layer"),
        ({"encoder_depth": 2}, ModelError, "encoder_depth"),
        (
            {"vocab_overrides": {"caption": 25}},
            CheckpointError,
            r"\(24, 16\), the model takes \(25, 16\)",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_no_start(
    tmp_path: Path, changes: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    save_checkpoint(FourM(_config(("caption",))), tmp_path / "old.safetensors")
    config = FourMConfig(**{**_config(("caption",)).values(), **changes})
    with pytest.raises(error, match=message):
        start_from(FourM(config), open_checkpoint(tmp_path / "old.safetensors"))


def test_shared_layers_learn_only_where_all_their_names_are_fresh() -> None:
    model = FourM(_config(("caption", "det")))
    freeze_all_but(
        model, ("encoder_embeddings.det.", "decoder_embeddings.det.", "decoder_embeddings.caption.")
    )
    learning = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    assert "decoder_embeddings.det.mod_emb" in learning
    assert "decoder_embeddings.caption.to_logits.weight" in learning
    assert "decoder_embeddings.caption.mod_emb" not in learning  # it is the input layer's too


# --- adapters and new modalities


def test_adapters_from_a_yaml_end_in_an_ordinary_bundle(
    tokens: Path, any_bundle: Path, tmp_path: Path
) -> None:
    changes = {"lora": {"rank": 2, "alpha": 4.0}, "training": SHORT | {"learning_rate": 0.05}}
    run_fourm(FourMRun.model_validate(said(tokens, any_bundle, tmp_path / "run", **changes)))
    before = load_fourm(any_bundle / "fourm.safetensors").state_dict()
    after = load_fourm(tmp_path / "run" / "last.safetensors").state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith(("encoder.", "decoder.")) for name in changed)


NEW = {
    "tok_thermal@64": {"like": "tok_depth@64", "tokenizer": "depth.safetensors"},
    "diagnosis": {"like": "caption"},
}


@pytest.fixture(scope="module")
def thermal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, heat that follows their brightness, and a word about it, as ordinary files."""
    root, random = tmp_path_factory.mktemp("thermal"), np.random.default_rng(1)
    for folder in ("rgb", "thermal", "diagnosis"):
        (root / folder).mkdir()
    for number in range(24):
        warm = number % 2
        heat = np.tile(np.linspace(0, 1, 64) ** (1 + 3 * warm), (64, 1)) + random.uniform(0, 0.02, (64, 64))
        Image.fromarray(np.stack([np.uint8(200 * heat)] * 3, -1)).save(root / "rgb" / f"{number:02d}.png")
        np.save(root / "thermal" / f"{number:02d}.npy", heat.astype(np.float32) * 40 + 273)
        (root / "diagnosis" / f"{number:02d}.txt").write_text("a red cube" if warm else "a small dog")
    return root


def test_new_modalities_leave_what_was_known_untouched(
    thermal: Path, any_bundle: Path, tmp_path: Path
) -> None:
    new = {name: dict(told) for name, told in NEW.items()}
    new["tok_thermal@64"]["tokenizer"] = str(any_bundle / "depth.safetensors")
    values = {
        "output": str(tmp_path / "run"),
        "bundle": str(any_bundle),
        "new_modalities": new,
        "data": [{"tokens": str(tmp_path / "tokens"), "num_input_tokens": 16, "num_target_tokens": 16}],
        "freeze": True,
        "batch_size": 4,
        "training": SHORT | {"learning_rate": 0.02},
        "device": "cpu",
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    command = [
        "train",
        "tokenize",
        str(thermal),
        "--model",
        str(path),
        "--to",
        str(tmp_path / "tokens"),
        "--json",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {"tok_thermal@64", "diagnosis", "rgb@64"} <= set(told["modalities"])
    assert (told["num_samples"], told["num_failed"]) == (24, 0)
    result = CliRunner().invoke(main, ["train", "4m", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["fresh"]) == {
        f"{side}coder_embeddings.{name}." for side in ("en", "de") for name in NEW
    }
    old = load_fourm(any_bundle / "fourm.safetensors")
    new_model = load_fourm(tmp_path / "run" / "last.safetensors")
    states = old.state_dict(), new_model.state_dict()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert new_model.config.own_modalities == {"tok_thermal@64": "tok_depth@64", "diagnosis": "caption"}
    item = load_model(any_bundle, device="cpu", dtype="float32"), load_model(tmp_path / "run", device="cpu")
    picture = np.asarray(Image.open(thermal / "rgb" / "00.png"))
    one, other = (model.predict({"rgb": picture}, ["depth"])["depth"].tokens for model in item)
    np.testing.assert_array_equal(one, other)
    heat = item[1].predict({"rgb": picture}, ["thermal", "diagnosis"])
    assert heat["thermal"].value.shape == (64, 64)
    assert isinstance(heat["diagnosis"].value, str)
    assert item[1].predict({"thermal": thermal / "thermal" / "00.npy"}, ["depth"])["depth"].value is not None


@pytest.mark.parametrize(
    ("name", "like", "message"),
    [
        ("tok_depth@64", "tok_depth@64", "already"),
        ("depth", "caption", "cannot name a new modality"),
        ("boxes", "caption", "cannot name a new modality"),
        ("Thermal!", "caption", "cannot name a new modality"),
        ("tok_thermal@32", "tok_depth@64", "call it 'tok_thermal@64'"),
        ("thermal@64", "tok_depth@64", "call it 'tok_thermal@64'"),
        ("thermal", "nonsense", "Unknown modality 'nonsense'"),
    ],
)
def test_names_of_new_modalities_say_what_they_are(
    tokens: Path, any_bundle: Path, tmp_path: Path, name: str, like: str, message: str
) -> None:
    run = said(tokens, any_bundle, tmp_path, new_modalities={name: {"like": like}})
    with pytest.raises(ModelError, match=message):
        set_up(FourMRun.model_validate(run))


# --- evaluation


class Oracle:
    """Predicts each sample's own tokens, or nothing in particular."""

    mask_token = torch.zeros(1)

    def __init__(self, ids: np.ndarray, sure: float) -> None:
        self._logits, self._next = (
            sure * functional.one_hot(torch.from_numpy(np.array(ids)).long(), 32).float(),
            0,
        )

    def encode(self, batch: Mapping[str, Tokens]) -> int:
        (tokens,) = batch.values()
        assert not tokens.input_mask.any()
        return len(tokens.tensor)

    def decode(self, count: int, spaces: list[str]) -> dict[str, torch.Tensor]:
        self._next += count
        return dict.fromkeys(spaces, self._logits[self._next - count : self._next])


def test_retrieval_tells_a_model_that_knows_from_one_that_does_not(any_bundle: Path, tokens: Path) -> None:
    data, space = TokenData.load(tokens / "aligned"), "tok_dinov2_global"
    config = load_fourm(any_bundle / "fourm.safetensors").config
    rows = {name: config.modality(name) for name in data.columns}
    retrieval = HeldOutRetrieval(data, rows, ["rgb@64"], [space])
    ids = data.columns[space][:, 0, 0]
    found = [retrieval(cast("FourM", Oracle(ids, sure))) for sure in (5.0, 0.0)]
    assert found[0] == {"r@1.rgb@64": 1.0, "r@10.rgb@64": 1.0}
    assert found[1] == {"r@1.rgb@64": 0.0, "r@10.rgb@64": 0.0}  # all alike: no credit for ties


@pytest.mark.slow
def test_sigterm_stops_the_command_after_its_step(tokens: Path, any_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    values = said(tokens, any_bundle, tmp_path / "run", training=SHORT | {"steps": 100_000})
    path.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "anyseek", "train", "4m", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any('"done"' in line for line in process.stderr)
    process.terminate()
    process.communicate()
    assert process.returncode == 130
    state = torch.load(tmp_path / "run" / "fourm.ckpt", weights_only=True)
    assert state["step"] > 0
