import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyseek.model import load_model
from anyseek.model.inputs import InputReader
from anyseek.model.scenes import Scene, caption, describe_scene, metadata
from anyseek.model.tokenizers import spans
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.benchmark import benchmark
from anyseek.model.training.evaluate import likelihood, ranks
from anyseek.model.training.learning_rate import warmup_cosine
from anyseek.model.training.mixture import (
    Component,
    Phase,
    current_phase,
    draw_budgets,
    draw_presence,
    keep_some,
    mask_spans,
)
from anyseek.model.training.scene_batches import RAW_NAMES, SceneBatches, query_tokens
from anyseek.model.training.scenes import MIXTURE, TARGETS, ScenesRecipe, ScenesRun
from anyseek.model.training.teachers import TeacherConfig
from anyseek.model.training.train_fourm import FourMRecipe, FourMTrainer
from anyseek.model.training.train_teachers import TeacherRecipe
from anyseek.model.training.train_tokenizer import TokenizerRecipe, judge_tokenizer, train_tokenizer
from anyseek.model.training.vocabulary import build_vocabulary, table_sizes

TEACHER = TeacherRecipe(TeacherConfig((8, 8, 16), (1, 1, 1), dim=16), steps=8, batch_size=16, warmup=2)
TINY = ScenesRecipe(
    num_scenes=40,
    num_validation=20,
    num_benchmark=20,
    size=32,
    dim=32,
    num_heads=2,
    encoder_depth=1,
    decoder_depth=1,
    batch_size=8,
    teachers={"self_supervised": TEACHER, "caption_aligned": TEACHER},
    tokenizer=TokenizerRecipe(
        "BottleneckMLP/B_1-Wi_16", codebook_size=8, latent_dim=32, steps=30, batch_size=32
    ),
    fourm=FourMRecipe(parts=2, steps=24, warmup=4, learning_rate=3e-3, log_every=6, save_every=12),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ScenesRun:
    """The tiny recipe, up to what 4M is trained on."""
    run = ScenesRun(tmp_path_factory.mktemp("scenes"), TINY, workers=1)
    run.render()
    run.pack()
    for kind in TINY.teachers:
        run.teach(kind)
    for space in ("dinov2_global", "imagebind_global"):
        run.embed(space)
        run.tokenize(space)
    return run


def trainer(run: ScenesRun, folder: Path, threads: int = 1) -> FourMTrainer:
    whole = run.trainer()
    return FourMTrainer(whole.model.config, whole.batches, whole.targets, TINY.fourm, folder, threads=threads)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "fourm.jsonl").read_text().splitlines()]


def test_vocabulary_spells_everything():
    content = build_vocabulary(["A large red sphere.", "on a ground"], ["sphere", "fire hydrant"])
    tokenizer = TextTokenizer(content)
    assert len(tokenizer.encode("a large red sphere .")) == 5
    assert tokenizer.decode(tokenizer.encode("zebra 42")) == "zebra 42"
    assert tokenizer.unk_id not in tokenizer.encode("quirky!")
    assert len(tokenizer.encode("fire hydrant")) == 1
    assert tokenizer.encode("v0=999 v3=0").tolist() == [
        tokenizer.id_of("v0=999"),
        tokenizer.id_of("v3=0"),
    ]
    tables = table_sizes(content)
    assert max(tokenizer.encode("a large red sphere on qzx !")) < tables["caption"]
    assert tokenizer.id_of("v1=7") < tables["color_palette"] > tokenizer.id_of("v0=255")
    assert tokenizer.id_of("v1=20") < tables["metadata"] > tokenizer.id_of("v0=999")
    assert tables["det"] == tokenizer.vocab_size


def test_training_spells_scenes_as_the_reader_does(run: ScenesRun):
    config = TINY.model(table_sizes((run.out / "text_tokenizer.json").read_bytes()))
    rows = {config.modality(name).raw: config.modality(name) for name in config.domains_in}
    reader = InputReader(rows, TextTokenizer.from_file(run.out / "text_tokenizer.json"))
    asked = query_tokens(run.arrays("validation"), RAW_NAMES, 20, 1, run.token_ids(), "rgb@32", 16)
    for index in range(20):
        record = describe_scene(Scene.sample(0, index, split="validation"), 32, 1)
        scene = Scene.sample(0, index, split="validation")
        whole = caption(scene, scene.rng("caption1"))
        contents = {
            "caption": whole,
            "color_palette": record.palette,
            "metadata": metadata(scene, record.rendering, whole),
            "det": record.boxes,
        }
        for name, content in contents.items():
            if not content:
                continue
            used = ~asked[name].input_mask[index]
            assert asked[name].tensor[index][used].tolist() == reader.read(name, content).tolist()


