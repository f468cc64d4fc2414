"""Generation against a plain loop that repeats everything, and against what it promises."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError, ModelError, QueryError
from anyseek.model.blocks import attention_bias
from anyseek.model.decoding import Progress
from anyseek.model.drafts import ControlIds, Draft
from anyseek.model.embeddings import SequenceDecoderEmbedding
from anyseek.model.fourm import FourM
from anyseek.model.generate import Conditions, Generator
from anyseek.model.guidance import Part
from anyseek.model.inputs import normalize_pixels
from anyseek.model.plans import TargetPlan, default_plan, default_plans
from anyseek.model.presets import PUBLISHED, FourMConfig
from anyseek.model.sampling import SeededChooser, Step
from anyseek.model.tokens import Tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

DEPTH, GLOBAL, CAPTION, METADATA = "tok_depth@32", "tok_dinov2_global", "caption", "metadata"
CONFIG = FourMConfig(
    domains_in=("rgb@32", CAPTION, METADATA, "t5_caption", DEPTH, GLOBAL),
    domains_out=(CAPTION, METADATA, DEPTH, GLOBAL),
    encoder_depth=2,
    decoder_depth=2,
    dim=32,
    num_heads=4,
    image_size=32,
    patch_size=8,
    share_modality_embeddings=False,
    vocab_overrides={CAPTION: 40, METADATA: 30, DEPTH: 24, GLOBAL: 20},
)
CONTROLS = ControlIds(tuple(range(5, 15)))
S1, S2 = CONTROLS.sentinels[:2]
Without = dict[str, np.ndarray]


def make_model(config: FourMConfig = CONFIG, **parts: Any) -> FourM:
    """Weights large enough for every input to matter."""
    torch.manual_seed(1)
    model = FourM(config, **parts).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.normal_(mean=float(name.endswith("weight")), std=0.2)
            elif name.endswith(("_emb", "token", "token_emb.weight", "to_logits.weight")):
                parameter.normal_(std=0.7)
    return model


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(make_model(), CONTROLS)


def draw_conditions(seed: int, *names: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    values = {
        "rgb@32": random.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        CAPTION: random.integers(15, 40, int(random.integers(2, 7))),
        METADATA: random.integers(15, 30, 4),
        "t5_caption": random.normal(size=(3, 4096)).astype(np.float32) / 50,
        DEPTH: random.integers(0, 24, 16),
        GLOBAL: random.integers(0, 20, 16),
    }
    return {name: values[name] for name in names}


ROAR = TargetPlan(DEPTH, num_steps=5, temperature=1.0, top_p=0.9)
MASKGIT = replace(ROAR, scheme="maskgit", schedule="cosine", temperature_schedule="linear", top_k=12)
TEXT = TargetPlan(CAPTION, "autoregressive", temperature=3.0, max_tokens=12, top_p=0)
STOPS = (5, 6, 20, 21, 22)


# --- the plain loop


def plain_rows(conditions: Mapping[str, np.ndarray]) -> dict[str, Tokens]:
    """One item as a model's input."""
    batch: dict[str, Tokens] = {}
    for name, value in conditions.items():
        tensor = torch.from_numpy(normalize_pixels(value[None]) if name == "rgb@32" else value[None])
        count = 16 if name == "rgb@32" else len(value)
        batch[name] = Tokens(tensor, torch.zeros(1, count, dtype=torch.bool))
    return batch


