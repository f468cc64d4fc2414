"""Makes the packaged model `scenes` from nothing: `python -m anyseek.model.training.scenes --out DIR`.

Stages: render scenes, pack them into arrays, train two teachers, embed the scenes, train two tokenizers,
train 4M, write the bundle and its measurements. Each leaves its result in the folder and is skipped when it
is there, so an interrupted run goes on; delete a result to make it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoint import load_tokenizer, save_checkpoint
from ..fourm import FourM
from ..presets import FourMConfig
from ..scenes import SHAPES
from ..scenes.scene import Split
from ..tokenizers.image import VQVAE
from ..tokenizers.text import TextTokenizer
from .benchmark import QUERIES, benchmark
from .bundle import write_bundle, write_card
from .evaluate import Predicted, predict_all, ranks, scores
from .mixture import Component, Phase
from .scene_arrays import SceneArrays, load_text_tokenizer, pack
from .scene_batches import SceneBatches, TokenIds, query_tokens
from .scene_data import load_shards, render_shards
from .teachers import CaptionAligned, SelfSupervised
from .text_tables import start_text_tables
from .train_fourm import LOG, FourMRecipe, FourMTrainer
from .train_teachers import TeacherRecipe, embed_images, load_teacher, recall, train_teacher
from .train_tokenizer import TokenizerRecipe, judge_tokenizer, train_tokenizer
from .vocabulary import build_vocabulary, table_sizes

# Which teacher stands for which space.
TEACHERS = {"dinov2_global": "self_supervised", "imagebind_global": "caption_aligned"}
SPACES = tuple(TEACHERS)
TARGETS = tuple(f"tok_{space}" for space in SPACES)
TEXT_TOKENIZER = "text_tokenizer.json"
_NUM_EVALUATED = 1000

# Asked at every checkpoint.
_WATCHED = ("rgb", "caption", "det", "color_palette", "metadata", "caption+color_palette", "caption+metadata")

_OTHERS = {"det": 0.5, "color_palette": 0.5, "metadata": 0.5}
_ANY = Component(1.0, {"rgb": 0.7, "caption": 0.6, **_OTHERS}, num_tokens=48, alpha=0.7)
MIXTURE = (
    Phase(
        0,
        (
            Component(2.5, {"rgb": 1.0}),
            Component(3.0, {"caption": 1.0}),
            Component(1.0, {"det": 0.34, "color_palette": 0.34, "metadata": 0.34}),
            Component(2.0, {"caption": 0.75, **_OTHERS}),
            _ANY,
        ),
    ),
    # Image and caption are learnt soon; what says less needs more of the time.
    Phase(
        1600,
        (
            Component(1.5, {"rgb": 1.0}),
            Component(1.5, {"caption": 1.0}),
            Component(1.0, {"det": 1.0}),
            Component(1.0, {"color_palette": 1.0}),
            Component(1.0, {"metadata": 1.0}),
            Component(2.5, {"caption": 0.5, **_OTHERS}),
            _ANY,
        ),
    ),
)


@dataclass(frozen=True)
class ScenesRecipe:
    """Everything that decides the result; the defaults made the packaged model."""

    num_scenes: int = 17_000
    num_validation: int = 2_000
    num_benchmark: int = 1_000
    seed: int = 0
    size: int = 96
    patch_size: int = 16
    dim: int = 192
    num_heads: int = 6
    encoder_depth: int = 6
    decoder_depth: int = 3
    batch_size: int = 32
    num_tokens: int = 72
    teachers: Mapping[str, TeacherRecipe] = field(
        default_factory=lambda: {
            "self_supervised": TeacherRecipe(steps=700),
            "caption_aligned": TeacherRecipe(steps=1100),
        }
    )
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    fourm: FourMRecipe = field(default_factory=FourMRecipe)

    def model(self, tables: Mapping[str, int]) -> FourMConfig:
        """The 4M model for text tables of these sizes."""
        return FourMConfig(
            domains_in=(f"rgb@{self.size}", "caption", "det", "color_palette", "metadata"),
            domains_out=TARGETS,
            encoder_depth=self.encoder_depth,
            decoder_depth=self.decoder_depth,
            dim=self.dim,
            num_heads=self.num_heads,
            image_size=self.size,
            patch_size=self.patch_size,
            share_modality_embeddings=False,
            vocab_overrides={**tables, **dict.fromkeys(TARGETS, self.tokenizer.codebook_size)},
        )


class ScenesRun:
    """One run of the recipe in one folder."""

    def __init__(self, out: Path, recipe: ScenesRecipe, *, workers: int = 2) -> None:
        self.out, self.recipe, self.workers = out, recipe, workers
        out.mkdir(parents=True, exist_ok=True)

    def run(self) -> Path:
        """Do every stage that is not done yet; return the bundle's folder."""
        self.render()
        self.pack()
        for kind in self.recipe.teachers:
            self.teach(kind)
        for space in SPACES:
            self.embed(space)
            self.tokenize(space)
        self.train()
        return self.bundle()

    def render(self) -> None:
        """Render training and validation scenes."""
        recipe = self.recipe
        numbers: dict[Split, int] = {"validation": recipe.num_validation, "train": recipe.num_scenes}
        for split, num in numbers.items():
            render_shards(
                self.out / split, split, num, seed=recipe.seed, size=recipe.size, workers=self.workers
            )

    def pack(self) -> None:
        """Make the vocabulary and the arrays."""
        for split, num in (("train", self.recipe.num_scenes), ("validation", self.recipe.num_validation)):
            folder = self.out / f"arrays-{split}"
            if (folder / "attributes.npy").exists():
                continue
            shards = load_shards(self.out / split, num)
            vocabulary = self.out / TEXT_TOKENIZER
            if not vocabulary.exists():
                texts = (text for r in shards.records for view in r["views"] for text in view["captions"])
                vocabulary.write_bytes(build_vocabulary(texts, SHAPES))
            pack(shards, load_text_tokenizer(vocabulary)).save(folder)

    def arrays(self, split: str) -> SceneArrays:
        """The packed scenes of a split."""
        return SceneArrays.load(self.out / f"arrays-{split}")

    def teach(self, kind: str) -> None:
        """Train one teacher."""
        folder = self.out / "teachers"
        folder.mkdir(exist_ok=True)
        if (folder / f"{kind}.done").exists():
            return
        tables = table_sizes(load_text_tokenizer(self.out / TEXT_TOKENIZER))
        train_teacher(
            kind,
            self.arrays("train"),
            self.arrays("validation"),
            self.recipe.teachers[kind],
            folder,
            tables["caption"],
        )
        (folder / f"{kind}.done").touch()

    def teacher(self, space: str) -> SelfSupervised | CaptionAligned:
        """The trained teacher of a space."""
        kind = TEACHERS[space]
        tables = table_sizes(load_text_tokenizer(self.out / TEXT_TOKENIZER))
        num_attributes = self.arrays("validation").attributes.shape[1]
        return load_teacher(
            kind, self.recipe.teachers[kind].model, self.out / "teachers", tables["caption"], num_attributes
        )

    def embed(self, space: str) -> None:
        """Embed every scene: the mean direction over its renderings and their mirror images.

        What one rendering adds to its scene is noise to a search for scenes.
        """
        for split in ("train", "validation"):
            path = self.out / f"{space}-{split}.npy"
            if path.exists():
                continue
            tower, rgb = self.teacher(space).images.eval(), self.arrays(split).rgb
            total = sum(
                embed_images(tower, rgb[:, view, :, ::step])
                for view in range(rgb.shape[1])
                for step in (1, -1)
            )
            np.save(path, total / np.linalg.norm(total, axis=1, keepdims=True))

    def tokenize(self, space: str) -> None:
        """Train the tokenizer of a space and keep, for every training scene, its distribution over codes."""
        path = self.out / f"tok_{space}.safetensors"
        if not path.exists():
            tokenizer, losses = train_tokenizer(
                np.load(self.out / f"{space}-train.npy"), self.recipe.tokenizer
            )
            report = asdict(judge_tokenizer(tokenizer, np.load(self.out / f"{space}-validation.npy")))
            (self.out / f"tok_{space}.json").write_text(json.dumps({"losses": losses, **report}))
            save_checkpoint(tokenizer, path, dtype=torch.float16)
        codes = self.out / f"tok_{space}-train.npy"
        if not codes.exists():
            np.save(codes, posterior(self.tokenizer(space), np.load(self.out / f"{space}-train.npy")))

    def tokenizer(self, space: str) -> VQVAE:
        """The trained tokenizer of a space, as stored: with its weights rounded."""
        tokenizer = load_tokenizer(self.out / f"tok_{space}.safetensors")
        assert isinstance(tokenizer, VQVAE)
        return tokenizer

    def token_ids(self) -> TokenIds:
        """The ids of the text tokenizer."""
        content = load_text_tokenizer(self.out / TEXT_TOKENIZER)
        return TokenIds.of(TextTokenizer(content), table_sizes(content)["caption"])

    def trainer(self) -> FourMTrainer:
        """The 4M trainer, at its last checkpoint."""
        recipe, ids = self.recipe, self.token_ids()
        content = load_text_tokenizer(self.out / TEXT_TOKENIZER)
        batches = SceneBatches(
            self.arrays("train"),
            ids,
            MIXTURE,
            batch_size=recipe.batch_size,
            num_tokens=recipe.num_tokens,
            image_name=f"rgb@{recipe.size}",
            patch_size=recipe.patch_size,
            seed=recipe.seed,
        )
        return FourMTrainer(
            recipe.model(table_sizes(content)),
            batches,
            {f"tok_{space}": np.load(self.out / f"tok_{space}-train.npy", mmap_mode="r") for space in SPACES},
            recipe.fourm,
            self.out / "fourm",
            threads=self.workers,
            prepare=lambda model: start_text_tables(model, ids),
        )

    def train(self) -> None:
        """Train 4M to the end."""
        self.trainer().run(self.evaluate)

    def evaluate(self, model: FourM) -> dict[str, float]:
        """Measure R@1 and R@10 among validation scenes, known to the gallery by their pixels only.

        Unlike the benchmark it asks with complete captions, and with the other rendering for `rgb`.
        """
        data, ids, recipe = self.arrays("validation"), self.token_ids(), self.recipe
        num = min(_NUM_EVALUATED, len(data.rgb))
        tokenizers = {f"tok_{space}": self.tokenizer(space) for space in SPACES}

        def ask(names: tuple[str, ...], rendering: int) -> Predicted:
            batch = query_tokens(data, names, num, rendering, ids, f"rgb@{recipe.size}", recipe.patch_size)
            return predict_all(model, batch, tokenizers)

        gallery, report = ask(("rgb",), 0), dict[str, float]()
        for name in _WATCHED:
            found = ask(QUERIES[name], 1 if name == "rgb" else 0)
            row = ranks(scores(found, gallery, TARGETS, "both"))
            report |= {f"{name}.{key}": round(row[key], 4) for key in ("r1", "r10")}
        return report

    def ceilings(self) -> dict[str, dict[str, float]]:
        """What teachers and tokenizers allow: retrieval by their own vectors, whole and through tokens."""
        data, out = self.arrays("validation"), dict[str, dict[str, float]]()
        for space in SPACES:
            teacher, tokenizer = self.teacher(space).eval(), self.tokenizer(space)
            views = [embed_images(teacher.images, data.rgb[:_NUM_EVALUATED, view]) for view in (0, 1)]
            rows = recall(views[1], views[0], "rgb")
            if isinstance(teacher, CaptionAligned):
                captions = torch.from_numpy(data.captions[:_NUM_EVALUATED, 0, 0].astype(np.int64))
                with torch.inference_mode():
                    rows |= recall(teacher.captions(captions).numpy(), views[0], "caption")
            with torch.inference_mode():
                coded = [tokenizer.decode(tokenizer.encode(torch.from_numpy(v))).numpy() for v in views]
            coded = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in coded]
            rows |= recall(coded[1], coded[0], "rgb through tokens")
            out[space] = {**rows, **json.loads((self.out / f"tok_{space}.json").read_text())}
            out[space].pop("losses")
        return out

    def bundle(self) -> Path:
        """Write the bundle of the last checkpoint with its measurements."""
        folder = self.out / "bundle"
        logs = {
            "fourm": self.out / "fourm" / LOG,
            **{kind: self.out / "teachers" / f"{kind}.jsonl" for kind in TEACHERS.values()},
        }
        tokenizers = {space: self.tokenizer(space) for space in SPACES}
        write_bundle(folder, self.trainer().averaged(), tokenizers, self.out / TEXT_TOKENIZER, logs)
        report = benchmark(folder, self.recipe.num_benchmark, size=self.recipe.size)
        write_card(folder, report, self.ceilings(), asdict(self.recipe))
        return folder


def posterior(tokenizer: VQVAE, vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Distribution over codes of each head, `(N, heads, V)`: what training drew codes from."""
    with torch.inference_mode():
        logits = tokenizer.quantize.logits(tokenizer.latent(torch.from_numpy(vectors)))
        return logits.softmax(-1).to(torch.float16).numpy()


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Make the packaged model 'scenes'.")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results; 5 GB")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    arguments = parser.parse_args()
    print(ScenesRun(arguments.out, ScenesRecipe(), workers=arguments.workers).run())


if __name__ == "__main__":
    main()
