"""Recorded reference outputs, over any folder of the format in `tests/golden/README.md`.

`pytest tests/model/test_golden.py --golden DIR` finds its cases in what DIR holds; what is recorded there and
not known here fails. Floating arrays agree within 1e-4 (absolute or relative), integers and booleans exactly.
"""

import json
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.model.checkpoint import load_fourm, load_tokenizer
from anyseek.model.drafts import PUBLISHED_CONTROLS, Draft
from anyseek.model.encoding import TO_TOKENIZER
from anyseek.model.fourm import FourM
from anyseek.model.generate import Conditions, Generator
from anyseek.model.guidance import Part
from anyseek.model.images import array_image, crop_resize
from anyseek.model.inputs import normalize_pixels
from anyseek.model.modalities import get_modality
from anyseek.model.plans import TargetPlan
from anyseek.model.presets import FourMConfig
from anyseek.model.readers.depth import standardize
from anyseek.model.readers.labels import shift_labels
from anyseek.model.readers.masks import fill_polygons
from anyseek.model.readers.pictures import mirror_normals
from anyseek.model.readers.texts import MIN_SCORE
from anyseek.model.sampling import Drawn, SeededChooser, Step, filter_logits
from anyseek.model.schedule import cosine_schedule, linear_schedule, temperature_schedule, token_schedule
from anyseek.model.tokenizers.build import build_tokenizer, parse_tokenizer_config
from anyseek.model.tokenizers.diffusion import Diffusion, alphas_cumprod, sampling_times
from anyseek.model.tokenizers.divae import DiVAE
from anyseek.model.tokenizers.image import VQVAE, VectorQuantized
from anyseek.model.tokenizers.instances import (
    InstanceCode,
    PointInstances,
    grid_points,
    instances_to_string,
    string_to_instances,
)
from anyseek.model.tokenizers.poses import SECTION_NAMES, Pose, poses_to_string, string_to_poses
from anyseek.model.tokenizers.sequences import (
    METADATA,
    Box,
    boxes_to_string,
    metadata_chunks,
    metadata_to_string,
    palette_to_string,
    string_to_boxes,
    string_to_metadata,
    string_to_palette,
)
from anyseek.model.tokenizers.spans import empty_sequence, mask_spans, merge_spans, text_condition
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.tokenizers.values import decoded_values
from anyseek.model.tokens import Tokens
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One thing to check."""

    name: str
    check: Callable[[], None]


def unknown_case(name: str, reason: str) -> Case:
    """Something recorded that nothing here can be compared with."""
    return Case(name, lambda: pytest.fail(f"{name}: {reason}"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = list(find_cases(metafunc.config.getoption("golden")))
    metafunc.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def test_agrees_with_reference(case: Case) -> None:
    case.check()


def find_cases(folder: Path) -> Iterator[Case]:
    """Every case of every file; a folder without any is an error, not an empty success."""
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden {folder}: no such folder")
    found = [case for path in sorted(folder.iterdir()) for case in cases_of(path)]
    if not found:
        raise pytest.UsageError(f"--golden {folder}: holds no file of the golden format")
    yield from found


def cases_of(path: Path) -> Iterator[Case]:
    kind, name = path.name.partition("_")[0], path.name
    if name == "checkpoint_keys.json":
        yield from key_cases(path)
    elif name == "text.json":
        yield from text_cases(path)
    elif name == "preproc.npz":
        yield from preproc_cases(path)
    elif name == "schedules.json":
        for key, value in read_json(path).items():
            yield Case(f"schedules/{key}", lambda key=key, value=value: check_schedules(key, value))
    elif name == "schedulers.npz":
        yield from scheduler_cases(path)
    elif name == "generation.npz":
        yield from generation_cases(path)
    elif kind in MODEL_KINDS and path.suffix == ".safetensors":
        yield from MODEL_KINDS[kind](path)
    elif kind in MODEL_KINDS and path.suffix == ".npz":
        if not path.with_suffix(".safetensors").exists():
            yield unknown_case(name, "the weights that it was recorded with are not in the folder")
    elif path.suffix in {".npz", ".json", ".safetensors"}:
        yield unknown_case(name, "no file of this name is known")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as data:
        return {key: data[key] for key in data.files}


def groups(path: Path) -> list[str]:
    """The first parts of an archive's keys that have several."""
    with np.load(path) as data:
        return sorted({key.partition("/")[0] for key in data.files if "/" in key})


