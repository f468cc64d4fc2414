import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import CheckpointError, InputError, ModelError
from anyseek.model.checkpoint import load_tokenizer, open_checkpoint, save_checkpoint
from anyseek.model.tokenizers.build import build_tokenizer, parse_tokenizer_config
from anyseek.model.tokenizers.diffusion import (
    SAMPLERS,
    Diffusion,
    Noise,
    alphas_cumprod,
    sampling_times,
    time_features,
)
from anyseek.model.tokenizers.divae import DiffusionTokenizerConfig, DiVAE
from anyseek.model.tokenizers.image import VQVAE
from anyseek.model.tokenizers.unet import UNetSize
from anyseek.model.tokenizers.uvit import UVitSize
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "shifted_cosine:0.5")
PRESETS: dict[str, object] = {
    "unet_patched_small": {
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_factors": [2],
        "channel_mult": [1, 2],
        "num_heads": 2,
    },
    "uvit_small_p4_f16": {
        "block_channels": [32, 64],
        "resnets_per_block": 1,
        "transformer_blocks": 2,
        "transformer_width": 32,
        "transformer_heads": 2,
    },
}
UNET = DiffusionTokenizerConfig(
    n_channels=3,
    enc_type="vit_d16l1h2_enc",
    dec_type="unet_patched_small",
    quant_type="lucid",
    codebook_size=50,
    num_codebooks=1,
    latent_dim=6,
    image_size=32,
    patch_size=16,
    post_mlp=True,
    beta_schedule="linear",
    prediction_type="sample",
    clip_sample=True,
    thresholding=False,
    scheduler="ddim",
    conditioning="add",
    presets=PRESETS,
)
UVIT = replace(
    UNET,
    n_channels=1,
    dec_type="uvit_small_p4_f16",
    beta_schedule="shifted_cosine:0.5",
    conditioning="concat",
    clip_sample=False,
    thresholding=True,
)
CONFIGS = {"unet": UNET, "uvit": UVIT}


def build(config: DiffusionTokenizerConfig) -> DiVAE:
    """Weights that are the same on every machine and with every generator."""
    tokenizer = DiVAE(config).eval()
    for index, (name, tensor) in enumerate(sorted(tokenizer.state_dict().items())):
        if name.endswith("pos_emb"):
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + index).view(tensor.shape)
        is_scale = tensor.ndim == 1 and name.endswith("weight")
        fan_in = max(tensor[0].numel(), 1) if tensor.ndim > 1 else 25
        tensor.copy_(1 + 0.1 * wave if is_scale else wave * (2 / fan_in) ** 0.5)
    return tokenizer


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> DiffusionTokenizerConfig:
    return CONFIGS[request.param]


# --- schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("zero", [True, False])
def test_signal_only_falls(schedule: str, zero: bool) -> None:
    for num_times in (2, 10, 1000):
        table = alphas_cumprod(schedule, num_times, zero_terminal_snr=zero)
        assert (table.shape, table.dtype) == ((num_times,), np.float32)
        assert (np.diff(table) < 0).all() or schedule.startswith("shifted")
        assert (np.diff(table) <= 0).all()
        assert table.min() >= 0
        assert table.max() <= 1
        is_pure_noise = table[-1] == 0
        assert is_pure_noise == (zero or schedule.startswith("shifted"))


@pytest.mark.parametrize(
    "schedule",
    ["cosine", "", "shifted_cosine", "shifted_cosine:x", "shifted_cosine:-1", "shifted_cosine:nan"],
)
def test_unknown_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(ModelError, match=r"schedule|shift"):
        alphas_cumprod(schedule, 1000, zero_terminal_snr=True)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_times_fall_within_the_schedule(spacing: str) -> None:
    for num_steps in (1, 2, 3, 7, 25, 30, 50, 999, 1000):
        times = sampling_times(num_steps, 1000, spacing)  # type: ignore[arg-type]
        assert len(times) == num_steps if spacing != "trailing" else len(times) >= num_steps
        assert all(before > after for before, after in pairwise(times))
        assert 0 <= times[-1] <= times[0] <= 999
        if spacing != "leading":
            assert times[0] == 999


