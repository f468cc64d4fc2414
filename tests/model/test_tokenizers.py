import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anyseek.errors import CheckpointError, ModelError
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.mlp import BottleneckMLP, MlpSize
from anyseek.model.tokenizers.quantizers import Memcodes
from torch.nn import functional

CONFIG = TokenizerConfig(
    n_channels=12,
    enc_type="BottleneckMLP/B_2-Wi_16",
    dec_type="BottleneckMLP/B_1-Wi_24-Ex_2",
    codebook_size=9,
    num_codebooks=4,
    latent_dim=8,
)


@pytest.fixture
def tokenizer() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(CONFIG).eval()


@torch.no_grad()
def test_maps_are_handled_point_by_point(tokenizer: VQVAE) -> None:
    maps = torch.randn(2, 12, 3, 5)
    ids = tokenizer.encode(maps)
    assert (ids.shape, ids.dtype) == ((2, 4, 3, 5), torch.int64)
    values = tokenizer.decode(ids)
    assert values.shape == maps.shape
    for row in range(3):
        for column in range(5):
            vector = maps[:, :, row, column]
            assert torch.equal(tokenizer.encode(vector), ids[:, :, row, column])
            torch.testing.assert_close(tokenizer.decode(ids[:, :, row, column]), values[:, :, row, column])


@torch.no_grad()
def test_codes_of_the_codebook_decode_like_their_ids(tokenizer: VQVAE) -> None:
    ids = torch.randint(9, (5, 4))
    book = tokenizer.codebook()
    assert book.shape == (4, 9, 2)
    codes = torch.cat([book[head, ids[:, head]] for head in range(4)], dim=1)
    torch.testing.assert_close(tokenizer.decode_codes(codes), tokenizer.decode(ids))


@torch.no_grad()
def test_certain_distribution_decodes_like_its_id_and_an_uncertain_one_between(tokenizer: VQVAE) -> None:
    ids = torch.randint(9, (5, 4))
    certain = functional.one_hot(ids, 9).float()
    soft = torch.einsum("bhk,hkc->bhc", certain, tokenizer.codebook()).flatten(1)
    torch.testing.assert_close(tokenizer.decode_codes(soft), tokenizer.decode(ids))
    even = torch.einsum("bhk,hkc->bhc", torch.full_like(certain, 1 / 9), tokenizer.codebook())
    torch.testing.assert_close(even, tokenizer.codebook().mean(1).expand(5, -1, -1))


@torch.no_grad()
def test_each_head_picks_the_code_whose_key_matches_best() -> None:
    torch.manual_seed(0)
    quantizer = Memcodes(3, 7, 12).eval()
    latent = torch.randn(5, 12)
    found = quantizer(latent)
    for head in range(3):
        keys = quantizer.codes[head] @ quantizer.to_k.weight[head]
        values = quantizer.codes[head] @ quantizer.to_v.weight[head]
        part = slice(4 * head, 4 * head + 4)
        best = (latent[:, part] @ keys.T).argmax(1)
        assert torch.equal(found.ids[:, head], best)
        torch.testing.assert_close(found.codes[:, part], values[best])


def test_training_draws_codes_and_sends_gradients_everywhere(tokenizer: VQVAE) -> None:
    tokenizer.train()
    values = torch.randn(64, 12)
    first, second = tokenizer(values), tokenizer(values)
    assert not torch.equal(first.ids, second.ids)
    # Straight through: the forward value is exactly that of the drawn ids.
    torch.testing.assert_close(first.values, tokenizer.decode(first.ids))
    (1 - functional.cosine_similarity(first.values, values)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tokenizer.parameters())


def test_training_makes_reconstructions_better() -> None:
    torch.manual_seed(0)
    model = VQVAE(CONFIG).train()
    values = functional.normalize(torch.randn(32, 12), dim=1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def loss() -> torch.Tensor:
        return (1 - functional.cosine_similarity(model(values).values, values)).mean()

    before = loss().item()
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()
    assert loss().item() < before - 0.3


@torch.no_grad()
def test_evaluation_is_deterministic_and_batch_equals_one_by_one(tokenizer: VQVAE) -> None:
    values = torch.randn(6, 12)
    together = tokenizer(values)
    for i in range(6):
        alone = tokenizer(values[i : i + 1])
        assert torch.equal(alone.ids[0], together.ids[i])
        torch.testing.assert_close(alone.values[0], together.values[i])


@torch.no_grad()
def test_mlp_normalises_before_each_residual_block() -> None:
    torch.manual_seed(0)
    mlp = BottleneckMLP(5, 3, MlpSize(2, 8, 2))
    x = torch.randn(4, 5)
    y = mlp.linear_in(x)
    for norm, block in zip(mlp.layernorms, mlp.blocks, strict=True):
        z = functional.layer_norm(y, (8,), norm.weight, norm.bias, 1e-5)
        y = y + block.block[2](functional.gelu(block.block[0](z)))
    torch.testing.assert_close(mlp(x), mlp.linear_out(y))


def test_configuration_survives_its_own_values() -> None:
    assert TokenizerConfig.parse(json.loads(json.dumps(CONFIG.values()))) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enc_typ": "x"}, "unknown configuration key 'enc_typ'. Known: n_channels"),
        ({"n_channels": 0}, "n_channels must lie in"),
        ({"codebook_size": 2**40}, "codebook_size must lie in"),
        ({"num_codebooks": 3}, "latent_dim 8 is no multiple of num_codebooks 3"),
        ({"n_labels": "many"}, "'n_labels' must be"),
    ],
)
def test_bad_configuration_names_file_and_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        TokenizerConfig.parse({**CONFIG.values(), **change}, where="here.json")
    assert "here.json" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "vit_b_enc",
        "BottleneckMLP/B_0-Wi_8",
        "BottleneckMLP/B_2-Wi_999999",
        "BottleneckMLP/B_999-Wi_8",
        "mlp",
        "",
    ],
)
def test_other_networks_are_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        VQVAE(replace(CONFIG, dec_type=name))
    assert repr(name) in str(caught.value)


def test_published_tokenizers_of_vectors_have_their_recorded_names() -> None:
    recorded = json.loads((Path(__file__).parents[1] / "golden" / "checkpoint_keys.json").read_text())
    entry = recorded["4M_tokenizers_human-poses_1k_8"]
    with torch.device("meta"):
        state = VQVAE(TokenizerConfig.parse(entry["config"])).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == {
        name: shape for name, shape, *_ in entry["state"]
    }
