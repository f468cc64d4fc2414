from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anyseek.errors import CheckpointError, InputError, ModelError
from anyseek.model.checkpoint import load_tokenizer, open_checkpoint, save_checkpoint
from anyseek.model.tokenizers.build import parse_tokenizer_config
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.layers import resize_positions
from anyseek.model.tokenizers.quantizers import VectorQuantizer
from anyseek.model.tokenizers.values import decoded_values
from anyseek.model.tokenizers.vit import VitDecoder, VitEncoder, VitSize
from torch import Tensor, nn
from torch.nn import functional

RGB = TokenizerConfig(
    n_channels=3,
    enc_type="vit_d16l2h2_enc",
    dec_type="vit_d16l1h4_dec",
    quant_type="lucid",
    codebook_size=50,
    num_codebooks=1,
    latent_dim=6,
    image_size=32,
    patch_size=8,
    post_mlp=True,
)
SEMSEG = replace(RGB, n_channels=5, n_labels=11)
FEATURES = replace(RGB, n_channels=12, patch_proj=False)
MASKS = replace(RGB, n_channels=1, out_conv=True)
EUCLIDEAN = replace(RGB, norm_codes=False, post_mlp=False)
CONFIGS = {"rgb": RGB, "semseg": SEMSEG, "features": FEATURES, "masks": MASKS, "euclidean": EUCLIDEAN}


def build(config: TokenizerConfig, seed: int = 0) -> VQVAE:
    torch.manual_seed(seed)
    return VQVAE(config).eval()