def test_trailing_times_take_a_step_more_where_they_do_not_fit() -> None:
    assert len(sampling_times(30, 1000)) == 31


@pytest.mark.parametrize("num_steps", [0, -1, 1001, 2.5, "many"])
def test_useless_numbers_of_steps_are_refused(num_steps: Any) -> None:
    with pytest.raises(InputError, match=rf"1\.\.1000, got {num_steps!r}"):
        sampling_times(num_steps, 1000)
    with pytest.raises(InputError, match="Known: trailing, leading, linspace"):
        sampling_times(10, 1000, "sideways")  # type: ignore[arg-type]


def test_time_is_told_as_cosines_then_sines() -> None:
    times = torch.tensor([0, 3, 999])
    found = time_features(times, 8)
    for i, time in enumerate(times.tolist()):
        angles = [time * 10_000 ** (-j / 4) for j in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        np.testing.assert_allclose(found[i], expected, atol=1e-4)


# --- steps


def truth(diffusion: Diffusion, clean: Tensor, noise: Tensor, time: int) -> Tensor:
    """What a perfect network gives."""
    if diffusion.prediction == "v_prediction":
        return diffusion.velocity(clean, noise, torch.full((len(clean),), time))
    return clean if diffusion.prediction == "sample" else noise


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_step_with_a_perfect_network_lands_on_the_way_of_the_image(prediction: str, schedule: str) -> None:
    torch.manual_seed(0)
    clean, noise = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 3, 8, 8)
    diffusion = Diffusion(schedule, 1000, False, prediction, True)
    for time, stride in ((900, 100), (500, 1), (40, 40)):
        x = diffusion.add_noise(clean, noise, torch.full((2,), time))
        found = diffusion.ddim_step(truth(diffusion, clean, noise, time), x, time, stride)
        expected = diffusion.add_noise(clean, noise, torch.full((2,), time - stride))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
    x = diffusion.add_noise(clean, noise, torch.tensor([3, 3]))
    last = diffusion.ddim_step(truth(diffusion, clean, noise, 3), x, 3, 10)
    torch.testing.assert_close(last, clean, rtol=1e-3, atol=1e-3)


