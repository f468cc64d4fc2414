"""Makes the packaged model `scenes` from nothing: `python -m anyseek.model.training.scenes --out DIR`.

Stages: render scenes, make the vocabulary, train two teachers, train a tokenizer for each modality, tokenize,
train 4M, write the bundle and its measurements. Each leaves its result in the folder and is skipped when it
is there, so an interrupted run goes on; delete a result to make it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..checkpoint import load_tokenizer, save_checkpoint
from ..fourm import FourM
from ..presets import FourMConfig
from ..scenes import OBJECTS, PERSON
from ..scenes.scene import Split
from ..tokenizers.image import VQVAE
from ..tokenizers.text import TextTokenizer
from .evaluate import predict_all, ranks, scores, whole
from .masking import MaskedBatches
from .pretrain import HELD_OUT, Pretrainer, masked_losses
from .scene_arrays import SceneArrays, load_text_tokenizer, pack
from .scene_data import NUM_RENDERINGS, SceneShards, load_shards, render_shards
from .scene_recipe import EDGES, FEATURES, IMAGES, SPACES, TEACHERS, TEXTS, ScenesRecipe, masking
from .scene_teachers import Teacher, dense_features, embed_images, load_teacher, teacher_recall, train_teacher
from .scene_tokens import (
    drawn_tokens,
    feature_tokens,
    grid_tokens,
    instance_tokens,
    mask_values,
    people_tokens,
    pose_values,
    text_tokens,
)
from .scene_values import SceneValues
from .text_tables import start_text_tables
from .token_data import TokenData, write_index
from .train_memcodes import train_memcodes
from .train_vq import LOSSES, train_vq
from .vocabulary import build_vocabulary, table_sizes

TEXT_TOKENIZER = "text_tokenizer.json"
SPLITS: tuple[Split, ...] = ("validation", "train")
_NUM_EVALUATED = 1000
_NUM_HELD_OUT = 6  # batches

# Asked at every checkpoint.
WATCHED = (
    *("rgb", "caption", "tok_depth", "tok_normal", "tok_semseg", "tok_canny_edge", "tok_sam_edge"),
    *("color_palette", "metadata", "det", "caption+color_palette", "caption+tok_depth"),
    *("tok_semseg+color_palette", "color_palette+metadata"),
)


class ScenesRun:
    """One run of the recipe in one folder."""

    def __init__(self, out: Path, recipe: ScenesRecipe, *, workers: int = 2) -> None:
        self.out, self.recipe, self.workers = out, recipe, workers
        out.mkdir(parents=True, exist_ok=True)
        self.configs = recipe.tokenizers()

    def run(self) -> None:
        """Do every stage that is not done yet."""
        self.render()
        self.read_texts()
        for kind in TEACHERS.values():
            self.teach(kind)
        for raw in self.configs:
            self.learn_tokens(raw)
        for split in SPLITS:
            self.tokenize(split)
        self.train()

    def render(self) -> None:
        """Render training and validation scenes."""
        recipe, workers = self.recipe, self.workers
        for split, num in (("validation", recipe.num_validation), ("train", recipe.num_scenes)):
            render_shards(self.out / split, split, num, seed=recipe.seed, size=recipe.size, workers=workers)

    def shards(self, split: Split) -> SceneShards:
        """The rendered scenes of a split."""
        return load_shards(self.out / split)

    def values(self, split: Split) -> SceneValues:
        """Their values."""
        return SceneValues(self.shards(split), self.recipe.seed, split)

    def read_texts(self) -> None:
        """Make the vocabulary, and captions and attributes as numbers."""
        path = self.out / TEXT_TOKENIZER
        if not path.exists():
            records = self.shards("train").records
            texts = (text for record in records for view in record["views"] for text in view["captions"])
            path.write_bytes(build_vocabulary(texts, (*OBJECTS, PERSON)))
        for split in SPLITS:
            folder = self.out / f"arrays-{split}"
            if not (folder / "attributes.npy").exists():
                pack(self.shards(split).records, load_text_tokenizer(path)).save(folder)

    @cached_property
    def text(self) -> TextTokenizer:
        """The text tokenizer."""
        return TextTokenizer.from_file(self.out / TEXT_TOKENIZER)

    @cached_property
    def tables(self) -> dict[str, int]:
        """Rows of each sequence's tables."""
        return table_sizes(load_text_tokenizer(self.out / TEXT_TOKENIZER))

    @cached_property
    def config(self) -> FourMConfig:
        """Of the 4M model."""
        return self.recipe.model(self.tables)

    def arrays(self, split: Split) -> SceneArrays:
        """Captions and attributes of a split."""
        return SceneArrays.load(self.out / f"arrays-{split}")

    def teach(self, kind: str) -> None:
        """Train one teacher."""
        folder = self.out / "teachers" / kind
        if (folder / "report.json").exists():
            return
        recipe, arrays = self.recipe.teachers[kind], self.arrays("train")
        teacher = train_teacher(kind, self.shards("train"), arrays, recipe, folder, self.tables["caption"])
        report = teacher_recall(teacher, self.shards("validation"), self.arrays("validation"))
        (folder / "report.json").write_text(json.dumps(report) + "\n")

    def teacher(self, space: str) -> Teacher:
        """The trained teacher of a space."""
        kind = TEACHERS[space]
        num = self.arrays("validation").attributes.shape[1]
        folder = self.out / "teachers" / kind
        return load_teacher(kind, self.recipe.teachers[kind], folder, self.tables["caption"], num)

    def vectors(self, space: str, split: Split) -> NDArray[np.float32]:
        """Of every scene: the mean direction over its renderings and their mirror images.

        What one rendering adds to its scene is noise to a search for scenes.
        """
        path = self.out / f"{space}-{split}.npy"
        if not path.exists():
            tower, rgb = self.teacher(space).images, self.shards(split).maps["rgb"]
            total = sum(
                embed_images(tower, rgb[:, view, :, ::step])
                for view in range(NUM_RENDERINGS)
                for step in (1, -1)
            )
            np.save(path, total / np.linalg.norm(total, axis=1, keepdims=True))
        return np.load(path)

    def features(self, raw: str, split: Split) -> Iterator[NDArray[np.float32]]:
        """Dense features of all renderings, in batches."""
        tower, rgb = self.teacher(f"{raw}_global").images, self.shards(split).maps["rgb"]
        flat = rgb.reshape(-1, *rgb.shape[2:])
        return (dense_features(tower, flat[start : start + 64]) for start in range(0, len(flat), 64))

    def learn_tokens(self, raw: str) -> None:
        """Train the tokenizer of a modality."""
        path = self.out / f"tok_{raw}.safetensors"
        if path.exists():
            return
        log, config, recipe = self.out / f"tok_{raw}.jsonl", self.configs[raw], self.recipe
        if config.quant_type == "memcodes":
            tokenizer = train_memcodes(config, self._vectors(raw), LOSSES[raw], recipe.vectors, log)
        else:
            tokenizer = train_vq(config, self._images(raw), _loss(raw), recipe.images, log)
        save_checkpoint(tokenizer, path, dtype=torch.int8)

    def tokenizer(self, raw: str) -> VQVAE:
        """The trained tokenizer of a modality, as stored: with its weights rounded."""
        tokenizer = load_tokenizer(self.out / f"tok_{EDGES if raw == 'sam_edge' else raw}.safetensors")
        assert isinstance(tokenizer, VQVAE)
        return tokenizer

    def _images(self, raw: str) -> Callable[[int], Tensor]:
        """Batches of values of an image-like modality."""
        size, seed = self.recipe.images.batch_size, self.recipe.images.seed
        if raw == "sam_instance":
            masks = torch.from_numpy(mask_values(self.values("train"), 20_000))
            return lambda number: masks[_drawn(seed, number, len(masks), size)]
        if raw in FEATURES:
            tower, rgb = self.teacher(f"{raw}_global").images, self.shards("train").maps["rgb"]

            def features(number: int) -> Tensor:
                rows = _drawn(seed, number, len(rgb), size)
                return torch.from_numpy(dense_features(tower, rgb[rows, number % NUM_RENDERINGS]))

            return features
        values = self.values("train")

        def images(number: int) -> Tensor:
            rows = _drawn(seed, number, len(values), size)
            kind = "sam_edge" if raw == EDGES and number % 2 else raw
            return values.batch(kind, rows.tolist(), [number // 2 % NUM_RENDERINGS] * size)

        return images

    def _vectors(self, raw: str) -> Callable[[int], Tensor]:
        size, seed = self.recipe.vectors.batch_size, self.recipe.vectors.seed
        values = pose_values(self.values("train")) if raw == "human_poses" else self.vectors(raw, "train")
        data = torch.from_numpy(values)
        return lambda number: data[_drawn(seed, number, len(data), size)]

    def tokenize(self, split: Split) -> None:
        """Turn all renderings into tokens; what is done is kept."""
        folder, values, size, text = (
            self.out / f"tokens-{split}",
            self.values(split),
            self.recipe.size,
            self.text,
        )
        folder.mkdir(exist_ok=True)
        shape, num = (len(values), NUM_RENDERINGS, 1, -1), NUM_RENDERINGS
        make: dict[str, Callable[[], NDArray[np.generic]]] = {
            f"rgb@{size}": lambda: values.shards.maps["rgb"],
            "caption": lambda: self.arrays(split).captions,
            "human_poses": lambda: people_tokens(values, text, self.tokenizer("human_poses"), num),
            "sam_instance": lambda: instance_tokens(values, text, self.tokenizer("sam_instance"), num),
            **{name: (lambda name=name: text_tokens(name, values, text, num)) for name in TEXTS[1:4]},
            **{
                f"tok_{raw}@{size}": (lambda raw=raw: grid_tokens(values, raw, self.tokenizer(raw), num))
                for raw in IMAGES
            },
            **{
                f"tok_{raw}@{size}": (
                    lambda raw=raw: feature_tokens(self.features(raw, split), self.tokenizer(raw)).reshape(
                        shape
                    )
                )
                for raw in FEATURES
            },
            **{
                f"tok_{space}": (
                    lambda space=space: drawn_tokens(self.vectors(space, split), self.tokenizer(space))
                )
                for space in SPACES
            },
        }
        for name, column in make.items():
            if not (folder / f"{name}.npy").exists():
                np.save(folder / f".{name}.npy", column())
                (folder / f".{name}.npy").replace(folder / f"{name}.npy")
        write_index(folder, list(make))

    def tokens(self, split: Split) -> TokenData:
        """The tokenized scenes of a split."""
        return TokenData.load(self.out / f"tokens-{split}")

    def batches(self, split: Split) -> MaskedBatches:
        """Masked batches of a split."""
        config, recipe = self.config, self.recipe
        return MaskedBatches(
            self.tokens(split),
            {name: config.modality(name) for name in config.domains_in},
            masking(recipe.size),
            self.text,
            targets=config.targets,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
        )

    def trainer(self) -> Pretrainer:
        """The 4M trainer, at its last checkpoint."""
        return Pretrainer(
            self.config,
            self.batches("train"),
            self.recipe.fourm,
            self.out / "fourm",
            prepare=lambda model: start_text_tables(model, self.text),
            threads=self.workers,
        )

    def train(self) -> None:
        """Train 4M to the end."""
        self.trainer().run(self.evaluate)

    @torch.inference_mode()
    def evaluate(self, model: FourM) -> dict[str, float]:
        """Losses on held-out batches, and R@1 and R@10 among validation scenes, known to the gallery by their
        pixels only; `rgb` asks with the other rendering.
        """
        data, rgb, held_out = self.tokens("validation"), f"rgb@{self.recipe.size}", self.batches("validation")
        sums: dict[str, list[float]] = {}
        for number in range(_NUM_HELD_OUT):
            with torch.autocast("cpu", torch.bfloat16):
                for name, loss in masked_losses(model, held_out.draw(number)).items():
                    sums.setdefault(name, []).append(loss.item())
        report = {
            f"held_out.{name}": round(float(np.mean(losses)), 4) for name, losses in sorted(sums.items())
        }
        report[HELD_OUT] = round(float(np.mean(list(report.values()))), 4)
        num = min(_NUM_EVALUATED, len(data))
        tokenizers = {f"tok_{space}": self.tokenizer(space) for space in SPACES}
        gallery = predict_all(model, whole(data, [rgb], num, 0), tokenizers)
        for query in WATCHED:
            names = [name if name in TEXTS else f"{name}@{self.recipe.size}" for name in query.split("+")]
            found = predict_all(model, whole(data, names, num, int(query == "rgb")), tokenizers)
            row = ranks(scores(found, gallery, tuple(tokenizers), "both"))
            report |= {f"{query}.{key}": round(row[key], 4) for key in ("r1", "r10")}
        return report


def _loss(raw: str) -> Callable[[Tensor, Tensor], Tensor]:
    if raw != "semseg":
        return LOSSES[raw]

    def some_pixels(decoded: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy over every other row and column, which ones changing: a quarter of the time."""
        down, right = (int(n) for n in torch.randint(2, (2,)))
        kept = np.s_[..., down::2, right::2]
        return functional.cross_entropy(decoded[kept].float(), labels[kept].long())

    return some_pixels


def _drawn(seed: int, number: int, num: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, number]).integers(num, size=size)


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Make the packaged model 'scenes'.")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results; 12 GB")
    parser.add_argument("--workers", type=int, default=2, help="processes that render, threads that train")
    arguments = parser.parse_args()
    ScenesRun(arguments.out, ScenesRecipe(), workers=arguments.workers).run()


if __name__ == "__main__":
    main()