def draw(config: TokenizerConfig, batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    if config.n_labels is not None:
        return torch.randint(config.n_labels, (batch, height, width), generator=generator)
    return torch.randn(batch, config.n_channels, height, width, generator=generator)


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> TokenizerConfig:
    return CONFIGS[request.param]


# --- any size, any batch


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (8, 8), (24, 56)])
def test_every_patch_gets_one_id_and_gives_one_patch_back(
    config: TokenizerConfig, height: int, width: int
) -> None:
    tokenizer = build(config)
    scale = 1 if config.patch_proj else 8
    ids = tokenizer.encode(draw(config, 2, height // scale, width // scale))
    assert (ids.shape, ids.dtype) == ((2, height // 8, width // 8), torch.int64)
    assert ids.min() >= 0
    assert ids.max() < config.codebook_size
    decoded = tokenizer.decode(ids)
    channels = config.n_labels or config.n_channels
    assert decoded.shape == (2, channels, height // scale, width // scale)
    assert decoded.isfinite().all()


def test_batch_equals_one_by_one(config: TokenizerConfig) -> None:
    tokenizer, values = build(config), draw(config, 3, 32, 24)
    ids = tokenizer.encode(values)
    decoded = tokenizer.decode(ids)
    for i in range(3):
        assert torch.equal(tokenizer.encode(values[i : i + 1])[0], ids[i])
        torch.testing.assert_close(tokenizer.decode(ids[i : i + 1])[0], decoded[i])


def test_one_tokenizer_takes_224_and_448() -> None:
    config = replace(RGB, enc_type="vit_d8l1h2_enc", dec_type="vit_d8l1h2_dec", image_size=448, patch_size=16)
    tokenizer = build(config)
    for size in (224, 448):
        ids = tokenizer.encode(draw(config, 1, size, size))
        assert ids.shape == (1, size // 16, size // 16)
        assert tokenizer.decode(ids).shape == (1, 3, size, size)


def test_flat_ids_of_a_model_come_back_in_their_grid() -> None:
    tokenizer = build(RGB)
    ids = tokenizer.encode(draw(RGB, 2, 32, 16))
    flat = ids.flatten(1)
    assert torch.equal(tokenizer.decode(flat.view(2, 4, 2)), tokenizer.decode(ids))


def test_positions_are_kept_at_their_own_size_and_interpolated_at_others() -> None:
    table = torch.randn(1, 4, 6, 6)
    assert resize_positions(table, (6, 6)) is table
    resized = resize_positions(table, (3, 9))
    assert resized.shape == (1, 4, 3, 9)
    torch.testing.assert_close(
        resized, functional.interpolate(table, (3, 9), mode="bicubic", align_corners=False)
    )
    assert resize_positions(table.bfloat16(), (3, 3)).dtype == torch.bfloat16


# --- the networks


def attention(block: nn.Module, x: Tensor, heads: int) -> Tensor:
    q, k, v = block.get_submodule("attn.qkv")(x).chunk(3, dim=-1)
    outputs = []
    for part in torch.arange(x.shape[-1]).chunk(heads):
        scores = q[..., part] @ k[..., part].mT / len(part) ** 0.5
        outputs.append(scores.softmax(-1) @ v[..., part])
    return block.get_submodule("attn.proj")(torch.cat(outputs, dim=-1))


@torch.no_grad()
def test_encoder_is_the_transformer_of_the_paper() -> None:
    torch.manual_seed(0)
    encoder = VitEncoder(3, VitSize(16, 2, 2), grid=4, patch=8, post_mlp=True)
    pixels = torch.randn(2, 32, 32, 3)
    x = encoder.proj(pixels.permute(0, 3, 1, 2)) + encoder.pos_emb
    x = x.flatten(2).transpose(1, 2)

    def norm(module: nn.Module, y: Tensor) -> Tensor:
        return functional.layer_norm(y, (16,), module.weight, module.bias, 1e-6)  # type: ignore[arg-type]

    for block in encoder.blocks:
        x = x + attention(block, norm(block.norm1, x), 2)
        x = x + block.mlp.fc2(functional.gelu(block.mlp.fc1(norm(block.norm2, x))))
    assert encoder.post_mlp is not None
    assert encoder.norm_mlp is not None
    x = x + encoder.post_mlp.fc2(torch.tanh(encoder.post_mlp.fc1(norm(encoder.norm_mlp, x))))
    torch.testing.assert_close(encoder(pixels), x.view(2, 4, 4, 16))


@torch.no_grad()
def test_decoder_lays_patches_out_channel_by_channel() -> None:
    decoder = VitDecoder(3, VitSize(16, 1, 2), grid=2, patch=4, post_mlp=False, out_conv=False)
    decoder.out_proj.weight.zero_()
    decoder.out_proj.bias.copy_(torch.arange(3 * 4 * 4))
    image = decoder(torch.randn(1, 2, 2, 16))
    assert image.shape == (1, 8, 8, 3)
    for row in (0, 4):
        for column in (0, 4):
            patch = image[0, row : row + 4, column : column + 4].permute(2, 0, 1)
            assert torch.equal(patch.flatten(), torch.arange(48.0))


@torch.no_grad()
def test_output_convolutions_start_as_nothing_and_mix_patches() -> None:
    torch.manual_seed(0)
    decoder = VitDecoder(2, VitSize(16, 1, 2), grid=2, patch=4, post_mlp=False, out_conv=True)
    x = torch.randn(1, 2, 2, 16)
    assert decoder.out_conv is not None
    for block in decoder.out_conv:
        block.gamma.zero_()  # type: ignore[operator]
    plain = decoder(x)
    for block in decoder.out_conv:
        block.gamma.fill_(1.0)  # type: ignore[operator]
    assert (decoder(x) - plain).abs().max() > 1e-2
    decoder.out_conv = None
    torch.testing.assert_close(decoder(x), plain)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_s_enc", VitSize(512, 8, 8)),
        ("vit_b_enc", VitSize(768, 12, 12)),
        ("vit_l_enc", VitSize(1024, 24, 16)),
        ("vit_d48l1h2_enc", VitSize(48, 1, 2)),
    ],
)
def test_sizes_are_read_from_names(name: str, size: VitSize) -> None:
    assert VitSize.parse(name, "enc") == size
    assert VitSize.parse(name.replace("enc", "dec"), "dec") == size


@pytest.mark.parametrize(
    "name", ["vit_x_enc", "vit_b_dec", "vit_b", "vit_d0l1h1_enc", "vit_d48l1h5_enc", "vit_d99999l1h1_enc"]
)
def test_unknown_sizes_are_refused_by_name(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        VitSize.parse(name, "enc")
    assert repr(name) in str(caught.value)


# --- the codebook


@pytest.mark.parametrize("cosine", [True, False])
def test_id_is_that_of_the_nearest_code_and_the_stored_code_is_returned(cosine: bool) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(40, 5, cosine=cosine).eval()
    (codes,) = quantizer.codebook()
    codes.mul_(torch.rand(40, 1) + 0.5)  # moving averages are not of unit length
    latent = 3 * torch.randn(2, 7, 3, 5)
    found = quantizer(latent)
    for index in range(latent[..., 0].numel()):
        row, best = latent.view(-1, 5)[index], found.ids.flatten()[index]
        if cosine:
            scores = torch.stack([functional.cosine_similarity(row, code, dim=0) for code in codes])
        else:
            scores = torch.stack([-(row - code).norm() for code in codes])
        assert best == scores.argmax()
    assert torch.equal(found.codes, codes[found.ids])


def test_length_of_a_latent_matters_to_distances_only() -> None:
    torch.manual_seed(0)
    latent = torch.randn(200, 5)
    by_angle, by_distance = (VectorQuantizer(40, 5, cosine=cosine) for cosine in (True, False))
    assert torch.equal(by_angle.encode(latent), by_angle.encode(9 * latent))
    by_distance.codebook().mul_(torch.rand(40, 1) * 5)
    assert not torch.equal(by_distance.encode(latent), by_distance.encode(9 * latent))


def test_gradient_goes_through_the_codebook_straight_in_training() -> None:
    tokenizer = VQVAE(RGB).train()
    found = tokenizer(draw(RGB, 2, 32, 32))
    torch.testing.assert_close(found.values, tokenizer.decode(found.ids))
    found.values.square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for name, parameter in tokenizer.named_parameters()
        if not name.endswith("pos_emb")
    )


# --- what goes in


def test_standardised_values_are_brought_back() -> None:
    plain, standardised = build(RGB), build(replace(RGB, undo_std=True))
    standardised.load_state_dict(plain.state_dict())
    values = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(
        standardised.features((values - mean) / std), plain.features(2 * values - 1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (RGB, (1, 4, 32, 32), "Expected values (B, 3, ...), got shape (1, 4, 32, 32)"),
        (RGB, (1, 3, 32, 33), "sides are multiples of 8, got shape (1, 3, 32, 33)"),
        (RGB, (1, 3, 0, 32), "sides are multiples of 8"),
        (RGB, (1, 3), "sides are multiples of 8"),
        (RGB, (3,), "Expected values (B, 3, ...)"),
        (SEMSEG, (1, 11, 32, 32), "Expected labels (B, H, W)"),
        (SEMSEG, (1, 32, 30), "sides are multiples of 8"),
    ],
)
def test_values_of_another_shape_are_refused(
    config: TokenizerConfig, shape: tuple[int, ...], message: str
) -> None:
    values = torch.zeros(shape, dtype=torch.int64 if config.n_labels else torch.float32)
    with pytest.raises(InputError) as caught:
        build(config).encode(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.full((1, 4, 4), 50), "ids in 0..49, got 50 to 50"),
        (torch.full((1, 4, 4), -1), "ids in 0..49, got -1 to -1"),
        (torch.zeros(1, 16, dtype=torch.int64), "Expected ids (B, rows, columns), got shape (1, 16)"),
        (torch.zeros(1, 4, 4), "ids as integers, got torch.float32"),
    ],
)
def test_ids_that_no_code_has_are_refused(ids: Tensor, message: str) -> None:
    with pytest.raises(InputError) as caught:
        build(RGB).decode(ids)
    assert message in str(caught.value)


def test_labels_that_no_class_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"labels in 0\.\.10, got 0 to 11"):
        build(SEMSEG).encode(torch.arange(64 * 3).view(3, 8, 8) % 12)
    with pytest.raises(InputError, match="labels as integers"):
        build(SEMSEG).encode(torch.zeros(1, 8, 8))
    labels = draw(SEMSEG, 2, 16, 16)
    ids = build(SEMSEG).encode(labels)
    assert torch.equal(build(SEMSEG).encode(labels.to(torch.uint8)), ids)


# --- types


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_of_weights_work_and_decode_to_float32(
    config: TokenizerConfig, dtype: torch.dtype
) -> None:
    tokenizer, values = build(config), draw(config, 2, 32, 32)
    ids = tokenizer.encode(values)
    exact = tokenizer.decode(ids)
    tokenizer.to(dtype)
    other = tokenizer.encode(values)
    assert (other == ids).float().mean() > 0.6
    decoded = tokenizer.decode(ids)
    assert decoded.dtype == torch.float32
    assert functional.cosine_similarity(decoded.flatten(), exact.flatten(), dim=0) > 0.99


def test_last_mlp_runs_in_float32() -> None:
    values = draw(RGB, 1, 32, 32)
    assert build(RGB).bfloat16().features(values).dtype == torch.float32
    assert build(EUCLIDEAN).bfloat16().features(values).dtype == torch.bfloat16


# --- files


def test_halves_load_apart_and_read_nothing_of_each_other(config: TokenizerConfig, tmp_path: Path) -> None:
    path = tmp_path / "tok.safetensors"
    whole = build(config)
    save_checkpoint(whole, path)
    state = whole.state_dict()
    sides = {"encoder": ("encoder.", "quant_proj.", "cls_emb."), "decoder": ("decoder.", "post_quant_proj.")}
    values = draw(config, 2, 32, 32)
    ids = whole.encode(values)
    for side, names in sides.items():
        other = sides["decoder" if side == "encoder" else "encoder"]
        checkpoint = open_checkpoint(path)
        half = load_tokenizer(checkpoint, encoder=side == "encoder", decoder=side == "decoder")
        assert not any(name.startswith(other) for name in half.state_dict())
        assert any(name.startswith(names) for name in half.state_dict())
        skipped = sum(tensor.nbytes for name, tensor in state.items() if name.startswith(other))
        assert checkpoint.bytes_read == path.stat().st_size - skipped
        if side == "encoder":
            assert torch.equal(half.encode(values), ids)
        else:
            assert torch.equal(half.decode(ids), whole.decode(ids))


def test_fixed_positions_stay_without_gradient_after_loading(tmp_path: Path) -> None:
    save_checkpoint(build(RGB), tmp_path / "tok.safetensors")
    loaded = load_tokenizer(tmp_path / "tok.safetensors")
    frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder.pos_emb", "decoder.pos_emb"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_type": "fsq"}, "Unknown quant_type 'fsq'. Known: lucid, memcodes"),
        ({"num_codebooks": 2}, "lucid quantizer has one codebook"),
        ({"undo_std": True, "n_channels": 5}, "undo_std is for RGB"),
        ({"patch_size": 0}, "patch_size must lie in"),
        ({"image_size": 10**6}, "image_size must lie in"),
        ({"n_labels": 0}, "n_labels must lie in"),
    ],
)
def test_configurations_without_meaning_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_tokenizer_config({**RGB.values(), **change}, where="here.json")
    assert "here.json" in str(caught.value)
    assert message in str(caught.value)