def plain_grid(
    model: FourM,
    conditions: dict[str, np.ndarray],
    plan: TargetPlan,
    seed: int,
    without: dict[str, np.ndarray],
) -> np.ndarray:
    """Decode a grid with a whole encoder and decoder pass per branch and step."""
    tokens, known = np.zeros(16, np.int64), np.zeros(16, bool)
    counts = plan.counts(16)
    chooser = SeededChooser([seed])
    order = chooser.order(0, 0, 16)

    def logits_given(given: dict[str, np.ndarray]) -> Tensor:
        batch = plain_rows(given)
        batch[plan.modality] = Tokens(torch.from_numpy(tokens[None]), torch.from_numpy(~known[None]))
        slots = torch.from_numpy(chosen[None])
        return model.decode(model.encode(batch), [plan.modality], positions={plan.modality: slots})[
            plan.modality
        ]

    for index, (count, temperature) in enumerate(zip(counts, plan.temperatures(counts), strict=True)):
        if not count:
            continue
        is_roar = plan.scheme == "roar"
        chosen = order[~known[order]][:count] if is_roar else np.flatnonzero(~known)
        logits = logits_given(conditions)
        if plan.guidance != 1:
            empty = logits_given(without)
            logits = empty + plan.guidance * (logits - empty)
        unused = np.zeros((1, len(chosen)), bool)
        step = Step(0, index, [0], chosen[None], unused, np.array([temperature]), plan.top_k, plan.top_p)
        drawn = chooser.draw(step, logits)
        kept = ~unused if is_roar else chooser.keep(step, drawn.probs, np.array([count]))
        tokens[chosen[kept[0]]] = drawn.tokens[0].numpy()[kept[0]]
        known[chosen[kept[0]]] = True
    return tokens


def plain_text(
    model: FourM,
    conditions: dict[str, np.ndarray],
    plan: TargetPlan,
    seed: int,
    without: dict[str, np.ndarray],
) -> list[int]:
    """Write a sequence with the encoder and the whole prefix anew for each token."""
    layer = model.get_submodule(f"decoder_embeddings.{plan.modality}")
    assert isinstance(layer, SequenceDecoderEmbedding)
    chooser, written = SeededChooser([seed]), [S1]

    def logits_given(given: dict[str, np.ndarray]) -> Tensor:
        encoded = model.encode(plain_rows({**given, plan.modality: np.array([S1])}))
        ids = torch.tensor([written])
        content, emb = layer(ids, torch.zeros_like(ids, dtype=torch.bool))
        causal = torch.ones(len(written), len(written)).triu(1).bool()[None]
        y = model.run_decoder(content + emb, encoded, attention_bias(causal, content.dtype))
        return layer.to_logits(y)[:, -1:]

    for index in range(plan.max_tokens or 0):
        logits = logits_given(conditions)
        if plan.guidance != 1:
            empty = logits_given(without)
            logits = empty + plan.guidance * (logits - empty)
        zero = np.zeros((1, 1), np.int64)
        step = Step(0, index, [0], zero, zero > 0, np.array([plan.temperature]), plan.top_k, plan.top_p)
        written.append(int(chooser.draw(step, logits).tokens))
        if written[-1] == S2:
            break
    return written


VARIANTS = {
    "plain": {},
    "qk_norm": {"qk_norm": True},
    "registers": {"num_register_tokens": 3},
    "biases": dict.fromkeys(("qkv_bias", "proj_bias", "mlp_bias", "norm_bias"), True),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "plan", [ROAR, MASKGIT, replace(ROAR, guidance=2.5), replace(MASKGIT, guidance=-0.5)]
)
def test_grids_equal_those_of_the_plain_loop(variant: str, plan: TargetPlan) -> None:
    model = make_model(replace(CONFIG, **VARIANTS[variant]))
    conditions = draw_conditions(3, "rgb@32", CAPTION, "t5_caption")
    without = {CAPTION: np.array([S1]), "t5_caption": np.zeros((1, 4096), np.float32)}
    for seed in (0, 1):
        with torch.inference_mode():
            expected = plain_grid(model, conditions, plan, seed, without)
        (found,) = Generator(model, CONTROLS).generate([conditions], [plan], seed=seed)
        assert found[DEPTH].tolist() == expected.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_texts_equal_those_of_the_plain_loop(variant: str, guidance: float) -> None:
    model = make_model(replace(CONFIG, **VARIANTS[variant]))
    conditions = draw_conditions(4, "rgb@32", METADATA)
    without = {METADATA: np.array([S1])}
    plan = replace(TEXT, guidance=guidance)
    lengths: list[int] = []
    for seed in range(3):
        with torch.inference_mode():
            expected = plain_text(model, conditions, plan, seed, without)
        (found,) = drawn_by(Generator(model, CONTROLS), [conditions], plan, [seed])
        assert found == expected[1:]
        lengths.append(len(found))
    assert max(lengths) > 5