def test_kept_image_is_clipped_and_the_noise_is_not() -> None:
    diffusion = Diffusion("linear", 1000, False, "sample", True)
    x, output = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 3.0)
    image, rest = (float(share) for share in diffusion._shares(torch.tensor([500]), x))
    before = diffusion.alphas[400]
    expected = math.sqrt(before) * 1.0 + math.sqrt(1 - before) * (0 - image * 3) / rest
    assert diffusion.ddim_step(output, x, 500, 100).mean().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_perfect_network_draws_its_image_from_any_noise(sampler: str, prediction: str) -> None:
    torch.manual_seed(0)
    clean = torch.rand(2, 3, 8, 8) * 1.8 - 0.9
    diffusion = Diffusion("linear", 1000, True, prediction, True, sampler)

    def network(x: Tensor, time: Tensor) -> Tensor:
        if prediction == "sample":
            return clean
        image, rest = diffusion._shares(time, x)
        return (image * x - clean) / rest

    drawn = diffusion.sample(network, Noise(1, (2, 3, 8, 8), torch.device("cpu")), 20)
    torch.testing.assert_close(drawn, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clip", [False, True])
def test_pndm_is_ddim_where_the_noise_does_not_change(clip: bool) -> None:
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = [
        Diffusion("linear", 1000, False, "epsilon", clip, sampler).sample(lambda *_: noise, start, 20)
        for sampler in ("ddim", "pndm")
        for start in [Noise(3, (2, 1, 8, 8), torch.device("cpu"))]
    ]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_pndm_starts_with_a_step_of_ddim_and_remembers_three_more(prediction: str) -> None:
    diffusion = Diffusion("linear", 1000, False, prediction, True, "pndm")
    torch.manual_seed(0)
    x, output = torch.randn(2, 2, 1, 8, 8)
    seen: list[Tensor] = []
    first = diffusion.pndm_step(output, x, 999, 100, seen)
    assert torch.equal(first, diffusion.ddim_step(output, x, 999, 100))
    for time in (899, 799, 699, 599):
        assert not torch.equal(
            diffusion.pndm_step(output + time, x, time, 100, seen),
            diffusion.ddim_step(output + time, x, time, 100),
        )
    assert len(seen) == 4


def error_of(sampler: str, num_steps: int, first: int = 899, last: int = 99) -> float:
    """Relative distance from the truth for normal data, whose best denoiser and exact way are known.

    The best prediction of the noise is linear in x, and x stays at the same quantile all the way.
    """
    diffusion, deviation = Diffusion("linear", 1000, False, "epsilon", False, sampler), 0.5
    spread = np.sqrt(diffusion.alphas.astype(float) * deviation**2 + 1 - diffusion.alphas)
    x, seen = torch.ones(1, 1, 1, 1, dtype=torch.float64), list[Tensor]()
    stride = (first - last) // num_steps
    for time in range(first, last, -stride):
        output = math.sqrt(1 - diffusion.alphas[time]) / spread[time] ** 2 * x
        if sampler == "ddim":
            x = diffusion.ddim_step(output, x, time, stride)
        else:
            x = diffusion.pndm_step(output, x, time, stride, seen)
    return abs(x.item() * spread[first] / spread[last] - 1)


def test_pndm_nears_the_known_end_of_a_linear_equation_faster_than_ddim() -> None:
    ddim, pndm = ([error_of(sampler, steps) for steps in (40, 80, 160)] for sampler in ("ddim", "pndm"))
    assert all(1.8 < coarse / fine < 2.2 for coarse, fine in pairwise(ddim))  # first order
    assert all(coarse / fine > 3.0 for coarse, fine in pairwise(pndm))  # that of its first steps: second
    assert error_of("pndm", 10) < error_of("ddim", 100)


def test_ddpm_draws_new_noise_in_every_step_but_the_last() -> None:
    diffusion = Diffusion("linear", 1000, True, "sample", False, "ddpm")
    x, output, fresh = torch.randn(3, 2, 1, 4, 4)
    for time in (900, 100):
        change = diffusion.ddpm_step(output, x, time, 100, fresh) - diffusion.ddpm_step(
            output, x, time, 100, torch.zeros_like(x)
        )
        assert functional.cosine_similarity(change.flatten(), fresh.flatten(), dim=0) > 0.999
    assert torch.equal(
        diffusion.ddpm_step(output, x, 0, 100, fresh), diffusion.ddpm_step(output, x, 0, 100, 2 * fresh)
    )


def test_noise_prediction_cannot_start_at_pure_noise() -> None:
    diffusion = Diffusion("linear", 1000, True, "epsilon", True)
    noise = Noise(0, (1, 1, 4, 4), torch.device("cpu"))
    with pytest.raises(ModelError, match="cannot start at pure noise"):
        diffusion.sample(lambda x, _: x, noise, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "euler"}, "'euler'. Known: ddim, ddpm, pndm"),
        ({"prediction": "x"}, "'x'. Known: sample, epsilon, v_prediction"),
        ({"num_times": 1}, "training steps"),
    ],
)
def test_unknown_processes_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {
        "schedule": "linear",
        "num_times": 1000,
        "zero_terminal_snr": True,
        "prediction": "sample",
        "clip": True,
    }
    with pytest.raises(ModelError) as caught:
        Diffusion(**{**arguments, **change})  # type: ignore[arg-type]
    assert message in str(caught.value)


# --- noise


def test_noise_of_an_item_depends_on_its_seed_alone() -> None:
    cpu = torch.device("cpu")
    shared = Noise(5, (3, 2, 4, 4), cpu)
    own = Noise([9, 5, 7], (3, 2, 4, 4), cpu)
    alone = Noise(5, (1, 2, 4, 4), cpu)
    seen: list[Tensor] = []
    for _ in range(3):
        first, second, third = shared.draw(), own.draw(), alone.draw()
        assert torch.equal(first, third.expand(3, -1, -1, -1))
        assert torch.equal(second[1], third[0])
        assert not torch.equal(second[0], second[1])
        assert all(not torch.equal(third, before) for before in seen)
        seen.append(third)
    assert Noise(-1, (1, 1, 2, 2), cpu).draw().isfinite().all()
    assert Noise(2**80, (1, 1, 2, 2), cpu).draw().isfinite().all()