def assert_agrees(name: str, found: Tensor | np.ndarray, expected: np.ndarray) -> None:
    found = found.detach().numpy() if isinstance(found, Tensor) else found
    assert found.shape == expected.shape, f"{name}: shape {found.shape}, recorded {expected.shape}"
    if expected.dtype.kind in "biu":
        assert np.array_equal(found, expected), f"{name}: {np.sum(found != expected)} of {found.size} differ"
    else:
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def assert_all_agree(found: Mapping[str, Tensor | np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Compare everything recorded; each recorded name needs a counterpart."""
    for name in expected:
        assert name in found, f"nothing to compare with {name}"
        assert_agrees(name, found[name], expected[name])


# --- the 4M model


def fourm_cases(path: Path) -> Iterator[Case]:
    stem = path.stem
    yield Case(f"{stem}/weights", lambda: check_whole_file_loads(path))
    recorded = path.with_suffix(".npz")
    if not recorded.exists():
        return
    with np.load(recorded) as data:
        keys = data.files
    for group in groups(recorded):
        check = check_training if f"{group}/num_tokens" in keys else check_forward
        yield Case(f"{stem}/{group}", lambda check=check, group=group: check(path, arrays(recorded), group))


def check_whole_file_loads(path: Path) -> None:
    """Strict loading takes every tensor of the file, unchanged but for the cast to float32."""
    model = load_fourm(path)
    state = model.state_dict()
    stored = load_file(path)
    assert set(state) - set(stored) <= {*model.tied_keys(), *model.tied_keys().values()}
    for name, tensor in stored.items():
        assert torch.equal(state[name], tensor.float()), name


def read_batch(data: Mapping[str, np.ndarray], case: str, *, with_code: bool) -> dict[str, Tokens]:
    def tensor(key: str) -> Tensor | None:
        return torch.from_numpy(data[key]) if key in data else None

    batch: dict[str, Tokens] = {}
    for name in json.loads(str(data[f"{case}/order"])):
        prefix = f"{case}/in/{name}"
        values = tensor(f"{prefix}/tensor")
        if values is None:
            values = torch.from_numpy(normalize_pixels(data["rgb_u8"]))
        mask = tensor(f"{prefix}/input_mask")
        assert mask is not None
        code = tensor(f"{prefix}/decoder_attention_mask") if with_code else None
        batch[name] = Tokens(values, mask, tensor(f"{prefix}/target_mask"), code)
    return batch


def under(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): data[key] for key in data if key.startswith(prefix)}


def record_outputs(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The last output of each named module, filled in as the model runs."""
    outputs: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output)
        )
    return outputs


def check_forward(path: Path, data: dict[str, np.ndarray], case: str) -> None:
    model = load_fourm(path)
    batch = read_batch(data, case, with_code=False)
    expected, hooks = under(data, f"{case}/out/"), under(data, f"{case}/hook/")
    outputs = record_outputs(model, list(hooks))
    slots = expected.pop("mod_pos", None)
    with torch.no_grad():
        selected = model.select_inputs(batch)
        encoded = model.encode(batch)
        found = {
            "encoder_tokens": selected.content,
            "encoder_emb": selected.emb,
            "encoder_mask": selected.mask,
            "encoder_mod_mask": selected.ids,
        }
        for name in (key.removeprefix("logits/") for key in expected if key.startswith("logits/")):
            positions = None if slots is None else {name: torch.from_numpy(slots)}
            found[f"logits/{name}"] = model.decode(encoded, [name], positions=positions)[name]
    assert_all_agree(outputs, hooks)
    assert_all_agree(found, expected)


def check_training(path: Path, data: dict[str, np.ndarray], case: str) -> None:
    model = load_fourm(path)
    batch = read_batch(data, case, with_code=True)
    num_encoder, num_decoder = json.loads(str(data[f"{case}/num_tokens"]))
    order = json.loads(str(data[f"{case}/decoder_order"]))
    expected, hooks = under(data, f"{case}/out/"), under(data, f"{case}/hook/")
    outputs = record_outputs(model, ["decoder_norm", *hooks])
    if "decoder_attention_mask_packed" in expected:
        packed = expected.pop("decoder_attention_mask_packed")
        shape = expected.pop("decoder_attention_mask_shape")
        expected["blocked"] = np.unpackbits(packed, axis=-1, count=shape[-1]).astype(bool).reshape(shape)

    encoded = model.encode(batch, num_tokens=num_encoder)
    targets = model.select_targets(batch, num_decoder, order)

    def losses(kind: Any) -> Any:
        return model(
            batch,
            num_encoder_tokens=num_encoder,
            num_decoder_tokens=num_decoder,
            loss=kind,
            decoder_order=order,
        )

    by_tokens, by_modality = losses("token"), losses("mod")
    by_modality.loss.backward()
    y = outputs["decoder_norm"]
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.grad is not None
    }
    total = sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None)
    found: dict[str, Tensor] = {
        "encoder_mask": encoded.mask,
        "encoder_mod_mask": encoded.ids,
        "encoder_norm": encoded.hidden,
        "decoder_mask": targets.mask,
        "decoder_mod_mask": targets.ids,
        "target_ids": targets.target_ids,
        "blocked": targets.blocked,
        "decoder_norm": y,
        "loss_mod": by_modality.loss[None],
        "loss_token": by_tokens.loss[None],
        "grad_norm": torch.as_tensor(total).sqrt(),
        **{f"mod_loss/{name}": loss[None] for name, loss in by_modality.by_modality.items()},
        **{f"logits_all/{name}": head_of(model, name)(y) for name in model.targets},
        **{f"grad/{name}": gradient for name, gradient in gradients.items()},
    }
    assert_all_agree(outputs, hooks)
    assert_all_agree(found, expected)


def head_of(model: FourM, name: str) -> nn.Module:
    return model.get_submodule(f"decoder_embeddings.{name}.to_logits")


# --- tokenizers


