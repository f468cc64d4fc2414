"""What 4M is shown of a scene and asked for, in each of the three runs that make the packaged model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .masking import Budget, Component, Keep, Masking

TEXTS = ("caption", "det", "metadata", "color_palette", "human_poses", "sam_instance")
_GLOBALS = {"tok_dinov2_global": 5.0, "tok_imagebind_global": 5.0}
# In one order: a small model that may name statistics in any order names some twice.
_SHUFFLED: frozenset[str] = frozenset()
# Alone, statistics must not all fit: what is asked by them ends in "there may be more", as readers spell it.
_BUDGETS: Mapping[str, Budget] = {"metadata": (12, 37)}


def start_masking(size: int) -> Masking:
    """All of the picture, all of the caption, or both, for the two global embeddings alone.

    What tells most is learnt first and fast. Shown everything from the first step on, the model sees too
    little of any one thing to leave the plateau where it knows only how frequent each token is.
    """
    rgb = f"rgb@{size}"
    return Masking(
        (
            _embedding(2.0, {rgb: 1.0}, 64),
            _embedding(1.5, {"caption": 1.0}, 96),
            _embedding(0.5, {rgb: 1.0, "caption": 1.0}, 64),
        ),
        num_target_tokens=32,
    )


def embed_masking(size: int, alone: Sequence[str]) -> Masking:
    """Each modality alone, and some together, for the two global embeddings and nothing else.

    Pictures and captions are learnt in minutes; what a map of depth or a list of statistics says about a
    scene takes many more samples, which only a run that asks for nothing else affords.

    Args:
        size: of pictures, in pixels.
        alone: names of modalities besides pictures and captions.
    """
    pictures, captions = _embedding(30, {f"rgb@{size}": 1.0}, 64), _embedding(15, {"caption": 1.0}, 96)
    return Masking((pictures, captions, *_others(size, alone)), num_target_tokens=32, shuffled=_SHUFFLED)


def masking(size: int, alone: Sequence[str] = (), num_target_tokens: int = 64) -> Masking:
    """Everything from anything; but for maps and texts of a picture, both global embeddings are asked too.

    A batch follows one component: all of the picture for the embeddings, which all that is found depends on,
    for everything, for maps or for texts, all of the caption, mostly one modality, two or three, mixes
    without the picture, parts of everything, or one of those of `embed_masking`.

    Args:
        size: of pictures, in pixels.
        alone: as for `embed_masking`. Elsewhere a modality of fewer tokens than the budget never stands
            alone: what is left goes to others.
        num_target_tokens: of a sample.
    """
    rgb = f"rgb@{size}"
    # What stands where and what is told of it, and no embeddings: these take most to learn.
    nothing = dict.fromkeys(_GLOBALS, 0.0)
    maps = {"semseg": 2.0, "depth": 1.0, "normal": 1.0, "canny_edge": 0.7}
    maps = nothing | {f"tok_{raw}@{size}": alpha for raw, alpha in maps.items()}
    texts = nothing | dict.fromkeys(TEXTS, 0.3) | {"caption": 1.0}
    return Masking(
        (
            _embedding(130, {rgb: 1.0}, 64),
            _embedding(45, {"caption": 1.0}, 96),
            _component(12, {rgb: 1.0}, 64, keep="random"),
            _component(50, {rgb: 1.0}, 64, targets=maps, others_out=0.0),
            _component(15, {rgb: 1.0}, 64, targets=texts, others_out=0.0, keep="random"),
            _component(20, {"caption": 1.0}, 96),
            _component(15, {}, 64, others_in=0.01),
            _component(8, {rgb: 0.02}, 128, others_in=0.05),
            _component(10, {rgb: 0.0, "caption": 0.3}, 96, others_in=0.1, keep="random"),
            _component(8, {}, 96, others_in=0.7, keep="random"),
            *_others(size, alone),
        ),
        num_target_tokens=num_target_tokens,
        shuffled=_SHUFFLED,
    )


def _others(size: int, alone: Sequence[str]) -> list[Component]:
    """Other modalities than pictures and captions alone, and mixes, for the embeddings."""
    mixes: tuple[tuple[float, Mapping[str, float], Budget], ...] = (
        # The palette takes what it needs, statistics what is left.
        (8, {"color_palette": 30.0, "metadata": 1.0}, (36, 58)),
        (3, {"caption": 1.0, f"tok_depth@{size}": 1.0}, 128),
        (8, {"caption": 1.0, "color_palette": 1.0}, 128),
        (3, {f"tok_semseg@{size}": 1.0, "color_palette": 1.0}, 96),
    )
    known = {"caption", *alone}
    # Maps say most and take longest to learn, edges above all; what says little about a scene is shown less.
    maps = {"depth": 20.0, "normal": 14.0, "semseg": 8.0, "canny_edge": 40.0, "sam_edge": 28.0}
    often = {f"tok_{raw}@{size}": weight for raw, weight in maps.items()}
    often |= {"det": 5.0, "human_poses": 2.0, "sam_instance": 2.0}
    return [
        *(_embedding(often.get(name, 8.0), {name: 1.0}, _BUDGETS.get(name, 64)) for name in alone),
        *(_embedding(weight, mix, budget) for weight, mix, budget in mixes if mix.keys() <= known),
        _embedding(6, {}, 96, others_in=0.05),
    ]


def _embedding(
    weight: float, inputs: Mapping[str, float], budget: Budget, *, others_in: float = 0.0
) -> Component:
    """Asks for the embeddings only: twice as fast."""
    return _component(weight, inputs, budget, others_in=others_in, others_out=0.0)


def _component(
    weight: float,
    inputs: Mapping[str, float],
    budget: Budget,
    *,
    others_in: float = 0.0,
    targets: Mapping[str, float] = MappingProxyType({}),
    others_out: float = 0.15,
    keep: Keep = "all",
) -> Component:
    """Asks for both embeddings besides, unless `targets` gives them 0; shows all of a sequence that fits, or
    parts.
    """
    inputs = {**dict.fromkeys(_GLOBALS, 0.0), **inputs}
    targets = {**_GLOBALS, **targets}
    return Component(weight, inputs, targets, others_in, others_out, dict.fromkeys(TEXTS, keep), budget)