def test_seeds_must_match_the_batch() -> None:
    with pytest.raises(InputError, match="got 2 for 3 items"):
        Noise([1, 2], (3, 1, 4, 4), torch.device("cpu"))


# --- networks

# Some pixels of what `build` gives, noted when the networks agreed with the recorded reference outputs
# (tests/model/test_golden.py on the full set) to 1e-5.
RECORDED = {
    "unet": (
        [0.06811, 0.63659, 0.87346, 1.37199, 0.07311, 1.09903, 1.52989, 0.53568],
        [0.06822, 0.63727, 0.87462, 1.37363, 0.07333, 1.10094, 1.53273, 0.53674],
        [0.06318, 0.61782, 0.85941, 1.42859, 0.07311, 1.09903, 1.52989, 0.53568],
    ),
    "uvit": (
        [0.13869, -0.08978, 0.04414, -0.51461, 0.12920, 0.54285, 0.02431, -0.70291],
        [0.13857, -0.08993, 0.04354, -0.51460, 0.12901, 0.54287, 0.02310, -0.70318],
        [0.16969, -0.05252, 0.01769, -0.53594, 0.12920, 0.54285, 0.02431, -0.70291],
    ),
}


def wave(*shape: int) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape)) * 0.37).view(shape)


def denoised(tokenizer: DiVAE) -> tuple[Tensor, Tensor, Tensor]:
    channels = tokenizer.config.n_channels
    noised, codes = wave(2, channels, 32, 48), wave(2, 6, 2, 3)
    mask = torch.tensor([[[True, False, True], [False, False, True]], [[False] * 3] * 2])
    return (
        tokenizer.denoise(noised, torch.tensor([13, 700]), codes),
        tokenizer.denoise(noised, torch.tensor([400]), codes),
        tokenizer.denoise(noised, torch.tensor([13, 700]), codes, mask),
    )


@torch.no_grad()
def test_networks_compute_what_they_did_when_they_agreed_with_the_reference() -> None:
    for name, config in CONFIGS.items():
        for found, expected in zip(denoised(build(config)), RECORDED[name], strict=True):
            np.testing.assert_allclose(found[:, 0, 5, ::12].flatten(), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_time_and_codes_matter_and_hidden_codes_do_not(config: DiffusionTokenizerConfig) -> None:
    tokenizer = build(config)
    noised, codes = wave(1, config.n_channels, 32, 32), wave(1, 6, 2, 2)
    time = torch.tensor([500])
    base = tokenizer.denoise(noised, time, codes)
    assert (tokenizer.denoise(noised, time + 400, codes) - base).abs().max() > 1e-3
    assert (tokenizer.denoise(noised, time, codes + 1) - base).abs().max() > 1e-3
    everything = torch.ones(1, 2, 2, dtype=torch.bool)
    assert torch.equal(
        tokenizer.denoise(noised, time, codes, everything),
        tokenizer.denoise(noised, time, -codes, everything),
    )


# --- tokenizers


def test_image_has_the_size_that_the_ids_stand_for(config: DiffusionTokenizerConfig) -> None:
    tokenizer = build(config)
    for rows, columns in ((2, 2), (4, 2), (1, 3)):
        values = wave(2, config.n_channels, 16 * rows, 16 * columns)
        ids = tokenizer.encode(values)
        assert ids.shape == (2, rows, columns)
        assert 0 <= int(ids.min()) <= int(ids.max()) < config.codebook_size
        image = tokenizer.decode(ids, num_steps=2)
        assert (image.shape, image.dtype) == (values.shape, torch.float32)
        assert image.abs().max() <= 1  # both clip
        assert not image.requires_grad


def test_decoding_is_the_same_in_any_batch(config: DiffusionTokenizerConfig) -> None:
    tokenizer = build(config)
    ids = torch.arange(12).view(3, 2, 2)
    together = tokenizer.decode(ids, seed=4, num_steps=3)
    assert torch.equal(together, tokenizer.decode(ids, seed=4, num_steps=3))
    own = tokenizer.decode(ids, seed=[1, 4, 2], num_steps=3)
    for i, seed in enumerate((1, 4, 2)):
        alone = tokenizer.decode(ids[i : i + 1], seed=4, num_steps=3)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-3, atol=1e-3)
        alone = tokenizer.decode(ids[i : i + 1], seed=seed, num_steps=3)
        torch.testing.assert_close(alone[0], own[i], rtol=1e-3, atol=1e-3)
    assert (together[0] - own[0]).abs().max() > 1e-3


