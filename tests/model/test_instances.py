"""All instances of a picture: passes, masks and what is merged."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from anyseek.errors import QueryError
from anyseek.model.drafts import ControlIds, Draft
from anyseek.model.fourm import FourM
from anyseek.model.generate import Generator
from anyseek.model.instances import PLAN, TARGET, Instance, merge, merge_answers, write_answers
from anyseek.model.presets import FourMConfig
from anyseek.model.tokenizers.instances import InstanceCode, PointInstances, grid_points, instances_to_string
from anyseek.model.tokenizers.parsed import parse_sequence
from anyseek.model.tokenizers.text import TextTokenizer
from anyseek.model.training.vocabulary import build_vocabulary
from torch import Tensor

TEXT = TextTokenizer(build_vocabulary(["point polygon none"], []))
LEFT, RIGHT = (20, 60, 100, 160), (120, 40, 200, 200)


def contains(box: tuple[int, ...], point: tuple[int, int]) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


class DiscTokenizer:
    """Every code stands for a disc that fills its box; the first code says how large."""

    def codebook(self) -> Tensor:
        return torch.zeros(1, 960, 1)

    def decode(self, ids: Tensor) -> Tensor:
        assert ids.shape[1:] == (4, 4)
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 2, indexing="ij")
        radius = ids[:, 0, 0].float().view(-1, 1, 1, 1) / 1000
        return 20 * (radius - (x**2 + y**2).sqrt())


class ScriptedGenerator:
    """Answers every point with the boxes that contain it."""

    def __init__(self, noise: int = 0) -> None:
        self.noise, self.asked = noise, []
        self.ending: list[int] = []

    def generate(
        self,
        conditions: Sequence[Any],
        _plans: Any,
        *,
        seed: Any,
        drafts: Sequence[Mapping[str, Draft]],
        **_: Any,
    ) -> list[dict[str, np.ndarray]]:
        results: list[dict[str, np.ndarray]] = []
        assert len(conditions) == len(drafts) == len(seed)
        for draft in drafts:
            words = TEXT.decode(draft[TARGET].tokens[~draft[TARGET].redraw]).split()
            places = [(int(words[i + 2][3:]), int(words[i + 1][3:])) for i in range(0, len(words), 3)]
            self.asked.append(places)
            answers = [PointInstances(x, y, tuple(self._at(x, y))) for x, y in places]
            words = TEXT.encode(instances_to_string(answers) + " polygon v0=1")
            results.append({TARGET: np.asarray([*words, *self.ending])})
        return results

    def _at(self, x: int, y: int) -> list[InstanceCode]:
        boxes = [box for box in (LEFT, RIGHT) if contains(box, (x, y))]
        return [InstanceCode((box[0] + x % 3, *box[1:]), (950,) * 16) for box in boxes]


def merged(ids: np.ndarray) -> list[Instance]:
    answers: Any = parse_sequence(TARGET, ids, TEXT).value
    return merge_answers(answers or [], DiscTokenizer())


def find(**options: Any) -> Any:
    generator: Any = ScriptedGenerator()
    found = merged(write_answers(generator, {}, TEXT, **options))
    return found, generator.asked


def test_every_grid_point_is_asked_once_and_few_in_a_pass() -> None:
    _, asked = find()
    assert sorted(point for places in asked for point in places) == sorted(grid_points())
    assert [len(places) for places in asked] == [7] * 7


def test_answers_for_the_same_pixels_are_one_instance() -> None:
    found, _ = find()
    assert [one.box[1:] for one in found] == [RIGHT[1:], LEFT[1:]]
    votes = [sum(contains(box, point) for point in grid_points()) for box in (RIGHT, LEFT)]
    assert [one.votes for one in found] == votes
    for one, box in zip(found, (RIGHT, LEFT), strict=True):
        x0, y0, x1, y1 = box
        inside = np.zeros((224, 224), bool)
        inside[y0:y1, x0:x1] = True
        assert not (one.mask & ~inside).any()
        assert one.mask.sum() == pytest.approx(np.pi / 4 * 0.95**2 * (x1 - x0) * (y1 - y0), rel=0.1)


def test_few_points_find_what_they_touch() -> None:
    found, asked = find(points=[(150, 100)])
    assert asked == [[(150, 100)]]
    assert [one.box for one in found] == [RIGHT]
    assert find(points=[(0, 0)])[0] == []
    assert find(points=[]) == ([], [])
    with pytest.raises(QueryError, match="outside"):
        find(points=[(224, 3)])


def test_an_instance_says_where_it_was_asked_and_how_it_looks_in_its_box() -> None:
    (one,) = find(points=[(150, 100)])[0]
    assert one.point == (150, 100)
    assert one.crop.shape == (64, 64)
    assert one.crop.mean() == pytest.approx(np.pi / 4 * 0.95**2, rel=0.05)
    assert not one.crop[0, 0]


def test_masks_that_only_touch_stay_apart_and_empty_ones_go() -> None:
    codes = [InstanceCode((0, 0, 100, 100), (900,) * 16), InstanceCode((50, 0, 150, 100), (900,) * 16)]
    codes.append(InstanceCode((9, 9, 10, 10), (0,) * 16))
    found = merge_answers(
        [PointInstances(1, 2, tuple(codes)), PointInstances(3, 4, (codes[0],))], DiscTokenizer()
    )
    assert [(one.box, one.votes) for one in found] == [(codes[0].box, 2), (codes[1].box, 1)]
    assert merge([]) == []


def test_texts_of_all_passes_are_one_text_whatever_ends_them() -> None:
    generator: Any = ScriptedGenerator()
    plain = write_answers(generator, {}, TEXT)
    generator.ending = [TEXT.eos_id, 7]
    ended = write_answers(generator, {}, TEXT)
    assert np.array_equal(ended, plain)
    assert TEXT.decode(plain).count("point") == 49


def test_random_models_give_something_or_nothing_but_no_exception() -> None:
    config = FourMConfig(
        ("rgb@32", TARGET),
        (TARGET,),
        encoder_depth=1,
        decoder_depth=1,
        dim=16,
        num_heads=2,
        patch_size=8,
        vocab_overrides={TARGET: TEXT.vocab_size},
    )
    torch.manual_seed(0)
    generator = Generator(FourM(config).eval(), ControlIds.of(TEXT))
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    steps: list[Any] = []
    found = merged(write_answers(generator, {"rgb@32": picture}, TEXT, progress=steps.append))
    assert all(one.mask.any() for one in found)
    assert 1 <= len(steps) <= (PLAN.max_tokens or 0)