def drawn_by(
    generator: Generator, batch: Sequence[Conditions], plan: TargetPlan, seeds: Sequence[int]
) -> list[list[int]]:
    """Every token drawn for the texts of a batch, also those that a result leaves out."""
    drawn: list[list[int]] = [[] for _ in batch]

    class Recorder(SeededChooser):
        def draw(self, step: Step, logits: Tensor) -> Any:
            result = super().draw(step, logits)
            for item, token in zip(step.items, result.tokens[:, 0].tolist(), strict=True):
                drawn[item].append(token)
            return result

    generator.generate_with(Recorder(seeds), batch, [plan])
    return drawn


# --- batches and seeds


def mixed_batch() -> list[Conditions]:
    return [
        draw_conditions(0, "rgb@32"),
        draw_conditions(1, METADATA),
        {},
        draw_conditions(2, "rgb@32", METADATA, "t5_caption"),
        [Part(draw_conditions(3, "rgb@32"), 1.5), Part(draw_conditions(4, METADATA), -0.7)],
        [Part(draw_conditions(5, "t5_caption"))],
    ]


CHAIN = [
    replace(ROAR, guidance=2.0),
    replace(TEXT, guidance=1.5),
    replace(MASKGIT, modality=GLOBAL, guidance=3.0, weight=0.5),
]


def test_batch_equals_one_by_one(generator: Generator) -> None:
    batch = mixed_batch()
    drafts = [draft_some(i) for i in range(len(batch))]
    together = generator.generate(batch, CHAIN, seed=range(len(batch)), drafts=drafts)
    for i, item in enumerate(batch):
        (alone,) = generator.generate([item], CHAIN, seed=i, drafts=[drafts[i]])
        for name, tokens in alone.items():
            assert together[i][name].tolist() == tokens.tolist(), (i, name)


def draft_some(seed: int) -> dict[str, Draft]:
    """A different share of the depth map is known for each item."""
    random = np.random.default_rng(seed)
    return {DEPTH: Draft(random.integers(0, 24, 16), random.random(16) > seed / 8)} if seed else {}


def test_a_seed_fixes_the_result_and_another_changes_it(generator: Generator) -> None:
    batch, plans = mixed_batch()[:2], [ROAR, replace(TEXT, stop_ids=())]
    first = generator.generate(batch, plans, seed=3)
    again = generator.generate(batch, plans, seed=[3, 3])
    other = generator.generate(batch, plans, seed=4)
    for one, two, three in zip(first, again, other, strict=True):
        assert one[DEPTH].tolist() == two[DEPTH].tolist() != three[DEPTH].tolist()
        assert one[CAPTION].tolist() == two[CAPTION].tolist() != three[CAPTION].tolist()


def test_each_item_stops_at_its_own_end(generator: Generator) -> None:
    batch = [draw_conditions(i, "rgb@32") for i in range(6)]
    plan = replace(TEXT, max_tokens=40, stop_ids=STOPS)
    together = drawn_by(generator, batch, plan, range(6))
    assert len({len(drawn) for drawn in together}) > 2
    for i, drawn in enumerate(together):
        assert drawn_by(generator, [batch[i]], plan, [i]) == [drawn]
        assert not set(drawn[:-1]) & set(STOPS)
        assert drawn[-1] in STOPS or len(drawn) == 40


