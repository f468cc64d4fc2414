"""What predicting attributes adds to indexing.

    python bench/attributes.py                     # 4M-21 B shapes, random weights: minutes on one core
    python bench/attributes.py --size tiny         # to see that it runs

Indexes pictures into a new library, once as it is and once for each kind of attribute, and prints items per
second of processor time. A random model rarely ends a text, so every text is as long as it may be
(caption 256 tokens, metadata 40, palette 23): trained models write shorter captions, and these are the most
that it can cost.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from anyseek.indexer import FolderSource, Indexer
from anyseek.model import Model, load_model
from anyseek.model.checkpoint import save_checkpoint
from anyseek.model.fourm import FourM
from anyseek.model.presets import PRESETS, FourMConfig
from anyseek.model.sources import MODELS
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.storage import Store
from PIL import Image

TEXTS = ("caption", "color_palette", "metadata")
SPACES = {"dinov2_global": 768, "imagebind_global": 1280}
WISHES = ((), ("metadata",), ("color_palette",), ("metadata", "color_palette"), TEXTS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=PRESETS, default="base", help="shapes of the model (default base)")
    parser.add_argument("--items", type=int, default=16, help="pictures (default 16)")
    parser.add_argument(
        "--batch", type=int, default=16, help="items that the model sees at once (default 16)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        model = load_model(write_model(Path(home) / "model", args.size), device="cpu", dtype="float32")
        pictures = write_pictures(Path(home) / "pictures", args.items)
        measure(model, pictures, WISHES[-1], args.batch)  # reads weights, grows buffers
        print(
            f"4M-21 {args.size} shapes, float32, one thread, {args.items} pictures in batches of {args.batch}"
        )
        print(f"{'predict':32}{'items/s':>9}{'s/item':>9}")
        for wish in WISHES:
            seconds = measure(model, pictures, wish, args.batch) / args.items
            print(f"{','.join(wish) or 'nothing':32}{1 / seconds:9.2f}{seconds:9.2f}", flush=True)


def measure(model: Model, pictures: Path, wish: Sequence[str], batch_size: int) -> float:
    """Processor seconds of reading, embedding, predicting and committing."""
    library = pictures.with_name("library")
    with Store.open(library, create=True) as store:
        indexer = Indexer(store, model, batch_size=batch_size)
        began = time.process_time()
        report = indexer.index("pictures", FolderSource(pictures), publish=False, predict=wish)
        elapsed = time.process_time() - began
    shutil.rmtree(library)
    assert report.done == report.total
    return elapsed


def write_model(folder: Path, size: str) -> Path:
    """A model with random weights that reads pictures and texts, and predicts texts and vectors."""
    folder.mkdir()
    torch.manual_seed(0)
    targets = (*TEXTS, *(f"tok_{space}" for space in SPACES))
    config = FourMConfig(("rgb@224", *targets), targets, **PRESETS[size], share_modality_embeddings=False)
    save_checkpoint(FourM(config), folder / "fourm.safetensors", dtype=torch.float16)
    mlp = "BottleneckMLP/B_6-Wi_1024"
    for space, dim in SPACES.items():
        shape = TokenizerConfig(
            n_channels=dim, enc_type=mlp, dec_type=mlp, codebook_size=8192, num_codebooks=16, latent_dim=1024
        )
        save_checkpoint(VQVAE(shape), folder / f"{space}.safetensors", dtype=torch.float16)
    shutil.copy(MODELS["scenes"].text_tokenizer, folder / "text.json")
    content = {
        "name": "random",
        "license": "Apache-2.0",
        "description": "Random weights.",
        "fourm": "fourm.safetensors",
        "text_tokenizer": "text.json",
        "tokenizers": {space: f"{space}.safetensors" for space in SPACES},
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def write_pictures(folder: Path, num: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(num):
        pixels = random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.png")
    return folder


if __name__ == "__main__":
    main()
