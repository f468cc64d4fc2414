import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import InputError
from anyseek.model.modalities import MODALITIES
from anyseek.model.tokenizers.spans import merge_spans
from anyseek.model.tokens import Tokens
from anyseek.model.training.batches import AheadBatches, MixedBatches
from anyseek.model.training.budgets import shares
from anyseek.model.training.masking import Component, MaskedBatches, Masking
from anyseek.model.training.mixtures import mixture_4m21
from anyseek.model.training.token_data import TokenData, padded

EVEN = Component(others_in=1.0, others_out=1.0)


def batches(
    tiny: Any, *components: Component, data: TokenData | None = None, **changes: Any
) -> MaskedBatches:
    masking = replace(Masking(components or (EVEN,), 12, 10), **changes)
    return MaskedBatches(
        data or tiny.data, tiny.rows, masking, tiny.text, targets=tiny.config.targets, batch_size=16
    )


def used(mask: torch.Tensor | None) -> np.ndarray:
    return np.zeros(16) if mask is None else (~mask).sum(1).numpy()


# --- budgets


def test_shares_fill_the_budget_exactly_and_never_more_than_there_is_room() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        room = rng.integers(0, 40, (8, 5))
        alphas = rng.choice([0, 1e-3, 0.01, 0.3, 1, 10, 1000], 5)
        budget = int(rng.integers(1, 150))
        given = shares(room, alphas, budget, rng)
        assert (given >= 0).all()
        assert (given <= room).all()
        assert (given[:, alphas == 0] == 0).all()
        assert (given.sum(1) <= budget).all()
        fits = (room * (alphas > 0)).min(1, where=alphas > 0, initial=budget) >= budget
        assert (given.sum(1)[fits] == budget).all()


def test_shares_follow_the_concentrations() -> None:
    rng = np.random.default_rng(1)
    room = np.full((4000, 3), 1000)
    given = shares(room, np.array([1.0, 2.0, 5.0]), 100, rng)
    np.testing.assert_allclose(given.mean(0), [12.5, 25, 62.5], atol=1)
    alone = shares(room, np.full(3, 1e-3), 100, rng)
    assert (alone.max(1) >= 99).mean() > 0.98  # tiny concentrations: one modality at a time
    np.testing.assert_allclose(alone.mean(0), 100 / 3, atol=3)


def test_what_one_modality_has_no_room_for_goes_to_the_others() -> None:
    room = np.tile([3, 1000], (500, 1))
    given = shares(room, np.array([1000.0, 1.0]), 50, np.random.default_rng(0))
    assert (given == [3, 47]).all()


# --- batches


def test_batches_keep_the_budgets(tiny_training: Any) -> None:
    drawn = batches(tiny_training, *mixture_4m21(tiny_training.rows.values()))
    for number in range(60):
        batch = drawn.draw(number)
        shown = sum(used(tokens.input_mask) for tokens in batch.values())
        asked = sum(used(tokens.target_mask) for tokens in batch.values())
        assert (shown <= 12).all()
        assert (asked <= 10).all()
        assert asked.sum() > 0
        assert batch.keys() <= tiny_training.rows.keys()


def test_a_range_of_budgets_is_drawn_from(tiny_training: Any) -> None:
    grid = Component(inputs={"rgb@32": 1.0}, targets={"tok_depth@32": 1.0})
    drawn = batches(tiny_training, grid, num_input_tokens=(2, 5), num_target_tokens=(3, 4))
    sizes = [
        (used(b["rgb@32"].input_mask), used(b["tok_depth@32"].target_mask))
        for b in map(drawn.draw, range(40))
    ]
    assert {int(shown[0]) for shown, _ in sizes} == {2, 3, 4, 5}
    assert {int(asked[0]) for _, asked in sizes} == {3, 4}
    assert all((shown == shown[0]).all() for shown, _ in sizes)


def test_a_components_own_input_budget_wins(tiny_training: Any) -> None:
    grid = Component(inputs={"rgb@32": 1.0}, targets={"tok_depth@32": 1.0}, num_input_tokens=7)
    assert (used(batches(tiny_training, grid).draw(0)["rgb@32"].input_mask) == 7).all()