def test_no_items_give_no_results(generator: Generator) -> None:
    assert generator.generate([], [ROAR, TEXT]) == []
    assert generator.logits([], DEPTH).shape == (0, 16, 24)


def test_results_have_the_shape_and_the_ids_of_their_modality(generator: Generator) -> None:
    for result in generator.generate(mixed_batch(), CHAIN, seed=9):
        assert list(result) == [DEPTH, CAPTION, GLOBAL]
        for name, tokens in result.items():
            modality = CONFIG.modality(name)
            assert tokens.dtype == np.int64
            assert tokens.shape == (modality.max_tokens,) or (modality.kind == "seq" and tokens.ndim == 1)
            assert ((tokens >= 0) & (tokens < (modality.vocab_size or 0))).all()


# --- guidance


def test_guidance_of_one_equals_none_and_costs_nothing(generator: Generator) -> None:
    conditions = [draw_conditions(0, "rgb@32", METADATA)]
    rows = rows_read(generator, conditions, [replace(ROAR, guidance=1.0)])
    assert [len(batch) for batch in rows] == [1] * 5
    plain = generator.logits(conditions, DEPTH)
    np.testing.assert_array_equal(plain, generator.logits([[Part(conditions[0])]], DEPTH))
    with torch.inference_mode():
        encoded = generator.fourm.encode(plain_rows(conditions[0]))
        expected = generator.fourm.decode(encoded, [DEPTH])[DEPTH]
    np.testing.assert_allclose(plain, expected.numpy(), atol=1e-4)


def test_a_part_of_weight_zero_equals_an_absent_one(generator: Generator) -> None:
    rgb, caption = draw_conditions(0, "rgb@32"), draw_conditions(1, METADATA)
    present = generator.logits([[Part(rgb, 1.5), Part(caption, 0.0)]], DEPTH)
    np.testing.assert_array_equal(present, generator.logits([[Part(rgb, 1.5)]], DEPTH))


def test_weighted_parts_follow_their_formula(generator: Generator) -> None:
    parts = [Part(draw_conditions(0, "rgb@32"), 1.2), Part(draw_conditions(1, METADATA), -0.6)]
    nothing = generator.logits([{METADATA: np.array([S1])}], DEPTH)
    each = [generator.logits([part.content], DEPTH) for part in parts]
    expected = nothing + sum(part.weight * (one - nothing) for part, one in zip(parts, each, strict=True))
    np.testing.assert_allclose(generator.logits([parts], DEPTH), expected, atol=1e-3)
    doubled = nothing + 2 * (expected - nothing)
    np.testing.assert_allclose(generator.logits([parts], DEPTH, guidance=2.0), doubled, atol=2e-3)


def test_negative_weight_makes_what_the_part_wants_less_likely(generator: Generator) -> None:
    wanted, other = draw_conditions(0, "rgb@32"), draw_conditions(1, METADATA)
    nothing = generator.logits([{METADATA: np.array([S1])}], DEPTH)
    best = (generator.logits([other], DEPTH) - nothing).argmax(-1)[..., None]

    def share(weight: float) -> float:
        """Of what the other part alone speaks for."""
        logits = torch.from_numpy(generator.logits([[Part(wanted), Part(other, weight)]], DEPTH))
        return float(np.take_along_axis(logits.softmax(-1).numpy(), best, -1).mean())

    assert share(-1.0) < share(0.0) < share(1.0)


def test_every_branch_sees_what_earlier_steps_decoded(generator: Generator) -> None:
    """A guided step of random order must not hide its tokens from one of the branches."""
    parts = [Part(draw_conditions(0, "rgb@32"), 1.5), Part(draw_conditions(1, METADATA), -0.5)]
    for conditions in (parts, draw_conditions(2, "rgb@32")):
        batches = rows_read(generator, [conditions], [replace(ROAR, guidance=2.0)])
        for done, rows in zip((0, 4, 7, 10, 13), batches, strict=True):
            assert len(rows) == (3 if conditions is parts else 2)
            assert [int(row[DEPTH].used.sum()) for row in rows] == [done] * len(rows)