def tokenizer_cases(path: Path) -> Iterator[Case]:
    yield Case(f"{path.stem}/weights", lambda: check_whole_tokenizer_loads(path))
    recorded = path.with_suffix(".npz")
    for group in run_groups(recorded):
        name = f"{path.stem}/{group.removesuffix('/') or 'run'}"
        yield Case(name, lambda group=group: check_tokenizer(path, under(arrays(recorded), group)))


def diffusion_cases(path: Path) -> Iterator[Case]:
    yield Case(f"{path.stem}/weights", lambda: check_whole_tokenizer_loads(path))
    recorded = path.with_suffix(".npz")
    parts = {"x": check_encoding_stages, "x_noised": check_denoiser, "ddim/timesteps": check_ddim}
    for group in run_groups(recorded):
        with np.load(recorded) as data:
            checks = {part: check for part, check in parts.items() if f"{group}{part}" in data.files}
        for part, check in checks.items():
            yield Case(
                f"{path.stem}/{group}{part}",
                lambda group=group, check=check: check(path, under(arrays(recorded), group)),
            )


def run_groups(recorded: Path) -> list[str]:
    """Prefixes under which a run was recorded: '' for one in the archive's root."""
    if not recorded.exists():
        return []
    with np.load(recorded) as data:
        inputs = [re.fullmatch(r"(.*/)?(x|tokens|free_tokens)", key) for key in data.files]
    return sorted({match[1] or "" for match in inputs if match})


def check_whole_tokenizer_loads(path: Path) -> None:
    model = load_tokenizer(path)
    state = model.state_dict()
    with safe_open(path, "pt") as file:
        stored = set(file.keys())
        assert stored <= set(state)
        assert set(state) - stored <= {*model.tied_keys(), *model.tied_keys().values()}
        for name in stored:
            assert torch.equal(state[name], file.get_tensor(name).float()), name


@torch.no_grad()
def check_tokenizer(path: Path, data: dict[str, np.ndarray]) -> None:
    model = load_tokenizer(path)
    assert isinstance(model, VQVAE)
    found: dict[str, Tensor] = {}
    ids = torch.from_numpy(data["tokens"]) if "tokens" in data else None
    if "x" in data:
        values = torch.from_numpy(data.pop("x"))
        found = encoded_stages(model, values)
        ids = found["tokens"]
        assert torch.equal(model(values).values, model.decode(ids))
    if ids is not None:
        found |= decoded_stages(model, ids)
    if "free_tokens" in data:
        found["free_decoded"] = model.decode(torch.from_numpy(data.pop("free_tokens")))
    if "free_pose_matrices" in data:
        count = len(data["free_pose_matrices"])
        found["free_pose_matrices"] = found["free_decoded"][:count].reshape(count, 23, 3, 3)
    assert_all_agree(found, data)


def decoded_stages(model: VQVAE, ids: Tensor) -> dict[str, Tensor]:
    """What becomes of ids, by the recorded names."""
    decoded = model.decode(ids)
    return {
        "tokens": ids,
        "embedding_from_tokens": model.look_up(ids),
        "decoded": decoded,
        "argmax": decoded_values("semseg", decoded),
        "mask_prob": decoded_values("sam_instance", decoded),
        "tokens_flat16": ids.flatten(1),
    }


def encoded_stages(model: VectorQuantized, values: Tensor) -> dict[str, Tensor]:
    """Every stage of encoding by its recorded name."""
    latent, ids = model.latent(values), model.encode(values)
    return {
        "encoder_out": model.features(values).movedim(-1, 1),
        "latent": latent.movedim(-1, 1),
        "quant": model.quantize(latent).codes.movedim(-1, 1),
        "tokens": ids,
        "embedding_from_tokens": model.look_up(ids),
    }


ENCODED = ("encoder_out", "latent", "quant", "tokens", "embedding_from_tokens")


@torch.no_grad()
def check_encoding_stages(path: Path, data: dict[str, np.ndarray]) -> None:
    found = encoded_stages(load_tokenizer(path), torch.from_numpy(data["x"]))
    assert_all_agree(found, {key: data[key] for key in ENCODED if key in data})


@torch.no_grad()
def check_denoiser(path: Path, data: dict[str, np.ndarray]) -> None:
    model = load_tokenizer(path)
    assert isinstance(model, DiVAE)
    given = {key: torch.from_numpy(data.pop(key)) for key in ("x", "noise", "t", "cond_mask") if key in data}
    values, times = given["x"], given["t"]
    noised = model.diffusion.add_noise(values, given["noise"], times)
    found = {
        "x_noised": noised,
        "denoiser_out": model(values, noised, times).values,
        "denoiser_out_masked": model(values, noised, times, given.get("cond_mask")).values,
    }
    for name in data:
        if name.startswith("denoiser_out_scalar_t"):
            time = torch.tensor([int(name.removeprefix("denoiser_out_scalar_t"))])
            found[name] = model.denoise(noised, time, model.look_up(model.encode(values)))
    assert_all_agree(
        found, {key: data[key] for key in data if key not in (*ENCODED, "init_noise") and "/" not in key}
    )


