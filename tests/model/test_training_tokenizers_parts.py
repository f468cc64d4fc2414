"""Codes, the loop and vocabularies of tokenizer training, apart from files and YAMLs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyseek.errors import ConfigError, ModelError
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.quantizers import VectorQuantizer
from anyseek.model.training.fit import CHECKPOINT, Fit
from anyseek.model.training.judge import code_use
from anyseek.model.training.run_log import RunLog
from anyseek.model.training.train_memcodes import MemcodesObjective, MemcodesRecipe
from anyseek.model.training.train_vq import (
    Codebook,
    VqObjective,
    VqRecipe,
    squared,
    train_vq,
)
from anyseek.model.training.train_wordpiece import train_wordpiece

pytestmark = pytest.mark.usefixtures("one_core")

# --- codes


def recipe(**more: Any) -> VqRecipe:
    return VqRecipe(**{"steps": 60, "batch_size": 16, "precision": "float32", **more})


def test_dead_codes_revive() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(32, 4, cosine=True)
    codebook = Codebook(quantizer, recipe(decay=0.5), torch.Generator().manual_seed(0))
    latent = torch.randn(256, 4)
    assert codebook.update(latent[:1].expand(64, 4), torch.zeros(64, dtype=torch.int64)) == 0
    assert len(quantizer.codebook()[0].unique(dim=0)) == 1  # all codes on one latent: as dead as can be
    revived = sum(codebook.update(latent, quantizer.encode(latent)) for _ in range(30))
    assert revived > 0
    used = quantizer.encode(latent).unique()
    assert len(used) >= 28
    assert torch.allclose(quantizer.codebook()[0].norm(dim=1), torch.ones(32))


def test_codes_stay_where_their_latents_are_and_others_rest() -> None:
    quantizer = VectorQuantizer(2, 2, cosine=False)
    codebook = Codebook(quantizer, recipe(decay=0.5, revive_below=0.0))
    codebook.update(torch.tensor([[0.0, 0.0]]), torch.zeros(0, dtype=torch.int64))
    codebook.update(torch.tensor([[4.0, 0.0], [2.0, 2.0]]), torch.tensor([1, 1]))
    codes = quantizer.codebook()[0]
    assert codes.tolist() == [[0.0, 0.0], [1.5, 0.5]]  # half way to the mean of those that chose it


def test_without_revival_a_bad_start_stays_bad() -> None:
    """What the codebook's use is owed to: the same start with and without revival."""
    used: list[int] = []
    for bar in (0.0, 0.5):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(32, 4, cosine=True)
        codebook = Codebook(quantizer, recipe(decay=0.5, revive_below=bar), torch.Generator().manual_seed(0))
        codebook.update(torch.ones(8, 4), torch.zeros(0, dtype=torch.int64))
        latent = torch.randn(256, 4)
        for _ in range(20):
            codebook.update(latent, quantizer.encode(latent))
        used.append(len(quantizer.encode(latent).unique()))
    assert used[0] < 20 < 28 <= used[1]


def test_few_latents_and_many_codes_do_not_churn() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(1024, 4, cosine=True)
    codebook = Codebook(quantizer, recipe(), torch.Generator().manual_seed(0))
    revived = 0
    for step in range(200):
        latent = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
        revived += codebook.update(latent, quantizer.encode(latent))
    assert revived < 200  # not every code in every other step


def test_code_use_of_even_and_of_lone_codes() -> None:
    even = torch.arange(8).repeat(4).view(4, 2, 4)
    assert code_use(even, 1, 16) == pytest.approx({"codes_used": 0.5, "perplexity": 8.0})
    heads = torch.stack([torch.arange(4), torch.zeros(4, dtype=torch.int64)], dim=1)
    assert code_use(heads, 2, 4) == pytest.approx({"codes_used": 5 / 8, "perplexity": 2.5})


# --- the loop


def squares(number: int) -> torch.Tensor:
    """Four patches, each black or white."""
    patches = torch.randint(2, (8, 1, 2, 2), generator=torch.Generator().manual_seed(number)).float()
    return patches.repeat_interleave(2, 2).repeat_interleave(2, 3)


