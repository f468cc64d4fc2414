import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyseek.errors import CheckpointError, InputError, ModelError
from anyseek.model.blocks import BlockConfig, DecoderBlock, EncoderBlock, attention_bias
from anyseek.model.checkpoint import load_fourm
from anyseek.model.fourm import FourM
from anyseek.model.presets import PRESETS, PUBLISHED, FourMConfig
from anyseek.model.tokens import Tokens, attention_mask, usual_code
from torch import Tensor
from torch.nn import functional

GOLDEN = Path(__file__).parents[1] / "golden"

CONFIG = FourMConfig(
    domains_in=("rgb@32", "caption", "metadata", "tok_depth@32", "t5_caption", "tok_dinov2_global"),
    domains_out=("caption", "tok_depth@32", "tok_dinov2_global", "tok_imagebind_global"),
    encoder_depth=2,
    decoder_depth=2,
    dim=32,
    num_heads=4,
    image_size=32,
    patch_size=8,
    share_modality_embeddings=False,
    vocab_overrides={
        "caption": 50,
        "metadata": 40,
        "tok_depth@32": 30,
        "tok_dinov2_global": 20,
        "tok_imagebind_global": 24,
    },
)
GLOBALS = ("tok_dinov2_global", "tok_imagebind_global")


@pytest.fixture(scope="module")
def model() -> FourM:
    return make_model(CONFIG)


def make_model(config: FourMConfig) -> FourM:
    """A model whose every tensor matters: norms and biases are drawn too."""
    torch.manual_seed(0)
    model = FourM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.2)
            elif name.endswith(("_emb", "token", "token_emb.weight")):
                parameter.normal_(std=0.5)
    return model


def draw_batch(batch: int, seed: int = 0, *, keep: float = 0.6) -> dict[str, Tokens]:
    """Random tokens of every input modality; each token is used with probability `keep`."""
    generator = torch.Generator().manual_seed(seed)

    def mask(length: int) -> Tensor:
        return torch.rand(batch, length, generator=generator) > keep

    def ids(name: str, length: int) -> Tensor:
        return torch.randint(CONFIG.vocab_overrides[name], (batch, length), generator=generator)

    return {
        "rgb@32": Tokens(torch.randn(batch, 3, 32, 32, generator=generator), mask(16)),
        "caption": Tokens(ids("caption", 9), mask(9)),
        "metadata": Tokens(ids("metadata", 5), mask(5)),
        "tok_depth@32": Tokens(ids("tok_depth@32", 16).view(batch, 4, 4), mask(16)),
        "t5_caption": Tokens(torch.randn(batch, 3, 4096, generator=generator) / 10, mask(3)),
        "tok_dinov2_global": Tokens(ids("tok_dinov2_global", 16), mask(16)),
    }


def rows(batch: dict[str, Tokens], index: slice) -> dict[str, Tokens]:
    return {name: Tokens(t.tensor[index], t.input_mask[index]) for name, t in batch.items()}


def predict(model: FourM, batch: dict[str, Tokens]) -> dict[str, Tensor]:
    with torch.no_grad():
        return model.decode(model.encode(batch), GLOBALS)


def values_mask(tokens: Tokens) -> Tensor:
    """Which elements of the tensor belong to masked tokens."""
    mask, shape = tokens.input_mask, tokens.tensor.shape
    if shape[1:] == (3, 32, 32):
        return mask.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return mask[..., None] if shape[-1] == 4096 else mask.view(shape)


# --- any subset in


def test_batch_of_different_subsets_equals_one_by_one(model: FourM) -> None:
    batch = draw_batch(4)
    present = [["rgb@32"], ["caption", "metadata"], list(batch), ["tok_depth@32", "t5_caption"]]
    for i, names in enumerate(present):
        for name in set(batch) - set(names):
            batch[name].input_mask[i] = True
    together = predict(model, batch)
    for i, names in enumerate(present):
        alone = predict(model, {name: rows(batch, slice(i, i + 1))[name] for name in names})
        for target in GLOBALS:
            torch.testing.assert_close(together[target][i : i + 1], alone[target], rtol=1e-5, atol=1e-5)