def test_masked_spans_equal_those_of_one_sequence():
    rng = np.random.default_rng(0)
    sentinels = np.arange(5, 12)
    ids = rng.integers(20, 90, (50, 12))
    valid = np.arange(12) < rng.integers(1, 13, (50, 1))
    kept = valid & (rng.random(ids.shape) < 0.5)
    masked, used = mask_spans(ids, valid, kept, sentinels)
    for row in range(50):
        length = int(valid[row].sum())
        chunks = [[token] for token in ids[row, :length].tolist()]
        uniform = np.where(kept[row, :length], 0.0, 0.9)
        expected, _ = spans.mask_spans(chunks, uniform, 0.5, sentinels.tolist())
        assert masked[row][used[row]].tolist() == expected


def test_runs_beyond_the_sentinels_vanish():
    kept = np.array([[False, True] * 3])
    masked, used = mask_spans(np.arange(6)[None] + 20, np.ones((1, 6), dtype=bool), kept, np.array([5, 6]))
    assert masked[0][used[0]].tolist() == [5, 21, 6, 23, 25]


def test_budgets_stay_within_the_tokens_and_the_modalities_present():
    rng = np.random.default_rng(1)
    component = Component(1.0, {"rgb": 0.1, "caption": 0.1})
    present = draw_presence(component, RAW_NAMES, 500, rng)
    assert present.any(1).all()
    assert not present[:, [RAW_NAMES.index(n) for n in ("det", "metadata", "color_palette")]].any()
    budgets = draw_budgets(present, 48, 0.7, rng)
    assert (budgets.sum(1) <= 48).all()
    assert not budgets[~present].any()
    valid = rng.random((500, 9)) < 0.6
    kept = keep_some(valid, budgets[:, 0] % 5, rng)
    assert (kept.sum(1) == np.minimum(valid.sum(1), budgets[:, 0] % 5)).all()


def test_a_batch_depends_on_its_number_alone(run: ScenesRun):
    batches = run.trainer().batches
    assert isinstance(batches, SceneBatches)
    later, rows = batches.draw(7)
    batches.draw(3)
    again, same_rows = batches.draw(7)
    assert np.array_equal(rows, same_rows)
    assert list(later) == list(again)
    for name in later:
        assert torch.equal(later[name].tensor, again[name].tensor)
        assert torch.equal(later[name].input_mask, again[name].input_mask)


def test_every_sample_of_every_batch_has_something_to_read(run: ScenesRun):
    batches = run.trainer().batches
    for number in range(60):
        batch, _ = batches.draw(number)
        used = sum((~tokens.input_mask).sum(1) for tokens in batch.values())
        # A scene whose objects are all hidden has no boxes to show.
        assert (torch.as_tensor(used) > 0).float().mean() > 0.8
        for name, tokens in batch.items():
            if not name.startswith("rgb"):
                assert (tokens.tensor[~tokens.input_mask] > 0).all()


def test_tokenizer_learns_to_keep_directions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 24))[rng.integers(6, size=500)] + 0.1 * rng.normal(size=(500, 24))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    recipe = TokenizerRecipe("BottleneckMLP/B_1-Wi_32", codebook_size=8, num_codebooks=4, latent_dim=32)
    tokenizer, losses = train_tokenizer(unit, replace(recipe, steps=200, batch_size=64))
    assert losses[-1] < 0.5 * losses[0]
    assert judge_tokenizer(tokenizer, unit).cosine > 0.9


