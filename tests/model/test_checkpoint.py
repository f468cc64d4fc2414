import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from anyseek.errors import CheckpointError, ModelError
from anyseek.model.checkpoint import load_fourm, load_tokenizer, open_checkpoint, save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.presets import FourMConfig
from anyseek.model.tensor_file import TensorFile
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokens import Tokens
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG = FourMConfig(
    domains_in=("rgb@32", "caption", "tok_depth@32", "tok_dinov2_global"),
    domains_out=("caption", "t5_caption", "tok_depth@32", "tok_dinov2_global", "tok_imagebind_global"),
    encoder_depth=1,
    decoder_depth=1,
    dim=16,
    num_heads=2,
    image_size=32,
    patch_size=8,
    vocab_overrides={
        "caption": 900,
        "tok_depth@32": 800,
        "tok_dinov2_global": 60,
        "tok_imagebind_global": 50,
    },
)
TOKENIZER = TokenizerConfig(
    n_channels=12,
    enc_type="BottleneckMLP/B_1-Wi_8",
    dec_type="BottleneckMLP/B_1-Wi_8",
    codebook_size=7,
    num_codebooks=4,
    latent_dim=8,
)
SHARED = "embeddings.tok_dinov2_global.mod_emb"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_checkpoint(FourM(CONFIG), path)
    return path


@pytest.fixture
def saved_tokenizer(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tok.safetensors"
    save_checkpoint(VQVAE(TOKENIZER), path)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> None:
    """Change tensors and metadata of a file in place."""
    tensors, metadata = load_file(path), dict(TensorFile(path).metadata)
    change(tensors, metadata)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)


def logits(model: FourM) -> Tensor:
    pixels = torch.linspace(-2, 2, 3 * 32 * 32).view(1, 3, 32, 32)
    batch = {"rgb@32": Tokens(pixels, torch.zeros(1, 16, dtype=torch.bool))}
    with torch.no_grad():
        return model.decode(model.encode(batch), ["tok_dinov2_global"])["tok_dinov2_global"]


# --- whole and part


def test_saved_model_loads_again_exactly(saved: Path) -> None:
    torch.manual_seed(0)
    original, loaded = FourM(CONFIG), load_fourm(saved)
    assert loaded.config == CONFIG
    assert not loaded.training
    state = loaded.state_dict()
    assert list(state) == list(original.state_dict())
    assert all(torch.equal(tensor, state[name]) for name, tensor in original.state_dict().items())
    kinds = {name: parameter.requires_grad for name, parameter in original.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in loaded.named_parameters()} == kinds


