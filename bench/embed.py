"""Time and bytes of embedding images with the shapes of 4M-21, weights being random.

    python bench/embed.py                # this machine's processor: anyseek against a naive path
    python bench/embed.py --device cuda  # images per second for B, L and XL and the share of the matrix rate

The naive path, written out below, is what one gets by following the paper's recipe with plain PyTorch: the
whole checkpoint in float32, explicit softmax(Q K^T), and one generation step per embedding, each with an
encoder pass of its own (the authors' sampler predicts one modality at a time). It is also timed with one
shared pass, to tell apart what is gained by faster arithmetic and what by doing less of it. Both sides are
timed in turns, and ratios are medians over pairs, so that other work on the machine hits them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anyseek.model import load_model
from anyseek.model.checkpoint import save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.prediction import PaddedPredictor
from anyseek.model.presets import PUBLISHED
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.training.vocabulary import build_vocabulary
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

SPACES = {"dinov2_global": 768, "imagebind_global": 1280}
NUM_TOKENS = 16
AUTHORS_S = {"float32": 0.25, "bfloat16 autocast": 0.085, "plain bfloat16 and fused attention": 0.064}
GPU_BATCHES = {"B": 512, "L": 256, "XL": 128}


@dataclass
class Row:
    """One line of the table."""

    path: str
    batch: int
    s_per_image: float
    times_faster: float
    bytes_read: int | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--weights", type=Path, help="folder to keep the random weights in (4.3 GB)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        report = gpu_report(options.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = cpu_report(options.weights or Path(folder), options.repeats)
    text = json.dumps(report, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def cpu_report(folder: Path, repeats: int) -> dict[str, Any]:
    write_weights(folder)
    naive = Naive(folder)
    models = {
        "both": load_model(folder, inputs=["rgb"], device="cpu", dtype="bfloat16"),
        "one": load_model(folder, inputs=["rgb"], spaces=["dinov2_global"], device="cpu", dtype="bfloat16"),
    }
    exact = load_model(folder, inputs=["rgb"], device="cpu", dtype="float32")
    eight = [{"rgb": picture(seed)} for seed in range(8)]
    pixels = np.stack([item["rgb"] for item in eight])
    spaces, one = list(SPACES), list(SPACES)[:1]
    ours, single = models["both"].embedder, models["one"].embedder

    expected = naive.embed(pixels, spaces, shared=False)
    found, same = ours.embed(eight), exact.embedder.embed(eight)
    cosines = {space: float((found[space].vectors * expected[space]).sum(1).min()) for space in spaces}
    check = min(float((same[space].vectors * expected[space]).sum(1).min()) for space in spaces)

    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "naive float32, one item at a time": (1, lambda: naive.embed(pixels[:1], spaces, shared=False)),
        "naive float32": (8, lambda: naive.embed(pixels, spaces, shared=False)),
        "naive float32, passes shared": (8, lambda: naive.embed(pixels, spaces, shared=True)),
        "naive float32, one space": (8, lambda: naive.embed(pixels, one, shared=False)),
        "anyseek bfloat16, one item at a time": (1, lambda: ours.embed(eight[:1])),
        "anyseek bfloat16": (8, lambda: ours.embed(eight)),
        "anyseek bfloat16, one space": (8, lambda: single.embed(eight)),
        "anyseek float32": (8, lambda: exact.embedder.embed(eight)),
    }
    seconds = time_in_turns({name: run for name, (_, run) in runs.items()}, repeats)
    against = {
        "anyseek bfloat16, one item at a time": "naive float32, one item at a time",
        "anyseek bfloat16, one space": "naive float32, one space",
    }
    rows = [
        Row(
            name,
            batch,
            statistics.median(seconds[name]) / batch,
            paired_ratio(seconds[against.get(name, "naive float32")], seconds[name]),
        )
        for name, (batch, _) in runs.items()
    ]
    shared = paired_ratio(seconds["naive float32, passes shared"], seconds["anyseek bfloat16"])
    print_table(rows)
    print(f"bytes read: naive {naive.bytes_read:,}, anyseek {models['both'].bytes_read:,}")
    print(f"against shared passes: {shared:.2f}; cosine to float32: {cosines}", flush=True)
    return {
        "threads": torch.get_num_threads(),
        "rows": [asdict(row) for row in rows],
        "times_faster": rows[5].times_faster,
        "times_faster_one_item": rows[4].times_faster,
        "times_faster_one_space": rows[6].times_faster,
        "times_faster_than_shared_passes": shared,
        "cosine_to_float32": cosines,
        "cosine_float32_to_naive": check,
        "bytes_naive": naive.bytes_read,
        "bytes_anyseek": models["both"].bytes_read,
        "bytes_fraction": models["both"].bytes_read / naive.bytes_read,
        "authors_s_per_image": AUTHORS_S,
        "seconds": seconds,
    }


def gpu_report(repeats: int) -> dict[str, Any]:
    """Images per second of the forward pass, and its share of what the card can multiply."""
    rate = matrix_rate()
    print(f"bfloat16 matrix rate: {rate / 1e12:.0f} TFLOP/s")
    sizes: dict[str, Any] = {}
    for letter, batch in GPU_BATCHES.items():
        sizes[letter] = gpu_size(letter, batch, rate, repeats)
        torch.cuda.empty_cache()
    return {"device": torch.cuda.get_device_name(), "matrix_flops_per_s": rate, "sizes": sizes}


def gpu_size(letter: str, batch: int, rate: float, repeats: int) -> dict[str, float]:
    config = PUBLISHED[f"4M-21_{letter}"]
    targets = [f"tok_{space}" for space in SPACES]
    with torch.device("cuda"):
        model = FourM(config, inputs=["rgb@224"], targets=targets).to(torch.bfloat16).eval()
    predictor = PaddedPredictor(model, targets)
    items = [{"rgb@224": picture(seed % 8)} for seed in range(batch)]
    with torch.inference_mode():
        prepared = predictor.prepare(items)
        forward = batch / min(time_on_gpu(lambda: predictor.forward(prepared)) for _ in range(repeats + 2))
        from_host = batch / min(time_on_gpu(lambda: predictor(items)) for _ in range(repeats + 2))
    share = forward * flops_per_image(config.dim, config.encoder_depth, config.decoder_depth) / rate
    print(
        f"{letter}: {forward:.0f} images/s at batch {batch}, {share:.0%} of the matrix rate; "
        f"{from_host:.0f} images/s from arrays in main memory"
    )
    return {
        "batch": batch,
        "images_per_s": forward,
        "share_of_matrix_rate": share,
        "images_per_s_from_host": from_host,
    }


def flops_per_image(dim: int, encoder_depth: int, decoder_depth: int) -> float:
    """Multiplications and additions that the mathematics asks for, 196 patches in, two spaces out."""
    tokens, queries = 196, NUM_TOKENS * len(SPACES)
    mlp = 3 * dim * (2 * 4 * dim // 3)
    encoder = tokens * (4 * dim * dim + mlp) + 2 * tokens * tokens * dim
    per_query = 6 * dim * dim + mlp + 2 * (queries + tokens) * dim
    decoder = queries * per_query + tokens * 2 * dim * dim
    rest = tokens * dim * (768 + dim) + queries * dim * 8192
    return 2.0 * (encoder_depth * encoder + decoder_depth * decoder + rest)


def matrix_rate() -> float:
    """Floating-point operations a second of a large bfloat16 product on this card."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = min(time_on_gpu(lambda: [a @ b for _ in range(20)]) for _ in range(5))
    return 20 * 2 * 8192**3 / best


