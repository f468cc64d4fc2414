"""The recipe of models of scenes: rendered data, values, tokens, teachers, vocabulary, and a tiny run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyseek.errors import ConfigError
from anyseek.model import load_model
from anyseek.model.embeddings import ImageTokenEncoderEmbedding, SequenceEncoderEmbedding
from anyseek.model.fourm import FourM
from anyseek.model.inputs import InputReader
from anyseek.model.scenes import (
    OBJECTS,
    PERSON,
    SEMSEG_CLASSES,
    Scene,
    caption,
    describe_scene,
    instances,
    metadata,
    people,
)
from anyseek.model.token_likelihood import LIKELIHOOD_SHARE
from anyseek.model.tokenizers.image import VQVAE
from anyseek.model.tokenizers.instances import string_to_instances
from anyseek.model.tokenizers.poses import string_to_poses
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.tokens import Tokens
from anyseek.model.training import scene_data
from anyseek.model.training.benchmark import benchmark
from anyseek.model.training.evaluate import best_tenths, ranks, whole
from anyseek.model.training.learning_rate import warmup_cosine
from anyseek.model.training.masking import MaskedBatches
from anyseek.model.training.pretrain import PretrainRecipe
from anyseek.model.training.scene_arrays import MAX_CAPTION, SceneArrays, attribute_vector, pack
from anyseek.model.training.scene_data import NUM_RENDERINGS, SceneShards, load_shards, render_shards
from anyseek.model.training.scene_draws import image_draws, image_loss, vector_draws
from anyseek.model.training.scene_masking import TEXTS, masking
from anyseek.model.training.scene_recipe import (
    FEATURES,
    FOURM,
    IMAGES,
    SPACES,
    ScenesRecipe,
    tiny_recipe,
)
from anyseek.model.training.scene_runs import run_scenes
from anyseek.model.training.scene_teachers import (
    TeacherBatches,
    TeacherRecipe,
    build_teacher,
    changed,
    dense_features,
    embed_images,
    halved,
    load_teacher,
    map_pictures,
    recall,
    recolored,
    train_teacher,
)
from anyseek.model.training.scene_tokens import (
    drawn_tokens,
    feature_tokens,
    grid_tokens,
    instance_tokens,
    mask_values,
    people_tokens,
    pose_values,
    text_tokens,
)
from anyseek.model.training.scene_values import SceneValues
from anyseek.model.training.scenes import ScenesRun
from anyseek.model.training.tables import start_tables
from anyseek.model.training.teachers import BOUND, ImageTower, TeacherConfig, contrast
from anyseek.model.training.token_data import TokenData
from anyseek.model.training.train_memcodes import MemcodesRecipe
from anyseek.model.training.train_vq import VqRecipe
from anyseek.model.training.vocabulary import build_vocabulary, table_sizes
from PIL import Image

SIZE, NUM, SEED = 64, 24, 4
NETWORK = TeacherConfig((8, 8, 16), (1, 1, 1), dim=16)
TEACHER = TeacherRecipe(model=NETWORK, steps=6, batch_size=8, warmup=2, log_every=3, save_every=3)
TINY = ScenesRecipe(
    num_scenes=30,
    num_validation=20,
    num_benchmark=20,
    size=SIZE,
    dim=32,
    num_heads=2,
    encoder_depth=1,
    decoder_depth=1,
    batch_size=8,
    teachers={"self_supervised": TEACHER, "aligned": TEACHER},
    images=VqRecipe(steps=2, batch_size=4, warmup=1),
    fine=VqRecipe(steps=2, batch_size=4, warmup=1),
    vectors=MemcodesRecipe(steps=2, batch_size=8, warmup=1),
    start=PretrainRecipe(steps=2, parts=1, warmup=1, save_every=2, log_every=1),
    embed=PretrainRecipe(steps=2, parts=1, warmup=1, save_every=2, log_every=1),
    fourm=PretrainRecipe(steps=6, warmup=2, save_every=3, log_every=3),
)
SMALL = replace(TINY, modalities=("depth", "caption", "det", "metadata", "color_palette"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> SceneShards:
    folder = tmp_path_factory.mktemp("shards")
    render_shards(folder, "validation", NUM, seed=SEED, size=SIZE, workers=1)
    return load_shards(folder)


@pytest.fixture(scope="module")
def values(shards: SceneShards) -> SceneValues:
    return SceneValues(shards, SEED, "validation")


@pytest.fixture(scope="module")
def vocabulary(shards: SceneShards) -> bytes:
    texts = [text for record in shards.records for view in record["views"] for text in view["captions"]]
    return build_vocabulary(texts, (*OBJECTS, PERSON))


@pytest.fixture(scope="module")
def text(vocabulary: bytes) -> TextTokenizer:
    return TextTokenizer(vocabulary)


@pytest.fixture(scope="module")
def arrays(shards: SceneShards, vocabulary: bytes) -> SceneArrays:
    return pack(shards.records, vocabulary)


def tokenizer(raw: str) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(TINY.tokenizers()[raw]).eval()


def reader(text: TextTokenizer, vocabulary: bytes) -> InputReader:
    config = TINY.model(table_sizes(vocabulary))
    rows = [config.modality(name) for name in config.domains_in]
    return InputReader({row.raw: row for row in rows}, text, classes=SEMSEG_CLASSES)


def spelt(ids: np.ndarray, text: TextTokenizer) -> str:
    return text.decode(ids[ids > 0].astype(np.int32))


# Rendered data


def test_shards_hold_what_the_renderer_gives(shards: SceneShards):
    assert len(shards.records) == NUM
    for row in (0, 5, NUM - 1):
        scene = Scene.sample(SEED, row, split="validation")
        assert [item["kind"] for item in shards.records[row]["objects"]] == [o.kind for o in scene.objects]
        for view in range(NUM_RENDERINGS):
            image = describe_scene(scene, SIZE, view).rendering
            for name, pixels in scene_data.encoded(image).items():
                assert np.array_equal(shards.maps[name][row, view], pixels)
            told = shards.records[row]["views"][view]
            assert len(told["captions"]) == 3
            assert told["metadata"] == metadata(scene, image, told["captions"][0])


def test_interrupted_rendering_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scene_data, "SCENES_PER_SHARD", 2)
    seen: list[int] = []
    render_shards(tmp_path / "whole", "train", 5, size=16, workers=1, progress=seen.append)
    assert seen == [1, 2, 3]
    render_shards(tmp_path / "cut", "train", 5, size=16, workers=1)
    stamp = (tmp_path / "cut" / "records_000.jsonl").stat().st_mtime_ns
    (tmp_path / "cut" / "records_001.jsonl").unlink()
    with pytest.raises(AssertionError, match="not complete"):
        load_shards(tmp_path / "cut")
    seen.clear()
    render_shards(tmp_path / "cut", "train", 5, size=16, workers=1, progress=seen.append)
    assert seen == [3]
    assert (tmp_path / "cut" / "records_000.jsonl").stat().st_mtime_ns == stamp
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


# Values


def test_values_are_those_that_the_reader_gives_of_the_files(
    values: SceneValues, text: TextTokenizer, vocabulary: bytes
):
    read = reader(text, vocabulary).read
    for row in range(6):
        record = describe_scene(Scene.sample(SEED, row, split="validation"), SIZE, 1)
        files = record.encoded()
        for raw in IMAGES:
            mine, found = values.value(raw, row, 1), read(raw, files[raw])
            if raw == "depth":
                assert np.allclose(mine, found, atol=1e-3)
            else:
                assert np.array_equal(mine, found), raw


def test_batches_are_what_tokenizers_take(values: SceneValues):
    for raw in IMAGES:
        batch = values.batch(raw, [0, 3], [0, 1])
        assert batch.shape[0] == 2
        assert batch.shape[-2:] == (SIZE, SIZE)
        ids = tokenizer("canny_edge" if raw == "sam_edge" else raw).encode(batch)
        assert ids.shape == (2, 4, 4)
    assert values.batch("semseg", range(4), [0] * 4).max() <= len(SEMSEG_CLASSES)
    assert values.batch("semseg", range(4), [0] * 4).min() >= 1


def test_people_and_instances_are_those_of_the_scene(values: SceneValues, shards: SceneShards):
    for row in range(NUM):
        scene = Scene.sample(SEED, row, split="validation")
        owner = np.asarray(shards.maps["instances"][row, 0])
        assert np.array_equal(values.people(row, 0), people(scene, owner, scene.view(0)))
        seen = [one for one in values.instances(row, 0) if one is not None]
        found = instances(owner)
        assert len(values.instances(row, 0)) == len(scene.objects)
        assert [list(box) for box, _ in seen] == found["box"].tolist()


# Tokens


def test_training_spells_scenes_as_the_reader_does(
    values: SceneValues, text: TextTokenizer, vocabulary: bytes, arrays: SceneArrays
):
    read = reader(text, vocabulary).read
    columns = {name: text_tokens(name, values, text, 2) for name in ("det", "metadata", "color_palette")}
    for row in range(NUM):
        scene = Scene.sample(SEED, row, split="validation")
        record = describe_scene(scene, SIZE, 1)
        said = caption(scene, scene.rng("caption1"))
        contents = {
            "color_palette": record.values["color_palette"],
            "metadata": metadata(scene, record.rendering, said),
            "det": record.values.get("det"),
        }
        found = {name: columns[name][row, 1, 0] for name in contents} | {
            "caption": arrays.captions[row, 1, 0]
        }
        for name, content in {**contents, "caption": said}.items():
            if content:
                ids = found[name]
                # Readers add that there may be more to say of statistics.
                more = [text.id_of("[S_1]")] if name == "metadata" else []
                assert ids[ids > 0].tolist() + more == read(name, content).tolist(), name


def test_people_and_instances_are_spelt_as_the_model_reads_them(values: SceneValues, text: TextTokenizer):
    poses, masks = tokenizer("human_poses"), tokenizer("sam_instance")
    ids = people_tokens(values, text, poses, NUM_RENDERINGS)
    assert ids.shape[:3] == (NUM, NUM_RENDERINGS, 2)
    for row in range(NUM):
        found = values.people(row, 0)
        read = string_to_poses(spelt(ids[row, 0, 0], text))
        if not len(found):
            assert spelt(ids[row, 0, 0], text) == "none"
            continue
        assert len(read) == len(found)
        codes = poses.encode(torch.from_numpy(found["pose"].reshape(-1, 207))).flatten(1)
        assert sorted(one.codes for one in read) == sorted(map(tuple, codes.tolist()))
    asked = instance_tokens(values, text, masks, NUM_RENDERINGS)
    on_something = 0
    for row in range(NUM):
        owner = np.asarray(values.shards.maps["instances"][row, 0])
        boxes = [one and list(map(int, one[0])) for one in values.instances(row, 0)]
        for variant in asked[row, 0]:
            for point in string_to_instances(spelt(variant, text)):
                told = [list(map(int, one.box)) for one in point.instances]
                # Points are whole numbers in the frame: one of four neighbours in the picture.
                y, x = (int(place * SIZE / 224) for place in (point.y, point.x))
                near = [boxes[number - 1] for number in owner[y : y + 2, x : x + 2].ravel() if number]
                assert len(told) <= 1
                assert not told or told[0] in near
                on_something += bool(told)
    assert on_something > NUM


def test_every_id_is_in_its_table(
    values: SceneValues, text: TextTokenizer, vocabulary: bytes, arrays: SceneArrays
):
    tables = table_sizes(vocabulary)
    columns = {name: text_tokens(name, values, text, 2) for name in ("det", "metadata", "color_palette")}
    columns["human_poses"] = people_tokens(values, text, tokenizer("human_poses"), 2)
    columns["sam_instance"] = instance_tokens(values, text, tokenizer("sam_instance"), 2)
    columns["caption"] = arrays.captions
    for name, ids in columns.items():
        assert ids.min() >= 0
        assert ids.max() < tables[name], name
        assert text.unk_id not in ids
        # Nothing was cut in the middle: what is used ends before the last place in some row.
        assert (ids[..., -1] == 0).any() or name in ("metadata", "color_palette")


def test_grids_and_vectors_become_ids(values: SceneValues):
    ids = grid_tokens(values, "depth", tokenizer("depth"), NUM_RENDERINGS)
    assert ids.shape == (NUM, NUM_RENDERINGS, 1, 16)
    assert 0 <= ids.min() <= ids.max() < 512
    one = tokenizer("depth").encode(values.batch("depth", [3], [1])).flatten()
    assert ids[3, 1, 0].tolist() == one.tolist()
    features = np.random.default_rng(0).normal(size=(5, 16, 4, 4)).astype(np.float32)
    assert feature_tokens([features[:2], features[2:]], tokenizer("dinov2")).shape == (5, 16)
    vectors = np.random.default_rng(0).normal(size=(6, 2, 16)).astype(np.float32)
    drawn = drawn_tokens(vectors, tokenizer("dinov2_global"))
    assert drawn.shape == (6, 2, 8, 16)
    one_view = drawn_tokens(vectors[:, :1], tokenizer("dinov2_global"))
    agree = [(drawn[:, view] == one_view[:, 0]).mean() for view in (0, 1)]
    assert agree[0] > agree[1]
    assert np.array_equal(drawn, drawn_tokens(vectors, tokenizer("dinov2_global")))
    assert not np.array_equal(drawn[:, :, 0], drawn[:, :, 1])


def test_palettes_are_asked_with_any_number_of_colors(values: SceneValues, text: TextTokenizer):
    ids = text_tokens("color_palette", values, text, 2)
    assert ids.shape[2] == 4
    lengths = (ids > 0).sum(-1)
    assert (lengths[..., 0] == lengths[..., 1]).all()
    assert len(np.unique(lengths[..., 2:])) > 3


def test_draws_depend_on_their_number_alone(values: SceneValues):
    recipe = VqRecipe(batch_size=4, seed=3)
    for raw in ("rgb", "semseg", "canny_edge"):
        draw, again = image_draws(raw, values, recipe), image_draws(raw, values, recipe)
        later = draw(5)
        draw(2)
        assert torch.equal(later, again(5))
        assert not torch.equal(later, again(4))
    vectors = vector_draws(np.eye(9, dtype=np.float32), recipe)
    assert vectors(0).shape == (4, 9)
    assert torch.equal(vectors(7), vectors(7))
    tower = build_teacher("self_supervised", TEACHER, 9, 4).images
    assert image_draws("dinov2", values, recipe, tower)(1).shape == (4, 16, 4, 4)
    assert image_loss("semseg")(torch.zeros(2, 5, 8, 8), torch.ones(2, 8, 8)).item() == pytest.approx(
        np.log(5)
    )


def test_masks_and_poses_for_their_tokenizers(values: SceneValues):
    masks = mask_values(values, 10)
    assert masks.shape == (10, 1, 64, 64)
    assert set(np.unique(masks)) <= {0, 1}
    assert masks.any((1, 2, 3)).all()
    assert pose_values(values).shape[1] == 207


# Teachers


def test_arrays_say_what_scenes_have(shards: SceneShards, arrays: SceneArrays, tmp_path: Path):
    assert arrays.captions.shape == (NUM, NUM_RENDERINGS, 3, MAX_CAPTION)
    assert (arrays.captions[..., -1] == 0).all()
    assert set(np.unique(arrays.attributes)) == {0, 1}
    same = [attribute_vector(record) for record in shards.records]
    assert np.array_equal(arrays.attributes, same)
    assert len(np.unique(arrays.attributes, axis=0)) == NUM
    arrays.save(tmp_path)
    assert np.array_equal(SceneArrays.load(tmp_path).captions, arrays.captions)


def test_teachers_compare_two_looks_at_one_scene(shards: SceneShards, arrays: SceneArrays):
    batches = TeacherBatches(shards, arrays, TEACHER)
    first, second = batches.pairs(3)
    assert first.shape == second.shape == (4, SIZE, SIZE, 3)
    assert torch.equal(first, batches.pairs(3)[0])
    rgb, captions, attributes, *maps = batches.aligned(3)
    assert rgb.shape == (8, SIZE, SIZE, 3)
    assert len(maps) == len(BOUND)
    assert {tuple(one.shape) for one in maps} == {(8, SIZE // 2, SIZE // 2, 3)}
    depth = maps[BOUND.index("depth")]
    assert torch.equal(depth[..., 0], depth[..., 2])
    assert captions.shape[0] == len(attributes) == 8
    assert (captions[:, 0] > 0).all()


def test_pictures_change_but_stay_pictures():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    moved = changed(pictures.copy(), rng)
    assert moved.shape == pictures.shape
    assert not np.array_equal(moved, pictures)
    colored = recolored(pictures.copy(), rng)
    assert 0 < (colored != pictures).any((1, 2, 3)).mean() < 0.5
    near_and_far = map_pictures("depth", np.array([[[0, 6553, 65535]]], np.uint16))
    assert near_and_far[0, 0, :, 0].tolist() == [255, 255, 25]
    classes = map_pictures("semseg", np.array([[[3, 4, 3]]], np.uint8))[0, 0]
    assert classes[0].tolist() == classes[2].tolist() != classes[1].tolist()
    line = np.zeros((1, 4, 4), np.uint8)
    line[0, 1] = 255
    assert halved(map_pictures("sam_edge", line))[0, :, :, 0].tolist() == [[255, 255], [0, 0]]


def test_a_mirror_turns_normals():
    normals = np.zeros((60, 8, 8, 3), np.uint8)
    normals[..., 0] = 200
    found = changed(normals, np.random.default_rng(0), signed=0)
    assert set(np.unique(found[..., 0])) == {55, 200}
    assert len(np.unique(found[:, 0, 0, 0])) == 2
    assert not found[..., 1:].any()


def test_a_teacher_of_places_tells_where_things_are(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    seen = torch.randn(1, 16, 8, 8)
    elsewhere = torch.cat([seen, seen.roll(4, dims=2)])
    monkeypatch.setattr(ImageTower, "features", lambda *_: elsewhere)
    plain, placed = (ImageTower(TeacherConfig((16, 16, 16), dim=16, places=n)) for n in (0, 8))
    with torch.inference_mode():
        same, apart = (float(torch.dist(*tower(elsewhere))) for tower in (plain, placed))
    assert same == pytest.approx(0, abs=1e-5)
    assert apart > 0.01


def test_contrast_is_lowest_for_equal_rows():
    rows = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    scale = torch.tensor(3.0)
    assert contrast(rows, rows, scale) < contrast(rows, rows.roll(1, 0), scale)
    assert recall(rows.numpy(), rows.numpy(), "x") == {"x.r1": 1.0, "x.r10": 1.0}


@pytest.mark.parametrize("kind", ["self_supervised", "aligned"])
def test_teachers_are_read_back(
    kind: str, shards: SceneShards, arrays: SceneArrays, vocabulary: bytes, tmp_path: Path
):
    words, attributes = table_sizes(vocabulary)["caption"], arrays.attributes.shape[1]
    seen: list[tuple[int, int]] = []
    trained = train_teacher(
        kind, shards, arrays, TEACHER, tmp_path, words, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (6, 6)
    again = load_teacher(kind, TEACHER, tmp_path, words, attributes)
    rgb = np.asarray(shards.maps["rgb"][:5, 0])
    vectors = embed_images(again.images, rgb)
    assert np.allclose(vectors, embed_images(trained.images, rgb))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    features = dense_features(again.images, rgb)
    assert features.shape == (5, 16, 4, 4)
    assert np.allclose(features.mean(1), 0, atol=1e-5)
    assert np.allclose(features.std(1), 1, atol=1e-2)


# Vocabulary and tables


def test_vocabulary_spells_everything():
    content = build_vocabulary(["A large red sphere.", "on a ground"], ["sphere", "fire hydrant"])
    tokenizer = TextTokenizer(content)
    assert len(tokenizer.encode("a large red sphere .")) == 5
    assert tokenizer.decode(tokenizer.encode("zebra 42")) == "zebra 42"
    assert tokenizer.unk_id not in tokenizer.encode("quirky!")
    assert len(tokenizer.encode("fire hydrant")) == 1
    for word in ("human", "pose", "global", "camera", "shape", "point", "polygon", "none"):
        assert len(tokenizer.encode(word)) == 1
    for head in ("v0", "v1", "v2", "v3"):
        ids = tokenizer.encode(" ".join(f"{head}={n}" for n in range(1000)))
        assert len(set(ids.tolist())) == 1000


def test_tables_hold_what_their_sequences_say():
    content = build_vocabulary(["A large red sphere.", "on a ground"], ["sphere"])
    tokenizer, tables = TextTokenizer(content), table_sizes(content)

    def last(*words: str) -> int:
        return max(tokenizer.id_of(word) for word in words)

    assert max(tokenizer.encode("a large red sphere on qzx !")) < tables["caption"]
    assert last("v1=31", "v0=255") < tables["color_palette"]
    assert last("v1=31", "v0=511") < tables["metadata"]
    assert last("v0=511", "v1=511", "v2=255", "v3=255") < tables["sam_instance"]
    assert tables["det"] == tables["human_poses"] == tokenizer.vocab_size
    assert tables["caption"] < tables["color_palette"] < tables["metadata"] < tables["sam_instance"]


def test_near_numbers_and_codes_start_alike(vocabulary: bytes, text: TextTokenizer):
    config = TINY.model(table_sizes(vocabulary))
    torch.manual_seed(0)
    model = FourM(config)
    codes = torch.randn(512, 4)
    codes[:2] = codes[:1]
    start_tables(model, text, {f"tok_depth@{SIZE}": codes})
    layer = model.encoder_embeddings["det"]
    assert isinstance(layer, SequenceEncoderEmbedding)
    weight = layer.token_emb.weight
    assert not weight[0].any()
    near, far = (weight[text.id_of(f"v0={n}")] for n in (505, 900))
    here = weight[text.id_of("v0=500")]
    assert (here - near).norm() < (here - far).norm()
    # The same number of another head is another word.
    other = weight[text.id_of("v1=500")]
    assert torch.cosine_similarity(here, other, dim=0) < 0.8
    assert torch.equal(weight, model.encoder_embeddings["det"].token_emb.weight)
    grid = model.encoder_embeddings[f"tok_depth@{SIZE}"]
    assert isinstance(grid, ImageTokenEncoderEmbedding)
    assert torch.equal(grid.token_emb.weight[0], grid.token_emb.weight[1])
    assert 0.4 < grid.token_emb.weight.square().mean().sqrt() < 0.6


# The recipe


def test_columns_are_the_model_s_modalities(vocabulary: bytes):
    for recipe in (TINY, SMALL, ScenesRecipe(), tiny_recipe(100)):
        config = recipe.model(table_sizes(vocabulary))
        assert sorted(recipe.columns()) == sorted(config.domains_in)
        assert set(config.targets) == set(config.domains_in) - {f"rgb@{recipe.size}"}
    assert set(TINY.tokenizers()) == {*IMAGES, *FEATURES, *SPACES, "human_poses", "sam_instance"} - {
        "sam_edge"
    }
    assert set(SMALL.tokenizers()) == {"depth", *SPACES}
    assert set(replace(TINY, modalities=("sam_edge",)).tokenizers()) == {"canny_edge", *SPACES}


def random_batches(recipe: ScenesRecipe, stage: str, text: TextTokenizer, vocabulary: bytes) -> MaskedBatches:
    """Of random tokens, masked as in one of the runs of 4M."""
    config = recipe.model(table_sizes(vocabulary))
    rows = {name: config.modality(name) for name in config.domains_in}
    rng = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {}
    for name in recipe.columns():
        if rows[name].kind == "pix":
            columns[name] = rng.integers(0, 256, (NUM, 2, SIZE, SIZE, 3), np.uint8)
        else:
            columns[name] = rng.integers(40, 60, (NUM, 2, 1, 16)).astype(np.int16)
    masking, _ = recipe.stages()[stage]
    return MaskedBatches(TokenData(columns), rows, masking, text, targets=config.targets, batch_size=2)


def shown_and_asked(batch: Mapping[str, Tokens]) -> tuple[list[set[str]], set[str]]:
    """What each sample is shown, and what the batch is asked for."""
    shown = [{name for name, tokens in batch.items() if not tokens.input_mask[i].all()} for i in range(2)]
    asked = {
        name
        for name, tokens in batch.items()
        if tokens.target_mask is not None and not tokens.target_mask.all()
    }
    return shown, asked


GLOBALS = {"tok_dinov2_global", "tok_imagebind_global"}
EVERYTHING = replace(TINY, alone=(*IMAGES, *FEATURES, *TEXTS))


def test_modalities_are_given_alone_where_the_recipe_says(text: TextTokenizer, vocabulary: bytes):
    batches = random_batches(EVERYTHING, FOURM, text, vocabulary)
    alone: set[str] = set()
    without, num = 0, 1500
    for number in range(num):
        shown, asked = shown_and_asked(batches.draw(number))
        alone |= {name for names in shown if len(names) == 1 for name in names}
        assert not GLOBALS & set().union(*shown)
        if not asked >= GLOBALS:  # maps or texts, of all of the picture
            assert shown == [{f"rgb@{SIZE}"}] * 2
            maps = {f"tok_{raw}@{SIZE}" for raw in ("semseg", "depth", "normal", "canny_edge")}
            assert asked <= maps or asked <= set(TEXTS)
            without += 1
    assert alone == set(EVERYTHING.columns()) - GLOBALS
    assert 0.1 < without / num < 0.5
    assert masking(SIZE) == replace(TINY, alone=()).masking()


@pytest.mark.parametrize(
    ("stage", "mixes"),
    [
        ("fourm_start", [{f"rgb@{SIZE}"}, {"caption"}, {f"rgb@{SIZE}", "caption"}]),
        (
            "fourm_embed",
            [
                *({name} for name in EVERYTHING.columns() if name not in GLOBALS),
                {"color_palette", "metadata"},
            ],
        ),
    ],
)
def test_first_runs_ask_for_the_embeddings_alone(
    stage: str, mixes: list[set[str]], text: TextTokenizer, vocabulary: bytes
):
    batches = random_batches(EVERYTHING, stage, text, vocabulary)
    seen: list[set[str]] = []
    for number in range(400):
        shown, asked = shown_and_asked(batches.draw(number))
        assert asked == GLOBALS
        seen += shown
    for mix in mixes:
        assert mix in seen
    assert not GLOBALS & set().union(*seen)


def test_statistics_alone_are_asked_with_some_missing(text: TextTokenizer, values: SceneValues):
    columns = {"metadata": text_tokens("metadata", values, text, NUM_RENDERINGS)}
    columns |= {f"tok_{space}": np.zeros((NUM, 1, 1, 16), np.int16) for space in SPACES}
    columns |= {f"rgb@{SIZE}": values.shards.maps["rgb"]}
    data = TokenData({name: columns[name] for name in (f"rgb@{SIZE}", "metadata", *columns)})
    config = TINY.model({"metadata": 1000, "caption": 1000, **dict.fromkeys(TEXTS, 1000)})
    recipe = replace(TINY, modalities=("metadata",), alone=("metadata",))
    rows = {name: config.modality(name) for name in columns}
    batches = MaskedBatches(data, rows, recipe.masking(), text, targets=config.targets, batch_size=4)
    whole_ids = {
        tuple(ids[ids > 0]) for ids in columns["metadata"].reshape(-1, columns["metadata"].shape[-1])
    }
    found = 0
    for number in range(300):
        batch = batches.draw(number)
        pixels = batch.get(f"rgb@{SIZE}")
        if "metadata" not in batch or (pixels is not None and not bool(pixels.input_mask.all())):
            continue
        for ids, hidden in zip(batch["metadata"].tensor, batch["metadata"].input_mask, strict=True):
            given = ids[~hidden]
            if 12 < len(given) <= 36:
                found += 1
                assert set(given.tolist()) & set(text.sentinels[:20])
                assert tuple(given.tolist()) not in whole_ids
    assert found > 50


def test_a_small_thing_counts_in_segmentation():
    labels = torch.ones(1, 16, 16, dtype=torch.long)
    labels[:, :4, :4] = 2
    loss = image_loss("semseg")

    def error(wrong: torch.Tensor) -> float:
        guess = torch.where(wrong, 0, labels)
        return float(loss(10 * torch.nn.functional.one_hot(guess, 3).movedim(-1, 1).float(), labels))

    torch.manual_seed(0)
    small, large = labels == 2, torch.zeros_like(labels, dtype=torch.bool)
    large[:, 12:, 12:] = True  # as many pixels, of a large class
    assert error(small) > 2 * error(large) > 0


def test_ties_count_against_the_query():
    assert ranks(np.zeros((4, 4), dtype=np.float32))["r1"] == 0
    assert ranks(np.eye(4, dtype=np.float32)) == {"r1": 1, "r5": 1, "r10": 1, "median_rank": 1}


def test_spaces_and_measures_count_by_how_well_they_find():
    rng = np.random.default_rng(0)
    # The first finds all but row 0; the second finds row 0 and is wrong elsewhere, ever by the same margin.
    first = np.eye(20, dtype=np.float32)
    first[0] = np.roll(first[0], 1)
    second = np.roll(np.eye(20, dtype=np.float32), 1, axis=1)
    second[0] = np.roll(second[0], -1)
    noise = rng.normal(size=(20, 20)).astype(np.float32)
    all_rows, without, alone = np.ones(20, bool), np.arange(20) > 0, np.arange(20) < 1

    def fitted(a: np.ndarray, b: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
        """Spaces first, with equal measures; then the same two as measures of equal spaces."""
        (space, usual), (even, share) = best_tenths((a, a), (b, b), rows), best_tenths((b, a), (b, a), rows)
        assert (usual, even) == (10 * LIKELIHOOD_SHARE, 5)
        return space, share

    assert fitted(first, second, all_rows) == fitted(first, second, without) == (6, 8)
    assert fitted(second, first, without) == (4, 4)
    assert fitted(second, first, alone) == (6, 8)
    assert fitted(first, second, alone) == (4, 4)
    assert fitted(first, second, ~all_rows) == (5, 8)
    assert max(fitted(noise, first, without)) < 3
    assert fitted(first, np.zeros_like(first), without) == (5, 8)


def test_learning_rate_rises_and_falls():
    steps = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert steps[9] == 1
    assert steps.index(max(steps)) in (9, 10)
    assert steps[-1] < 0.01


# Whole runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScenesRun, Path]:
    """A run with every modality."""
    run = ScenesRun(tmp_path_factory.mktemp("run"), TINY, workers=1)
    return run, run.run()


@pytest.mark.slow
def test_recipe_ends_in_a_model_of_every_modality(finished: tuple[ScenesRun, Path]):
    run, folder = finished
    model = load_model(folder, dtype="float32")
    assert set(model.inputs) == {*IMAGES, *FEATURES, *TEXTS, *SPACES}
    assert set(model.targets) == set(model.inputs)
    assert model.parts.classes == SEMSEG_CLASSES
    known = model.parts.source.space_weights
    assert set(known) == {"rgb", "caption", *run.recipe.alone}
    assert all(set(row) == set(SPACES) and sum(row.values()) == pytest.approx(1) for row in known.values())
    assert any(row != dict.fromkeys(SPACES, 0.5) for row in known.values())
    shares = model.parts.source.likelihood_shares
    assert set(shares) == set(known)
    assert any(share != LIKELIHOOD_SHARE for share in shares.values())
    assert {space.num_tokens for space in model.spaces.values()} == {16}
    record = describe_scene(Scene.sample(0, 0), SIZE)
    items = [{raw: model.embedder.read(raw, file)} for raw, file in record.encoded().items()]
    vectors = model.embedder.embed(items)["dinov2_global"].vectors
    assert vectors.shape == (len(items), 16)
    feature = np.random.default_rng(0).normal(size=(16, 4, 4)).astype(np.float32)
    assert model.embedder.embed([{"dinov2": model.embedder.read("dinov2", feature)}])
    found = model.predict({"caption": "a red cube"}, ["depth", "semseg", "dinov2", "det"], num_steps=1)
    assert found["dinov2"].value.shape == (16, 4, 4)
    assert found["depth"].value.shape == (SIZE, SIZE)
    assert np.isfinite(run.tokens("train").columns["caption"]).all()


@pytest.mark.slow
def test_bundle_has_a_card_and_is_small(finished: tuple[ScenesRun, Path]):
    run, folder = finished
    report = json.loads((folder / "measurements.json").read_text())
    assert set(report["retrieval"]) == {"cosine", "likelihood", "both", *SPACES}
    assert {"rgb", "caption", "human_poses", "rgb+caption"} <= set(report["retrieval"]["both"])
    for row in report["retrieval"]["both"].values():
        assert 0 <= row["r1_low"] <= row["r1"] <= row["r1_high"] <= 1
        assert row["r1_high"] - row["r1_low"] > 0.1  # of 20 questions
    card = (folder / "README.md").read_text()
    assert "| caption |" in card
    assert "{" not in card
    names = {path.name for path in folder.iterdir()}
    assert {
        "log_fourm.jsonl",
        "log_aligned.jsonl",
        "log_tok_rgb.jsonl",
        "tok_canny_edge.safetensors",
    } <= names
    for picture in ("curves.webp", "predictions.webp"):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 300
        assert f"({picture})" in card
    assert "tok_sam_edge.safetensors" not in names
    depth, semseg = (report["predictions"][raw] for raw in ("depth", "semseg"))
    assert 0 < depth["mean"]["abs_rel"] < 1
    assert depth["mean"]["delta1"] < 1
    assert 0 <= semseg["tokens"]["mean_iou"] <= semseg["tokens"]["pixel_accuracy"] <= 1
    again = benchmark(folder, 20, size=SIZE, queries=("caption",))
    assert again["both"]["caption"]["r10"] == pytest.approx(report["retrieval"]["both"]["caption"]["r10"])
    assert run.config.domains_in


@pytest.mark.slow
def test_what_is_done_stays_done(finished: tuple[ScenesRun, Path]):
    run, _ = finished
    files = [path for path in run.out.rglob("*") if path.is_file()]
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in files}
    ScenesRun(run.out, TINY, workers=1).run()
    for path, (inode, content) in before.items():
        assert path.read_bytes() == content, path
        if path.suffix in (".safetensors", ".npy", ".pt", ".md"):
            assert path.stat().st_ino == inode, path  # not even written again
    data = run.tokens("train")
    assert set(data.columns) == set(TINY.columns())
    assert whole(data, ["caption"], 3, 0)["caption"].tensor.shape[0] == 3


@pytest.mark.slow
def test_a_run_of_a_newcomer_ends_in_scenes_and_a_bundle(tmp_path: Path):
    stages: list[str] = []

    def tell(stage: str, done: int, total: int) -> None:
        assert 0 < done <= total
        stages.append(stage)

    report = run_scenes(tmp_path, 20, workers=1, progress=tell, recipe=SMALL)
    assert {"write scenes", "render train", "teacher aligned", "train fourm", "benchmark"} <= set(stages)
    assert (tmp_path / "scenes" / "0020.json").exists()
    assert {"rgb", "caption", "depth"} <= set(report["retrieval"])
    assert load_model(report["bundle"]).inputs
    with pytest.raises(ConfigError, match="other scenes"):
        run_scenes(tmp_path, 21, workers=1, recipe=SMALL)


PACKAGED = Path(load_model.__code__.co_filename).parent / "weights" / "scenes"


def test_packaged_model_is_small_and_has_a_card():
    files = list(PACKAGED.iterdir())
    assert sum(path.stat().st_size for path in files) <= 32 * 2**20
    names = {path.name for path in files}
    assert {"README.md", "model.json", "measurements.json", "log_fourm.jsonl"} <= names
