import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anyseek.errors import ConfigError, InputError, ModelError
from anyseek.model.checkpoint import load_fourm
from anyseek.model.fourm import FourM
from anyseek.model.tokens import Tokens
from anyseek.model.training.lora import Lora, LoraLinear, add_lora, merge_lora
from anyseek.model.training.masking import Component, MaskedBatches, Masking
from anyseek.model.training.objective import masked_losses, weighted_mean
from anyseek.model.training.pretrain import BEST, CHECKPOINT, LAST, LOG, Pretrainer, PretrainRecipe
from anyseek.model.training.starting import freeze_all_but
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("one_core")

RECIPE = PretrainRecipe(steps=8, parts=4, warmup=2, log_every=1, save_every=3, precision="float32")
MIXED = Masking(
    (Component(others_in=1.0, others_out=1.0), Component(others_in=0.05, others_out=0.05)), 20, 20
)


def trainer(tiny: Any, folder: Path, recipe: PretrainRecipe = RECIPE, **options: Any) -> Pretrainer:
    batches = MaskedBatches(
        tiny.data, tiny.rows, MIXED, tiny.text, targets=tiny.config.targets, batch_size=4, seed=recipe.seed
    )
    return Pretrainer(tiny.config, batches, recipe, folder, **({"threads": 1} | options))


