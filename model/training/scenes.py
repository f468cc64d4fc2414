"""Makes the packaged model `scenes` from nothing: `python -m anyseek.model.training.scenes --out DIR`.

Stages: render scenes, make the vocabulary, train two teachers, train a tokenizer for each modality, tokenize,
train 4M, write the bundle and its measurements. Each leaves its result in the folder and is skipped when it
is there, so an interrupted run goes on; delete a result to make it again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoint import load_fourm, load_tokenizer, save_checkpoint
from ..fourm import FourM
from ..presets import FourMConfig
from ..scenes import OBJECTS, PERSON, Split
from ..tokenizers.image import VQVAE
from ..tokenizers.text import TextTokenizer
from .benchmark import Progress, benchmark
from .bundle import write_bundle, write_card
from .evaluate import Fitted, evaluate_queries, fit_ranking, held_out_losses
from .fit import LOG
from .masking import MaskedBatches, Masking
from .prediction_benchmark import SHEET, draw_predictions, prediction_benchmark
from .pretrain import BEST, LAST, Pretrainer
from .pretrain import LOG as FOURM_LOG
from .scene_arrays import SceneArrays, load_text_tokenizer, pack
from .scene_data import NUM_RENDERINGS, SCENES_PER_SHARD, SceneShards, load_shards, render_shards
from .scene_draws import image_draws, image_loss, vector_draws
from .scene_masking import TEXTS
from .scene_recipe import EDGES, FEATURES, FOURM, IMAGES, SPACES, TEACHERS, ScenesRecipe
from .scene_teachers import Teacher, dense_features, embed_images, load_teacher, teacher_recall, train_teacher
from .scene_tokens import (
    drawn_tokens,
    feature_tokens,
    grid_tokens,
    instance_tokens,
    people_tokens,
    pose_values,
    text_tokens,
)
from .scene_values import SceneValues
from .tables import start_tables
from .teachers import Aligned
from .token_data import TokenData, write_index
from .train_memcodes import train_memcodes
from .train_vq import LOSSES, train_vq
from .vocabulary import build_vocabulary, table_sizes

TEXT_TOKENIZER = "text_tokenizer.json"
BUNDLE = "bundle"
SPLITS: tuple[Split, ...] = ("validation", "train")
_NUM_EVALUATED = 500
_NUM_HELD_OUT = 6  # batches

# Asked at every checkpoint, where the recipe has them.
WATCHED = (
    *("rgb", "caption", "tok_depth", "tok_normal", "tok_semseg", "tok_canny_edge", "tok_sam_edge"),
    *("color_palette", "metadata", "det", "caption+color_palette", "caption+tok_depth"),
    *("tok_semseg+color_palette", "color_palette+metadata"),
)


class ScenesRun:
    """One run of the recipe in one folder.

    Args:
        out: folder of all results, made if missing.
        recipe: what to make.
        workers: processes that render, threads that train 4M.
        progress: told as the run goes on.
    """

    def __init__(
        self,
        out: Path,
        recipe: ScenesRecipe,
        *,
        workers: int = 2,
        progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
    ) -> None:
        self.out, self.recipe, self.workers, self._tell = out, recipe, workers, progress
        out.mkdir(parents=True, exist_ok=True)
        self.configs = recipe.tokenizers()

    def run(self) -> Path:
        """Do every stage that is not done yet; gives the folder of the bundle."""
        self.render()
        self.read_texts()
        for kind in TEACHERS.values():
            self.teach(kind)
        for raw in self.configs:
            self.learn_tokens(raw)
        for split in SPLITS:
            self.tokenize(split)
        self.train()
        self.bundle()
        self.measure()
        return self.out / BUNDLE

    def render(self) -> None:
        """Render training and validation scenes."""
        recipe, workers = self.recipe, self.workers
        splits: dict[Split, int] = {"validation": recipe.num_validation, "train": recipe.num_scenes}
        for split, num in splits.items():
            total = -(-num // SCENES_PER_SHARD)
            render_shards(
                self.out / split,
                split,
                num,
                seed=recipe.seed,
                size=recipe.size,
                workers=min(workers, total),
                progress=partial(self._rendered, split, total),
            )

    def _rendered(self, split: Split, total: int, done: int) -> None:
        self._tell(f"render {split}", done, total)

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
        recipe, arrays, shards = self.recipe.teachers[kind], self.arrays("train"), self.shards("train")
        tell, size = partial(self._tell, f"teacher {kind}"), self.tables["caption"]
        teacher = train_teacher(kind, shards, arrays, recipe, folder, size, tell)
        report = teacher_recall(teacher, self.shards("validation"), self.arrays("validation"))
        (folder / "report.json").write_text(json.dumps(report) + "\n")

    def teacher(self, space: str) -> Teacher:
        """The trained teacher of a space."""
        kind = TEACHERS[space]
        num = self.arrays("validation").attributes.shape[1]
        folder = self.out / "teachers" / kind
        return load_teacher(kind, self.recipe.teachers[kind], folder, self.tables["caption"], num)

    def vectors(self, space: str, split: Split) -> NDArray[np.float32]:
        """Unit vectors `(N, R, C)` of every scene.

        The aligned teacher says what is where, and has a vector of each rendering. Of the other, R is 1: the
        mean direction over renderings and their mirror images, as what one of them adds to the scene is noise
        to a search for scenes.
        """
        path = self.out / f"{space}-{split}.npy"
        if not path.exists():
            teacher, rgb = self.teacher(space), self.shards(split).maps["rgb"]
            views = range(NUM_RENDERINGS)
            if isinstance(teacher, Aligned):
                found = np.stack([embed_images(teacher.images, rgb[:, view]) for view in views], axis=1)
            else:
                both = [
                    embed_images(teacher.images, rgb[:, view, :, ::step])
                    for view in views
                    for step in (1, -1)
                ]
                found = np.sum(both, axis=0)[:, None]
            np.save(path, found / np.linalg.norm(found, axis=-1, keepdims=True))
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
        tell = partial(self._tell, f"tokenizer {raw}")
        if config.quant_type == "memcodes":
            values = pose_values(self.values("train")) if raw == "human_poses" else self.vectors(raw, "train")
            draw = vector_draws(values.reshape(-1, values.shape[-1]), recipe.vectors)
            tokenizer = train_memcodes(config, draw, LOSSES[raw], recipe.vectors, log, tell)
        else:
            tower = self.teacher(f"{raw}_global").images if raw in FEATURES else None
            how = recipe.fine if raw in ("semseg", EDGES) else recipe.images
            draw = image_draws(raw, self.values("train"), how, tower)
            tokenizer = train_vq(config, draw, image_loss(raw), how, log, tell)
        save_checkpoint(tokenizer, path, dtype=torch.int8)

    def tokenizer_file(self, raw: str) -> Path:
        """Where the trained tokenizer of a modality lies, with its weights rounded."""
        return self.out / f"tok_{EDGES if raw == 'sam_edge' else raw}.safetensors"

    def tokenizer(self, raw: str) -> VQVAE:
        """The trained tokenizer of a modality, as stored."""
        tokenizer = load_tokenizer(self.tokenizer_file(raw))
        assert isinstance(tokenizer, VQVAE)
        return tokenizer

    def codebooks(self) -> dict[str, torch.Tensor]:
        """Codes (V, d) of every grid, by 4M's names."""
        raws = {name: self.config.modality(name).raw for name in self.recipe.columns()}
        return {
            name: self.tokenizer(raw).codebook()[0]
            for name, raw in raws.items()
            if name.startswith("tok_") and raw not in SPACES
        }

    def tokenize(self, split: Split) -> None:
        """Turn all renderings into tokens; what is done is kept."""
        folder, names = self.out / f"tokens-{split}", self.recipe.columns()
        folder.mkdir(exist_ok=True)
        for done, name in enumerate(names, start=1):
            if not (folder / f"{name}.npy").exists():
                np.save(folder / f".{name}.npy", self._column(name, split))
                (folder / f".{name}.npy").replace(folder / f"{name}.npy")
            self._tell(f"tokenize {split}", done, len(names))
        write_index(folder, list(names))

    def _column(self, name: str, split: Split) -> NDArray[np.generic]:
        """One modality of all scenes, as `TokenData` holds it."""
        values, num, raw = self.values(split), NUM_RENDERINGS, self.config.modality(name).raw
        if name.startswith("rgb@"):
            return values.shards.maps["rgb"]
        if raw in IMAGES:
            return grid_tokens(values, raw, self.tokenizer(raw), num)
        if raw in FEATURES:
            ids = feature_tokens(self.features(raw, split), self.tokenizer(raw))
            return ids.reshape(len(values), num, 1, -1)
        if raw in SPACES:
            return drawn_tokens(self.vectors(raw, split), self.tokenizer(raw))
        if raw == "caption":
            return self.arrays(split).captions
        if raw == "human_poses":
            return people_tokens(values, self.text, self.tokenizer(raw), num)
        if raw == "sam_instance":
            return instance_tokens(values, self.text, self.tokenizer(raw), num)
        return text_tokens(raw, values, self.text, num)

    def tokens(self, split: Split) -> TokenData:
        """The tokenized scenes of a split."""
        return TokenData.load(self.out / f"tokens-{split}")

    def batches(self, split: Split, masking: Masking) -> MaskedBatches:
        """Masked batches of a split."""
        config, recipe = self.config, self.recipe
        return MaskedBatches(
            self.tokens(split),
            {name: config.modality(name) for name in config.domains_in},
            masking,
            self.text,
            targets=config.targets,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
        )

    def trainer(self, stage: str = FOURM) -> Pretrainer:
        """The trainer of one of the runs of 4M, at its last checkpoint."""
        stages = self.recipe.stages()
        masking, recipe = stages[stage]
        before = {after: one for one, after in pairwise(stages)}

        def prepare(model: FourM) -> None:
            if stage in before:
                model.load_state_dict(load_fourm(self.out / before[stage] / LAST).state_dict())
            else:
                start_tables(model, self.text, self.codebooks())

        batches = self.batches("train", masking)
        return Pretrainer(
            self.config, batches, recipe, self.out / stage, prepare=prepare, threads=self.workers
        )

    def train(self) -> None:
        """Train 4M to the end: what tells most, what embeddings can be told from, everything."""
        for stage, (_, recipe) in self.recipe.stages().items():
            self.trainer(stage).run(self.evaluate, progress=partial(self._trained, stage, recipe.steps))

    def _trained(self, stage: str, steps: int, step: int) -> None:
        self._tell(f"train {stage}", step, steps)

    @torch.inference_mode()
    def evaluate(self, model: FourM) -> dict[str, float]:
        """Losses on held-out batches, and R@1 and R@10 among validation scenes, known to the gallery by their
        pixels only; `rgb` asks with the other rendering.
        """
        data, size, held_out = (
            self.tokens("validation"),
            self.recipe.size,
            self.batches("validation", self.recipe.masking()),
        )
        report = held_out_losses(model, [held_out.draw(number) for number in range(_NUM_HELD_OUT)])
        queries = {
            query: [name if name in TEXTS else f"{name}@{size}" for name in query.split("+")]
            for query in WATCHED
        }
        known = {query: names for query, names in queries.items() if set(names) <= set(data.columns)}
        tokenizers = {f"tok_{space}": self.tokenizer(space) for space in SPACES}
        return report | evaluate_queries(model, data, known, f"rgb@{size}", tokenizers, _NUM_EVALUATED)

    def bundle(self) -> None:
        """Write the folder that `load_model` opens."""
        folder, recipe = self.out / BUNDLE, self.recipe
        if (folder / "model.json").exists():
            return
        raws = [*recipe.some((*IMAGES, *FEATURES, "human_poses", "sam_instance")), *SPACES]
        model = load_fourm(self.out / FOURM / BEST)
        write_bundle(
            folder,
            model,
            {raw: self.tokenizer_file(raw) for raw in raws},
            self.out / TEXT_TOKENIZER,
            channels={raw: self.configs[raw].n_channels for raw in raws if raw in (*FEATURES, *SPACES)},
            fitted=self.fitted(model),
            size=recipe.size,
            logs={
                **{stage: self.out / stage / FOURM_LOG for stage in recipe.stages()},
                **{kind: self.out / "teachers" / kind / LOG for kind in TEACHERS.values()},
                **{f"tok_{raw}": self.out / f"tok_{raw}.jsonl" for raw in self.configs},
            },
        )

    def fitted(self, model: FourM) -> dict[str, Fitted]:
        """How a search by each modality ranks best, fitted on the validation scenes."""
        data, queries = self.tokens("validation"), self.recipe.asked_alone()
        tokenizers = {f"tok_{space}": self.tokenizer(space) for space in SPACES}
        found = fit_ranking(model, data, queries, queries["rgb"], tokenizers, len(data))
        return {
            raw: replace(
                each,
                space_weights={
                    name.removeprefix("tok_"): weight for name, weight in each.space_weights.items()
                },
            )
            for raw, each in found.items()
        }

    def measure(self) -> None:
        """Write how good the bundle is, as users ask it, and its card."""
        folder, recipe = self.out / BUNDLE, self.recipe
        if (folder / "README.md").exists():
            return
        report = benchmark(folder, recipe.num_benchmark, size=recipe.size, progress=self._tell)
        num = recipe.num_benchmark
        predictions = prediction_benchmark(folder, num, size=recipe.size, progress=self._tell)
        if (sheet := draw_predictions(folder, size=recipe.size)) is not None:
            sheet.save(folder / SHEET, quality=60)
        teachers = {
            kind: json.loads((self.out / "teachers" / kind / "report.json").read_text())
            for kind in TEACHERS.values()
        }
        codes = {
            raw: f"{config.num_codebooks} x {config.codebook_size}" for raw, config in self.configs.items()
        }
        write_card(folder, report, predictions, teachers, asdict(recipe), codes)


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description="Make the packaged model 'scenes'.")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results; 12 GB")
    parser.add_argument("--workers", type=int, default=2, help="processes that render, threads that train")
    arguments = parser.parse_args()
    ScenesRun(arguments.out, ScenesRecipe(), workers=arguments.workers).run()


if __name__ == "__main__":
    main()