def test_patches_that_do_not_fill_the_image_are_refused() -> None:
    with pytest.raises(ModelError, match="Patches of 8 do not fill a side of 36"):
        VQVAE(replace(RGB, image_size=36))


def test_keys_that_steer_training_only_are_read_over() -> None:
    assert parse_tokenizer_config({**RGB.values(), "ema_decay": 0.99, "freeze_enc": True}) == RGB


# --- values of modalities


def test_decoded_values_have_the_range_of_their_modality() -> None:
    decoded = 3 * torch.randn(2, 3, 8, 8)
    for raw in ("rgb", "normal", "canny_edge", "sam_edge"):
        found = decoded_values(raw, decoded)
        assert (found.min(), found.max()) == (0, 1)
        inner = decoded.abs() < 1
        torch.testing.assert_close(found[inner], decoded[inner] / 2 + 0.5)
    for raw in ("depth", "clip", "dinov2", "imagebind", "dinov2_global", "imagebind_global", "human_poses"):
        assert torch.equal(decoded_values(raw, decoded), decoded)
    labels = decoded_values("semseg", decoded)
    assert (labels.shape, labels.dtype) == ((2, 8, 8), torch.int64)
    assert torch.equal(decoded.gather(1, labels[:, None])[:, 0], decoded.max(1).values)
    probability = decoded_values("sam_instance", decoded[:, :1])
    assert probability.shape == (2, 8, 8)
    torch.testing.assert_close(probability, decoded[:, 0].sigmoid())


def test_modality_without_decoded_values_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'caption' has no decoded values. Known: rgb"):
        decoded_values("caption", torch.zeros(1, 3, 8, 8))