def curve(folder: Path) -> list[dict[str, float]]:
    lines = (folder / LOG).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "s"} for line in lines]


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def whole(tiny_training: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert trainer(tiny_training, folder).run()
    return folder


def test_losses_fall_and_files_are_those_promised(whole: Path, tiny_training: Any) -> None:
    entries = curve(whole)
    assert [entry["step"] for entry in entries] == list(range(1, 9))
    assert entries[-1]["loss.tok_depth@32"] < entries[0]["loss.tok_depth@32"]
    assert {path.name for path in whole.iterdir()} == {CHECKPOINT, LOG, BEST, LAST}
    assert load_fourm(whole / BEST).config == tiny_training.config


def test_tensorboard_shows_what_the_lines_say_after_a_run_went_back_too(
    tiny_training: Any, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = replace(RECIPE, tensorboard=True)
    trainer(tiny_training, tmp_path, recipe).run(until=3)
    saved = (tmp_path / CHECKPOINT).read_bytes()
    assert trainer(tiny_training, tmp_path, recipe).run()
    (tmp_path / CHECKPOINT).write_bytes(saved)
    assert trainer(tiny_training, tmp_path, recipe).run()

    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags: list[str] = shown.Tags()["scalars"]
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert {tag.replace("/", ".") for tag in tags} == {key for line in lines for key in line} - {"step"}
    for tag in tags:
        events = [(event.step, event.value) for event in shown.Scalars(tag)]
        key = tag.replace("/", ".")
        assert events == [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines if key in line]


# --- interrupted runs


SCRIPT = """
import os, signal, sys
from pathlib import Path
import pytest
sys.path.insert(0, {tests!r})
import importlib.util
spec = importlib.util.spec_from_file_location("tiny_conftest", {tests!r} + "/conftest.py")
conftest = importlib.util.module_from_spec(spec); spec.loader.exec_module(conftest)
spec = importlib.util.spec_from_file_location("test_pretrain", {tests!r} + "/test_training_pretrain.py")
tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
from anyseek.model.training.distributed import join_world
import torch
torch.set_num_threads(1)
folder, kill_at, strategy = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with join_world(torch.device("cpu")) as world:
    run = tests.trainer(conftest.make_tiny_training(), folder, world=world, strategy=strategy)
    def progress(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    run.run(progress=progress)
"""


def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    return path


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("kill_at", [pytest.param(2, marks=pytest.mark.slow), 7])
def test_a_killed_run_goes_on_bit_for_bit(
    tiny_training: Any, whole: Path, tmp_path: Path, kill_at: int
) -> None:
    # At step 2 nothing was saved yet; at 7 the log is ahead of the state of step 6.
    command = [sys.executable, str(script(tmp_path)), str(tmp_path / "run"), str(kill_at), "ddp"]
    assert subprocess.run(command, env=environment(), check=False).returncode == -signal.SIGKILL
    assert len(curve(tmp_path / "run")) == kill_at
    with (tmp_path / "run" / LOG).open("a") as log:
        log.write('{"step": 8, "lo')  # a torn line
    again = trainer(tiny_training, tmp_path / "run")
    assert again.step == kill_at // 3 * 3
    assert again.run()
    assert curve(tmp_path / "run") == curve(whole)
    assert same_weights(tmp_path / "run" / LAST, whole / LAST)


def test_a_stopped_run_keeps_its_last_step_and_half_an_entry(tiny_training: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, log_every=4)
    assert trainer(tiny_training, tmp_path / "whole", recipe).run()
    asked = iter([False, False, False, False, True])
    assert not trainer(tiny_training, tmp_path / "cut", recipe).run(should_stop=lambda: next(asked))
    again = trainer(tiny_training, tmp_path / "cut", recipe)
    assert again.step == 5
    assert again.run()
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert same_weights(tmp_path / "cut" / LAST, tmp_path / "whole" / LAST)


def test_threads_and_recomputed_blocks_change_nothing(
    tiny_training: Any, whole: Path, tmp_path: Path
) -> None:
    trainer(tiny_training, tmp_path / "a", threads=3).run()
    trainer(tiny_training, tmp_path / "b", replace(RECIPE, checkpointing=True)).run()
    assert curve(tmp_path / "a") == curve(tmp_path / "b") == curve(whole)
    assert same_weights(tmp_path / "a" / LAST, whole / LAST)


def test_a_damaged_state_is_named(tiny_training: Any, whole: Path, tmp_path: Path) -> None:
    state = (whole / CHECKPOINT).read_bytes()
    for content in (b"", b"no archive", state[: len(state) // 2]):
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(ConfigError, match=r"fourm\.ckpt is no training state"):
            trainer(tiny_training, tmp_path)


def test_a_folder_is_not_continued_with_another_recipe_or_model(tiny_training: Any, whole: Path) -> None:
    with pytest.raises(InputError, match=r"learning_rate: 0.0012, this one has 0.1"):
        trainer(tiny_training, whole, replace(RECIPE, learning_rate=0.1))
    trainer(tiny_training, whole, replace(RECIPE, log_every=5))
    other = replace(tiny_training, config=replace(tiny_training.config, dim=64))
    with pytest.raises(InputError, match="state of another model"):
        trainer(other, whole)


# --- several processes


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one_does(whole: Path, tmp_path: Path, strategy: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script(tmp_path)), str(tmp_path / "run"), "-1", strategy],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(curve(tmp_path / "run"), curve(whole), strict=True):
        assert mine == pytest.approx(theirs, abs=2e-4)
    mine, theirs = load_file(tmp_path / "run" / LAST), load_file(whole / LAST)
    assert all(torch.allclose(mine[key], theirs[key], atol=1e-4) for key in theirs)


def test_parts_must_be_shared_evenly(tiny_training: Any, tmp_path: Path) -> None:
    from anyseek.model.training.distributed import World

    with pytest.raises(ConfigError, match="parts: 4 is no multiple of the 3 processes"):
        trainer(tiny_training, tmp_path, world=World(torch.device("cpu"), 0, 3))


# --- losses


def test_losses_of_a_batch_are_those_of_the_model(tiny_training: Any) -> None:
    torch.manual_seed(0)
    model = FourM(tiny_training.config)
    batch = trainer_batches(tiny_training).draw(0)
    order = [name for name in batch if name in model.targets]
    expected = model(batch, num_encoder_tokens=40, num_decoder_tokens=60, decoder_order=order)
    found = masked_losses(model, batch)
    assert {name for name, loss in expected.by_modality.items() if loss > 0} == set(found)
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected.by_modality[name])


def trainer_batches(tiny: Any) -> MaskedBatches:
    return MaskedBatches(tiny.data, tiny.rows, MIXED, tiny.text, targets=tiny.config.targets, batch_size=4)


def test_targets_do_not_leak_into_predictions(tiny_training: Any) -> None:
    torch.manual_seed(0)
    model = FourM(tiny_training.config).eval()
    for number in range(5):
        batch = trainer_batches(tiny_training).draw(number)
        changed = {name: _other_targets(tokens) for name, tokens in batch.items()}
        one, other = model.encode(batch), model.encode(changed)
        assert torch.equal(one.context, other.context)  # what is asked is not shown
        grid = {name: tokens for name, tokens in batch.items() if name == "tok_depth@32"}
        for name in grid:
            logits = [model.decode(encoded, [name])[name] for encoded in (one, other)]
            assert torch.equal(*logits)


def _other_targets(tokens: Tokens) -> Tokens:
    if tokens.target_mask is None:
        return tokens
    changed = torch.where(tokens.target_mask, tokens.tensor, (tokens.tensor + 1) % 16)
    return replace(tokens, tensor=changed)


def test_a_batch_without_any_input_can_be_learned_from(tiny_training: Any) -> None:
    blind = Masking((Component(others_out=1.0),), 20, 20)
    batches = MaskedBatches(
        tiny_training.data, tiny_training.rows, blind, tiny_training.text, targets=["caption"], batch_size=4
    )
    model = FourM(tiny_training.config)
    loss = masked_losses(model, batches.draw(0))["caption"]
    loss.backward()
    assert torch.isfinite(loss)
    with pytest.raises(InputError, match="asks for nothing"):
        masked_losses(
            model, {"rgb@32": Tokens(torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.bool))}
        )


def test_only_what_is_shown_is_embedded(tiny_training: Any) -> None:
    alone = Masking((Component(inputs={"caption": 1.0}, others_out=1.0),), 20, 20)
    tiny = tiny_training
    batches = MaskedBatches(tiny.data, tiny.rows, alone, tiny.text, targets=tiny.config.targets, batch_size=4)
    torch.manual_seed(0)
    model, batch = FourM(tiny.config), batches.draw(0)
    embedded: list[str] = []
    for name, layer in model.encoder_embeddings.items():
        layer.register_forward_hook(lambda *_, name=name: embedded.append(name))
    order = [name for name in batch if name in model.targets]
    expected = model(batch, num_encoder_tokens=20, num_decoder_tokens=40, decoder_order=order).by_modality
    assert len(embedded) > 1
    embedded.clear()
    found = masked_losses(model, batch)
    assert embedded == ["caption"]
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name])