def test_order_of_modalities_only_permutes_tokens(model: FourM) -> None:
    batch = draw_batch(2)
    turned = dict(reversed(batch.items()))
    with torch.no_grad():
        first, second = model.encode(batch), model.encode(turned)
        logits, again = model.decode(first, GLOBALS), model.decode(second, GLOBALS)
    assert sorted(first.ids[0].tolist()) == sorted(second.ids[0].tolist())
    assert first.ids[0].tolist() != second.ids[0].tolist()
    for target in GLOBALS:
        torch.testing.assert_close(logits[target], again[target], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(draw_batch(1)))
def test_masked_tokens_have_no_influence(model: FourM, name: str) -> None:
    batch, other = draw_batch(2), draw_batch(2, seed=1)
    before = predict(model, batch)
    tokens = batch[name]
    changed = torch.where(values_mask(tokens), other[name].tensor, tokens.tensor)
    assert not torch.equal(changed, tokens.tensor)
    after = predict(model, {**batch, name: Tokens(changed, tokens.input_mask)})
    for target in GLOBALS:
        assert torch.equal(before[target], after[target])


def test_used_tokens_have_influence(model: FourM) -> None:
    batch = draw_batch(2)
    before = predict(model, batch)
    for name in batch:
        other = draw_batch(2, seed=1)[name].tensor
        after = predict(model, {**batch, name: Tokens(other, batch[name].input_mask)})
        assert (before[GLOBALS[0]] - after[GLOBALS[0]]).abs().max() > 1e-3


def test_position_in_a_sequence_is_the_rank_among_used_tokens(model: FourM) -> None:
    ids = torch.tensor([[7, 8, 9]])
    gaps = torch.tensor([[0, 7, 0, 0, 8, 9]])
    dense = predict(model, {"caption": Tokens(ids, torch.zeros(1, 3, dtype=torch.bool))})
    spread = predict(model, {"caption": Tokens(gaps, gaps == 0)})
    torch.testing.assert_close(dense[GLOBALS[0]], spread[GLOBALS[0]])


def test_sample_without_any_token_gives_finite_logits(model: FourM) -> None:
    batch = draw_batch(2)
    for tokens in batch.values():
        tokens.input_mask[0] = True
    assert predict(model, batch)[GLOBALS[0]].isfinite().all()
    nothing = rows(batch, slice(0, 1))
    assert model.encode(nothing).context.shape == (1, 0, 32)
    assert predict(model, nothing)[GLOBALS[0]].isfinite().all()


def test_encoder_budget_keeps_the_first_used_tokens(model: FourM) -> None:
    batch = draw_batch(3)
    everything, cut = model.select_inputs(batch), model.select_inputs(batch, 7)
    assert torch.equal(cut.content, everything.content[:, :7])
    assert cut.ids.shape == (3, 7)


def test_register_tokens_come_first_and_are_never_masked() -> None:
    model = make_model(replace(CONFIG, num_register_tokens=3))
    batch = draw_batch(2)
    selected = model.select_inputs(batch)
    plain = make_model(CONFIG).select_inputs(batch)
    assert selected.mask.shape[1] == plain.mask.shape[1] + 3
    assert not selected.mask[:, :3].any()
    assert (selected.ids[:, :3] == -1).all()
    assert not selected.emb[:, :3].any()
    assert "register_tokens" in model.state_dict()


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"depth": 0}, ModelError, "no modality 'depth'. Its inputs: rgb@32, caption"),
        ({}, ModelError, "Nothing to encode: this model takes rgb@32, caption"),
        ({"tok_imagebind_global": 16}, ModelError, "Nothing to encode"),
        ({"rgb@32": 16}, InputError, "expected images (B, 3, 32, 32), got (2, 16)"),
        ({"caption": 513}, InputError, "caption: more than 512 tokens"),
    ],
)
def test_what_cannot_be_encoded_is_named(
    model: FourM, batch: dict[str, int], error: type[Exception], message: str
) -> None:
    tokens = {
        name: Tokens(torch.zeros(2, n, dtype=torch.long), torch.zeros(2, n, dtype=torch.bool))
        for name, n in batch.items()
    }
    with pytest.raises(error) as caught:
        model.encode(tokens)
    assert message in str(caught.value)