@torch.no_grad()
def check_ddim(path: Path, data: dict[str, np.ndarray]) -> None:
    model = load_tokenizer(path)
    assert isinstance(model, DiVAE)
    codes = model.look_up(torch.from_numpy(data["tokens"]))
    start, recorded = torch.from_numpy(data["init_noise"]), under(data, "ddim/")
    num_steps, num_times = int(recorded.pop("requested_steps")), model.diffusion.num_times
    times, x, steps = sampling_times(num_steps, num_times), start, list[Tensor]()
    for time in times:
        output = model.denoise(x, torch.tensor([time]), codes)
        x = model.diffusion.ddim_step(output, x, time, num_times // num_steps)
        steps.append(x)

    class Recorded:
        def draw(self) -> Tensor:
            return start

    found = {
        "timesteps": np.array(times),
        "model_out_0": model.denoise(start, torch.tensor([times[0]]), codes),
        "x_steps": torch.stack(steps),
        "final": model.diffusion.sample(
            lambda x, time: model.denoise(x, time, codes),
            Recorded(),  # pyright: ignore[reportArgumentType]
            num_steps,
        ),
    }
    assert_all_agree(found, recorded)


# --- diffusion schedules and steps


def scheduler_cases(path: Path) -> Iterator[Case]:
    with np.load(path) as data:
        tables = [key for key in data.files if key.startswith("alphas_cumprod/")]
        steps = sorted({"/".join(key.split("/")[:2]) for key in data.files if key.startswith("dd")})
    for key in tables:
        yield Case(f"schedulers/{key}", lambda key=key: check_table(arrays(path), key))
    for key in steps:
        if key != "ddpm/noise":
            yield Case(f"schedulers/{key}", lambda key=key: check_steps(arrays(path), key))
    yield Case("schedulers/add_noise", lambda: check_noising(arrays(path)))


def check_table(data: dict[str, np.ndarray], key: str) -> None:
    _, name, flag = key.split("/")
    found = alphas_cumprod(name, len(data[key]), zero_terminal_snr=flag == "zsnr1")
    assert_agrees(key, found, data[key])


def agree_for_one_schedule(
    data: dict[str, np.ndarray], check: Callable[[Callable[..., Diffusion]], None]
) -> None:
    """Steps do not name the schedule they were recorded with: it is one of those whose table is there."""
    failures: list[str] = []
    for key in (key for key in data if key.startswith("alphas_cumprod/")):
        _, name, flag = key.split("/")
        try:
            check(
                lambda *args, name=name, flag=flag, key=key: Diffusion(
                    name, len(data[key]), flag == "zsnr1", *args
                )
            )
        except AssertionError as error:
            failures.append(f"{key}: {error}")
        else:
            return
    raise AssertionError("no schedule agrees:\n" + "\n".join(failures))


def check_steps(data: dict[str, np.ndarray], prefix: str) -> None:
    sample, output = (torch.from_numpy(data[key]) for key in ("sample", "model_output"))
    sampler, prediction = prefix.split("/")
    runs = sorted(
        key.removesuffix("timesteps") for key in data if key.startswith(prefix) and key.endswith("/timesteps")
    )

    def check(diffusion_of: Callable[..., Diffusion]) -> None:
        for run in runs:
            times, clip = data[f"{run}timesteps"], "thr1" in run or "clip1" in run
            diffusion = diffusion_of(prediction, clip, sampler)
            spacing, count = "leading", len(times)
            if sampler == "ddim":
                match = re.fullmatch(r"([a-z]+)(\d+)", run.split("/")[-2])
                assert match is not None
                spacing, count = match[1], int(match[2])
            assert sampling_times(count, diffusion.num_times, spacing) == times.tolist()
            stride = diffusion.num_times // count
            for key in (key for key in data if key.startswith(f"{run}step")):
                time = int(times[int(key.removeprefix(f"{run}step"))])
                if sampler == "ddim":
                    found = diffusion.ddim_step(output, sample, time, stride)
                else:
                    noise = torch.from_numpy(data[f"{sampler}/noise"])
                    found = diffusion.ddpm_step(output, sample, time, stride, noise)
                assert_agrees(key, found, data[key])

    assert runs
    agree_for_one_schedule(data, check)


def check_noising(data: dict[str, np.ndarray]) -> None:
    sample, other, times = (torch.from_numpy(data[key]) for key in ("sample", "model_output", "add_noise_t"))

    def check(diffusion_of: Callable[..., Diffusion]) -> None:
        diffusion = diffusion_of("sample", False, "ddim")
        assert_agrees("add_noise", diffusion.add_noise(sample, other, times), data["add_noise"])
        assert_agrees("get_velocity", diffusion.velocity(sample, other, times), data["get_velocity"])

    agree_for_one_schedule(data, check)


MODEL_KINDS = {"fm": fourm_cases, "tok": tokenizer_cases, "divae": diffusion_cases}


def key_cases(path: Path) -> Iterator[Case]:
    for name, entry in read_json(path).items():
        yield Case(f"checkpoint_keys/{name}", lambda entry=entry: check_keys(entry))


def check_keys(entry: dict[str, Any]) -> None:
    with torch.device("meta"):
        if entry["cls"] == "FM":
            model = FourM(FourMConfig.parse(entry["config"]))
        else:
            model = build_tokenizer(parse_tokenizer_config(entry["config"]))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = model.state_dict()
    found = {
        name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."), name in parameters)
        for name, tensor in state.items()
    }
    recorded = {name: (shape, dtype, kind == "param") for name, shape, dtype, kind in entry["state"]}
    assert found == recorded
    layers = ("encoder_embeddings.", "decoder_embeddings.")
    inner = [parameter for name, parameter in model.named_parameters() if not name.startswith(layers)]
    assert sum(p.numel() for p in model.parameters()) == entry["n_params"]
    assert sum(p.numel() for p in inner) == entry["n_params_non_embedding"]
    assert sum(t.numel() * t.itemsize for t in state.values()) == entry["state_bytes"]


# --- text


def text_tokenizer(folder: Path) -> TextTokenizer:
    name = "text_tokenizer_4m_wordpiece_30k.json"
    for place in (folder.parent / "data", ROOT.parent / "shared" / "data"):
        if (place / name).exists():
            return TextTokenizer.from_file(place / name)
    pytest.skip(f"the text tokenizer {name} is not on this machine (looked in ../shared/data)")


def text_cases(path: Path) -> Iterator[Case]:
    strings = {
        "det": check_boxes,
        "metadata": check_metadata,
        "palette": check_palette,
        "poses": check_poses,
        "sam": check_instances,
    }
    for part, value in read_json(path).items():
        if part == "sam_grid_points_xy":
            yield Case(f"text/{part}", lambda value=value: check_grid_points(value))
        elif part == "encode":
            yield Case("text/encode", lambda value=value: check_encoding(value, text_tokenizer(path.parent)))
        elif part in strings:
            yield Case(f"text/{part}", lambda part=part, value=value: strings[part](value))
            yield Case(f"text/{part}-ids", lambda value=value: check_ids(value, text_tokenizer(path.parent)))
        elif part == "metadata_ids":
            yield Case("text/metadata_ids", lambda value=value: check_metadata_ids(value))
        elif part == "span_masking":
            yield Case(
                "text/span_masking", lambda value=value: check_spans(value, text_tokenizer(path.parent))
            )
        elif part == "custom_text" or part.startswith("empty_target_"):
            yield Case(
                f"text/{part}", lambda value=value: check_condition(value, text_tokenizer(path.parent))
            )
        else:
            yield unknown_case(f"text/{part}", "no part of this name is known")


def check_encoding(recorded: list[dict[str, Any]], tokenizer: TextTokenizer) -> None:
    for entry in recorded:
        ids = tokenizer.encode(entry["text"])
        assert ids.tolist() == entry["ids"], entry["text"]
        assert tokenizer.tokens(ids) == entry["tokens"]
        assert tokenizer.decode(ids) == entry["decode_keep"]


def check_ids(recorded: list[dict[str, Any]], tokenizer: TextTokenizer) -> None:
    for entry in recorded:
        assert tokenizer.encode(entry["string"]).tolist() == entry["ids"]


def check_boxes(recorded: list[dict[str, Any]]) -> None:
    for entry in recorded:
        kept = [item for item in entry["instances"] if item["score"] >= MIN_SCORE]
        assert boxes_to_string(Box(*item["boxes"], item["class_name"]) for item in kept) == entry["string"]
        parsed = string_to_boxes(entry["string"])
        assert [box.label for box in parsed] == [box[4] for box in entry["parsed_back"]]
        np.testing.assert_allclose(
            [box[:4] for box in parsed], [box[:4] for box in entry["parsed_back"]], atol=TOLERANCE
        )


def check_metadata_ids(recorded: dict[str, str]) -> None:
    assert {name: f"v1={kind.id}" for name, kind in METADATA.items()} == recorded


def check_metadata(recorded: list[dict[str, Any]]) -> None:
    for entry in recorded:
        assert metadata_to_string(entry["metadata"]) == entry["string"]
        assert metadata_chunks(entry["metadata"]) == entry["chunks"]
        assert string_to_metadata(entry["string"]) == pytest.approx(entry["decoded"], abs=TOLERANCE)


def check_palette(recorded: list[dict[str, Any]]) -> None:
    for entry in recorded:
        colors = np.reshape(entry["rgb"], (-1, 3)).tolist()
        assert palette_to_string(colors) == entry["string"]
        assert string_to_palette(entry["string"]) == [tuple(color) for color in colors]


def check_poses(recorded: list[dict[str, Any]]) -> None:
    for entry in recorded:
        people = [recorded_pose(words) for words in entry["instances"]]
        orders = [[SECTION_NAMES[i] for i in order] for order in entry["section_perms"]]
        assert poses_to_string(people, orders) == entry["string"]
        assert poses_to_string(string_to_poses(entry["string"]), orders) == entry["string"]
        assert len(entry["string"].split()) == len(people) * entry["words_per_instance"]


def recorded_pose(words: list[Any]) -> Pose:
    """A person as a flat list, each section after its name."""
    lengths = {"human": 4, "pose": 8, "global": 9, "camera": 3, "shape": 10}
    parts = {
        word: tuple(words[i + 1 : i + 1 + lengths[word]]) for i, word in enumerate(words) if word in lengths
    }
    return Pose(*(parts[name] for name in lengths))


def check_instances(recorded: list[dict[str, Any]]) -> None:
    for entry in recorded:
        shuffle = random.Random(entry["python_random_seed"]).shuffle
        points = list(entry["points"])
        shuffle(points)
        asked: list[PointInstances] = []
        for point in points:
            found = list(point["instances"])
            shuffle(found)
            asked.append(PointInstances(*point["point_xy"], tuple(map(recorded_instance, found))))
        assert instances_to_string(asked) == entry["string"]
        assert instances_to_string(string_to_instances(entry["string"])) == entry["string"]


def recorded_instance(entry: dict[str, Any]) -> InstanceCode:
    y0, x0, y1, x1 = entry["bbox_ymin_xmin_ymax_xmax"]
    return InstanceCode((x0, y0, x1, y1), tuple(entry["tokens"]))


def check_grid_points(recorded: list[list[int]]) -> None:
    side = math.isqrt(len(recorded))
    assert [list(point) for point in grid_points(side)] == recorded


def check_spans(recorded: list[dict[str, Any]], tokenizer: TextTokenizer) -> None:
    for entry in recorded:
        sequence = entry["sequence"]
        chunks = [[token] for token in sequence] if entry["kind"] == "simple" else sequence
        inputs, target = mask_spans(chunks, entry["uniform"], entry["keep_prob"], tokenizer.sentinels)
        assert (inputs, target) == (entry["input"], entry["target"])
        assert merge_spans(inputs, target, tokenizer.sentinels) == entry["merged"]


def check_condition(recorded: dict[str, Any], tokenizer: TextTokenizer) -> None:
    if "text" in recorded:
        found = text_condition(tokenizer.encode(recorded["text"]), recorded["target_max_len"], tokenizer)
    else:
        found = empty_sequence(len(recorded["tensor"][0]), tokenizer)
    for name, array in found.items():
        assert array[None].astype(int).tolist() == recorded[name], name


# --- generation


def check_schedules(kind: str, recorded: Mapping[str, list[float]]) -> None:
    for key, expected in recorded.items():
        *temperature, steps, total = key.split(",")
        counts = linear_schedule(int(steps), int(total))
        if kind == "cosine":
            assert cosine_schedule(int(steps), int(total)) == expected, key
        elif kind == "linear":
            assert counts == expected, key
        elif kind in ("linear_temp", "onex"):
            first, _, rest = temperature[0].partition(":")
            name = f"onex:{rest}" if kind == "onex" else "linear"
            found = temperature_schedule(name, float(first), counts)
            np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=key)
        else:
            pytest.fail(f"no schedule of kind {kind!r} is known")


