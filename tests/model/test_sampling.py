"""Filters against their definitions, draws against their distribution."""

import numpy as np
import pytest
import torch
from anyseek.model.sampling import SeededChooser, Step, draw, filter_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

VOCABULARY = 12


def random_logits(seed: int, *shape: int, scale: float = 2.0) -> Tensor:
    return torch.randn(*shape, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * scale


def one_step(num_items: int, k: int, *, items: list[int] | None = None, temperature: float = 1.0) -> Step:
    slots = np.tile(np.arange(k), (num_items, 1))
    chosen = list(range(num_items)) if items is None else items
    return Step(0, 3, chosen, slots, np.zeros(slots.shape, bool), np.full(num_items, temperature), 0, 0.9)


@given(st.integers(0, 99), st.one_of(st.integers(0, 20), st.floats(0.01, 0.99)), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_filters_keep_what_their_definitions_say(seed: int, top_k: float, top_p: float) -> None:
    logits = random_logits(seed, 3)
    before = logits.clone()
    kept = filter_logits(logits, top_k, top_p).isfinite().numpy()
    assert torch.equal(logits, before), "the argument was changed"
    count = max(int(top_k * VOCABULARY), 1) if 0 < top_k < 1 else int(top_k) or VOCABULARY
    for row, is_kept in zip(logits.numpy().astype(np.float64), kept, strict=True):
        order = np.argsort(-row)
        allowed = order[:count]
        probs = np.exp(row[allowed] - row[allowed].max())
        probs /= probs.sum()
        if 0 < top_p < 1:
            cumulative = np.concatenate([[0], np.cumsum(probs)[:-1]])
            if np.abs(cumulative - top_p).min() < 1e-5:
                continue  # too close to call in float32
            allowed = allowed[cumulative <= top_p]
        assert set(np.flatnonzero(is_kept)) == set(allowed)


def test_draws_follow_the_distribution_and_report_its_probabilities() -> None:
    logits = random_logits(1, 1)
    uniform = torch.linspace(0, 1, 20_001, dtype=torch.float64)[None, :-1]
    drawn = draw(logits[:, None].expand(1, 20_000, -1), uniform, torch.tensor([[0.7]]), top_k=5)
    expected = (filter_logits(logits[0], top_k=5) / 0.7).softmax(-1)
    share = torch.bincount(drawn.tokens[0], minlength=VOCABULARY) / 20_000
    torch.testing.assert_close(share, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn.probs[0], expected[drawn.tokens[0]])


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("temperature", [1e-6, 0.01, 1.0, 1000.0])
def test_filtered_tokens_are_never_drawn(uniform: float, temperature: float) -> None:
    logits = random_logits(2, 4, 6)
    draws = torch.full((4, 6), uniform, dtype=torch.float64)
    drawn = draw(logits, draws, torch.full((4, 1), temperature), top_k=3, top_p=0.9)
    allowed = filter_logits(logits, 3, 0.9).isfinite()
    assert bool(allowed.gather(-1, drawn.tokens[..., None]).all())


def test_zero_temperature_takes_the_best_token_beside_rows_that_draw() -> None:
    logits = random_logits(3, 2, 5)
    uniform = torch.full((2, 5), 0.99, dtype=torch.float64)
    drawn = draw(logits, uniform, torch.tensor([[0.0], [50.0]]))
    assert torch.equal(drawn.tokens[0], logits[0].argmax(-1))
    assert drawn.probs[0].tolist() == [1.0] * 5
    assert not torch.equal(drawn.tokens[1], logits[1].argmax(-1))


def test_top_p_ignores_the_temperature() -> None:
    logits = torch.tensor([[[3.0, 2.0, 0.0, -1.0]]])
    uniform = torch.rand(1, 1, dtype=torch.float64)
    hot = {int(draw(logits, uniform * 0 + u, torch.tensor([[100.0]]), top_p=0.6).tokens) for u in (0.1, 0.9)}
    assert hot == {0}


def test_an_items_draws_do_not_depend_on_the_batch() -> None:
    logits = random_logits(4, 3, 8)
    together = SeededChooser([7, 8, 9]).draw(one_step(3, 8), logits)
    alone = SeededChooser([7, 8, 9]).draw(one_step(1, 8, items=[1]), logits[1:2])
    assert torch.equal(together.tokens[1:2], alone.tokens)
    same = SeededChooser([7, 7, 9]).draw(one_step(2, 8), logits[:1].expand(2, -1, -1))
    assert torch.equal(same.tokens[0], same.tokens[1])
    few = SeededChooser([7, 8, 9]).draw(one_step(3, 4), logits[:, :4])
    assert torch.equal(together.tokens[:, :4], few.tokens)


def test_seeds_steps_and_targets_draw_apart() -> None:
    logits = torch.zeros(1, 40, 1000)
    steps = [one_step(1, 40), Step(1, 3, [0], *_rest(40)), Step(0, 4, [0], *_rest(40))]
    drawn = [SeededChooser([5]).draw(step, logits).tokens for step in steps]
    drawn.append(SeededChooser([6]).draw(steps[0], logits).tokens)
    for i, first in enumerate(drawn):
        for second in drawn[:i]:
            assert int((first == second).sum()) < 5
    order = SeededChooser([5]).order(0, 0, 40)
    assert sorted(order) == list(range(40))
    assert order.tolist() != SeededChooser([5]).order(1, 0, 40).tolist()


def _rest(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    return np.arange(k)[None], np.zeros((1, k), bool), np.ones(1), 0, 0.9


def test_kept_tokens_are_the_most_confident_and_never_padding() -> None:
    step = one_step(2, 4)
    step.unused[1, 2:] = True
    confidence = torch.tensor([[0.1, 0.9, 0.9, 0.2], [0.3, 0.2, 1.0, 1.0]])
    kept = SeededChooser([0, 0]).keep(step, confidence, np.array([2, 1]))
    assert kept.tolist() == [[False, True, True, False], [True, False, False, False]]