def test_mask_of_another_shape_or_type_is_refused(model: FourM) -> None:
    images = torch.zeros(2, 3, 32, 32)
    for mask in (torch.zeros(2, 15, dtype=torch.bool), torch.zeros(2, 16)):
        with pytest.raises(InputError, match=r"rgb@32: expected a bool mask \(2, 16\)"):
            model.encode({"rgb@32": Tokens(images, mask)})


# --- any other out


def test_targets_decoded_together_equal_those_decoded_alone(model: FourM) -> None:
    with torch.no_grad():
        encoded = model.encode(draw_batch(3))
        targets = ("tok_depth@32", *GLOBALS)
        together = model.decode(encoded, targets)
        for target in targets:
            alone = model.decode(encoded, [target])[target]
            torch.testing.assert_close(together[target], alone, rtol=1e-5, atol=1e-5)


def test_slots_can_be_decoded_in_any_order(model: FourM) -> None:
    slots = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    with torch.no_grad():
        encoded = model.encode(draw_batch(2))
        whole = model.decode(encoded, ["tok_depth@32"])["tok_depth@32"]
        turned = model.decode(encoded, ["tok_depth@32"], positions={"tok_depth@32": slots})["tok_depth@32"]
        some = model.decode(encoded, ["tok_depth@32"], positions={"tok_depth@32": slots[:, :5]})[
            "tok_depth@32"
        ]
    torch.testing.assert_close(
        turned, whole.gather(1, slots[..., None].expand_as(whole)), rtol=1e-5, atol=1e-5
    )
    assert some.shape == (2, 5, 30)


def test_sequence_and_unknown_targets_are_refused(model: FourM) -> None:
    encoded = model.encode(draw_batch(1))
    with pytest.raises(ModelError, match="'caption' is a sequence"):
        model.decode(encoded, ["caption"])
    with pytest.raises(ModelError, match=r"not opened to predict 'metadata'\. Targets: caption"):
        model.decode(encoded, ["metadata"])


def test_nothing_is_computed_for_modalities_not_asked_for(model: FourM) -> None:
    layers = {**model.encoder_embeddings, **{f"to {k}": v for k, v in model.decoder_embeddings.items()}}
    ran: set[str] = set()
    handles = [
        part.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, layer in layers.items()
        for part in layer.modules()
    ]
    batch = draw_batch(1)
    model.decode(model.encode({"caption": batch["caption"]}), [GLOBALS[0]])
    for handle in handles:
        handle.remove()
    assert ran == {"caption", f"to {GLOBALS[0]}"}


def test_model_built_for_a_subset_has_only_its_layers() -> None:
    part = FourM(CONFIG, inputs=["rgb@32"], targets=GLOBALS)
    assert (part.inputs, part.targets) == (("rgb@32",), GLOBALS)
    names = {".".join(key.split(".")[:2]) for key in part.state_dict() if "_embeddings" in key}
    assert names == {"encoder_embeddings.rgb@32", *(f"decoder_embeddings.{name}" for name in GLOBALS)}
    # The token table of a grid target is in the files, but nothing reads it.
    assert not any("decoder_embeddings" in key and "token_emb" in key for key in part.state_dict())
    with pytest.raises(ModelError, match=r"opened without the input 'caption'\. It takes rgb@32"):
        part.encode({"caption": draw_batch(1)["caption"]})


@pytest.mark.parametrize("chosen", [{"inputs": ["depth"]}, {"targets": ["t5_caption"]}])
def test_building_for_what_the_model_lacks_lists_what_it_has(chosen: dict[str, list[str]]) -> None:
    with pytest.raises(ModelError, match=r"Known: .*caption"):
        FourM(CONFIG, **chosen)