def test_progress_is_told_after_every_step_and_codes_are_prepared_once(
    config: DiffusionTokenizerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = build(config)
    prepared: list[int] = []
    condition: Callable[..., Tensor] = tokenizer.decoder.condition
    monkeypatch.setattr(
        tokenizer.decoder, "condition", lambda *args: prepared.append(1) or condition(*args), raising=True
    )
    steps: list[tuple[int, int]] = []
    tokenizer.decode(
        torch.zeros(1, 2, 2, dtype=torch.int64), num_steps=3, progress=lambda *at: steps.append(at)
    )
    assert steps == [(i + 1, 4) for i in range(4)]  # 3 does not divide 1000
    assert prepared == [1]


def test_ids_in_a_grid_that_cannot_be_halved_are_refused() -> None:
    preset = {**PRESETS["unet_patched_small"], "channel_mult": [1, 1, 1, 1]}  # type: ignore[dict-item]
    tokenizer = build(replace(UNET, presets={"unet_patched_small": preset}))
    with pytest.raises(InputError, match="multiples of 32, not 48 x 32"):
        tokenizer.decode(torch.zeros(1, 3, 2, dtype=torch.int64))


def test_bfloat16_decoder_draws_nearly_the_same_image(config: DiffusionTokenizerConfig) -> None:
    tokenizer, ids = build(config), torch.arange(8).view(2, 2, 2)
    exact = tokenizer.decode(ids, num_steps=1)
    image = tokenizer.bfloat16().decode(ids, num_steps=1)
    assert image.dtype == torch.float32
    assert functional.cosine_similarity(image.flatten(), exact.flatten(), dim=0) > 0.995


# --- files


def test_halves_load_apart_and_read_nothing_of_each_other(
    config: DiffusionTokenizerConfig, tmp_path: Path
) -> None:
    whole, path = build(config), tmp_path / "tok.safetensors"
    save_checkpoint(whole, path)
    state, ids = whole.state_dict(), torch.arange(8).view(2, 2, 2)
    prefixes = {"encoder": ("encoder.", "quant_proj."), "decoder": ("decoder.",)}
    for side, other in (("encoder", "decoder"), ("decoder", "encoder")):
        checkpoint = open_checkpoint(path)
        half = load_tokenizer(checkpoint, encoder=side == "encoder", decoder=side == "decoder")
        assert not any(name.startswith(prefixes[other]) for name in half.state_dict())
        skipped = sum(t.nbytes for name, t in state.items() if name.startswith(prefixes[other]))
        read = path.stat().st_size - skipped
        assert 0 <= checkpoint.bytes_read - read <= 2 * 64 * 64 * 9 * 4  # the tied pair is compared
        if side == "encoder":
            values = wave(2, config.n_channels, 32, 32)
            assert torch.equal(half.encode(values), whole.encode(values))
        else:
            assert torch.equal(half.decode(ids, num_steps=2), whole.decode(ids, num_steps=2))


def test_configuration_survives_its_file(config: DiffusionTokenizerConfig, tmp_path: Path) -> None:
    save_checkpoint(build(config), tmp_path / "tok.safetensors")
    assert parse_tokenizer_config(open_checkpoint(tmp_path / "tok.safetensors").config) == config
    plain = {key: value for key, value in config.values().items() if key != "presets"}
    published = parse_tokenizer_config({**plain, "dec_type": "unet_patched"})
    assert isinstance(published, DiffusionTokenizerConfig)
    assert "presets" not in published.values()


@pytest.mark.parametrize("dropped", ["Conv2d_0", "conv"])
def test_tied_convolution_may_be_stored_once(dropped: str, tmp_path: Path) -> None:
    whole, path = build(UVIT), tmp_path / "tok.safetensors"
    save_checkpoint(whole, path)
    metadata = open_checkpoint(path).file.metadata
    state = load_file(path)
    save_file({k: v for k, v in state.items() if f"downsample_mid.{dropped}." not in k}, path, dict(metadata))
    loaded = load_tokenizer(path)
    assert loaded.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    pair = [loaded.get_submodule(f"decoder.downsample_mid.{name}") for name in ("Conv2d_0", "conv")]
    assert pair[0].weight is pair[1].weight


def test_tied_convolution_that_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tok.safetensors"
    save_checkpoint(build(UVIT), path)
    metadata = open_checkpoint(path).file.metadata
    state = load_file(path)
    state["decoder.downsample_mid.conv.weight"] += 1
    save_file(state, path, dict(metadata))
    with pytest.raises(CheckpointError, match=r"downsample_mid.*differ"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioning": "xattn"}, "Unknown conditioning 'xattn'. Known: concat, add"),
        ({"quant_type": "memcodes"}, "needs images, a ViT encoder and a lucid quantizer"),
        ({"presets": [1]}, "'presets' must map names to sizes"),
        ({"beta_schedul": "linear"}, "unknown configuration key 'beta_schedul'"),
        ({"thresholding": "yes"}, "'thresholding' must be bool"),
    ],
)
def test_bad_configuration_names_file_and_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_tokenizer_config({**UNET.values(), **change}, where="here.json")
    assert "here.json" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dec_type": "unet_patched_t9"}, "'unet_patched_t9'. Known: unet_patched, unet_patched_small"),
        ({"dec_type": "vit_b_dec"}, "no diffusion decoder. Known: unet_patched, uvit_b_p4_f16"),
        ({"scheduler": "euler"}, "Unknown diffusion sampler"),
        ({"beta_schedule": "x"}, "Unknown noise schedule 'x'"),
        ({"presets": {"unet_patched_small": {"model_channels": 33}}}, "lacks num_res_blocks"),
        ({"presets": {"unet_patched_small": 7}}, "No size is known"),
    ],
)
def test_unknown_networks_are_refused_when_built(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_tokenizer(replace(UNET, **change))  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: UNetSize(33, 1, (2,), (1,)),
        lambda: UNetSize(32, 0, (2,), (1,)),
        lambda: UNetSize(32, 1, (2,), ()),
        lambda: UNetSize(32, 1, (2,), (1,) * 9),
        lambda: UNetSize(2**40, 1, (2,), (1,)),
        lambda: UVitSize((33,), 1, 1, 32, 2),
        lambda: UVitSize((), 1, 1, 32, 2),
        lambda: UVitSize((32,), 1, 1, 30, 2),
        lambda: UVitSize((32,), 1, 1, 32, 3),
    ],
)
def test_sizes_without_meaning_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ModelError):
        wrong()


def test_class_follows_from_the_keys() -> None:
    with torch.device("meta"):
        assert isinstance(build_tokenizer(parse_tokenizer_config(UNET.values())), DiVAE)
        plain = {
            key: UNET.values()[key] for key in ("n_channels", "quant_type", "codebook_size", "num_codebooks")
        }
        plain |= {"enc_type": "vit_d16l1h2_enc", "dec_type": "vit_d16l1h2_dec", "latent_dim": 8}
        assert isinstance(build_tokenizer(parse_tokenizer_config(plain)), VQVAE)
        bare = build_tokenizer(parse_tokenizer_config({**plain, "dec_type": "unet_patched"}))
        assert isinstance(bare, nn.Module)
        assert isinstance(bare, DiVAE)