def test_no_token_of_a_grid_is_both_shown_and_asked(tiny_training: Any) -> None:
    grid = Component(inputs={"tok_depth@32": 1.0}, targets={"tok_depth@32": 1.0})
    drawn = batches(tiny_training, grid)
    places = np.zeros(16)
    for number in range(30):
        tokens = drawn.draw(number)["tok_depth@32"]
        assert tokens.target_mask is not None
        assert not (~tokens.input_mask & ~tokens.target_mask).any()
        assert (used(tokens.target_mask) == 4).all()  # 16 slots, 12 shown
        places += (~tokens.target_mask).sum(0).numpy()
    assert places.min() > 0.6 * places.mean()  # anywhere


def test_spans_of_a_sequence_hide_exactly_what_is_asked(tiny_training: Any) -> None:
    text = tiny_training.text
    words = Component(inputs={"caption": 1.0}, targets={"caption": 1.0})
    drawn = batches(tiny_training, words, num_target_tokens=40)
    known = {tuple(int(i) for i in ids if i) for ids in tiny_training.data.columns["caption"].reshape(-1, 9)}
    hidden = 0
    for number in range(40):
        tokens = drawn.draw(number)["caption"]
        for ids, shown, asked in zip(tokens.tensor, ~tokens.input_mask, ~tokens.target_mask, strict=True):
            given, wanted = ids[shown].tolist(), ids[asked].tolist()
            if not wanted:
                continue
            whole = tuple(merge_spans(given or [text.sentinels[0]], wanted, text.sentinels))
            assert whole[-1] == text.eos_id
            assert whole[:-1] in known
            assert len(given) + len([i for i in wanted if i not in text.sentinels]) == len(whole) + len(
                [i for i in given if i in text.sentinels]
            )
            hidden += 1
    assert hidden > 100


def test_keep_all_shows_whole_sequences_and_binary_all_or_nothing(tiny_training: Any) -> None:
    sentinels = set(tiny_training.text.sentinels)
    for keep, none_allowed in (("all", False), ("binary", True)):
        words = Component(
            inputs={"caption": 1.0}, targets={"caption": 1.0, "tok_depth@32": 1.0}, keep={"caption": keep}
        )
        drawn = batches(tiny_training, words, num_input_tokens=30)
        counts = {"none": 0, "all": 0}
        for number in range(20):
            tokens = drawn.draw(number).get("caption")
            if tokens is None:
                continue
            for ids, shown in zip(tokens.tensor, ~tokens.input_mask, strict=True):
                given = ids[shown].tolist()
                assert not sentinels & set(given)  # nothing within is hidden
                counts["all" if given else "none"] += 1
        assert counts["all"] > 50
        assert (counts["none"] > 50) == none_allowed


def test_statistics_stay_pairs_in_any_order(tiny_training: Any) -> None:
    pairs = Component(inputs={"metadata": 1.0}, targets={"tok_depth@32": 1.0})
    orders: set[tuple[str, ...]] = set()
    drawn = batches(tiny_training, pairs)
    for number in range(5):
        tokens = drawn.draw(number)["metadata"]
        for ids, shown in zip(tokens.tensor, ~tokens.input_mask, strict=True):
            words = tiny_training.text.decode(ids[shown].tolist()).replace(" [EOS]", "").split()
            orders.add(tuple(words[::2]))
            first = {
                int(name[3:]): int(value[3:]) for name, value in zip(words[::2], words[1::2], strict=True)
            }
            assert first[11] - first[10] == first[12] - first[11] == 1
    assert len(orders) == 6


def test_batch_n_is_always_the_same_one(tiny_training: Any) -> None:
    one, other = batches(tiny_training), batches(tiny_training)
    other.draw(7)
    for name, tokens in one.draw(3).items():
        again = other.draw(3)[name]
        assert torch.equal(tokens.tensor, again.tensor)
        assert torch.equal(tokens.input_mask, again.input_mask)
    assert list(one.draw(3)) == list(other.draw(3))


