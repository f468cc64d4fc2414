"""Generation against straightforward loops that repeat everything in every step, with the same outputs.

    python bench/generate.py                      # 4M-21 B shapes, random weights: half an hour on one core
    python bench/generate.py --every 1            # the loops repeat every step: hours
    python bench/generate.py --size tiny          # to see that it runs

Two generations as the published models make them:

- `grid`: a caption of 20 tokens to 196 CLIP tokens in 49 steps, random order, guidance 3 (the authors'
  text-to-image script);
- `text`: a picture to a caption of 256 tokens.

What the loops do in each step:

- `grid, all slots`: for each guidance branch, encode every slot there is and predict all 196, masks hiding
  what is not known yet or not drawn now.
- `grid, used slots`: encode only what is known and predict only what is drawn, one pass per branch, as the
  reference implementation does. It shows what can be saved although every step changes the encoder's input.
- `text, whole prefix`: encode, and predict every token of the text so far to get the next.

Right after a step of the generator, the loops repeat that step from the same state: the load of the machine
hits both alike. With `--every n` they do so at every n-th step, and times in between are interpolated.
Times are processor times of one thread. Drawn tokens are compared; rarely, one differs where a draw falls
between two tokens within the rounding of float32. Fails when a goal is missed.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from anyseek.model.blocks import attention_bias
from anyseek.model.decoding import Progress
from anyseek.model.embeddings import ImageTokenDecoderEmbedding, SequenceDecoderEmbedding
from anyseek.model.fourm import FourM
from anyseek.model.generate import Generator
from anyseek.model.inputs import normalize_pixels
from anyseek.model.plans import TargetPlan
from anyseek.model.presets import PRESETS, FourMConfig
from anyseek.model.sampling import Drawn, SeededChooser, Step
from anyseek.model.tokens import Tokens
from torch import Tensor

RGB, CAPTION, CLIP = "rgb@224", "caption", "tok_clip@224"
OPENING = 5
CAPTION_TOKENS = 20
GRID = TargetPlan(
    CLIP,
    num_steps=49,
    temperature=6.0,
    temperature_schedule="onex:0.5:0.5",
    top_p=0.9,
    guidance=3.0,
)
TEXT = TargetPlan(CAPTION, "autoregressive", temperature=0.3, max_tokens=256, stop_ids=())
GOALS = {"grid": 2.0, "text": 5.0}

Inputs = dict[str, np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=PRESETS, default="base", help="shapes of the model (default base)")
    parser.add_argument("--every", type=int, default=8, help="steps between those that the loops repeat")
    parser.add_argument("--only", choices=GOALS, help="one of the two generations")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fourm = random_model(args.size)
    random = np.random.default_rng(0)
    caption = random.integers(1000, 4000, CAPTION_TOKENS)
    picture = random.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    ratios: dict[str, float] = {}
    print(f"4M-21 {args.size} shapes, float32, one thread, loops at every {args.every}th step; seconds")
    print(f"{'':6}{'loop':>16}{'steps':>7}{'loop':>9}{'ours':>9}{'ratio':>8}{'goal':>6}{'same tokens':>14}")
    if args.only != "text":
        loops: dict[str, Loop] = {
            "all slots": FixedGridLoop(fourm, GRID),
            "used slots": GridLoop(fourm, GRID),
        }
        ratios["grid"] = report("grid", Witness(GRID, loops, args.every).run(fourm, {CAPTION: caption}))
    if args.only != "grid":
        loops = {"whole prefix": TextLoop(fourm, TEXT)}
        ratios["text"] = report("text", Witness(TEXT, loops, args.every).run(fourm, {RGB: picture}))
    return int(any(ratio < GOALS[name] for name, ratio in ratios.items()))


def random_model(size: str) -> FourM:
    names = (CAPTION, RGB, CLIP)
    config = FourMConfig(names, (CAPTION, CLIP), **PRESETS[size], share_modality_embeddings=False)
    torch.manual_seed(0)
    return FourM(config).eval()


# --- the straightforward loops


class Loop:
    """Repeats a step with nothing kept from earlier ones."""

    def __init__(self, fourm: FourM, plan: TargetPlan) -> None:
        self.fourm, self.plan = fourm, plan

    def step(self, step: Step, given: Inputs, written: Sequence[int]) -> Tensor:
        """Tokens of a step, from the conditions and what was decoded before."""
        logits = self.logits(given, step, written)
        if self.plan.guidance != 1:
            empty = self.logits({CAPTION: np.array([OPENING])}, step, written)
            logits = empty + self.plan.guidance * (logits - empty)
        return SeededChooser([0]).draw(step, logits).tokens[0]

    def logits(self, given: Inputs, step: Step, written: Sequence[int]) -> Tensor:
        """Of the tokens that the step draws (1, k, V)."""
        raise NotImplementedError


class GridLoop(Loop):
    """Predicts the slots of the step from what is known."""

    def logits(self, given: Inputs, step: Step, written: Sequence[int]) -> Tensor:
        """One pass over the tokens in use."""
        batch = with_grid(given, written)
        slots = torch.from_numpy(step.slots)
        return self.fourm.decode(self.fourm.encode(batch), [CLIP], positions={CLIP: slots})[CLIP]


class FixedGridLoop(Loop):
    """Predicts all slots from all slots, behind masks."""

    def logits(self, given: Inputs, step: Step, written: Sequence[int]) -> Tensor:
        """One pass over every slot."""
        layer = self.fourm.get_submodule(f"decoder_embeddings.{CLIP}")
        assert isinstance(layer, ImageTokenDecoderEmbedding)
        encoded = self.fourm.encode(with_grid(given, written), num_tokens=CAPTION_TOKENS + 196)
        drawn = torch.zeros(1, 196, dtype=torch.bool)
        drawn[0, step.slots[0]] = True
        queries = layer.grid_embedding() + self.fourm.mask_token
        y = self.fourm.run_decoder(queries, encoded, attention_bias(~drawn, queries.dtype))
        return layer.to_logits(y)[:, step.slots[0]]


class TextLoop(Loop):
    """Predicts every token of the text so far and uses the last."""

    def logits(self, given: Inputs, step: Step, written: Sequence[int]) -> Tensor:
        """One pass over the picture and the text."""
        del step
        layer = self.fourm.get_submodule(f"decoder_embeddings.{CAPTION}")
        assert isinstance(layer, SequenceDecoderEmbedding)
        encoded = self.fourm.encode(as_tokens({**given, CAPTION: np.array([OPENING])}))
        ids = torch.tensor([[OPENING, *written]])
        content, emb = layer(ids, torch.zeros_like(ids, dtype=torch.bool))
        causal = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()[None]
        y = self.fourm.run_decoder(content + emb, encoded, attention_bias(causal, content.dtype))
        return layer.to_logits(y)[:, -1:]


def with_grid(given: Inputs, written: Sequence[int]) -> dict[str, Tokens]:
    """A caption in its buffer, and the grid with -1 where nothing is known."""
    caption = np.pad(given[CAPTION], (0, CAPTION_TOKENS - len(given[CAPTION])))
    mask = torch.arange(CAPTION_TOKENS)[None] >= len(given[CAPTION])
    tokens = torch.tensor([written])
    return {
        CAPTION: Tokens(torch.from_numpy(caption[None]), mask),
        CLIP: Tokens(tokens.clamp(min=0), tokens < 0),
    }


def as_tokens(given: Inputs) -> dict[str, Tokens]:
    batch: dict[str, Tokens] = {}
    for name, value in given.items():
        tensor = torch.from_numpy(normalize_pixels(value[None]) if name == RGB else value[None])
        batch[name] = Tokens(tensor, torch.zeros(1, 196 if name == RGB else len(value), dtype=torch.bool))
    return batch


# --- measuring


@dataclass
class Measured:
    """Seconds of the generator's steps, and of a loop's by index; tokens that agree, and all compared."""

    ours: list[float] = field(default_factory=list)
    loop: dict[int, float] = field(default_factory=dict)
    same: int = 0
    compared: int = 0

    def loop_total(self) -> float:
        """Of all steps, those between repeated ones interpolated."""
        index = np.arange(len(self.ours))
        return float(np.interp(index, list(self.loop), list(self.loop.values())).sum())


class Witness(SeededChooser):
    """Runs the generator, and after its steps lets loops repeat them."""

    def __init__(self, plan: TargetPlan, loops: dict[str, Loop], every: int) -> None:
        super().__init__([0])
        self._plan, self._loops, self._every = plan, loops, every
        self._step: Step | None = None
        self._drawn: list[int] = []
        self._written: list[int] = [-1] * 196 if plan.modality == CLIP else []
        self._measured = {name: Measured() for name in loops}
        self._given: Inputs = {}
        self._started = 0.0

    def run(self, fourm: FourM, given: Inputs) -> dict[str, Measured]:
        """Generate one item; what each loop took, by name."""
        self._given, self._started = given, time.process_time()
        Generator(fourm).generate_with(self, [given], [self._plan], progress=self._after)
        return self._measured

    def draw(self, step: Step, logits: Tensor) -> Drawn:
        """As the seed says; remembered for the loops."""
        result = super().draw(step, logits)
        self._step, self._drawn = step, result.tokens[0].tolist()
        return result

    def _after(self, progress: Progress) -> None:
        ours = time.process_time() - self._started
        is_last = progress.step == progress.num_steps
        for name, measured in self._measured.items():
            measured.ours.append(ours)
            if (progress.step - 1) % self._every == 0 or is_last:
                self._repeat(self._loops[name], measured)
        self._remember()
        self._started = time.process_time()

    @torch.inference_mode()
    def _repeat(self, loop: Loop, measured: Measured) -> None:
        assert self._step is not None
        started = time.process_time()
        tokens = loop.step(self._step, self._given, self._written)
        measured.loop[len(measured.ours) - 1] = time.process_time() - started
        measured.same += int((tokens == torch.tensor(self._drawn)).sum())
        measured.compared += len(tokens)

    def _remember(self) -> None:
        assert self._step is not None
        if self._plan.modality == CLIP:
            for slot, token in zip(self._step.slots[0].tolist(), self._drawn, strict=True):
                self._written[slot] = token
        else:
            self._written += self._drawn


def report(name: str, measured: dict[str, Measured]) -> float:
    """Print a line per loop; the ratio to the first one, which has the goal."""
    ratios: list[float] = []
    for loop, found in measured.items():
        total, ours = found.loop_total(), sum(found.ours)
        label, goal = ("", "-") if ratios else (name, f">={GOALS[name]:g}")
        ratios.append(total / ours)
        same = f"{found.same}/{found.compared}"
        print(
            f"{label:6}{loop:>16}{len(found.ours):7}{total:9.1f}{ours:9.1f}{ratios[-1]:8.2f}{goal:>6}{same:>14}",
            flush=True,
        )
    return ratios[0]


if __name__ == "__main__":
    sys.exit(main())
