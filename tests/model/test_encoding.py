"""Values become what their tokenizer says, whatever they are encoded with."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from anyseek.errors import ModelError
from anyseek.model import Model, encoding
from anyseek.model.encoding import ValueEncoder
from anyseek.model.parts import ModelParts
from anyseek.model.tokenizers.parsed import parse_sequence
from anyseek.model.tokenizers.poses import Pose, poses_to_string
from anyseek.model.values import INSTANCE, PERSON
from torch import Tensor

Item = dict[str, np.ndarray]
DrawValues = Callable[..., Item]

GRIDS = ("depth", "normal", "semseg", "clip", "dinov2", "imagebind", "canny_edge", "sam_edge")
VECTORS = ("dinov2_global", "imagebind_global")
AS_THEY_ARE = ("rgb", "caption", "det", "metadata", "color_palette", "t5_caption")


@pytest.fixture(scope="module")
def parts(any_model: Model) -> ModelParts:
    return any_model.parts


@pytest.fixture(scope="module")
def encoder(parts: ModelParts) -> ValueEncoder:
    return ValueEncoder(parts.inputs, parts)


@pytest.fixture(scope="module")
def items(any_model: Model, draw_values: DrawValues) -> list[Item]:
    return [draw_values(any_model, seed) for seed in range(4)]


def prepared(raw: str, value: np.ndarray) -> Tensor:
    """What the tokenizer of a modality takes, by the table of the specification."""
    tensor = torch.from_numpy(value)[None]
    if raw in ("rgb", "normal"):
        return tensor.permute(0, 3, 1, 2) / 127.5 - 1
    if raw in ("canny_edge", "sam_edge"):
        return tensor[:, None] / 127.5 - 1
    if raw == "depth":
        return tensor[:, None]
    return tensor.long() if raw == "semseg" else tensor


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# --- images, features, vectors


@pytest.mark.parametrize("raw", [*GRIDS, *VECTORS])
def test_ids_are_those_of_the_tokenizer(
    encoder: ValueEncoder, parts: ModelParts, items: list[Item], raw: str
) -> None:
    row = parts.inputs[raw]
    for item in items:
        (found,) = encoder.encode([{raw: item[raw]}])
        expected = parts.encoder(raw).encode(prepared(raw, item[raw])).flatten().numpy()
        assert list(found) == [row.name]
        assert found[row.name].dtype == np.int64
        assert found[row.name].shape == (row.max_tokens,)
        assert (found[row.name] == expected).all()
        assert found[row.name].max() < (row.vocab_size or 0)


def test_different_values_get_different_ids(encoder: ValueEncoder, items: list[Item]) -> None:
    first, *others = encoder.encode(items)
    for other in others:
        for raw in (*GRIDS, *VECTORS, "human_poses", "sam_instance"):
            (name,) = (name for name in first if name.split("@")[0] in (raw, f"tok_{raw}"))
            assert not np.array_equal(first[name], other[name])


def test_one_by_one_is_as_in_a_batch_in_any_order(encoder: ValueEncoder, items: list[Item]) -> None:
    random = np.random.default_rng(0)
    names = list(items[0])
    mixed = [
        {raw: item[raw] for raw in random.permutation(names)[: random.integers(1, len(names))]}
        for item in items * 3
    ]
    together = encoder.encode(mixed)
    assert all(same(encoder.encode([item])[0], found) for item, found in zip(mixed, together, strict=True))
    order = random.permutation(len(mixed))
    shuffled = encoder.encode([mixed[i] for i in order])
    assert all(same(found, together[i]) for i, found in zip(order, shuffled, strict=True))


def test_more_items_than_one_pass_takes_are_all_encoded(
    encoder: ValueEncoder, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder.encode(items)
    monkeypatch.setattr(encoding, "_AT_ONCE", 3)
    assert all(same(a, b) for a, b in zip(encoder.encode(items), expected, strict=True))


def test_the_same_array_is_encoded_once(
    encoder: ValueEncoder, parts: ModelParts, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, sizes = parts.encoder("depth"), list[int]()
    real = tokenizer.encode

    def encode(values: Tensor) -> Tensor:
        sizes.append(len(values))
        return real(values)

    monkeypatch.setattr(tokenizer, "encode", encode)
    shared = items[0]["depth"]
    found = encoder.encode([{"depth": shared}, {"depth": shared, "rgb": items[0]["rgb"]}, {"depth": shared}])
    assert sizes == [1]
    assert len({one["tok_depth@64"].tobytes() for one in found}) == 1


def test_what_needs_no_tokenizer_passes_through(
    encoder: ValueEncoder, parts: ModelParts, items: list[Item]
) -> None:
    (found,) = encoder.encode(items[:1])
    for raw in AS_THEY_ARE:
        assert found[parts.inputs[raw].name] is items[0][raw]


def test_names_come_in_the_order_of_the_table(
    encoder: ValueEncoder, parts: ModelParts, items: list[Item]
) -> None:
    (found,) = encoder.encode([dict(reversed(items[0].items()))])
    assert list(found) == [row.name for row in parts.inputs.values()]


def test_pixels_become_tokens_where_tokens_are_asked_for(parts: ModelParts, items: list[Item]) -> None:
    row = parts.targets["rgb"]
    (found,) = ValueEncoder({"rgb": row}, parts).encode([{"rgb": items[0]["rgb"]}])
    expected = parts.encoder("rgb").encode(prepared("rgb", items[0]["rgb"])).flatten().numpy()
    assert (found["tok_rgb@64"] == expected).all()


def test_grids_of_another_size_than_the_models_are_refused(parts: ModelParts, items: list[Item]) -> None:
    coarse = replace(parts.inputs["clip"], max_tokens=9, grid=(3, 3))
    with pytest.raises(ModelError, match="makes 16 tokens, the model takes 9"):
        ValueEncoder({"clip": coarse}, parts).encode([{"clip": items[0]["clip"]}])


def test_nothing_gives_nothing(encoder: ValueEncoder) -> None:
    assert encoder.encode([]) == []


# --- people


def spelt(parts: ModelParts, raw: str, value: np.ndarray) -> np.ndarray:
    (found,) = ValueEncoder(parts.inputs, parts).encode([{raw: value}])
    return found[raw]


def test_people_are_spelt_with_the_codes_of_their_poses(parts: ModelParts, items: list[Item]) -> None:
    people = items[2]["human_poses"]
    assert len(people) == 3
    codes = parts.encoder("human_poses").encode(torch.from_numpy(people["pose"]).reshape(3, 207))
    text = poses_to_string(
        Pose(
            tuple(person["box"].tolist()),
            tuple(code.tolist()),
            tuple(person["rotation"].reshape(9).tolist()),
            tuple(person["camera"].tolist()),
            tuple(person["shape"].tolist()),
        )
        for person, code in zip(people, codes, strict=True)
    )
    ids = spelt(parts, "human_poses", people)
    assert ids.dtype == np.int32
    assert (ids == parts.text.encode(text)).all()
    assert len(ids) == 3 * 39


def test_more_people_than_the_text_holds_lose_the_last_not_half_of_one(parts: ModelParts) -> None:
    people = np.zeros(9, PERSON)
    people["box"] = np.linspace(0, 1, 36).reshape(9, 4)
    ids = spelt(parts, "human_poses", people)
    assert len(ids) == 7 * 39 <= parts.inputs["human_poses"].max_tokens
    assert (ids == spelt(parts, "human_poses", people[:7])).all()


def test_nobody_is_said_so(parts: ModelParts) -> None:
    assert parts.text.decode(spelt(parts, "human_poses", np.zeros(0, PERSON))) == "none"


def test_extreme_people_stay_within_the_numbers(parts: ModelParts) -> None:
    people = np.zeros(1, PERSON)
    people["camera"], people["shape"], people["box"] = 1e30, -1e30, [-3, 0.5, 7, 1]
    ids = spelt(parts, "human_poses", people)
    assert len(ids) == 39
    assert parts.text.unk_id not in ids


# --- instances


def instance(x: int, y: int, *, filled: bool = True) -> np.ndarray:
    found = np.zeros(1, INSTANCE)
    found["point"] = [x, y]
    if filled:
        found["box"] = [x, y, x + 10, y + 20]
        found["mask"][0, : 8 + x % 40, 5:] = 1
    return found


def test_instances_are_spelt_point_by_point(parts: ModelParts) -> None:
    value = np.concatenate([instance(3, 4), instance(50, 60), instance(3, 4), instance(9, 9, filled=False)])
    codes = parts.encoder("sam_instance").encode(torch.from_numpy(value["mask"][:, None]).float())
    text = parts.text.decode(spelt(parts, "sam_instance", value))
    first, second, third = (f"point {part}".split() for part in text.split("point ")[1:])
    assert first[:3] == ["point", "v0=4", "v1=3"]
    assert [words[0] for words in (first[3:], first[24:])] == ["polygon", "polygon"]
    assert first[4:8] == ["v0=3", "v1=4", "v2=13", "v3=24"]
    assert len(first) == 3 + 2 * 21
    assert second[:3] == ["point", "v0=60", "v1=50"]
    assert third == ["point", "v0=9", "v1=9", "none"]
    words = [f"v0={code}" if code < 512 else f"v1={code - 512}" for code in codes[2].flatten().tolist()]
    assert first[29:] == words


def test_more_instances_than_the_text_holds_lose_the_last_not_half_of_one(parts: ModelParts) -> None:
    value = np.concatenate([instance(i, i) for i in range(40)])
    ids = spelt(parts, "sam_instance", value)
    assert len(ids) == 12 * 24 <= parts.inputs["sam_instance"].max_tokens
    found = parse_sequence("sam_instance", ids, parts.text)
    assert found.problem is None
    assert len(found.value) == 12


def test_points_without_instances_and_no_points_at_all(parts: ModelParts) -> None:
    empty = np.concatenate([instance(i, 0, filled=False) for i in range(7)])
    assert parts.text.decode(spelt(parts, "sam_instance", empty)).split().count("none") == 7
    many = spelt(parts, "sam_instance", np.concatenate([empty] * 30))
    assert (many == spelt(parts, "sam_instance", empty)).all()


def test_items_keep_their_own_people_and_instances(encoder: ValueEncoder, parts: ModelParts) -> None:
    people = [np.zeros(n, PERSON) for n in (2, 0, 3, 1)]
    for i, value in enumerate(people):
        value["box"] = i / 10
        value["pose"] = i
    found = [item["human_poses"] for item in encoder.encode([{"human_poses": value} for value in people])]
    assert [len(ids) for ids in found] == [78, 1, 117, 39]
    for ids, value in zip(found, people, strict=True):
        assert (ids == spelt(parts, "human_poses", value)).all()
    assert all(not np.array_equal(a, b) for a, b in pairwise(found))


def test_words_beyond_a_small_table_are_unknown(parts: ModelParts) -> None:
    row = replace(parts.inputs["human_poses"], vocab_size=200)
    (found,) = ValueEncoder({"human_poses": row}, parts).encode([{"human_poses": np.zeros(1, PERSON)}])
    assert found["human_poses"].max() < 200
    assert parts.text.unk_id in found["human_poses"]
