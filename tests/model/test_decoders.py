"""Token ids to values: types, ranges and directions, and that nothing a model writes is an exception."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.model.decoders import BATCH, ValueDecoder, nearest_rotations
from anyseek.model.modalities import MODALITIES, Modality
from anyseek.model.tokenizers.image import VQVAE, TokenizerConfig
from anyseek.model.tokenizers.instances import InstanceCode, PointInstances, instances_to_string
from anyseek.model.tokenizers.poses import Pose, poses_to_string
from anyseek.model.tokenizers.sequences import Box, boxes_to_string, metadata_to_string, palette_to_string
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from anyseek.model.values import INSTANCE, PERSON, Predicted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

WORDS = "human pose global camera shape point polygon none a red cube stands behind a small dog"
TEXT = TextTokenizer(build_vocabulary([WORDS], ["dog", "hot dog"]))
SEQUENCES = ("caption", "det", "metadata", "color_palette", "human_poses", "sam_instance")


class Echo:
    """Decodes ids to pictures that say which ids and seed they came from."""

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        self.channels, self.scale = channels, scale
        self.batches: list[int] = []

    def codebook(self) -> Tensor:
        return torch.zeros(1, 64, 4)

    def decode(self, ids: Tensor, *, seed: Any, num_steps: int | None, progress: Any) -> Tensor:
        assert len(seed) == len(ids)
        self.batches.append(len(ids))
        for step in range(num_steps or 0):
            if progress is not None:
                progress(step + 1, num_steps)
        values = ids.float() / 32 - 1 + torch.tensor(seed).view(-1, *[1] * (ids.ndim - 1)) * 0.01
        if ids.ndim == 2:
            return values[:, :1].expand(-1, self.channels) * self.scale
        picture = values.repeat_interleave(16, 1).repeat_interleave(16, 2)
        return picture[:, None].expand(-1, self.channels, -1, -1) * self.scale


def decoder(**tokenizers: Any) -> ValueDecoder:
    parts: Any = SimpleNamespace(text=TEXT, decoder=tokenizers.__getitem__)
    return ValueDecoder(parts)


def decode(row: Modality, tokenizer: Any, *ids: int) -> Predicted:
    tokens = np.resize(np.asarray(ids, np.int64), row.max_tokens)
    (found,) = decoder(**{row.raw: tokenizer}).decode(row, [tokens], seeds=[0])
    assert found.modality == row.raw
    assert found.problem is None
    assert np.array_equal(found.tokens.reshape(-1), tokens)
    return found


@pytest.mark.parametrize("raw", ["rgb", "normal"])
def test_pictures_are_bytes(raw: str) -> None:
    found = decode(MODALITIES[f"tok_{raw}@224"], Echo(3, 2.0), 0, 16, 32, 48, 63, 0, 0)
    assert isinstance(found.value, np.ndarray)
    assert (found.value.dtype, found.value.shape) == (np.uint8, (224, 224, 3))
    assert found.value[0, ::16, 0].tolist()[:5] == [0, 0, 128, 255, 255]
    assert found.tokens.shape == (14, 14)


def test_depth_has_no_range() -> None:
    found = decode(MODALITIES["tok_depth@448"], Echo(1, 5.0), 0, 63)
    assert isinstance(found.value, np.ndarray)
    assert (found.value.dtype, found.value.shape) == (np.float32, (448, 448))
    assert (found.value.min(), found.value.max()) == (-5.0, 4.84375)
    assert found.tokens.shape == (28, 28)


@pytest.mark.parametrize("raw", ["canny_edge", "sam_edge"])
def test_edges_are_there_or_not(raw: str) -> None:
    found = decode(MODALITIES[f"tok_{raw}@224"], Echo(1), 0, 31, 32, 63)
    assert isinstance(found.value, np.ndarray)
    assert (found.value.dtype, found.value.shape) == (np.uint8, (224, 224))
    assert found.value[0, :64:16].tolist() == [0, 0, 255, 255]


def test_segmentation_gives_the_likeliest_label() -> None:
    class Labels(Echo):
        def decode(self, ids: Tensor, **_: Any) -> Tensor:
            return torch.nn.functional.one_hot(ids, 64).movedim(-1, 1).float()

    found = decode(MODALITIES["tok_semseg@224"], Labels(1), *range(64))
    assert isinstance(found.value, np.ndarray)
    assert found.value.dtype == np.uint8
    assert found.value.reshape(-1)[:64].tolist() == list(range(64))


def test_features_come_as_channels_of_a_grid_and_vectors_as_directions() -> None:
    features = decode(MODALITIES["tok_clip@224"], Echo(512, 3.0), 5).value
    assert isinstance(features, np.ndarray)
    assert (features.dtype, features.shape[0]) == (np.float32, 512)
    vector = decode(MODALITIES["tok_dinov2_global"], Echo(768, 3.0), 5)
    assert isinstance(vector.value, np.ndarray)
    assert (vector.value.dtype, vector.value.shape, vector.tokens.shape) == (np.float32, (768,), (16,))
    assert np.linalg.norm(vector.value) == pytest.approx(1)
    nothing = decode(MODALITIES["tok_dinov2_global"], Echo(768, 0.0), 5).value
    assert isinstance(nothing, np.ndarray)
    assert not nothing.any()


def test_many_items_go_in_batches_each_with_its_own_seed() -> None:
    row, echo, steps = MODALITIES["tok_depth@224"], Echo(1), list[tuple[int, int]]()
    tokens = [np.full(196, i % 64) for i in range(2 * BATCH + 3)]
    seeds = list(range(len(tokens)))
    found = decoder(depth=echo).decode(
        row, tokens, seeds=seeds, num_steps=4, progress=lambda *step: steps.append(step)
    )
    assert echo.batches == [BATCH, BATCH, 3]
    for i, one in enumerate(found):
        assert isinstance(one.value, np.ndarray)
        assert one.value == pytest.approx(i / 32 - 1 + 0.01 * i)
    assert steps == sorted(steps)
    assert steps[-1] == (4 * len(tokens), 4 * len(tokens))
    assert decoder(depth=echo).decode(row, [], seeds=[]) == []


# --- texts


def tokenizer_of(channels: int, **changes: Any) -> VQVAE:
    torch.manual_seed(0)
    mlp = "BottleneckMLP/B_1-Wi_32"
    options: dict[str, Any] = {"codebook_size": 1024, "num_codebooks": 8, "latent_dim": 32} | changes
    return VQVAE(TokenizerConfig(channels, **{"enc_type": mlp, "dec_type": mlp, **options})).eval()


POSES = tokenizer_of(207)
MASKS = tokenizer_of(
    1,
    enc_type="vit_d16l1h2_enc",
    dec_type="vit_d16l1h2_dec",
    quant_type="lucid",
    num_codebooks=1,
    image_size=64,
    post_mlp=True,
    out_conv=True,
)
READER = decoder(human_poses=POSES, sam_instance=MASKS)
POSE = Pose(
    (0.1, 0.2, 0.5, 0.9), (0, 700, 3, 1023, 5, 6, 7, 8), (0, -1, 0, 1, 0, 0, 0, 0, 1), (1, 2, 9), (0.5,) * 10
)
INSTANCES = [
    PointInstances(3, 4, (InstanceCode((10, 20, 130, 180), tuple(range(16))),)),
    PointInstances(9, 9),
    PointInstances(200, 180, (InstanceCode((150, 100, 224, 224), tuple(range(900, 916))),)),
]
EXAMPLES = {
    "caption": "a red cube behind a hot dog",
    "det": boxes_to_string([Box(0.1, 0.2, 0.3, 0.4, "hot dog"), Box(0.5, 0.5, 0.9, 1.0, "red cube")]),
    "metadata": metadata_to_string({"brightness": 100.0, "n_humans": 3}),
    "color_palette": palette_to_string([(1, 2, 3), (255, 0, 9)]),
    "human_poses": poses_to_string([POSE, POSE]),
    "sam_instance": instances_to_string(INSTANCES),
}


def read(raw: str, text: str) -> Predicted:
    (found,) = READER.decode(MODALITIES[raw], [TEXT.encode(text).astype(np.int64)], seeds=[0])
    return found


def test_texts_come_back_as_what_they_say() -> None:
    assert read("caption", EXAMPLES["caption"]).value == EXAMPLES["caption"]
    near: Any = pytest.approx
    assert read("det", EXAMPLES["det"]).value == [
        {"box": near([0.1, 0.2, 0.3, 0.4], abs=1e-3), "label": "hot dog"},
        {"box": near([0.5, 0.5, 0.9, 1.0], abs=1e-3), "label": "red cube"},
    ]
    assert read("metadata", EXAMPLES["metadata"]).value == {"brightness": near(96.9), "n_humans": 3}
    assert read("color_palette", EXAMPLES["color_palette"]).value == ["#010203", "#ff0009"]
    assert all(read(raw, text).problem is None for raw, text in EXAMPLES.items())


def test_people_are_rotations_in_boxes() -> None:
    people = read("human_poses", EXAMPLES["human_poses"]).value
    assert isinstance(people, np.ndarray)
    assert (people.dtype, people.shape) == (PERSON, (2,))
    for matrices in (people["pose"], people["rotation"]):
        product = matrices @ np.swapaxes(matrices, -1, -2)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)
    np.testing.assert_allclose(people["rotation"][0].reshape(-1), POSE.rotation, atol=2e-3)
    np.testing.assert_allclose(people["box"][1], POSE.box, atol=1e-3)
    np.testing.assert_allclose(people["camera"][1], POSE.camera, atol=2e-2)
    np.testing.assert_allclose(people["shape"][1], POSE.shape, atol=4e-3)
    decoded = POSES.decode(torch.tensor([POSE.codes])).numpy().reshape(23, 3, 3)
    np.testing.assert_allclose(people["pose"][0], nearest_rotations(decoded), atol=1e-5)


def test_instances_have_a_point_a_box_and_a_mask() -> None:
    found = read("sam_instance", EXAMPLES["sam_instance"]).value
    assert isinstance(found, np.ndarray)
    assert found.dtype == INSTANCE
    assert {tuple(point) for point in found["point"].tolist()} <= {(3, 4), (200, 180)}
    assert {tuple(box) for box in found["box"].tolist()} <= {(10, 20, 130, 180), (150, 100, 224, 224)}
    assert set(np.unique(found["mask"])) <= {0, 1}
    assert found["mask"].any(axis=(1, 2)).all()


def test_nobody_and_nothing_are_empty() -> None:
    nobody, nothing = read("human_poses", "none").value, read("sam_instance", "point v0=1 v1=2 none").value
    assert isinstance(nobody, np.ndarray)
    assert isinstance(nothing, np.ndarray)
    assert (nobody.dtype, nobody.shape, nothing.dtype, nothing.shape) == (PERSON, (0,), INSTANCE, (0,))
    assert read("det", "").value == []


def test_what_cannot_be_read_has_no_value_but_its_tokens() -> None:
    for raw in SEQUENCES[1:]:
        found = read(raw, "a small dog")
        assert found.value is None
        assert found.problem
        assert len(found.tokens) == 3
    assert (
        read("human_poses", EXAMPLES["human_poses"].replace("v0=100 v1=200", "v0=900 v1=200")).value is None
    )


@given(st.lists(st.lists(st.floats(-4, 4), min_size=9, max_size=9), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_nearest_rotations_are_proper_for_any_matrices(numbers: list[list[float]]) -> None:
    matrices = np.asarray(numbers).reshape(-1, 3, 3)
    found = nearest_rotations(matrices)
    np.testing.assert_allclose(
        found @ np.swapaxes(found, -1, -2), np.broadcast_to(np.eye(3), found.shape), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-6)
    np.testing.assert_allclose(nearest_rotations(found), found, atol=1e-6)


@given(st.sampled_from(SEQUENCES), st.lists(st.integers(0, TEXT.vocab_size + 3), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_ids_are_read_or_reported(raw: str, ids: list[int]) -> None:
    check(raw, np.asarray(ids, np.int64))


@given(st.sampled_from(SEQUENCES), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_damaged_texts_are_read_or_reported(raw: str, seed: int) -> None:
    """Words of all modalities, cut, swapped and repeated, and single numbers changed: nearer to sense."""
    random = np.random.default_rng(seed)
    words = TEXT.encode(" ".join(random.permutation(list(EXAMPLES.values())))).astype(np.int64)
    own = TEXT.encode(EXAMPLES[raw]).astype(np.int64)
    i, j = sorted(random.integers(0, len(words), 2).tolist())
    changed = np.where(random.random(len(own)) < 0.05, random.integers(0, TEXT.vocab_size, len(own)), own)
    for ids in (
        words,
        words[i:j],
        np.concatenate([words[j:], words[:j]]),
        changed,
        own[: int(random.integers(len(own)))],
    ):
        check(raw, ids)


def check(raw: str, ids: np.ndarray) -> None:
    (found,) = READER.decode(MODALITIES[raw], [ids], seeds=[0])
    assert np.array_equal(found.tokens, ids)
    if found.value is None:
        assert found.problem
    elif raw in ("human_poses", "sam_instance"):
        assert isinstance(found.value, np.ndarray)
        assert found.value.dtype == (PERSON if raw == "human_poses" else INSTANCE)
        numbers = found.value["box"]
        assert (numbers[:, 0] < numbers[:, 2]).all()
        assert (numbers[:, 1] < numbers[:, 3]).all()