def time_on_gpu(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def picture(seed: int) -> np.ndarray:
    """A smooth random picture, uint8 (224, 224, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((224, 224), Image.Resampling.BICUBIC))


def write_weights(folder: Path) -> None:
    """Save a 4M-21 B and both tokenizers, seeded and of the published sizes, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "model.json").exists():
        return
    print("writing random weights ...", file=sys.stderr)
    torch.manual_seed(0)
    save_checkpoint(FourM(PUBLISHED["4M-21_B"]), folder / "fourm.safetensors")
    mlp = "BottleneckMLP/B_6-Wi_1024"
    for space, dim in SPACES.items():
        config = TokenizerConfig(
            n_channels=dim,
            enc_type=mlp,
            dec_type=mlp,
            quant_type="memcodes",
            codebook_size=8192,
            num_codebooks=NUM_TOKENS,
            latent_dim=1024,
        )
        save_checkpoint(VQVAE(config), folder / f"{space}.safetensors")
    (folder / "text.json").write_bytes(build_vocabulary(["a photo"], ["dog"]))
    content = {
        "name": "random",
        "license": "none",
        "description": "Random weights.",
        "fourm": "fourm.safetensors",
        "text_tokenizer": "text.json",
        "tokenizers": {space: f"{space}.safetensors" for space in SPACES},
    }
    (folder / "model.json").write_text(json.dumps(content))