def test_weights_scale_the_losses_and_zero_switches_one_off(tiny_training: Any, tmp_path: Path) -> None:
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(6.0)}
    assert weighted_mean(losses, {}) == 4
    assert weighted_mean(losses, {"a": 3.0}) == 3
    assert weighted_mean({"a": torch.tensor(2.0)}, {"a": 0.0}) == 0
    recipe = replace(RECIPE, steps=3, weights={"caption": 0.0}, weight_decay=0.0)
    run = trainer(tiny_training, tmp_path, recipe)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.run()
    heads = {
        name: not torch.equal(p, before[name])
        for name, p in run.model.named_parameters()
        if "to_logits" in name
    }
    assert heads == {
        "decoder_embeddings.tok_depth@32.to_logits.weight": True,
        "decoder_embeddings.caption.to_logits.weight": False,
        "decoder_embeddings.metadata.to_logits.weight": True,
    }


# --- what is kept


def test_a_loss_that_explodes_ends_the_run_and_spares_what_was_saved(
    tiny_training: Any, tmp_path: Path
) -> None:
    run = trainer(tiny_training, tmp_path)
    run.run(until=3)
    with torch.no_grad():
        run.model.mask_token.fill_(float("nan"))
    with pytest.raises(ModelError, match="loss is not finite after step 3"):
        run.run()
    assert trainer(tiny_training, tmp_path).step == 3
    assert all(json.loads(line) for line in (tmp_path / LOG).read_text().splitlines())