def test_bfloat16_stays_close_to_float32(model: FourM) -> None:
    batch = draw_batch(4)
    exact = predict(model, batch)
    half = FourM(CONFIG)
    half.load_state_dict(model.state_dict())
    rough = predict(half.eval().bfloat16(), batch)
    for target in GLOBALS:
        cosine = functional.cosine_similarity(exact[target].flatten(1), rough[target].float().flatten(1))
        assert cosine.min() > 0.999


# --- blocks, against the formulas written out


def written_out_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    weights = logits.masked_fill(mask[:, None, None], -torch.finfo(torch.float32).max).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("activation", "gated"), [("GELU", False), ("SiLU", True)])
def test_blocks_compute_what_the_papers_say(qk_norm: bool, activation: str, gated: bool) -> None:
    torch.manual_seed(1)
    config = BlockConfig(24, 3, 96, activation, gated, True, True, True, True, qk_norm)
    encoder, decoder = EncoderBlock(config).eval(), DecoderBlock(config).eval()
    x, context = torch.randn(2, 5, 24), torch.randn(2, 4, 24)
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])

    def split(y: Tensor, parts: int) -> list[Tensor]:
        return [p.unflatten(-1, (3, 8)).transpose(1, 2) for p in y.chunk(parts, -1)]

    def mlp(block: EncoderBlock | DecoderBlock, y: Tensor) -> Tensor:
        m = block.mlp
        act = functional.gelu if activation == "GELU" else functional.silu
        return m.fc2(act(m.fc1(y)) * m.fc3(y) if m.fc3 is not None else act(m.fc1(y)))

    with torch.no_grad():
        q, k, v = split(encoder.attn.qkv(encoder.norm1(x)), 3)
        attn = encoder.attn
        none = torch.zeros(2, 5, dtype=torch.bool)
        y = x + attn.proj(written_out_attention(attn.q_norm(q), attn.k_norm(k), v, none))
        torch.testing.assert_close(encoder(x), y + mlp(encoder, encoder.norm2(y)))

        q, k, v = split(decoder.self_attn.qkv(decoder.norm1(x)), 3)
        attn, cross = decoder.self_attn, decoder.cross_attn
        y = x + attn.proj(written_out_attention(attn.q_norm(q), attn.k_norm(k), v, none))
        (q,) = split(cross.q(decoder.query_norm(y)), 1)
        k, v = split(cross.kv(decoder.context_norm(context)), 2)
        y = y + cross.proj(written_out_attention(cross.q_norm(q), cross.k_norm(k), v, mask))
        found = decoder(x, decoder.context_kv(context), None, attention_bias(mask, x.dtype))
        torch.testing.assert_close(found, y + mlp(decoder, decoder.norm2(y)), rtol=1e-5, atol=1e-5)


def test_gated_hidden_width_is_two_thirds_rounded_down() -> None:
    with torch.device("meta"):
        widths = [FourM(PUBLISHED[f"4M-21_{s}"], inputs=[], targets=[]).encoder[0] for s in ("B", "L", "XL")]
    assert [block.mlp.fc1.out_features for block in widths] == [2048, 2730, 5461]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fully_masked_row_attends_uniformly(dtype: torch.dtype) -> None:
    bias = attention_bias(torch.ones(1, 6, dtype=torch.bool), dtype)
    assert bias is not None
    assert bias.isfinite().all()
    assert attention_bias(torch.zeros(1, 6, dtype=torch.bool), dtype) is None


# --- training


def training_batch(batch: int = 3, seed: int = 0) -> dict[str, Tokens]:
    """Inputs and disjoint targets of all kinds."""
    inputs = draw_batch(batch, seed, keep=0.4)
    chosen: dict[str, Tokens] = {}
    for name, tokens in inputs.items():
        target = None
        if name in CONFIG.targets:
            generator = torch.Generator().manual_seed(seed + 1)
            hidden = torch.rand(tokens.input_mask.shape, generator=generator) > 0.7
            target = hidden | ~tokens.input_mask
        chosen[name] = Tokens(tokens.tensor, tokens.input_mask, target)
    return chosen