class Naive:
    """The model in plain PyTorch: everything loaded, float32, attention written out."""

    def __init__(self, folder: Path) -> None:
        files = [folder / "fourm.safetensors", *(folder / f"{space}.safetensors" for space in SPACES)]
        self.bytes_read = sum(file.stat().st_size for file in files)
        self.fourm, *tokenizers = (load_file(file) for file in files)
        self.tokenizers = dict(zip(SPACES, tokenizers, strict=True))
        self.depth, self.heads, self.dim = 12, 12, 768

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray, spaces: Sequence[str], *, shared: bool) -> dict[str, np.ndarray]:
        """Vectors (B, dim) by space; `shared` makes one encoder and one decoder pass do for all spaces."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = (images - mean[:, None, None]) / std[:, None, None]
        steps = [list(spaces)] if shared else [[space] for space in spaces]
        logits: dict[str, Tensor] = {}
        for names in steps:
            logits |= self._predict(images, names)
        return {space: self._decode(space, logits[space]) for space in spaces}

    def _predict(self, images: Tensor, spaces: Sequence[str]) -> dict[str, Tensor]:
        w, batch = self.fourm, len(images)
        patches = functional.unfold(images, 16, stride=16).view(batch, 3, 256, 196)
        patches = patches.permute(0, 3, 2, 1).reshape(batch, 196, 768)
        emb = w["encoder_embeddings.rgb@224.pos_emb"] + w["encoder_embeddings.rgb@224.mod_emb"]
        x = patches @ w["encoder_embeddings.rgb@224.proj.weight"].T + emb
        for i in range(self.depth):
            p = f"encoder.{i}"
            x = x + self._self_attention(f"{p}.attn", self._norm(f"{p}.norm1", x), None)
            x = x + self._mlp(f"{p}.mlp", self._norm(f"{p}.norm2", x))
        context = self._norm("encoder_norm", x) @ w["decoder_proj_context.weight"].T
        context = context + w["decoder_proj_context.bias"] + emb
        names = [f"decoder_embeddings.tok_{space}" for space in spaces]
        y = torch.cat(
            [w[f"{name}.pos_emb"] + w[f"{name}.mod_emb"] + w["mask_token"] for name in names], dim=1
        )
        y = y.expand(batch, -1, -1)
        owner = torch.arange(len(spaces)).repeat_interleave(NUM_TOKENS)
        mask = torch.zeros(len(owner), len(owner)).masked_fill(owner[:, None] != owner, -1e30)
        for i in range(self.depth):
            p = f"decoder.{i}"
            y = y + self._self_attention(f"{p}.self_attn", self._norm(f"{p}.norm1", y), mask)
            normed = self._norm(f"{p}.context_norm", context)
            y = y + self._cross_attention(f"{p}.cross_attn", self._norm(f"{p}.query_norm", y), normed)
            y = y + self._mlp(f"{p}.mlp", self._norm(f"{p}.norm2", y))
        parts = self._norm("decoder_norm", y).split(NUM_TOKENS, dim=1)
        return {
            space: part @ w[f"{name}.to_logits.weight"].T
            for space, name, part in zip(spaces, names, parts, strict=True)
        }

    def _decode(self, space: str, logits: Tensor) -> np.ndarray:
        w = self.tokenizers[space]
        codebook = w["quantize.codes"] @ w["quantize.to_v.weight"]
        codes = torch.einsum("nhk,hkc->nhc", logits.softmax(-1), codebook).flatten(1)
        x = codes @ w["post_quant_proj.weight"][:, :, 0, 0].T + w["post_quant_proj.bias"]
        x = self._linear(w, "decoder.linear_in", x)
        for i in range(6):
            scale, shift = w[f"decoder.layernorms.{i}.weight"], w[f"decoder.layernorms.{i}.bias"]
            normed = functional.layer_norm(x, (1024,), scale, shift)
            hidden = functional.gelu(self._linear(w, f"decoder.blocks.{i}.block.0", normed))
            x = x + self._linear(w, f"decoder.blocks.{i}.block.2", hidden)
        return functional.normalize(self._linear(w, "decoder.linear_out", x), dim=-1).numpy()

    def _norm(self, name: str, x: Tensor) -> Tensor:
        w = self.fourm
        return functional.layer_norm(x, (self.dim,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def _self_attention(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self._split(x @ self.fourm[f"{name}.qkv.weight"].T, 3)
        return self._merge(q, k, v, mask) @ self.fourm[f"{name}.proj.weight"].T

    def _cross_attention(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        (q,) = self._split(x @ self.fourm[f"{name}.q.weight"].T, 1)
        k, v = self._split(context @ self.fourm[f"{name}.kv.weight"].T, 2)
        return self._merge(q, k, v, None) @ self.fourm[f"{name}.proj.weight"].T

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, tokens, _ = x.shape
        return x.view(batch, tokens, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    @staticmethod
    def _merge(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        weights = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        weights = (weights if mask is None else weights + mask).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        w = self.fourm
        hidden = functional.silu(x @ w[f"{name}.fc1.weight"].T) * (x @ w[f"{name}.fc3.weight"].T)
        return hidden @ w[f"{name}.fc2.weight"].T

    @staticmethod
    def _linear(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def time_in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run in each round; a round runs all of them, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
        print(f"round {turn} of {repeats}", file=sys.stderr)
    return seconds


def paired_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def print_table(rows: Sequence[Row]) -> None:
    print(f"{'path':42}{'batch':>6}{'s/image':>10}{'images/s':>10}{'faster':>8}")
    for row in rows:
        per_s = 1 / row.s_per_image
        print(f"{row.path:42}{row.batch:6}{row.s_per_image:10.4f}{per_s:10.1f}{row.times_faster:7.2f}x")


if __name__ == "__main__":
    main()
