"""Vectors do not depend on the batch, the order or the time of day."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from anyseek.errors import InputError, ModelError, QueryError
from anyseek.model import Embeddings, Model, load_model, ragged
from anyseek.model.checkpoint import load_fourm
from anyseek.model.embedder import Decoding, SpaceDecoder
from anyseek.model.encoding import ValueEncoder
from anyseek.model.modalities import get_modality
from anyseek.model.prediction import PaddedPredictor
from anyseek.model.ragged import RaggedPredictor
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig

TARGETS = ("tok_dinov2_global", "tok_imagebind_global")
VARIANTS = {
    "swiglu": {},
    "biases": {
        "act_layer": "GELU",
        "gated_mlp": False,
        "qkv_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
    },
    "registers": {"num_register_tokens": 3},
}

Item = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(bundle: Path, request: pytest.FixtureRequest) -> Model:
    return load_model(bundle, device="cpu", dtype=request.param)


@pytest.fixture(scope="module")
def exact(bundle: Path) -> Model:
    return load_model(bundle, device="cpu", dtype="float32")


def sample_items(model: Model) -> list[Item]:
    """Items with all kinds of subsets, from one token to everything."""
    random = np.random.default_rng(0)
    read = model.embedder.read

    def rgb() -> np.ndarray:
        return read("rgb", random.integers(0, 256, (40, 50, 3), np.uint8))

    boxes = read("det", [{"box": [0.1, 0.2, 0.5, 0.9], "label": "dog"}])
    return [
        {"rgb": rgb()},
        {"caption": read("caption", "a red dog")},
        {"caption": read("caption", "dog")},
        {"rgb": rgb(), "caption": read("caption", "a small red cube stands behind a dog " * 40)},
        {
            "color_palette": read("color_palette", ["#102030"]),
            "metadata": read("metadata", {"brightness": 9}),
        },
        {"det": boxes},
        {"metadata": read("metadata", {"contrast": 50}), "det": boxes, "rgb": rgb()},
        {"rgb": rgb()},
    ]


def assert_same(a: Embeddings, b: Embeddings, cosine: float) -> None:
    assert (a.vectors * b.vectors).sum(1).min() >= cosine


@pytest.mark.parametrize("decoding", ["soft", "argmax", "sample"])
def test_batch_equals_one_by_one(model: Model, decoding: Decoding) -> None:
    items = sample_items(model)
    together = model.embedder.embed(items, decoding=decoding)
    for i, item in enumerate(items):
        alone = model.embedder.embed([item], decoding=decoding)
        for space, found in together.items():
            assert found.vectors[i] @ alone[space].vectors[0] >= 0.99999
            assert (found.tokens[i] == alone[space].tokens[0]).all()


def test_order_of_items_and_of_modalities_plays_no_part(model: Model) -> None:
    items = sample_items(model)
    forth = model.embedder.embed(items)
    back = model.embedder.embed([dict(reversed(item.items())) for item in reversed(items)])
    for space, found in forth.items():
        assert (found.vectors * back[space].vectors[::-1]).sum(1).min() >= 0.99999


def test_the_same_call_gives_the_same_bits(model: Model) -> None:
    items = sample_items(model)
    for decoding in ("soft", "sample"):
        a, b = (model.embedder.embed(items, decoding=decoding, log_probs=True) for _ in range(2))
        for space in a:
            assert (a[space].vectors == b[space].vectors).all()
            assert (a[space].tokens == b[space].tokens).all()
            assert (a[space].log_probs == b[space].log_probs).all()


def test_shapes_types_and_lengths(model: Model) -> None:
    items = sample_items(model)
    found = model.embedder.embed(items, log_probs=True)
    assert list(found) == list(model.spaces) == ["dinov2_global", "imagebind_global"]
    for space, embeddings in found.items():
        shape = model.spaces[space]
        assert embeddings.vectors.shape == (len(items), shape.dim)
        assert embeddings.vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(embeddings.vectors, axis=1), 1, atol=1e-5)
        assert embeddings.tokens.shape == (len(items), shape.num_tokens)
        assert embeddings.tokens.dtype == np.uint16
        assert embeddings.log_probs is not None
        assert embeddings.log_probs.shape == (len(items), shape.num_tokens, shape.codebook_size)
        assert np.allclose(np.exp(embeddings.log_probs).sum(-1), 1, atol=1e-4)
        assert (embeddings.log_probs.argmax(-1) == embeddings.tokens).all()


def test_every_modality_changes_the_vector(exact: Model) -> None:
    items = sample_items(exact)
    whole = exact.embedder.embed([items[6]])["dinov2_global"].vectors
    for name in items[6]:
        rest = {key: value for key, value in items[6].items() if key != name}
        assert (exact.embedder.embed([rest])["dinov2_global"].vectors @ whole.T).item() < 0.9999


def test_no_items_give_no_vectors(model: Model) -> None:
    for space, found in model.embedder.embed([], log_probs=True).items():
        assert found.vectors.shape == (0, model.spaces[space].dim)
        assert found.tokens.shape == (0, 16)
        assert found.log_probs is not None
        assert found.log_probs.shape == (0, 16, 32)


def test_bfloat16_stays_close_to_float32(bundle: Path, exact: Model) -> None:
    items = sample_items(exact)
    half = load_model(bundle, device="cpu", dtype="bfloat16")
    for space, found in half.embedder.embed(items).items():
        assert_same(found, exact.embedder.embed(items)[space], 0.999)


def test_soft_decoding_expects_what_argmax_picks_under_certainty(exact: Model) -> None:
    items = sample_items(exact)
    soft, picked = (exact.embedder.embed(items, decoding=decoding) for decoding in ("soft", "argmax"))
    for space in soft:
        assert (soft[space].tokens == picked[space].tokens).all()
        assert not np.allclose(soft[space].vectors, picked[space].vectors)


def space_decoder() -> SpaceDecoder:
    torch.manual_seed(3)
    mlp = "BottleneckMLP/B_1-Wi_32"
    tokenizer = VQVAE(TokenizerConfig(8, mlp, mlp, codebook_size=32, num_codebooks=16, latent_dim=64)).eval()
    return SpaceDecoder("dinov2_global", get_modality("tok_dinov2_global", vocab_size=32), tokenizer)


def test_certain_tokens_decode_alike_in_every_way() -> None:
    decoder = space_decoder()
    logits = torch.zeros(3, 16, 32)
    logits.scatter_(2, torch.randint(32, (3, 16, 1)), 100.0)
    with torch.inference_mode():
        soft, picked, drawn = (decoder(logits, way, False, 5) for way in ("soft", "argmax", "sample"))
    assert np.allclose(soft.vectors, picked.vectors, atol=1e-6)
    assert (drawn.vectors == picked.vectors).all()


def test_samples_follow_temperature_and_top_p() -> None:
    decoder = space_decoder()
    probabilities = torch.tensor([0.45, 0.40, 0.10, *[0.05 / 29] * 29])
    logits = probabilities.log().expand(1, 16, 32)
    with torch.inference_mode():
        tokens = np.concatenate([decoder(logits, "sample", False, seed).tokens for seed in range(200)])
    # Top-p 0.8 keeps the first two; temperature 0.1 raises their odds to the tenth power.
    expected = 1 / (1 + (0.40 / 0.45) ** 10)
    assert set(np.unique(tokens)) == {0, 1}
    assert abs((tokens == 0).mean() - expected) < 0.03


def test_seeds_give_different_samples() -> None:
    flat = torch.zeros(1, 16, 32)
    decoder = space_decoder()
    with torch.inference_mode():
        drawn = {decoder(flat, "sample", False, seed).tokens.tobytes() for seed in (-1, 0, 1, 2**70)}
    assert len(drawn) == 4


def test_unknown_things_are_named(exact: Model) -> None:
    embed = exact.embedder.embed
    item = {"caption": exact.embedder.read("caption", "dog")}
    with pytest.raises(ModelError, match="soft, argmax, sample"):
        embed([item], decoding="best")  # pyright: ignore
    with pytest.raises(ModelError, match=r"Item 1 has 'depth'.* rgb, caption"):
        embed([item, {"depth": np.zeros((2, 2))}])
    with pytest.raises(InputError, match="Item 1 has nothing"):
        embed([item, {}])


@pytest.mark.parametrize(
    "item",
    [
        {"rgb": np.zeros((31, 32, 3), np.uint8)},
        {"rgb": np.zeros((32, 32, 3), np.float32)},
        {"caption": np.zeros(0, np.int32)},
        {"caption": np.zeros(257, np.int32)},
        {"caption": np.zeros((1, 5), np.int32)},
        {"caption": np.zeros(5)},
        {"caption": np.array([10**6])},
        {"caption": np.array([-1])},
    ],
)
def test_arrays_that_read_would_not_give_are_refused(exact: Model, item: Item) -> None:
    with pytest.raises(InputError, match="Item 0, "):
        exact.embedder.embed([item])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ragged_pass_computes_what_the_model_does(
    make_bundle: Callable[..., Path], tmp_path: Path, variant: str, dtype: torch.dtype
) -> None:
    folder = make_bundle(tmp_path / variant, **VARIANTS[variant])
    names = {"rgb": "rgb@32"}
    read_items = sample_items(load_model(folder, device="cpu", dtype="float32"))
    items = [{names.get(key, key): value for key, value in item.items()} for item in read_items]
    reference = load_fourm(folder / "fourm.safetensors")
    fourm = load_fourm(folder / "fourm.safetensors", dtype=dtype)
    with torch.inference_mode():
        expected = PaddedPredictor(reference, TARGETS)(items)
        for predictor in (PaddedPredictor, RaggedPredictor):
            found = predictor(fourm, TARGETS)(items)
            for target in TARGETS:
                error = (found[target] - expected[target]).abs().max() / expected[target].std()
                assert error < (1e-4 if dtype == torch.float32 else 0.15)


def test_processors_without_onednn_compute_the_same(
    bundle: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = sample_items(model)
    monkeypatch.setattr(ragged, "_has_onednn_bfloat16", lambda: False)
    plain = load_model(bundle, device="cpu", dtype="bfloat16")
    for space, found in plain.embedder.embed(items).items():
        assert_same(found, model.embedder.embed(items)[space], 0.999)


def test_one_space_gives_the_same_vectors_as_two(bundle: Path, exact: Model) -> None:
    items = sample_items(exact)
    alone = load_model(bundle, spaces=["imagebind_global"], device="cpu", dtype="float32")
    found = alone.embedder.embed(items)
    assert list(found) == ["imagebind_global"]
    assert_same(found["imagebind_global"], exact.embedder.embed(items)["imagebind_global"], 0.99999)


def test_threads_get_what_one_thread_gets(model: Model) -> None:
    items = sample_items(model)
    expected = [model.embedder.embed([item])["dinov2_global"].vectors for item in items]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda item: model.embedder.embed([item])["dinov2_global"].vectors, items)
            for a, b in zip(found, expected, strict=True):
                assert (a * b).sum() >= 0.99999


# --- every modality


DrawValues = Callable[..., Item]


def mixed_items(model: Model, draw_values: DrawValues, count: int = 10) -> list[Item]:
    """Each modality alone, everything at once, and random subsets."""
    random = np.random.default_rng(5)
    whole = [draw_values(model, seed) for seed in range(count)]
    names = list(whole[0])
    subsets = [random.permutation(names)[: random.integers(2, 6)] for _ in range(count)]
    alone = [{name: whole[i % count][name]} for i, name in enumerate(names)]
    return [
        whole[0],
        *alone,
        *({name: item[name] for name in s} for item, s in zip(whole, subsets, strict=True)),
    ]


def test_items_of_all_modalities_embed_as_they_do_alone(any_model: Model, draw_values: DrawValues) -> None:
    items = mixed_items(any_model, draw_values)
    together = any_model.embedder.embed(items)
    back = any_model.embedder.embed([dict(reversed(item.items())) for item in reversed(items)])
    for i, item in enumerate(items):
        alone = any_model.embedder.embed([item])
        for space, found in together.items():
            assert found.vectors[i] @ alone[space].vectors[0] >= 0.99999
            assert found.vectors[i] @ back[space].vectors[-1 - i] >= 0.99999


def test_each_of_all_modalities_changes_the_vector(any_model: Model, draw_values: DrawValues) -> None:
    whole = draw_values(any_model)
    rests = [{key: value for key, value in whole.items() if key != name} for name in whole]
    for found in any_model.embedder.embed([whole, *rests]).values():
        assert (found.vectors[1:] @ found.vectors[0]).max() < 0.999999  # rounding reaches 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, VARIANTS["registers"]])
def test_predictors_agree_on_items_of_all_modalities(
    write_any_bundle: Callable[..., Path],
    any_model: Model,
    draw_values: DrawValues,
    tmp_path: Path,
    options: dict[str, int],
    dtype: torch.dtype,
) -> None:
    folder = write_any_bundle(tmp_path / "any", **options)
    items = ValueEncoder(any_model.parts.inputs, any_model.parts).encode(mixed_items(any_model, draw_values))
    fourm = load_fourm(folder / "fourm.safetensors", dtype=dtype)
    with torch.inference_mode():
        padded, ragged = (
            predictor(fourm, TARGETS)(items) for predictor in (PaddedPredictor, RaggedPredictor)
        )
    for target in TARGETS:
        error = (ragged[target] - padded[target]).abs().max() / padded[target].std()
        assert error < (1e-4 if dtype == torch.float32 else 0.2)


@pytest.mark.parametrize(
    ("raw", "spoil"),
    [
        ("depth", lambda v: v[:-1]),
        ("depth", lambda v: v.astype(np.float64)),
        ("depth", lambda v: np.where(v > 1, np.float32("nan"), v)),
        ("depth", lambda v: v[..., None]),
        ("normal", lambda v: v[..., :1]),
        ("normal", lambda v: v / np.float32(255)),
        ("semseg", lambda v: np.full_like(v, 6)),
        ("semseg", lambda v: v.astype(np.int64)),
        ("canny_edge", lambda v: v.astype(bool)),
        ("clip", lambda v: v.transpose(1, 2, 0)),
        ("dinov2", lambda v: v[:, :4, :4]),
        ("imagebind_global", lambda v: v[None]),
        ("imagebind_global", lambda v: v * np.float32("inf")),
        ("t5_caption", lambda v: np.repeat(v, 78, axis=0)),
        ("t5_caption", lambda v: v[:0]),
        ("t5_caption", lambda v: v[:, :4095]),
        ("human_poses", lambda v: v["pose"]),
        ("human_poses", lambda v: np.repeat(v, 10_001)),
        ("sam_instance", lambda v: v[0]),
        ("sam_instance", lambda v: v["mask"]),
        ("rgb", lambda v: v[:40, :40]),
        ("rgb", lambda v: v.tolist()),
    ],
)
def test_arrays_of_all_modalities_are_checked(
    any_model: Model, draw_values: DrawValues, raw: str, spoil: Callable[[np.ndarray], np.ndarray]
) -> None:
    value = draw_values(any_model)[raw]
    with pytest.raises(InputError, match=f"^Item 0, {raw}: "):
        any_model.embedder.embed([{raw: spoil(value)}])
    with pytest.raises(InputError, match=f"^Part 1, {raw}: "):
        any_model.embedder.embed_guided([[(1, {raw: value})], [(1, {raw: spoil(value)})]])


def test_people_with_numbers_that_are_none_are_refused(any_model: Model, draw_values: DrawValues) -> None:
    people = draw_values(any_model)["human_poses"].copy()
    people["camera"][0, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        any_model.embedder.embed([{"human_poses": people}])


# --- weights


def texts_and_pictures(model: Model, draw_values: DrawValues, seed: int = 0) -> list[Item]:
    """Parts with a text, without any, with T5 states, and mixed."""
    item = draw_values(model, seed)
    groups = (("caption",), ("depth",), ("t5_caption",), ("rgb", "metadata"), ("sam_instance", "dinov2"))
    return [{name: item[name] for name in names} for names in groups]


def log_probs_of(found: dict[str, Embeddings]) -> dict[str, np.ndarray]:
    probs = {space: embeddings.log_probs for space, embeddings in found.items()}
    assert all(values is not None for values in probs.values())
    return {space: values for space, values in probs.items() if values is not None}


def test_one_part_of_weight_one_embeds_as_it_does_plainly(any_model: Model, draw_values: DrawValues) -> None:
    parts = texts_and_pictures(any_model, draw_values)
    plain = any_model.embedder.embed(parts, log_probs=True)
    guided = any_model.embedder.embed_guided([[(1.0, part)] for part in parts], log_probs=True)
    halves = any_model.embedder.embed_guided([[(0.5, part), (0.5, part)] for part in parts], log_probs=True)
    for space in plain:
        for found in (guided, halves):
            assert np.abs(log_probs_of(found)[space] - log_probs_of(plain)[space]).max() < 1e-5
            assert_same(found[space], plain[space], 0.99999)
        assert (guided[space].tokens == plain[space].tokens).all()


def test_logits_are_the_weighted_sum_of_what_each_part_says(
    any_model: Model, draw_values: DrawValues
) -> None:
    first, second, *_ = texts_and_pictures(any_model, draw_values)
    text = any_model.parts.text
    nothing = {"caption": np.asarray(text.sentinels[:1], np.int32)}
    found = any_model.embedder.embed_guided([[(1.5, first), (-0.7, second)]], log_probs=True)
    plain = log_probs_of(any_model.embedder.embed([first, second, nothing], log_probs=True))
    for space, values in log_probs_of(found).items():
        a, b, empty = plain[space]
        logits = empty + 1.5 * (a - empty) - 0.7 * (b - empty)
        expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert np.abs(values[0] - expected).max() < 1e-4


def likelihoods(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Log-likelihoods of tokens (Q, n) under log_probs (Q, n, V): (Q,)."""
    return np.take_along_axis(log_probs, tokens.astype(np.int64)[..., None], -1).sum((1, 2))