def generation_cases(path: Path) -> Iterator[Case]:
    with np.load(path) as data:
        weights = path.with_name(f"{data['weights']}.safetensors")
    for run in groups(path):
        yield Case(f"generation/{run}", lambda run=run: check_generation(weights, arrays(path), run))


def check_generation(weights: Path, data: dict[str, np.ndarray], run: str) -> None:
    """A recorded run again, every logit compared and every choice taken from the recording."""
    fourm = load_fourm(weights)
    recorded = under(data, f"{run}/")
    schedule = json.loads(str(recorded["schedule"]))
    branches = sorted({key.partition("/")[0] for key in recorded if key.startswith("cond")})
    num_items = len(next(value for key, value in recorded.items() if key.endswith("/input_mask")))
    targets = list(dict.fromkeys(step["target_domain"] for step in schedule))
    plans = [recorded_plan(recorded, schedule, name) for name in targets]
    drafts = [recorded_drafts(recorded, targets, item) for item in range(num_items)]
    if branches:
        conditions: list[Conditions] = [
            [
                Part(recorded_inputs(data, f"{run}/{branch}", targets, item), weight)
                for branch, weight in zip(branches, schedule[0]["cfg_scale"], strict=True)
            ]
            for item in range(num_items)
        ]
    else:
        conditions = [recorded_inputs(data, run, targets, item) for item in range(num_items)]
    replay = Replay(recorded, schedule)
    results = Generator(fourm).generate_with(replay, conditions, plans, drafts=drafts)
    assert replay.num_left == 0
    for name in targets:
        out = f"out/{name}" if f"out/{name}/tensor" in recorded else "out"
        ids, mask = recorded[f"{out}/tensor"], recorded.get(f"{out}/input_mask")
        for item, result in enumerate(results):
            expected = ids[item] if mask is None else ids[item][~mask[item]]
            found = result[name]
            if len(found) and found[-1] == EOS_ID:  # the reference keeps what follows a row's own end
                expected = expected[: len(found)]
            assert_agrees(f"out/{name}", found, expected)