def test_usual_attention_code_is_the_recorded_one() -> None:
    config = load_fourm(GOLDEN / "fm_swiglu.safetensors", inputs=[], targets=[]).config
    with np.load(GOLDEN / "fm_swiglu.npz") as data:
        for name in json.loads(str(data["train/order"])):
            if config.modality(name).is_target:
                target_mask = torch.from_numpy(data[f"train/in/{name}/target_mask"])
                recorded = data[f"train/in/{name}/decoder_attention_mask"]
                assert np.array_equal(usual_code(target_mask, config.modality(name)), recorded), name


def test_attention_code_gives_blocks_and_causal_masks() -> None:
    ids = torch.zeros(1, 4)
    block = attention_mask(torch.tensor([[4, 0, 0, 0]]), ids, CONFIG)
    causal = attention_mask(torch.tensor([[1, 1, 1, 1]]), ids, CONFIG)
    assert not block.any()
    assert torch.equal(causal[0], torch.ones(4, 4, dtype=torch.bool).triu(1))
    apart = attention_mask(torch.tensor([[2, 0, 2, 0]]), torch.tensor([[1, 1, 2, 2]]), CONFIG)
    assert torch.equal(~apart[0], torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool())
    plain = attention_mask(torch.tensor([[4, 0, 0, 0]]), ids, replace(CONFIG, decoder_causal_mask=True))
    assert torch.equal(plain, causal)


def test_sequence_targets_do_not_see_what_follows(model: FourM) -> None:
    batch = training_batch()
    mask = torch.zeros(3, 9, dtype=torch.bool)
    ids = batch["caption"].tensor

    def logits(values: Tensor) -> Tensor:
        chosen = {**batch, "caption": Tokens(values, ~mask, mask)}
        targets = model.select_targets(chosen, 64, ["caption"])
        bias = attention_bias(targets.blocked, torch.float32)
        with torch.no_grad():
            return model.run_decoder(targets.content + targets.emb, model.encode(batch), bias)

    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 50
    before, after = logits(ids), logits(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5] - after[:, 5]).abs().max() > 1e-3


def test_image_targets_are_never_shown(model: FourM) -> None:
    batch = training_batch()
    name = "tok_depth@32"
    tokens = batch[name]
    hidden = ~tokens.target_mask.view_as(tokens.tensor)
    changed = torch.where(hidden, (tokens.tensor + 1) % 30, tokens.tensor)
    first = model.select_targets(batch, 64, [name])
    second = model.select_targets({**batch, name: replace(tokens, tensor=changed)}, 64, [name])
    assert torch.equal(first.content, second.content)
    assert not torch.equal(first.target_ids, second.target_ids)


def test_modality_without_targets_counts_as_zero_in_the_mean(model: FourM) -> None:
    batch = training_batch()
    batch["tok_dinov2_global"].target_mask[:] = True
    found = model(batch, num_encoder_tokens=40, num_decoder_tokens=60)
    losses = found.by_modality
    assert list(losses) == ["caption", "tok_depth@32", "tok_dinov2_global"]
    assert losses["tok_dinov2_global"] == 0
    torch.testing.assert_close(found.loss, sum(losses.values()) / 3)
    without_targets = {**batch, "tok_dinov2_global": replace(batch["tok_dinov2_global"], target_mask=None)}
    assert list(model(without_targets, num_encoder_tokens=40, num_decoder_tokens=60).by_modality) == [
        "caption",
        "tok_depth@32",
    ]


def test_order_of_targets_does_not_change_a_loss_within_budget(model: FourM) -> None:
    batch = training_batch()
    orders = [
        ["caption", "tok_depth@32", "tok_dinov2_global"],
        ["tok_dinov2_global", "tok_depth@32", "caption"],
    ]
    first, second = (
        model(batch, num_encoder_tokens=60, num_decoder_tokens=60, decoder_order=order).loss
        for order in orders
    )
    torch.testing.assert_close(first, second)