def test_teachers_learn(run: ScenesRun):
    for kind in TINY.teachers:
        entries = [
            json.loads(line) for line in (run.out / "teachers" / f"{kind}.jsonl").read_text().splitlines()
        ]
        assert {"loss", "rgb.r1"} <= set(entries[-1])
    vectors = np.load(run.out / "imagebind_global-train.npy")
    assert vectors.shape == (40, 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_loss_falls(run: ScenesRun, tmp_path: Path):
    trainer(run, tmp_path).run()
    entries = log(tmp_path)
    for target in TARGETS:
        assert entries[-1][f"loss.{target}"] < entries[0][f"loss.{target}"]


def test_interrupted_training_ends_as_if_it_never_was(run: ScenesRun, tmp_path: Path):
    trainer(run, tmp_path / "whole").run()
    trainer(run, tmp_path / "cut").run(until=12)
    resumed = trainer(run, tmp_path / "cut")
    assert resumed.step == 12
    resumed.run()
    whole = trainer(run, tmp_path / "whole")
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_number_of_threads_changes_nothing(run: ScenesRun, tmp_path: Path):
    one, two = trainer(run, tmp_path / "one", threads=1), trainer(run, tmp_path / "two", threads=2)
    one.run(until=6)
    two.run(until=6)
    for name, value in one.average.items():
        assert torch.equal(value, two.average[name]), name


def test_recipe_ends_in_a_model_that_loads(run: ScenesRun):
    folder = run.run()
    model = load_model(folder, dtype="float32")
    assert model.inputs
    assert {space.num_tokens for space in model.spaces.values()} == {16}
    record = describe_scene(Scene.sample(0, 0), 32)
    items = [
        {"rgb": model.embedder.read("rgb", record.rendering.rgb)},
        {"caption": model.embedder.read("caption", record.caption)},
    ]
    found = model.embedder.embed(items)
    assert found["dinov2_global"].vectors.shape == (2, 16)
    report = json.loads((folder / "measurements.json").read_text())
    assert set(report["retrieval"]) == {"cosine", "likelihood", "both", "dinov2_global", "imagebind_global"}
    assert "| caption |" in (folder / "README.md").read_text()
    # What is done stays done.
    stamp = (run.out / "fourm" / "fourm.ckpt").stat().st_mtime_ns
    run.run()
    assert (run.out / "fourm" / "fourm.ckpt").stat().st_mtime_ns == stamp


def test_mixture_asks_with_what_users_ask_with():
    components = current_phase(MIXTURE, 10**6).components
    alone = [name for component in components if len(component.present) == 1 for name in component.present]
    assert sorted(alone) == sorted(RAW_NAMES)


def test_phases_follow_each_other():
    early, late = Phase(0, ()), Phase(10, ())
    assert [current_phase((late, early), number) for number in (0, 9, 10, 99)] == [early, early, late, late]


def test_likelihood_is_the_mean_log_probability_of_the_tokens():
    log_probs = np.log(np.array([[[0.7, 0.3], [0.4, 0.6]]], dtype=np.float32))
    found = likelihood(log_probs, np.array([[0, 1], [1, 0]]))
    assert np.allclose(found, [[np.log(0.7 * 0.6) / 2, np.log(0.3 * 0.4) / 2]])


def test_ties_count_against_the_query():
    assert ranks(np.zeros((4, 4), dtype=np.float32))["r1"] == 0
    assert ranks(np.eye(4, dtype=np.float32)) == {"r1": 1, "r5": 1, "r10": 1, "median_rank": 1}


def test_learning_rate_rises_and_falls():
    values = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert values[9] == 1
    assert values.index(max(values)) in (9, 10)
    assert values[-1] < 0.01


PACKAGED = Path(load_model.__code__.co_filename).parent / "weights" / "scenes"


def test_packaged_model_is_small_and_has_a_card():
    files = list(PACKAGED.iterdir())
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {"README.md", "model.json", "measurements.json", "log_fourm.jsonl"} <= {
        path.name for path in files
    }
    recipe = json.loads((PACKAGED / "measurements.json").read_text())["recipe"]
    assert recipe["num_scenes"] == ScenesRecipe().num_scenes
    assert recipe["fourm"]["steps"] == ScenesRecipe().fourm.steps


@pytest.mark.slow
def test_packaged_model_finds_unseen_scenes():
    report = benchmark(
        PACKAGED, 100, seed=7, queries=("rgb", "caption", "color_palette", "caption+color_palette")
    )
    found = {query: row["r1"] for query, row in report["both"].items()}
    assert found["rgb"] > 0.9
    assert found["caption"] > 0.6
    assert found["color_palette"] > 0.2
    assert found["caption+color_palette"] > max(found["caption"], found["color_palette"])