EOS_ID = 3


def recorded_plan(
    recorded: Mapping[str, np.ndarray], schedule: list[dict[str, Any]], name: str
) -> TargetPlan:
    steps = [step for step in schedule if step["target_domain"] == name]
    args = json.loads(str(recorded["args"])) if "args" in recorded else {}
    scale = steps[0]["cfg_scale"]
    common: dict[str, Any] = {
        "top_k": args.get("top_k", 0),
        "top_p": args.get("top_p", 0.0),
        "guidance": 1.0 if isinstance(scale, list) else scale,
        "guided_by": tuple(steps[0]["cfg_cond_domains"]),
    }
    if steps[0]["scheme"] == "autoregressive":
        slots = recorded[f"in/{name}/tensor"][0][~recorded[f"in/{name}/target_mask"][0]]
        common |= {"max_tokens": len(slots), "stop_ids": (int(slots[-1]),)}
        return TargetPlan(name, "autoregressive", temperature=steps[0]["temperature"], **common)
    index = args["target_domains"].index(name) if args else 0
    counts, temperatures = [step["num_tokens"] for step in steps], [step["temperature"] for step in steps]
    known = args["token_decoding_schedules"][index] if args else "linear"
    num_steps, num_tokens = args["decoding_steps"][index] if args else len(steps), sum(counts)
    if token_schedule(known, num_steps, num_tokens) != counts:
        known = "cosine"
    plan = TargetPlan(
        name,
        steps[0]["scheme"],
        num_steps,
        known,
        args["temps"][index] if args else temperatures[0],
        args["temp_schedules"][index] if args else "constant",
        **common,
    )
    assert plan.counts(num_tokens) == counts
    np.testing.assert_allclose(plan.temperatures(counts), temperatures, rtol=1e-12)
    return plan