def test_finished_targets_guide_later_ones(generator: Generator) -> None:
    conditions = draw_conditions(0, "rgb@32")
    batches = rows_read(generator, [conditions], [ROAR, TEXT, replace(ROAR, modality=GLOBAL, guidance=2.0)])
    full, rest = batches[-1]
    assert int(full[DEPTH].used.sum()) == 16
    assert DEPTH not in rest
    assert "rgb@32" not in rest
    assert rest[CAPTION].values.tolist() == [S1]  # a text taken away leaves a span to fill
    kept = replace(ROAR, modality=GLOBAL, guidance=2.0, guided_by=("rgb@32",))
    _, rest = rows_read(generator, [conditions], [ROAR, kept])[-1]
    assert int(rest[DEPTH].used.sum()) == 16
    parts = rows_read(generator, [[Part(conditions)]], [ROAR, replace(kept, guided_by=None)])[-1]
    assert [sorted(set(row) - {GLOBAL}) for row in parts] == [["rgb@32"], [DEPTH], []]


def rows_read(
    generator: Generator, conditions: Sequence[Conditions], plans: Sequence[TargetPlan]
) -> list[list[Any]]:
    """What the encoder was shown in each of its passes."""
    seen: list[list[Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        from anyseek.model import decoding

        original = decoding.Reader.read

        def read(self: Any, rows: Any) -> Any:
            seen.append(list(rows))
            return original(self, rows)

        patch.setattr(decoding.Reader, "read", read)
        generator.generate(conditions, plans)
    return seen


# --- no repeated work


class Counter:
    """Counts passes through a module and the tokens in them."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.tokens: list[int] = []
        self._handle = module.register_forward_pre_hook(
            lambda _module, inputs: self.tokens.append(inputs[0].shape[:-1].numel())
        )

    def __enter__(self) -> "Counter":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def test_texts_encode_once_and_decode_one_token_at_a_time(generator: Generator) -> None:
    fourm, plan = generator.fourm, replace(TEXT, stop_ids=())
    with Counter(fourm.encoder[0]) as encoder, Counter(fourm.decoder[0]) as decoder:
        head = Counter(fourm.get_submodule("decoder_embeddings.caption.to_logits"))
        keys = Counter(fourm.get_submodule("decoder.0.cross_attn.kv"))
        with head, keys:
            generator.generate([draw_conditions(0, "rgb@32")], [replace(plan, guidance=2.0)])
    assert encoder.tokens == keys.tokens == [16 + 1 + 1]  # both branches in one pass, nothing padded
    assert decoder.tokens == [2] * 12
    assert head.tokens == [1] * 12


def test_equal_rows_are_encoded_once(generator: Generator) -> None:
    conditions = draw_conditions(0, "rgb@32")
    with Counter(generator.fourm.encoder[0]) as encoder:
        generator.generate([conditions] * 5, [replace(TEXT, guidance=2.0)], seed=range(5))
    assert encoder.tokens == [16 + 1 + 1]


def test_steps_without_tokens_cost_nothing(generator: Generator) -> None:
    plan = replace(MASKGIT, num_steps=40)
    with Counter(generator.fourm.encoder[0]) as encoder:
        generator.generate([draw_conditions(0, "rgb@32")], [plan])
    assert len(encoder.tokens) == sum(count > 0 for count in plan.counts(16)) < 40


def test_targets_that_the_model_does_not_take_leave_its_encoder_alone() -> None:
    generator = Generator(make_model(inputs=["rgb@32"]), CONTROLS)
    one_step = replace(ROAR, num_steps=1)
    with Counter(generator.fourm.encoder[0]) as encoder:
        generator.generate(
            [draw_conditions(0, "rgb@32")], [one_step, replace(one_step, modality=GLOBAL), TEXT]
        )
    assert encoder.tokens == [16]
    with pytest.raises(ModelError, match="several steps"):
        generator.generate([draw_conditions(0, "rgb@32")], [ROAR])


def test_text_that_is_over_is_not_computed_further(generator: Generator) -> None:
    batch = [draw_conditions(i, "rgb@32") for i in range(6)]
    with Counter(generator.fourm.decoder[0]) as decoder:
        drawn = drawn_by(generator, batch, replace(TEXT, max_tokens=40, stop_ids=STOPS), range(6))
    assert decoder.tokens[0] == 6
    assert sum(decoder.tokens) == sum(map(len, drawn)) < 6 * 40


def test_packed_weights_predict_the_same_and_leave_the_model_alone() -> None:
    for variant in VARIANTS.values():
        model = make_model(replace(CONFIG, **variant))
        keys = set(model.state_dict())
        twin = Generator(model, CONTROLS).fourm
        assert set(model.state_dict()) == keys
        shared = "encoder_embeddings.caption.token_emb.weight"
        assert twin.get_parameter(shared) is model.get_parameter(shared)
        batch = plain_rows(draw_conditions(0, "rgb@32", CAPTION))
        with torch.inference_mode():
            found, expected = (one.decode(one.encode(batch), [DEPTH])[DEPTH] for one in (twin, model))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# --- editing


@given(st.integers(0, 99), st.sampled_from([ROAR, MASKGIT, replace(ROAR, guidance=2.0)]))
@settings(max_examples=20, deadline=None)
def test_grid_tokens_outside_the_mask_never_change(seed: int, plan: TargetPlan) -> None:
    random = np.random.default_rng(seed)
    tokens, redraw = random.integers(0, 24, 16), random.random(16) < random.random()
    (result,) = EDITOR.generate(
        [draw_conditions(seed, "rgb@32")], [plan], seed=seed, drafts=[{DEPTH: Draft(tokens, redraw)}]
    )
    assert np.array_equal(result[DEPTH][~redraw], tokens[~redraw])


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_text_tokens_outside_the_mask_never_change(seed: int) -> None:
    random = np.random.default_rng(seed)
    tokens, redraw = random.integers(20, 40, 12), random.random(12) < 0.4
    plan = replace(TEXT, temperature=2.0)
    (result,) = EDITOR.generate([{}], [plan], seed=seed, drafts=[{CAPTION: Draft(tokens, redraw)}])
    found = iter(result[CAPTION].tolist())
    assert all(token in found for token in tokens[~redraw])  # in this order
    if not redraw.any():
        assert result[CAPTION].tolist() == tokens.tolist()


EDITOR = Generator(make_model(), CONTROLS)


def test_what_is_kept_of_a_draft_is_shown_from_the_start(generator: Generator) -> None:
    redraw = np.arange(16) < 6
    draft = {DEPTH: Draft(np.arange(16).reshape(4, 4), redraw.reshape(4, 4))}
    seen: list[Any] = []
    plans = [TEXT, replace(ROAR, num_steps=2)]
    with Counter(generator.fourm.encoder[0]) as encoder:
        generator.generate([{}], plans, drafts=[draft], progress=seen.append)
    assert encoder.tokens[0] == 10 + 1


# --- the rest of the promises


def test_generation_from_nothing_works(generator: Generator) -> None:
    for plan in (ROAR, replace(ROAR, guidance=3.0), MASKGIT, TEXT):
        (result,) = generator.generate([{}], [plan], seed=1)
        assert result[plan.modality].dtype == np.int64


def test_super_resolution_models_generate() -> None:
    config = replace(
        CONFIG,
        domains_in=("rgb@224", CAPTION, "tok_rgb@224", "rgb@448", "tok_rgb@448"),
        domains_out=("tok_rgb@448",),
        vocab_overrides={"tok_rgb@224": 20, "tok_rgb@448": 20, CAPTION: 40},
    )
    plan = default_plan("tok_rgb@448", rgb_given=False)
    assert (plan.scheme, plan.num_steps, plan.schedule) == ("maskgit", 8, "cosine")
    low = np.random.default_rng(0).integers(0, 20, 196)
    (result,) = Generator(make_model(config), CONTROLS).generate([{"tok_rgb@224": low}], [plan])
    assert result["tok_rgb@448"].shape == (784,)
    assert len(set(result["tok_rgb@448"].tolist())) > 1


def test_progress_names_target_and_step_and_may_stop(generator: Generator) -> None:
    seen: list[Progress] = []
    generator.generate([{}], [ROAR, TEXT], progress=seen.append)
    assert [one.step for one in seen if one.target == 0] == [1, 2, 3, 4, 5]
    assert seen[0] == Progress(DEPTH, 0, 2, 1, 5)
    assert {one.num_steps for one in seen if one.target == 1} == {12}

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate([{}], [ROAR], progress=stop)


def test_inputs_are_left_as_they_are(generator: Generator) -> None:
    conditions = draw_conditions(0, "rgb@32", METADATA, "t5_caption")
    draft = Draft(np.arange(16), np.arange(16) < 8)
    before = {name: value.copy() for name, value in conditions.items()}
    generator.generate([conditions], [replace(ROAR, guidance=2.0)], drafts=[{DEPTH: draft}])
    assert all(np.array_equal(before[name], value) for name, value in conditions.items())
    assert draft.tokens.tolist() == list(range(16))


def test_bfloat16_models_generate() -> None:
    generator = Generator(make_model().bfloat16(), CONTROLS)
    for result in generator.generate(mixed_batch(), CHAIN, seed=1):
        assert len(result) == 3


def test_defaults_cover_every_target_of_the_published_models() -> None:
    for config in PUBLISHED.values():
        for rgb_given in (True, False):
            plans = default_plans(config.targets, rgb_given=rgb_given)
            assert {plan.modality for plan in plans} == set(config.targets)
            for plan in plans:
                assert (plan.scheme == "autoregressive") == (config.modality(plan.modality).kind == "seq")
    plan = default_plan("tok_clip@224", rgb_given=False)
    assert (plan.num_steps, plan.temperature, plan.guidance) == (50, 5.0, 3.0)
    assert default_plan("tok_depth@224", rgb_given=True) == TargetPlan("tok_depth@224", guidance=2.0)
    names = [
        plan.modality for plan in default_plans(["caption", "tok_rgb@224", "tok_clip@224"], rgb_given=False)
    ]
    assert names == ["tok_clip@224", "tok_rgb@224", "caption"]
    with pytest.raises(QueryError, match="tok_clip, tok_dinov2"):
        default_plan("sound", rgb_given=True)


# --- arguments that make no sense

RGB = draw_conditions(0, "rgb@32")


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"scheme": "beam"}, "Known: roar, maskgit"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_steps": 2.5}, "num_steps"),
        ({"num_steps": 10**9}, "num_steps"),
        ({"schedule": "fast"}, "Known: linear, cosine"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature_schedule": "onex:1"}, "onex"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -3}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"guidance": float("inf")}, "guidance"),
        ({"weight": float("nan")}, "weight"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
    ],
)
def test_plans_refuse_settings_without_a_meaning(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        TargetPlan(**{"modality": DEPTH, **settings_})


def grid_draft(name: str, num_tokens: int, redraw: np.ndarray) -> dict[str, Any]:
    return {"drafts": [{name: Draft(np.zeros(num_tokens, int), redraw)}]}


def text_draft(tokens: list[int], redraw: list[bool]) -> dict[str, Any]:
    return {"drafts": [{CAPTION: Draft(np.array(tokens), np.array(redraw))}]}


ALL = np.ones(16, bool)
SMALL_PICTURE = np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("conditions", "plans", "options", "error", "message"),
    [
        ([RGB], [TargetPlan("tok_rgb@224")], {}, ModelError, "Targets: caption, metadata"),
        ([RGB], [TargetPlan("rgb@32")], {}, ModelError, "not opened to predict"),
        ([RGB], [ROAR, ROAR], {}, QueryError, "twice"),
        ([RGB], [replace(ROAR, modality=CAPTION)], {}, QueryError, "use autoregressive"),
        ([RGB], [replace(TEXT, modality=DEPTH)], {}, QueryError, "use roar or maskgit"),
        ([{"depth": np.zeros(3)}], [ROAR], {}, ModelError, "opened with rgb@32"),
        ([{DEPTH: np.zeros(16, int)}], [ROAR], {}, QueryError, "as a draft"),
        ([{"rgb@32": SMALL_PICTURE}], [ROAR], {}, InputError, r"uint8 pixels \(32, 32, 3\)"),
        ([{"rgb@32": np.zeros((32, 32, 3))}], [ROAR], {}, InputError, "uint8 pixels"),
        ([{METADATA: np.array([1.5])}], [ROAR], {}, InputError, "integer ids"),
        ([{METADATA: np.array([30])}], [ROAR], {}, InputError, r"0\.\.29"),
        ([{METADATA: np.array([-1])}], [ROAR], {}, InputError, r"0\.\.29"),
        ([{METADATA: np.zeros(0, int)}], [ROAR], {}, InputError, "integer ids"),
        ([{METADATA: np.zeros(600, int)}], [ROAR], {}, InputError, "512"),
        ([{GLOBAL: np.zeros(15, int)}], [ROAR], {}, InputError, r"\(16,\)"),
        ([{"t5_caption": np.full((2, 4096), np.nan)}], [ROAR], {}, InputError, "finite"),
        ([{"t5_caption": np.zeros((2, 10))}], [ROAR], {}, InputError, "4096"),
        ([RGB], [replace(ROAR, guided_by=("sound",))], {}, ModelError, "guides"),
        ([RGB], [ROAR], {"seed": -1}, QueryError, "seed"),
        ([RGB], [ROAR], {"seed": [1, 2]}, QueryError, "2 seeds for 1 items"),
        ([RGB], [ROAR], {"seed": [1.5]}, QueryError, "whole number"),
        ([RGB], [ROAR], {"drafts": []}, QueryError, "0 mappings of drafts for 1 items"),
        ([RGB], [ROAR], grid_draft(GLOBAL, 16, ALL), QueryError, "Planned"),
        ([RGB], [ROAR], grid_draft(DEPTH, 9, ALL[:9]), InputError, "ids"),
        ([RGB], [ROAR], grid_draft(DEPTH, 16, ALL[:9]), InputError, "redraw"),
        ([RGB], [ROAR], grid_draft(DEPTH, 16, ALL.astype(float)), InputError, "bool"),
        ([RGB], [TEXT], text_draft([9, 5], [True, False]), InputError, "sentinel"),
        ([RGB], [TEXT], text_draft([20] * 90, [True, False] * 45), QueryError, "too broken up"),
    ],
)
def test_senseless_requests_are_refused_in_clear_words(
    generator: Generator, conditions: Any, plans: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generator.generate(conditions, plans, **options)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "much"])
def test_parts_refuse_weights_that_are_no_numbers(weight: Any) -> None:
    with pytest.raises(QueryError, match="weight"):
        Part(RGB, weight)


def test_control_ids_of_another_tokenizer_are_noticed() -> None:
    generator = Generator(make_model(replace(CONFIG, vocab_overrides={CAPTION: 5})), CONTROLS)
    with pytest.raises(ModelError, match="control ids"):
        generator.generate([RGB], [TEXT])
