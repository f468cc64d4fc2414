"""Any modalities in, any out: what is given, predicted, kept, refined and read of the files."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError, ModelError, QueryError
from anyseek.model.parts import ModelParts
from anyseek.model.predictor import Kept, ModalityPredictor
from anyseek.model.refining import Refiner
from anyseek.model.registry import load_model
from anyseek.model.sources import ModelSource
from anyseek.model.values import INSTANCE, PERSON, Predicted
from PIL import Image

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
DEPTH = RANDOM.normal(size=(64, 64)).astype(np.float32)
FEW: dict[str, Any] = {"diffusion_steps": 2}
GRIDS = ("normal", "depth", "semseg", "clip", "dinov2", "imagebind", "sam_edge", "canny_edge")
TEXTS = ("caption", "det", "metadata", "color_palette", "human_poses")
GLOBALS = ("dinov2_global", "imagebind_global")

pytestmark = pytest.mark.usefixtures("quick_predictions")


def open_parts(folder: Path) -> ModelParts:
    return ModelParts(ModelSource.from_folder(folder), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def predictor(any_bundle: Path) -> ModalityPredictor:
    return ModalityPredictor(open_parts(any_bundle))


@pytest.fixture(scope="module")
def everything(predictor: ModalityPredictor) -> dict[str, Predicted]:
    """All that a photo says."""
    return predictor.predict([{"rgb": RGB}], [*GLOBALS, *TEXTS, "sam_instance", *GRIDS], **FEW)[0]


def same(one: Mapping[str, Predicted], other: Mapping[str, Predicted]) -> bool:
    assert list(one) == list(other)
    return all(np.array_equal(one[raw].tokens, other[raw].tokens) for raw in one)


# --- what comes out


def test_every_modality_comes_out_of_a_photo(everything: Mapping[str, Predicted]) -> None:
    assert list(everything) == [*GLOBALS, *TEXTS, "sam_instance", *GRIDS]
    assert all(found.modality == raw for raw, found in everything.items())
    kinds = {
        "normal": (np.uint8, (64, 64, 3)),
        "depth": (np.float32, (64, 64)),
        "semseg": (np.uint8, (64, 64)),
        "sam_edge": (np.uint8, (64, 64)),
        "canny_edge": (np.uint8, (64, 64)),
        "clip": (np.float32, (512, 4, 4)),
        "dinov2": (np.float32, (768, 6, 6)),
        "imagebind": (np.float32, (1280, 6, 6)),
        "dinov2_global": (np.float32, (768,)),
        "imagebind_global": (np.float32, (1280,)),
    }
    for raw, (dtype, shape) in kinds.items():
        value, tokens = everything[raw].value, everything[raw].tokens
        assert isinstance(value, np.ndarray)
        assert (value.dtype, value.shape) == (dtype, shape)
        assert tokens.shape == (
            (16,) if raw in GLOBALS else (6, 6) if "dino" in raw or "bind" in raw else (4, 4)
        )
    for raw in (*TEXTS, "sam_instance"):
        assert everything[raw].value is not None or everything[raw].problem
        assert everything[raw].tokens.ndim == 1


def test_what_was_predicted_can_be_given_back(
    predictor: ModalityPredictor, everything: Mapping[str, Predicted]
) -> None:
    arrays = {raw: everything[raw].value for raw in (*GRIDS, *GLOBALS)}
    people, found = np.zeros(2, PERSON), np.zeros(1, INSTANCE)
    people["box"] = (0.1, 0.1, 0.5, 0.9)
    found["box"], found["mask"] = (1, 2, 90, 80), 1
    texts = {"caption": np.asarray([30, 31], np.int32), "t5_caption": np.ones((3, 4096), np.float32)}
    item: Any = {"rgb": RGB, **arrays, **texts, "human_poses": people, "sam_instance": found}
    (out,) = predictor.predict([item], ["color_palette"])
    assert out["color_palette"].value is not None or out["color_palette"].problem


def test_rgb_comes_out_of_anything_and_of_nothing(predictor: ModalityPredictor) -> None:
    found = predictor.predict([{"depth": DEPTH}, {}], ["rgb"], **FEW)
    for one in found:
        assert isinstance(one["rgb"].value, np.ndarray)
        assert one["rgb"].value.shape == (64, 64, 3)
    assert not same(*found)


def test_no_items_give_nothing(predictor: ModalityPredictor) -> None:
    assert predictor.predict([], ["depth", "dinov2_global", "caption", "sam_instance"]) == []


# --- seeds and batches


def test_seed_decides_and_the_batch_does_not(predictor: ModalityPredictor) -> None:
    items: list[dict[str, np.ndarray]] = [{"rgb": RGB}, {"depth": DEPTH}, {"rgb": 255 - RGB}, {}]
    to = ["clip", "normal", "color_palette"]
    settings: dict[str, Any] = {"temperature": 1.0, "num_steps": 3, **FEW}
    together = predictor.predict(items, to, seed=[3, 4, 5, 6], **settings)
    for item, seed, expected in zip(items, [3, 4, 5, 6], together, strict=True):
        (alone,) = predictor.predict([item], to, seed=seed, **settings)
        assert same(alone, expected)
        assert np.allclose(alone["normal"].value, expected["normal"].value, atol=1)  # type: ignore[arg-type]
    (other,) = predictor.predict(items[:1], to, seed=9, **settings)
    assert not same(other, together[0])


def test_each_target_conditions_those_after_it_in_the_order_of_the_demonstration(
    predictor: ModalityPredictor,
) -> None:
    def predict(*to: str) -> dict[str, Predicted]:
        return predictor.predict([{"rgb": RGB}], to, temperature=0, **FEW)[0]

    both, depth, semseg = predict("semseg", "depth"), predict("depth"), predict("semseg")
    assert same({"depth": both["depth"]}, depth)  # depth comes first, whatever the order asked
    assert not same({"semseg": both["semseg"]}, semseg)


# --- settings


def steps_told(predictor: ModalityPredictor, to: list[str], **options: Any) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    predictor.predict([{"rgb": RGB}], to, progress=lambda *step: told.append(step), **FEW | options)
    return told


def test_every_stage_is_told(predictor: ModalityPredictor) -> None:
    told = steps_told(predictor, ["clip", "depth", "color_palette"], num_steps=3)
    assert told[:3] == [("predict clip", i, 3) for i in (1, 2, 3)]
    assert ("predict depth", 3, 3) in told
    assert next(step for step in told if step[0] == "predict color_palette") == (
        "predict color_palette",
        1,
        23,
    )
    assert told[-2:] == [("decode depth", 1, 2), ("decode depth", 2, 2)]
    told = steps_told(predictor, ["clip", "depth"], num_steps={"depth": 2})
    assert [step for step in told if step[0].startswith("predict")] == [
        ("predict clip", 1, 1),
        ("predict depth", 1, 2),
        ("predict depth", 2, 2),
    ]
    assert max(done for stage, done, _ in steps_told(predictor, ["depth"], diffusion_steps=4)) == 4


def test_passes_for_instances_of_several_items_are_told_as_one_stage(
    predictor: ModalityPredictor, quick_predictions: int
) -> None:
    told: list[tuple[str, int, int]] = []
    predictor.predict([{"rgb": RGB}] * 2, ["sam_instance"], progress=lambda *step: told.append(step))
    assert {(stage, total) for stage, _, total in told} == {("predict sam_instance", 2 * quick_predictions)}
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


def test_a_listener_may_stop_it(predictor: ModalityPredictor) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.predict([{"rgb": RGB}], ["clip"], progress=stop)


def test_settings_reach_their_targets(predictor: ModalityPredictor) -> None:
    def predict(**settings: Any) -> dict[str, Predicted]:
        return predictor.predict([{"rgb": RGB}], ["clip", "depth"], seed=1, **FEW, **settings)[0]

    plain = predict(temperature=0)
    assert same(predict(temperature={"clip": 0, "depth": 0}), plain)
    assert not same(predict(temperature=0, guidance=30.0), plain)
    assert not same(predict(temperature=8.0, top_p=0), plain)
    guided = predict(temperature=0, guidance={"depth": 30.0})
    assert np.array_equal(guided["clip"].tokens, plain["clip"].tokens)
    assert not same(guided, plain)


@pytest.mark.parametrize(
    ("to", "options", "error", "message"),
    [
        ([], {}, QueryError, "Name at least one"),
        (["sound"], {}, ModelError, "'sound'. It predicts caption, color_palette"),
        (["t5_caption"], {}, ModelError, "'t5_caption'. It predicts"),
        (["rgb"], {}, QueryError, "rgb is given and to be predicted"),
        (["depth"], {"guidance": {"rgb": 2.0}}, QueryError, "guidance is set for 'rgb'"),
        (["caption"], {"num_steps": {"caption": 2}}, QueryError, "token by token"),
        (["depth"], {"num_steps": 0}, QueryError, "num_steps must be"),
        (["depth"], {"num_steps": 2.5}, QueryError, "num_steps must be"),
        (["depth"], {"temperature": -1}, QueryError, "temperature must be"),
        (["depth"], {"temperature": "hot"}, QueryError, "temperature must be"),
        (["depth"], {"top_p": 7}, QueryError, "top_p must be"),
        (["depth"], {"seed": -1}, QueryError, "0 or more"),
        (["depth"], {"seed": [1, 2]}, QueryError, "2 seeds for 1 items"),
        (["depth"], {"seed": 1.5}, QueryError, "whole number"),
        (["depth"], {"seed": np.int64(1)}, QueryError, "whole number"),
        (["depth"], {"diffusion_steps": 0}, InputError, "diffusion steps"),
        (["depth"], {"keep": []}, QueryError, "for 1 items"),
        (["dinov2"], {"super_resolution": True}, ModelError, "is for rgb, normal, depth, semseg, clip"),
    ],
)
def test_nonsense_is_refused(
    predictor: ModalityPredictor, to: list[str], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predictor.predict([{"rgb": RGB}], to, **options)


def test_modalities_that_a_model_does_not_take_are_named(predictor: ModalityPredictor) -> None:
    with pytest.raises(ModelError, match=r"'sound'\. It takes t5_caption, rgb"):
        predictor.predict([{"sound": RGB}], ["depth"])


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("rgb", RGB[:60]),
        ("depth", np.full((64, 64), np.nan, np.float32)),
        ("depth", DEPTH.astype(np.float64)),
        ("semseg", np.full((64, 64), 6, np.uint8)),
        ("caption", np.zeros(0, np.int32)),
        ("human_poses", np.zeros((2, 207), np.float32)),
    ],
)
def test_values_that_no_reader_gives_are_refused_by_item_and_name(
    predictor: ModalityPredictor, raw: str, value: np.ndarray
) -> None:
    with pytest.raises(InputError, match=f"Item 1, {raw}"):
        predictor.predict([{}, {raw: value}], ["clip"])
    with pytest.raises(InputError, match=f"Item 0, kept {raw}"):
        predictor.predict([{}], [raw], keep=[{raw: Kept(value, np.ones(value.shape[:2], bool))}])


# --- editing


def predict_kept(predictor: ModalityPredictor, raw: str, kept: Kept, **given: np.ndarray) -> Predicted:
    (found,) = predictor.predict([given], [raw], keep=[{raw: kept}], seed=2, top_p=0, **FEW)
    return found[raw]


def test_kept_tokens_stay_and_the_others_follow_the_conditions(predictor: ModalityPredictor) -> None:
    redraw = np.zeros((4, 4), bool)
    whole = predict_kept(predictor, "rgb", Kept(RGB, redraw)).tokens
    redraw[1:, 1:] = True
    edited = predict_kept(predictor, "rgb", Kept(RGB, redraw), depth=DEPTH).tokens
    assert np.array_equal(edited[~redraw], whole[~redraw])
    assert not np.array_equal(edited[redraw], whole[redraw])
    pixels = np.zeros((64, 64), bool)
    pixels[20:60, 17:64] = True  # touches the same tokens
    assert np.array_equal(predict_kept(predictor, "rgb", Kept(RGB, pixels), depth=DEPTH).tokens, edited)
    other = predict_kept(predictor, "rgb", Kept(RGB, redraw), semseg=np.ones((64, 64), np.uint8)).tokens
    assert np.array_equal(other[~redraw], whole[~redraw])
    assert not np.array_equal(other, edited)


def test_words_are_kept_too(predictor: ModalityPredictor) -> None:
    words = np.arange(30, 36, dtype=np.int32)
    redraw = np.asarray([False, False, True, True, False, False])
    ids = predict_kept(predictor, "caption", Kept(words, redraw), rgb=RGB).tokens
    assert ids[:2].tolist() == [30, 31]
    assert ids[-2:].tolist() == [34, 35]


@pytest.mark.parametrize(
    ("to", "kept", "error", "message"),
    [
        ("depth", {"rgb": (RGB, (4, 4))}, QueryError, "rgb is not to be predicted"),
        ("rgb", {"rgb": (RGB, (5, 5))}, InputError, "rgb: expected what to redraw"),
        ("caption", {"caption": (np.arange(30, 33), (4,))}, InputError, "3 tokens"),
        ("sam_instance", {"sam_instance": (np.zeros(1, INSTANCE), (1,))}, QueryError, "as a whole"),
    ],
)
def test_useless_keeping_is_refused(
    predictor: ModalityPredictor, to: str, kept: dict[str, Any], error: type[Exception], message: str
) -> None:
    keep = {raw: Kept(value, np.ones(shape, bool)) for raw, (value, shape) in kept.items()}
    with pytest.raises(error, match=message):
        predictor.predict([{}], [to], keep=[keep])


def test_a_file_is_edited_by_the_model(any_bundle: Path, tmp_path: Path) -> None:
    model = load_model(any_bundle, spaces=(), dtype="float32")
    Image.fromarray(RGB).save(tmp_path / "photo.png")
    redraw = np.zeros((64, 64), bool)
    redraw[:16] = True
    kept = (tmp_path / "photo.png", redraw)
    edited = model.predict({"depth": DEPTH}, "rgb", keep={"rgb": kept}, seed=2, top_p=0, **FEW)["rgb"]
    expected = predict_kept(
        model.predictor, "rgb", Kept(RGB, redraw), depth=model.embedder.read("depth", DEPTH)
    )
    assert np.array_equal(edited.tokens, expected.tokens)


def test_two_words_for_one_modality_are_refused(any_bundle: Path) -> None:
    model = load_model(any_bundle, spaces=(), dtype="float32")
    with pytest.raises(QueryError, match="given twice in palette, color_palette"):
        model.predict({"palette": "#000000", "color_palette": "#ffffff"}, ["clip"])


def test_a_mask_must_be_one(predictor: ModalityPredictor) -> None:
    with pytest.raises(InputError, match="bool"):
        predictor.predict([{}], ["rgb"], keep=[{"rgb": Kept(RGB, np.ones((64, 64), np.uint8))}])


# --- super-resolution


def test_grids_come_at_twice_the_resolution_and_the_rest_as_before(predictor: ModalityPredictor) -> None:
    told: list[str] = []
    found = predictor.predict(
        [{"rgb": RGB}, {"depth": DEPTH, "rgb": RGB}],
        ["clip", "semseg", "canny_edge", "color_palette"],
        super_resolution=True,
        progress=lambda stage, *_: told.append(stage),
        **FEW,
    )
    for one in found:
        assert list(one) == ["clip", "semseg", "canny_edge", "color_palette"]
        assert {raw: one[raw].tokens.shape for raw in ("clip", "semseg", "canny_edge")} == {
            "clip": (8, 8),
            "semseg": (8, 8),
            "canny_edge": (4, 4),
        }
        assert isinstance(one["semseg"].value, np.ndarray)
        assert isinstance(one["clip"].value, np.ndarray)
        assert (one["semseg"].value.shape, one["clip"].value.shape) == ((128, 128), (512, 8, 8))
    assert told.count("refine semseg") == told.count("refine clip") == 8


def test_finer_grids_follow_the_coarse_ones_and_what_was_given(predictor: ModalityPredictor) -> None:
    def finer(seed: int, **given: np.ndarray) -> np.ndarray:
        options: dict[str, Any] = {"seed": seed, "temperature": 9.0, "top_p": 0, "super_resolution": True}
        return predictor.predict([given], ["semseg"], **options)[0]["semseg"].tokens

    assert np.array_equal(finer(1, rgb=RGB), finer(1, rgb=RGB))
    assert not np.array_equal(finer(1, rgb=RGB), finer(1, rgb=255 - RGB))
    assert not np.array_equal(finer(1, rgb=RGB), finer(2, rgb=RGB))


def test_finer_grids_follow_the_coarse_tokens(any_bundle: Path) -> None:
    parts = open_parts(any_bundle)
    refiner = Refiner(parts)
    rows = refiner.rows({"semseg": parts.targets["semseg"], "dinov2": parts.targets["dinov2"]})
    assert [row.name for row in rows.values()] == ["tok_semseg@128"]
    coarse = [
        {"tok_semseg@64": np.full(16, token), "tok_dinov2@96": np.zeros(36, np.int64)} for token in (3, 40)
    ]
    fine = [one["tok_semseg@128"] for one in refiner.refine(coarse, rows, [1, 1], None)]
    assert [one.shape for one in fine] == [(64,)] * 2
    assert not np.array_equal(*fine)


def test_model_without_a_finer_one_says_so(bundle: Path) -> None:
    with pytest.raises(ModelError, match="higher resolution"):
        ModalityPredictor(open_parts(bundle)).predict([{}], ["dinov2_global"], super_resolution=True)


# --- what is read


def test_only_what_is_needed_is_read(any_bundle: Path, tmp_path: Path) -> None:
    """A copy with the files of one prediction is enough, and of these not all is read."""
    needed = ("model.json", "text.json", "fourm.safetensors", "depth.safetensors")
    for name in needed:
        shutil.copy(any_bundle / name, tmp_path / name)
    parts = open_parts(tmp_path)
    opened = parts.bytes_read
    found = ModalityPredictor(parts).predict([{"rgb": RGB}], ["depth"], **FEW)
    assert found[0]["depth"].value is not None
    tokenizer = parts.tokenizer_checkpoint("depth")
    encoder = sum(
        info.end - info.start
        for name, info in tokenizer.file.tensors.items()
        if name.startswith(("encoder.", "quant_proj."))
    )
    assert encoder > 0
    assert tokenizer.bytes_read <= tokenizer.path.stat().st_size - encoder
    fourm = parts.fourm_checkpoint
    tables = sum(
        info.end - info.start
        for name, info in fourm.file.tensors.items()
        if "_embeddings." in name and not any(kept in name for kept in ("rgb@64", "tok_depth@64"))
    )
    assert tables > fourm.path.stat().st_size / 2
    assert fourm.bytes_read <= fourm.path.stat().st_size - tables
    assert parts.bytes_read > opened


def test_more_is_read_as_it_is_needed_and_nothing_twice_for_the_same(any_bundle: Path) -> None:
    parts = open_parts(any_bundle)
    predictor = ModalityPredictor(parts)
    read = [parts.bytes_read]
    for to in (["clip", "depth"], ["clip"], ["depth"], ["semseg"], ["clip", "semseg"]):
        predictor.predict([{"rgb": RGB}], to, **FEW)
        read.append(parts.bytes_read)
    assert read[0] < read[1] == read[2] == read[3] < read[4] == read[5]


def test_a_model_that_cannot_be_shown_its_targets_predicts_them_in_one_step(bundle: Path) -> None:
    predictor = ModalityPredictor(open_parts(bundle))
    (found,) = predictor.predict([{}], ["dinov2_global", "imagebind_global"])
    assert all(one.tokens.shape == (16,) for one in found.values())