def recorded_inputs(
    data: Mapping[str, np.ndarray], prefix: str, targets: list[str], item: int
) -> dict[str, np.ndarray]:
    """What one item is conditioned on."""
    inputs: dict[str, np.ndarray] = {}
    for key in data:
        name = key.removeprefix(f"{prefix}/in/").removesuffix("/input_mask")
        if key != f"{prefix}/in/{name}/input_mask" or name in targets or data[key][item].all():
            continue
        values = data.get(f"{prefix}/in/{name}/tensor", data["rgb_u8"])[item]
        inputs[name] = values[~data[key][item]] if get_modality(name).kind == "seq" else values
    return inputs


def recorded_drafts(recorded: Mapping[str, np.ndarray], targets: list[str], item: int) -> dict[str, Draft]:
    """What is known of the targets of one item; sentinels stand for what is not."""
    drafts: dict[str, Draft] = {}
    for name in targets:
        if f"in/{name}/tensor" in recorded:
            tokens, mask = recorded[f"in/{name}/tensor"][item], recorded[f"in/{name}/input_mask"][item]
            if get_modality(name).kind == "seq":
                tokens = tokens[~mask]
                mask = np.isin(tokens, PUBLISHED_CONTROLS.sentinels)
            drafts[name] = Draft(tokens, mask)
    return drafts


class Replay:
    """Takes every choice from a recording; logits that lead to one must agree with the recorded ones."""

    def __init__(self, recorded: Mapping[str, np.ndarray], schedule: list[dict[str, Any]]) -> None:
        self._trace = under(recorded, "trace/")
        self._outputs = under(recorded, "out/")
        self._schedule = schedule
        self._grid_steps = [step for step in schedule if step["scheme"] != "autoregressive"]
        log = json.loads(str(self._trace["log"])) if "log" in self._trace else []
        self._forwards: list[list[str]] = [[]] if log else []  # those before each sample
        for event in log:
            if event.startswith("sample"):
                self._forwards.append([])
            elif event.startswith("fwd"):
                self._forwards[-1].append(event)
        self._texts = [event for event in log if event.startswith("ar")]
        self._samples = sum(key.endswith("/tokens") for key in self._trace)
        self._next_sample = self._next_text = 0
        self._own = SeededChooser([0] * 64)

    @property
    def num_left(self) -> int:
        """Recorded choices that were not asked for."""
        return self._samples - self._next_sample + len(self._texts) - self._next_text

    def order(self, target: int, item: int, num_slots: int) -> np.ndarray:
        name = list(dict.fromkeys(step["target_domain"] for step in self._schedule))[target]
        samples = [i for i, step in enumerate(self._grid_steps) if step["target_domain"] == name]
        slots = np.concatenate([self._slots(i)[item] for i in samples])
        assert len(slots) <= num_slots
        return slots

    def draw(self, step: Step, logits: Tensor) -> Drawn:
        settings = self._schedule_of(step)
        if settings["scheme"] == "autoregressive":
            return self._draw_text(step, logits, settings)
        sample, self._next_sample = f"sample{self._next_sample}", self._next_sample + 1
        if self._forwards:
            passes = [self._trace[f"{forward}/logits"] for forward in self._forwards[self._next_sample - 1]]
            assert_agrees("slots", step.slots, self._slots(self._next_sample - 1))
            assert_agrees(sample, logits, guided(passes, settings["cfg_scale"]))
        if f"{sample}/logits" in self._trace:
            assert_agrees(f"{sample}/logits", logits, self._trace[f"{sample}/logits"])
        tokens = self._trace[f"{sample}/tokens"]
        if not step.temperature.any():
            assert_agrees(f"{sample}/tokens", self._own.draw(step, logits).tokens, tokens)
        probs = self._trace.get(f"{sample}/probs", np.ones(tokens.shape, np.float32))
        if f"{sample}/probs" in self._trace:
            assert_agrees(f"{sample}/probs", probability(logits, tokens, step), probs)
        return Drawn(torch.from_numpy(tokens), torch.from_numpy(probs))

    def keep(self, step: Step, confidence: Tensor, counts: np.ndarray) -> np.ndarray:
        top = self._trace[f"select{self._next_sample - 1}/top_indices"]
        kept = np.zeros(step.slots.shape, bool)
        np.put_along_axis(kept, top, True, axis=1)
        assert_agrees("counts", counts, kept.sum(1))
        if f"sample{self._next_sample - 1}/probs" in self._trace and step.temperature.all():
            assert_agrees("kept", self._own.keep(step, confidence, counts), kept)
        return kept

    def _schedule_of(self, step: Step) -> dict[str, Any]:
        names = list(dict.fromkeys(entry["target_domain"] for entry in self._schedule))
        return next(entry for entry in self._schedule if entry["target_domain"] == names[step.target])

    def _slots(self, sample: int) -> np.ndarray:
        return self._trace[f"{self._forwards[sample][0]}/mod_pos"]

    def _draw_text(self, step: Step, logits: Tensor, settings: dict[str, Any]) -> Drawn:
        num_passes = 1 if settings["cfg_scale"] == 1 else 2
        passes = self._texts[self._next_text : self._next_text + num_passes]
        self._next_text += num_passes
        expected = guided([self._trace[f"{one}/last_logits"] for one in passes], settings["cfg_scale"])
        assert_agrees(passes[0], logits[:, 0], expected[list(step.items)])
        assert not step.temperature.any(), "only greedy texts are recorded"
        return self._own.draw(step, logits)