def test_all_modalities_of_a_sample_are_of_one_rendering(tiny_training: Any) -> None:
    count = 30
    depth = np.zeros((count, 2, 1, 16), np.int16)
    depth[:, 1] = 1
    pixels = np.full((count, 2, 32, 32, 3), 10, np.uint8)
    pixels[:, 1] = 250
    drawn = batches(tiny_training, data=TokenData({"rgb@32": pixels, "tok_depth@32": depth}))
    seen: set[bool] = set()
    for number in range(8):
        batch = drawn.draw(number)
        if len(batch) == 2:
            bright = batch["rgb@32"].tensor.mean((1, 2, 3)) > 0
            assert torch.equal(bright, batch["tok_depth@32"].tensor[:, 0] == 1)
            seen |= set(bright.tolist())
    assert seen == {True, False}


def test_what_a_sample_lacks_is_neither_shown_nor_asked(tiny_training: Any) -> None:
    columns = {name: column[:2].copy() for name, column in tiny_training.data.columns.items()}
    columns["rgb@32"][0] = 0
    columns["tok_depth@32"][0] = -1
    columns["caption"][0] = 0
    drawn = batches(tiny_training, data=TokenData(columns))
    for number in range(20):
        batch = drawn.draw(number)
        lacking = None
        for name, tokens in batch.items():
            nothing = (used(tokens.input_mask) == 0) & (used(tokens.target_mask) == 0)
            if name == "rgb@32":
                lacking = (tokens.tensor[:, 0, 0, 0] == tokens.tensor.min()).numpy()
            if lacking is not None and name != "metadata":
                assert nothing[lacking].all()
        assert all(int(tokens.tensor.min()) >= 0 for name, tokens in batch.items() if name != "rgb@32")


def test_vectors_are_inputs_whose_padding_is_never_shown(tiny_training: Any) -> None:
    row = MODALITIES["t5_caption"]
    vectors = np.zeros((10, 1, 1, 6, 4096), np.float16)
    vectors[:, :, :, :4] = 1
    data = TokenData({"t5_caption": vectors, "tok_depth@32": tiny_training.data.columns["tok_depth@32"][:10]})
    rows = tiny_training.rows | {"t5_caption": row}
    masking = Masking((Component(inputs={"t5_caption": 1.0}, targets={"tok_depth@32": 1.0}),), 3, 4)
    drawn = MaskedBatches(data, rows, masking, tiny_training.text, targets=["tok_depth@32"], batch_size=16)
    tokens = drawn.draw(0)["t5_caption"]
    assert (used(tokens.input_mask) == 3).all()
    assert tokens.input_mask[:, 4:].all()
    assert tokens.target_mask is None


def test_data_and_masking_that_cannot_serve_are_refused(tiny_training: Any) -> None:
    with pytest.raises(InputError, match="asks for nothing"):
        batches(tiny_training, Component(others_in=1.0)).draw(0)
    with pytest.raises(InputError, match="none of the model's modalities"):
        batches(tiny_training, data=TokenData({"tok_clip@32": tiny_training.data.columns["tok_depth@32"]}))
    with pytest.raises(InputError, match=r"rgb@32 holds uint8 \(40, 2, 16, 16, 3\), the model takes pixels"):
        batches(
            tiny_training, data=TokenData({"rgb@32": tiny_training.data.columns["rgb@32"][:, :, ::2, ::2]})
        )
    strange = tiny_training.data.columns["tok_depth@32"] + np.int16(1)
    with pytest.raises(InputError, match="holds id 16, the model has 16"):
        batches(tiny_training, data=TokenData({"tok_depth@32": strange})).draw(0)


# --- the published mixture