def test_saved_files_are_as_open_to_others_as_any_new_file(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert saved.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_metadata_are_python_literals_per_key(saved: Path) -> None:
    metadata = TensorFile(saved).metadata
    assert metadata["domains_in"] == "['rgb@32', 'caption', 'tok_depth@32', 'tok_dinov2_global']"
    assert (metadata["gated_mlp"], metadata["dim"], metadata["act_layer"]) == ("True", "16", "SiLU")
    assert json.loads(metadata["vocab_overrides"]) == CONFIG.vocab_overrides


def test_part_reads_only_what_it_needs_and_computes_the_same(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    header = checkpoint.bytes_read
    part = load_fourm(checkpoint, inputs=["rgb@32"], targets=["tok_dinov2_global"])
    needed = sum(t.numel() * t.itemsize for t in part.state_dict().values())
    assert checkpoint.bytes_read == header + needed
    assert checkpoint.bytes_read < saved.stat().st_size / 3
    assert torch.equal(logits(part), logits(load_fourm(saved)))


def test_whole_model_reads_every_byte_once(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    load_fourm(checkpoint)
    assert checkpoint.bytes_read == saved.stat().st_size


def test_decoder_of_a_tokenizer_reads_nothing_of_its_encoder(saved_tokenizer: Path) -> None:
    checkpoint = open_checkpoint(saved_tokenizer)
    decoder = load_tokenizer(checkpoint, encoder=False)
    ids = torch.arange(8).view(2, 4) % 7
    whole = load_tokenizer(saved_tokenizer)
    skipped = sum(
        t.numel() * t.itemsize
        for name, t in whole.state_dict().items()
        if name.startswith(("encoder.", "quant_proj."))
    )
    assert checkpoint.bytes_read == saved_tokenizer.stat().st_size - skipped
    with torch.no_grad():
        assert torch.equal(decoder.decode(ids), whole.decode(ids))
        values = torch.randn(3, 12)
        assert torch.equal(
            load_tokenizer(saved_tokenizer, decoder=False).encode(values), whole.encode(values)
        )


def test_part_that_the_model_lacks_lists_what_it_has(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"no input 'depth'\. Known: rgb@32, caption"):
        load_fourm(saved, inputs=["depth"])


def test_half_precision_files_are_cast_on_load(tmp_path: Path) -> None:
    model = FourM(CONFIG).eval()
    path = tmp_path / "half.safetensors"
    save_checkpoint(model, path, dtype=torch.float16)
    assert {info.dtype for info in TensorFile(path).tensors.values()} == {torch.float16}
    loaded = load_fourm(path)
    assert {p.dtype for p in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-2, atol=1e-2)
    assert {p.dtype for p in load_fourm(path, dtype=torch.bfloat16).state_dict().values()} == {torch.bfloat16}


def test_files_in_8_bits_are_a_quarter_and_near_the_model(tmp_path: Path) -> None:
    model = FourM(CONFIG).eval()
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    save_checkpoint(model, whole)
    save_checkpoint(model, small, dtype=torch.int8)
    assert small.stat().st_size < 0.35 * whole.stat().st_size
    opened, loaded = open_checkpoint(small), load_fourm(small)
    assert opened.file.tensors.keys() == TensorFile(whole).tensors.keys()
    for name, tensor in model.state_dict().items():
        if tensor.ndim >= 2:
            step = tensor.abs().amax(-1, keepdim=True) / 127
            assert bool(((loaded.state_dict()[name] - tensor).abs() <= 0.501 * step + 1e-12).all()), name
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0.1, atol=0.1)
    load_fourm(opened)
    assert opened.bytes_read == small.stat().st_size
    tokenizer = VQVAE(TOKENIZER).eval()
    save_checkpoint(tokenizer, small, dtype=torch.int8)
    codes = torch.randint(TOKENIZER.codebook_size, (4, TOKENIZER.num_codebooks))
    torch.testing.assert_close(
        load_tokenizer(small).decode(codes), tokenizer.decode(codes), rtol=0.1, atol=0.1
    )


def test_scales_that_fit_no_tensor_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    name = "decoder_proj_context.weight"
    for spoil in (
        lambda tensors: tensors.pop(name),
        lambda tensors: tensors.update({name: tensors[name].float()}),
        lambda tensors: tensors.update({name + ".int8_scale": torch.ones(3)}),
        lambda tensors: tensors.update({name + ".int8_scale": tensors[name + ".int8_scale"].half()}),
    ):
        save_checkpoint(FourM(CONFIG), path, dtype=torch.int8)
        rewrite(path, lambda tensors, _, spoil=spoil: spoil(tensors))
        with pytest.raises(CheckpointError, match=r"decoder_proj_context\.weight.int8_scale"):
            load_fourm(path)


@pytest.mark.parametrize("dropped", ["encoder_", "decoder_", None])
def test_tied_tensors_are_accepted_under_either_or_both_names(saved: Path, dropped: str | None) -> None:
    expected = logits(load_fourm(saved))
    if dropped:
        rewrite(saved, lambda tensors, _: tensors.pop(dropped + SHARED))
    model = load_fourm(saved)
    assert model.get_parameter("encoder_" + SHARED) is model.get_parameter("decoder_" + SHARED)
    assert torch.equal(logits(model), expected)
    # Also where only one of the two layers is built, and the file has the other's name.
    assert torch.equal(logits(load_fourm(saved, inputs=["rgb@32"], targets=["tok_dinov2_global"])), expected)


def test_tied_tensors_that_differ_are_an_error(saved: Path) -> None:
    rewrite(saved, lambda tensors, _: tensors["decoder_" + SHARED].add_(1))
    with pytest.raises(CheckpointError, match="share_modality_embeddings should be false"):
        load_fourm(saved)


def test_unshared_embeddings_need_both_names(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(FourM(replace(CONFIG, share_modality_embeddings=False)), path)
    rewrite(path, lambda tensors, _: tensors.pop("decoder_" + SHARED))
    with pytest.raises(CheckpointError, match=r"tok_dinov2_global\.mod_emb' is missing"):
        load_fourm(path)


def test_partial_model_cannot_be_saved(saved: Path, tmp_path: Path) -> None:
    part = load_fourm(saved, inputs=["rgb@32"])
    with pytest.raises(ModelError, match="Only a whole model can be saved"):
        save_checkpoint(part, tmp_path / "part.safetensors")
    assert not (tmp_path / "part.safetensors").exists()


def test_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(_tensors: object, path: Path, _metadata: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr("anyseek.model.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(FourM(CONFIG), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_loading_imports_no_compiler(saved: Path) -> None:
    code = (
        "import sys; from anyseek.model.checkpoint import load_fourm; "
        f"load_fourm({str(saved)!r}); "
        "sys.exit('sympy' in sys.modules or 'torch._inductor' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- where it lies


def test_folder_and_file_and_config_beside_are_found(saved: Path, tmp_path: Path) -> None:
    assert open_checkpoint(saved.parent).path == saved
    other = tmp_path / "other"
    other.mkdir()
    save_file(load_file(saved), other / "weights.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"No configuration: .*config\.json does not exist"):
        load_fourm(other)
    (other / "config.json").write_text(json.dumps(CONFIG.values()))
    assert load_fourm(str(other)).config == CONFIG
    shutil.copy(saved, other / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"holds several checkpoints .*second.*weights.*: name one"):
        open_checkpoint(other)


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[" * 100_000, '"text"', "\ud800"])
def test_config_that_is_no_object_is_refused(saved: Path, text: str) -> None:
    save_file(load_file(saved), saved)
    (saved.parent / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_fourm(saved)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_are_never_opened(tmp_path: Path, name: str) -> None:
    # Unpickling this file would create the mark.
    mark = tmp_path / "mark"
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(CheckpointError, match=r"pickle.*\.safetensors"):
            load_fourm(source)
    assert not mark.exists()


@pytest.mark.parametrize("source", ["no-such-thing", "/no/such/model.safetensors", "a/b/c", "../x", ""])
def test_what_is_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        load_fourm(source)


def test_hub_id_is_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_fourm("EPFL-VILAB/4M-21_B").config == CONFIG
    assert asked == [("EPFL-VILAB/4M-21_B", "model.safetensors")]


def test_hub_without_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(CheckpointError, match=r"EPFL-VILAB/4M-21_B is not on this machine.*no route to host"):
        load_fourm("EPFL-VILAB/4M-21_B")


# --- files that do not fit


def test_shape_that_differs_names_tensor_and_both_shapes(saved: Path) -> None:
    name = "decoder.0.cross_attn.kv.weight"
    rewrite(saved, lambda tensors, _: tensors.update({name: torch.zeros(31, 16)}))
    with pytest.raises(CheckpointError) as caught:
        load_fourm(saved)
    assert all(part in str(caught.value) for part in (str(saved), name, "(32, 16)", "(31, 16)"))


@pytest.mark.parametrize("part", [{}, {"inputs": ["rgb@32"], "targets": ["tok_dinov2_global"]}])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, _: t.pop("encoder_norm.weight"), "'encoder_norm.weight' is missing"),
        (lambda t, _: t.update(extra=torch.zeros(1)), "'extra' is in the file but not in the model"),
        # Strict also where only a part is read: this table is not part of it.
        (
            lambda t, _: t.update({"encoder_embeddings.caption.token_emb.weight": torch.zeros(899, 16)}),
            r"'encoder_embeddings\.caption\.token_emb\.weight' should have shape \(900, 16\)",
        ),
        (
            lambda t, _: t.update(mask_token=torch.zeros(1, 1, 16, dtype=torch.int64)),
            r"'mask_token' should be torch\.float32, the file has torch\.int64",
        ),
        (lambda _, m: m.update(dim="32"), "should have shape"),
        (lambda _, m: m.update(gated_mlp="False"), "in the file but not in the model|should have shape"),
        (
            lambda _, m: m.update(share_modality_embeddings="'yes'"),
            "'share_modality_embeddings' must be bool",
        ),
        (lambda _, m: m.update(vocab_overrides="{"), "'vocab_overrides' is not JSON"),
        (lambda _, m: m.update(domains_in="[" * 9000), "'domains_in' must be"),
        (lambda _, m: m.update(loss="mod"), "unknown configuration key 'loss'"),
        (lambda _, m: m.pop("dim"), "lacks dim"),
    ],
)
def test_file_must_be_what_its_configuration_says(
    saved: Path, change: Callable[..., Any], message: str, part: dict[str, Any]
) -> None:
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_fourm(saved, **part)


def test_model_and_tokenizer_are_not_confused(saved: Path, saved_tokenizer: Path) -> None:
    with pytest.raises(CheckpointError, match="unknown configuration key"):
        load_tokenizer(saved)
    with pytest.raises(CheckpointError, match="unknown configuration key"):
        load_fourm(saved_tokenizer)


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "no readable header"),
        (b"not json", "header is not JSON"),
        (b"\xff\xfe{}", "header is not JSON"),
        (b"[" * 50_000, "header is not JSON"),
        ([], "header is not an object"),
        ({"__metadata__": [1]}, "metadata are not strings"),
        ({"__metadata__": {"dim": 3}}, "metadata are not strings"),
        ({"a": 3}, "'a' lacks type"),
        ({"a": {"dtype": "F32"}}, "'a' lacks type"),
        ({"a": entry(dtype="F8_E5M2")}, "type F8_E5M2. Known: F64"),
        ({"a": entry(dtype=["F32"])}, "lacks type"),
        ({"a": entry(shape=[-2])}, "shape of 'a'"),
        ({"a": entry(shape=[2.0])}, "shape of 'a'"),
        ({"a": entry(shape=[True, 2])}, "shape of 'a'"),
        ({"a": entry(shape=[10**30])}, "shape of 'a'"),
        ({"a": entry(shape=[2**39] * 9)}, "do not fit its shape"),
        ({"a": entry(offsets=[0, 4])}, "do not fit its shape"),
        ({"a": entry(offsets=[-8, 0])}, "do not fit its shape"),
        ({"a": entry(offsets=[8, 0])}, "do not fit its shape"),
        ({"a": entry(offsets=[2**70, 2**70 + 8])}, "ends at byte"),
        ({"a": entry(offsets=[8, 16])}, "leaves a gap"),
        ({"a": entry(), "b": entry()}, "overlaps another"),
        ({"a": entry()}, "end at byte"),
    ],
)
def test_damaged_header_is_named_with_what_to_do(tmp_path: Path, header: object, message: str) -> None:
    path = write_raw(tmp_path / "bad.safetensors", header, bytes(16))
    with pytest.raises(CheckpointError) as caught:
        load_fourm(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\x08", bytes(8), b"\xff" * 64, b"PK\x03\x04" * 10, b"\x80\x04" * 20]
)
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a whole safetensors file.*Download or export it again"):
        load_fourm(path)


def test_file_cut_anywhere_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in (3, 8, 100, 4000, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            load_fourm(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_fourm(saved)


def test_file_that_shrinks_while_it_is_read_is_an_error(saved: Path) -> None:
    checkpoint = open_checkpoint(saved)
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="ended while"):
        load_fourm(checkpoint)
    saved.unlink()
    with pytest.raises(CheckpointError, match="Cannot read"):
        load_fourm(checkpoint)


def test_every_stored_type_and_shape_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "all.safetensors"
    tensors = {
        str(dtype): torch.tensor([[0, 1], [1, 0]]).to(dtype)
        for dtype in (
            *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
            *(torch.int16, torch.int8, torch.uint8, torch.bool),
        )
    }
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4)}
    save_file(tensors, path)
    file = TensorFile(path)
    for name, tensor in tensors.items():
        found = file.read(name)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found, tensor)
    assert file.bytes_read == path.stat().st_size