def test_weights_scale_what_a_part_says(any_model: Model, draw_values: DrawValues) -> None:
    parts = texts_and_pictures(any_model, draw_values)
    weights = (-1.0, -0.5, 1e-12, 0.5, 1.0, 2.0)
    queries = [[(weight, part)] for weight in weights for part in parts]
    for values in log_probs_of(any_model.embedder.embed_guided(queries, log_probs=True)).values():
        by_weight = np.split(values, len(weights))
        # The token that a part raises most against nothing gets likelier with its weight, whatever the model.
        raised = (by_weight[weights.index(1.0)] - by_weight[weights.index(1e-12)]).argmax(-1)
        found = np.stack([likelihoods(one, raised) for one in by_weight])
        assert (np.diff(found, axis=0) > 0).all()


def test_a_negative_part_makes_its_own_tokens_less_likely(any_model: Model, draw_values: DrawValues) -> None:
    parts = [part for seed in range(4) for part in texts_and_pictures(any_model, draw_values, seed)]
    against = parts[5:] + parts[:5]
    own = {space: found.tokens for space, found in any_model.embedder.embed(against).items()}
    queries = [
        [(1.0, part), (-weight, other)]
        for weight in (0.0, 0.5, 1.0)
        for part, other in zip(parts, against, strict=True)
    ]
    for space, values in log_probs_of(any_model.embedder.embed_guided(queries, log_probs=True)).items():
        # In the mean: a token may be likely from nothing too, and is then pushed away with less force.
        means = [likelihoods(one, own[space]).mean() for one in np.split(values, 3)]
        assert (np.diff(means) < -1).all()