def test_published_mixture_is_that_of_4m21() -> None:
    names = ("rgb@224", "caption", "t5_caption", "tok_clip@224", "color_palette")
    mixture = mixture_4m21(MODALITIES[name] for name in names)
    assert [component.weight for component in mixture] == [1, 1, 1, 1, 1, 0.5, 0.5]
    ins = [[c.inputs.get(name, c.others_in) for name in names] for c in mixture]
    outs = [[c.targets.get(name, c.others_out) for name in names[1:]] for c in mixture]
    for alpha, shown, asked in zip((0.01, 0.1, 1, 10), ins, outs, strict=False):
        assert (shown, asked) == ([alpha] * 5, [alpha] * 4)
    assert (ins[4], outs[4]) == ([1000, 0, 0, 0, 0], [0.5] * 4)
    assert (ins[5], outs[5]) == ([0.05, 5, 0, 0.05, 0.05], [0, 0.5, 0.5, 0.5])
    assert (ins[6], outs[6]) == ([0.05, 0, 5, 0.05, 0.05], [0.5, 0, 0.5, 0.5])
    assert [c.keep.get("caption") for c in mixture] == [None] * 5 + ["all", None]
    assert all(c.keep["color_palette"] == "binary" for c in mixture)


# --- several data sets


def test_data_sets_are_drawn_in_proportion_and_with_their_own_modalities(tiny_training: Any) -> None:
    texts = TokenData({"caption": tiny_training.data.columns["caption"]})
    mixed = MixedBatches([(batches(tiny_training), 3.0), (batches(tiny_training, data=texts), 1.0)], seed=5)
    which = np.array([mixed.which(number) for number in range(4000)])
    assert abs((which == 0).mean() - 0.75) < 0.03
    for number in range(30):
        batch = mixed.draw(number)
        assert which[number] == 0 or set(batch) == {"caption"}


class Counted:
    """Batches that say only their number."""

    def draw(self, number: int) -> dict[str, Tokens]:
        return {"caption": Tokens(torch.tensor([[number]]), torch.zeros(1, 1, dtype=torch.bool))}


def test_batches_drawn_ahead_come_in_order() -> None:
    ahead = AheadBatches(Counted, range(4, 20, 2), workers=1)
    assert [int(ahead.draw(n)["caption"].tensor) for n in range(4, 20, 2)] == list(range(4, 20, 2))


# --- tokens on disk


def test_tokens_are_mapped_and_come_back(tiny_training: Any, tmp_path: Path) -> None:
    tiny_training.data.save(tmp_path)
    loaded = TokenData.load(tmp_path)
    assert all(isinstance(column, np.memmap) for column in loaded.columns.values())
    for name, column in tiny_training.data.columns.items():
        np.testing.assert_array_equal(loaded.columns[name], column)
    part = loaded.only(["caption"]).part(30, 40)
    assert (len(loaded), loaded.num_renderings, len(part), part.num_renderings) == (40, 2, 10, 1)
    assert np.shares_memory(part.columns["caption"], loaded.columns["caption"])
    with pytest.raises(InputError, match="no modality 'det'; it has"):
        loaded.only(["det"])


@pytest.mark.parametrize(
    ("index", "array", "message"),
    [
        (None, None, "no tokenized data"),
        ("{", None, "no tokenized data"),
        (json.dumps({"modalities": ["../x"]}), None, "must list the modalities"),
        (json.dumps({"modalities": []}), None, "must list the modalities"),
        (json.dumps({"modalities": ["a"]}), None, "cannot be mapped"),
        (json.dumps({"modalities": ["a"]}), np.zeros((2, 1, 1, 4), np.int64), "expected ids int16"),
        (json.dumps({"modalities": ["a"]}), np.zeros((2, 1, 4), np.int16), "expected ids int16"),
        (json.dumps({"modalities": ["a"]}), np.zeros((2, 0, 1, 4), np.int16), "no renderings"),
        (json.dumps({"modalities": ["a"]}), np.zeros((0, 1, 1, 4), np.int16), "holds no sample"),
        (json.dumps({"modalities": ["a"]}), np.array([[[[None]]]], object), "cannot be mapped"),
    ],
)
def test_folders_that_hold_something_else_are_refused(
    tmp_path: Path, index: str | None, array: np.ndarray | None, message: str
) -> None:
    if index is not None:
        (tmp_path / "tokens.json").write_text(index)
    if array is not None:
        np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        TokenData.load(tmp_path)


def test_sequences_are_padded_and_cut() -> None:
    np.testing.assert_array_equal(padded([[1, 2, 3], [4], []], 2), [[1, 2], [4, 0], [0, 0]])
    assert padded([], 5).shape == (0, 0)