def test_the_average_follows_all_weights_shared_ones_too(tiny_training: Any, tmp_path: Path) -> None:
    run = trainer(tiny_training, tmp_path, replace(RECIPE, ema=0.0))
    run.run()
    averaged = run.averaged()
    for name, parameter in run.model.named_parameters(remove_duplicate=False):
        torch.testing.assert_close(averaged.get_parameter(name), parameter, msg=name)
    assert averaged.get_parameter("decoder_embeddings.caption.mod_emb") is averaged.get_parameter(
        "encoder_embeddings.caption.mod_emb"
    )
    run.model.mask_token.data.add_(1)
    assert not torch.equal(averaged.mask_token, run.model.mask_token)  # a copy


def test_the_best_weights_are_kept_beside_the_last(tiny_training: Any, tmp_path: Path) -> None:
    found = iter([3.0, 1.0, 2.0])
    kept: list[Mapping[str, torch.Tensor]] = []

    def evaluate(model: FourM) -> dict[str, float]:
        kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"held_out": next(found), "r@1.caption": 0.5}

    run = trainer(tiny_training, tmp_path)
    run.run(evaluate)
    assert [entry["held_out"] for entry in curve(tmp_path) if "held_out" in entry] == [3, 1, 2]
    best, last = load_file(tmp_path / BEST), load_file(tmp_path / LAST)
    assert all(torch.equal(best[name], kept[1][name]) for name in best)
    assert all(torch.equal(last[name], kept[2][name]) for name in last)
    assert trainer(tiny_training, tmp_path).best == 1


# --- adapters


def _adapted(tiny: Any, lora: Lora) -> FourM:
    torch.manual_seed(3)
    model = FourM(tiny.config)
    freeze_all_but(model, ())
    add_lora(model, lora)
    return model


def test_adapters_start_as_nothing_and_merge_into_an_ordinary_model(tiny_training: Any) -> None:
    lora = Lora(rank=4, alpha=12.0)
    model, batch = _adapted(tiny_training, lora), trainer_batches(tiny_training).draw(1)
    torch.manual_seed(3)
    plain = FourM(tiny_training.config)
    for name, loss in masked_losses(plain, batch).items():
        torch.testing.assert_close(masked_losses(model, batch)[name], loss)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            torch.nn.init.normal_(module.lora_up, std=0.1)
    adapted = masked_losses(model, batch)
    merged = FourM(tiny_training.config)
    merged.load_state_dict(merge_lora(model.state_dict(), lora))
    for name, loss in masked_losses(merged, batch).items():
        torch.testing.assert_close(adapted[name], loss, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(loss, masked_losses(plain, batch)[name], atol=1e-3)


def test_only_adapters_learn_and_where_they_are_asked_for(tiny_training: Any) -> None:
    model = _adapted(tiny_training, Lora(rank=2, mlp=False))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.endswith(("lora_up", "lora_down")) and ".mlp." not in name for name in learning)
    masked_losses(model, trainer_batches(tiny_training).draw(0))["tok_depth@32"].backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name not in learning)


def test_training_of_adapters_saves_an_ordinary_checkpoint(tiny_training: Any, tmp_path: Path) -> None:
    lora = Lora(rank=2)

    def prepare(model: FourM) -> None:
        freeze_all_but(model, ())
        add_lora(model, lora)

    run = trainer(
        tiny_training, tmp_path, replace(RECIPE, steps=3, learning_rate=0.05), prepare=prepare, lora=lora
    )
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.run()
    saved = load_fourm(tmp_path / LAST)
    changed = {name for name, tensor in saved.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(".attn." in name or "_attn." in name or ".mlp." in name for name in changed)
    again = trainer(
        tiny_training, tmp_path, replace(RECIPE, steps=3, learning_rate=0.05), prepare=prepare, lora=lora
    )
    assert again.step == 3
    with pytest.raises(ConfigError, match="Nothing is left to train"):
        trainer(tiny_training, tmp_path / "b", prepare=lambda model: freeze_all_but(model, ()))