def test_weighted_queries_do_not_see_each_other(any_model: Model, draw_values: DrawValues) -> None:
    a, b, c, d, e = texts_and_pictures(any_model, draw_values)
    queries = [
        [(1, a)],
        [(0.8, a), (-0.4, b)],
        [(2, b)],
        [(-1, c), (0.3, d), (1, e)],
        [(0, a)],
        [(1.0, e), (0.0, a)],
    ]
    together = any_model.embedder.embed_guided(queries, log_probs=True)
    back = any_model.embedder.embed_guided(queries[::-1], log_probs=True)
    for i, query in enumerate(queries):
        alone = any_model.embedder.embed_guided([query], log_probs=True)
        for space, values in log_probs_of(together).items():
            assert np.abs(log_probs_of(alone)[space][0] - values[i]).max() < 1e-4
            assert np.abs(log_probs_of(back)[space][-1 - i] - values[i]).max() < 1e-4


def test_passes_are_made_only_where_they_count(
    any_model: Model, draw_values: DrawValues, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, d, _ = texts_and_pictures(any_model, draw_values)
    passes = list[list[list[str]]]()
    real = any_model.embedder._predictor
    assert real is not None

    def predict(items: list[Item]) -> dict[str, torch.Tensor]:
        passes.append([list(item) for item in items])
        return real(items)

    monkeypatch.setattr(any_model.embedder, "_predictor", predict)
    any_model.embedder.embed_guided([[(1, a)], [(0.6, b), (0.4, c)], [(1, a), (0, d)]])
    assert passes.pop() == [["caption"], ["tok_depth@64"], ["t5_caption"], ["caption"]]
    # Without a depth map nothing is left to look at, so that an empty caption is: here as where one was.
    any_model.embedder.embed_guided(
        [[(2, a)], [(1, b), (-1, b)], [(3, c)], [(1, d), (1, b)], [(-1, a), (3, b)]]
    )
    names = [["caption"], ["caption"], ["tok_depth@64"], ["tok_depth@64"], ["t5_caption"], ["t5_caption"]]
    names += [["rgb@64", "metadata"], ["tok_depth@64"], ["metadata"], ["caption"], ["tok_depth@64"]]
    assert passes.pop() == names


def test_models_without_texts_add_up_parts_but_take_none_away(
    any_bundle: Path, any_model: Model, draw_values: DrawValues
) -> None:
    model = load_model(any_bundle, inputs=["rgb", "depth"], device="cpu", dtype="float32")
    item = draw_values(any_model)
    rgb, depth = ({name: item[name]} for name in ("rgb", "depth"))
    found = model.embedder.embed_guided([[(0.7, rgb), (0.3, depth)]])
    expected = any_model.embedder.embed_guided([[(0.7, rgb), (0.3, depth)]])
    assert_same(found["dinov2_global"], expected["dinov2_global"], 0.99999)
    with pytest.raises(ModelError, match="open it with caption"):
        model.embedder.embed_guided([[(1, rgb), (-0.3, depth)]])


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "1", None])
def test_weights_are_finite_numbers(exact: Model, weight: float) -> None:
    part = {"caption": exact.embedder.read("caption", "dog")}
    with pytest.raises(QueryError, match="Query 1: a weight must be a finite number"):
        exact.embedder.embed_guided([[(1, part)], [(weight, part)]])


def test_queries_without_parts_are_refused_and_no_queries_give_nothing(exact: Model) -> None:
    with pytest.raises(InputError, match="Query 0 has no parts"):
        exact.embedder.embed_guided([[]])
    with pytest.raises(InputError, match="Part 0 has nothing"):
        exact.embedder.embed_guided([[(1, {})]])
    assert exact.embedder.embed_guided([])["dinov2_global"].vectors.shape == (0, 24)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_vectors_of_the_processor(bundle: Path, exact: Model) -> None:
    items = sample_items(exact)
    expected = exact.embedder.embed(items)
    for dtype, cosine in (("float32", 0.9999), ("bfloat16", 0.999)):
        found = load_model(bundle, device="cuda", dtype=dtype).embedder.embed(items)
        for space in expected:
            assert_same(found[space], expected[space], cosine)