def guided(passes: list[np.ndarray], scale: float) -> np.ndarray:
    if len(passes) == 1:
        return passes[0]
    conditional, unconditional = passes
    return unconditional + scale * (conditional - unconditional)


def probability(logits: Tensor, tokens: np.ndarray, step: Step) -> Tensor:
    """With which probability given tokens would be drawn."""
    chosen = torch.from_numpy(tokens)
    if not step.temperature.any():
        return torch.ones(chosen.shape)
    temperature = torch.from_numpy(step.temperature)[:, None, None]
    probs = (filter_logits(logits, step.top_k, step.top_p) / temperature).softmax(-1)
    return probs.gather(-1, chosen[..., None])[..., 0].float()


# --- raw inputs


def preproc_cases(path: Path) -> Iterator[Case]:
    checks = {
        "rgb/imagenet": check_normalisation,
        "rgb/crop_resize_u8": check_crop,
        "rgb/minus1_1": lambda data: check_prepared("rgb", data["rgb/u8"], data["rgb/minus1_1"]),
        "normal/tensor": lambda data: check_prepared("normal", data["normal/u8"], data["normal/tensor"]),
        "normal/hflip_u8": check_mirror,
        "depth/standardized": check_depth,
        "semseg/shifted": check_labels,
    }
    with np.load(path) as data:
        outputs = [key for key in data.files if not key.endswith(("/u8", "/u16", "_in_u8"))]
    for name in outputs:
        if name in checks:
            yield Case(f"preproc/{name}", lambda name=name: checks[name](arrays(path)))
        elif name.startswith("sam/"):
            yield Case(f"preproc/{name}", lambda name=name: check_polygons(arrays(path), name))
        else:
            yield unknown_case(f"preproc/{name}", "no array of this name is known")


def check_normalisation(data: dict[str, np.ndarray]) -> None:
    assert_agrees("rgb", normalize_pixels(data["rgb/u8"][None])[0], data["rgb/imagenet"])


def check_crop(data: dict[str, np.ndarray]) -> None:
    expected = data["rgb/crop_resize_u8"]
    assert_agrees("crop", crop_resize(array_image(data["rgb/crop_in_u8"]), expected.shape[0]), expected)


def check_prepared(raw: str, value: np.ndarray, expected: np.ndarray) -> None:
    assert_agrees(raw, TO_TOKENIZER[raw](value), expected)


def check_mirror(data: dict[str, np.ndarray]) -> None:
    assert_agrees("mirror", mirror_normals(data["normal/u8"]), data["normal/hflip_u8"])


def check_depth(data: dict[str, np.ndarray]) -> None:
    check_prepared("depth", standardize(data["depth/u16"] / np.float32(65535)), data["depth/standardized"])


def check_labels(data: dict[str, np.ndarray]) -> None:
    check_prepared("semseg", shift_labels(data["semseg/u8"]), data["semseg/shifted"])


def check_polygons(data: dict[str, np.ndarray], name: str) -> None:
    """Polygons in the frame, rasterised in their boxes: each alone, then all masks and boxes."""
    polygons = [data[f"sam/poly{i}"][:, 0] for i in range(len(data["sam/masks"]))]
    boxes = np.stack([[*polygon.min(0), *polygon.max(0)] for polygon in polygons])
    masks = np.stack([fill_polygons([one], box) for one, box in zip(polygons, boxes.tolist(), strict=True)])
    if name == "sam/masks":
        assert_agrees(name, masks, data[name])
    elif name == "sam/bboxes_hmin_wmin_hmax_wmax":
        assert_agrees(name, boxes[:, [1, 0, 3, 2]].astype(np.float64), data[name])
    else:
        index = int(name.removeprefix("sam/poly"))
        assert_agrees(name, masks[index], data["sam/masks"][index])