SMALL = TokenizerConfig(
    1,
    enc_type="vit_d32l1h2_enc",
    dec_type="vit_d32l1h2_dec",
    quant_type="lucid",
    codebook_size=8,
    num_codebooks=1,
    latent_dim=8,
    image_size=4,
    patch_size=2,
)
_MLP = "BottleneckMLP/B_1-Wi_32"
SMALL_MLP = TokenizerConfig(
    6, enc_type=_MLP, dec_type=_MLP, quant_type="memcodes", codebook_size=16, num_codebooks=4, latent_dim=32
)


def small_fit(folder: Path | None, steps: int = 12) -> Fit[VQVAE]:
    chosen = recipe(steps=steps, save_every=5, log_every=3)
    torch.manual_seed(0)
    log = None if folder is None else RunLog(folder / "log.jsonl")
    return Fit(VqObjective(VQVAE(SMALL), squared, chosen), squares, chosen, folder=folder, log=log)


def vectors(number: int) -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(number))


def vector_fit(folder: Path | None) -> Fit[VQVAE]:
    chosen = MemcodesRecipe(steps=12, save_every=5, log_every=3, batch_size=8)
    torch.manual_seed(0)
    log = None if folder is None else RunLog(folder / "log.jsonl")
    return Fit(MemcodesObjective(VQVAE(SMALL_MLP)), vectors, chosen, folder=folder, log=log)


def weights(tokenizer: VQVAE) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tokenizer.state_dict().items()}


def test_a_run_does_not_touch_the_random_numbers_of_others() -> None:
    fit = small_fit(None)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fit.run()
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("start", [small_fit, vector_fit])
def test_stopping_anywhere_changes_nothing(
    start: Callable[[Path | None], Fit[VQVAE]], tmp_path: Path
) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = start(tmp_path / "whole")
    whole.run()
    for until in (4, 7, 8, 11, 12):  # of these only steps 5 and 10 are saved: the rest is done again
        part = start(tmp_path / "parts")
        part.run(until=until)
    assert part.step == 12
    for name, value in weights(whole.averaged()).items():
        assert torch.equal(value, weights(part.averaged())[name]), name

    def lines(name: str) -> list[dict[str, float]]:
        read = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "s"} for line in read]

    assert lines("whole") == lines("parts")


def test_another_recipe_does_not_go_on(tmp_path: Path) -> None:
    small_fit(tmp_path).run()
    with pytest.raises(ConfigError, match="steps 12, now 20"):
        small_fit(tmp_path, steps=20)


def test_a_torn_training_state_is_named(tmp_path: Path) -> None:
    small_fit(tmp_path).run()
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="no training state"):
        small_fit(tmp_path)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    chosen = recipe(steps=3)
    fit = Fit(
        VqObjective(VQVAE(SMALL), squared, chosen), lambda _: torch.full((8, 1, 4, 4), torch.inf), chosen
    )
    with pytest.raises(ModelError, match="at step 0"):
        fit.run()


def test_train_vq_keeps_its_call(tmp_path: Path) -> None:
    tokenizer = train_vq(SMALL, squares, squared, recipe(steps=100, log_every=50), tmp_path / "vq.jsonl")
    assert not tokenizer.training
    values = squares(999)
    assert squared(tokenizer.decode(tokenizer.encode(values)), values) < 0.1  # a constant has 0.25
    assert [json.loads(line)["step"] for line in (tmp_path / "vq.jsonl").read_text().splitlines()] == [
        50,
        100,
    ]


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


def test_a_vocabulary_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib; from anyseek.model.training.train_wordpiece import train_wordpiece\n"
        f"words = {WORDS!r}\n"
        "texts = [' '.join(words[i % 7:i % 11 + 5]) for i in range(60)]\n"
        "print(hashlib.sha256(train_wordpiece(texts, vocab_size=4800)).hexdigest())\n"
    )
    run = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)
    ]
    assert run[0] == run[1]


def test_a_vocabulary_without_room_for_words_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves 0 ids"):
        train_wordpiece(["a"], vocab_size=4000)