def test_training_lowers_the_loss_and_spares_padding_and_buffers() -> None:
    torch.manual_seed(0)
    model = FourM(CONFIG).train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    batch = training_batch()
    losses: list[float] = []
    for _ in range(30):
        loss = model(batch, num_encoder_tokens=40, num_decoder_tokens=40).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_buffers())
    table = model.get_submodule("encoder_embeddings.caption.token_emb").weight
    assert not table.grad[0].any()


def test_training_works_under_autocast(model: FourM) -> None:
    batch = training_batch()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch, num_encoder_tokens=40, num_decoder_tokens=40).loss
    exact = model(batch, num_encoder_tokens=40, num_decoder_tokens=40).loss
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_batch_without_targets_is_refused(model: FourM) -> None:
    with pytest.raises(ModelError, match="Nothing to predict: this model's targets are caption"):
        model(draw_batch(1), num_encoder_tokens=8, num_decoder_tokens=8)


# --- configuration


def test_published_configurations_are_those_of_the_hub() -> None:
    recorded = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
    found = {
        name: FourMConfig.parse(entry["config"]) for name, entry in recorded.items() if entry["cls"] == "FM"
    }
    assert found == PUBLISHED


def test_presets_go_with_any_modalities() -> None:
    for size in PRESETS.values():
        assert FourMConfig(("rgb@96",), ("tok_dinov2_global",), patch_size=12, **size).dim == size["dim"]


def test_configuration_survives_its_own_values() -> None:
    for config in (CONFIG, replace(CONFIG, qk_norm=True, num_register_tokens=2), *PUBLISHED.values()):
        assert FourMConfig.parse(json.loads(json.dumps(config.values()))) == config


def test_training_keys_of_published_files_are_known() -> None:
    values = {**CONFIG.values(), "drop_path_rate_encoder": 0.1, "use_act_checkpoint": True}
    assert FourMConfig.parse(values) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimm": 3}, "unknown configuration key 'dimm'. Known: domains_in, domains_out, encoder_depth"),
        ({"dim": None}, "'dim' must be int, got None"),
        ({"dim": True}, "'dim' must be int, got True"),
        ({"dim": "64"}, "'dim' must be int"),
        ({"dim": 10**9}, "dim must lie in 4..65536"),
        ({"encoder_depth": 10**12}, "encoder_depth must lie in 0..1024"),
        ({"num_heads": 5}, "dim 32 must be a multiple of 4 and of num_heads 5"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must lie"),
        ({"act_layer": "ReLU"}, "Unknown act_layer 'ReLU'. Known: GELU, SiLU"),
        ({"domains_in": "caption"}, "'domains_in' must be"),
        ({"domains_in": ["caption", 3]}, "'domains_in' must be"),
        ({"domains_in": ["caption", "caption"], "vocab_overrides": {}}, "each once"),
        ({"domains_in": ["voice"], "vocab_overrides": {}}, "Unknown modality 'voice'. Known: rgb@224"),
        ({"vocab_overrides": {"det": 5}}, "vocab_overrides names 'det'"),
        ({"vocab_overrides": {"caption": -5}}, "vocabulary of 1 id or more"),
        ({"vocab_overrides": {"caption": 1.5}}, "'vocab_overrides' must be"),
        ({"patch_size": 5}, "patches of 5 pixels do not fill a side of 32"),
    ],
)
def test_bad_configuration_names_file_and_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        FourMConfig.parse({**CONFIG.values(), **change}, where="here.json")
    assert "here.json" in str(caught.value)
    assert message in str(caught.value)


def test_missing_configuration_keys_are_listed() -> None:
    values = CONFIG.values()
    del values["dim"], values["gated_mlp"]
    with pytest.raises(CheckpointError, match="lacks dim, gated_mlp"):
        FourMConfig.parse(values)
