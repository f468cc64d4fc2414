"""How a model starts from a checkpoint that may have other modalities: what both have is taken over strictly,
what is new starts fresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch

from ...errors import CheckpointError, ModelError
from ..checkpoint import Checkpoint
from ..fourm import FourM
from ..presets import FourMConfig

_OWN = ("domains_in", "domains_out", "vocab_overrides", "own_modalities", "image_size", "patch_size")
"""What a configuration says of modalities; all else must be the same in both."""
_LAYERS = ("encoder_embeddings.", "decoder_embeddings.")


@dataclass(frozen=True)
class Start:
    """What became of the modalities.

    Attributes:
        fresh: state-dict prefixes of layers that the checkpoint does not have.
        left_out: those that the model does not have.
    """

    fresh: tuple[str, ...]
    left_out: tuple[str, ...]


def start_from(model: FourM, checkpoint: Checkpoint) -> Start:
    """Copy the weights of a checkpoint into a model.

    Blocks, norms and the layers of every modality that both have must fit exactly.

    Raises:
        CheckpointError: a tensor is missing, or of another shape.
        ModelError: the model computes otherwise than that of the checkpoint (activation, norms, heads, ...).
    """
    file = checkpoint.file
    theirs = FourMConfig.parse(checkpoint.config, where=str(file.path))
    _require_alike(model.config, theirs, checkpoint)
    with torch.device("meta"):
        tied = FourM(theirs).tied_keys()
    twins = {**tied, **{value: key for key, value in tied.items()}}
    fresh = _missing_layers(model.config, theirs)
    for name, tensor in model.state_dict().items():
        if name.startswith(fresh):
            continue
        stored = name if name in file.tensors else twins.get(name, name)
        if stored not in file.tensors:
            raise CheckpointError(f"{file.path}: tensor {name!r} is missing.")
        if file.tensors[stored].shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{file.path}: tensor {name!r} has shape {file.tensors[stored].shape}, the model takes "
                f"{tuple(tensor.shape)}; give modalities the vocabularies and sizes of the checkpoint."
            )
        with torch.no_grad():
            tensor.copy_(file.read(stored))
    return Start(fresh, _missing_layers(theirs, model.config))


def extended(config: FourMConfig, own: Mapping[str, str], vocab: Mapping[str, int]) -> FourMConfig:
    """A configuration with a user's modalities behind its own, as inputs and, where they can be, targets.

    Args:
        config: without them.
        own: by name, the known modality that each is like.
        vocab: their numbers of ids, where they differ from those of what they are like.
    """
    for name in own:
        if name in (*config.domains_in, *config.domains_out):
            raise ModelError(f"The model has a modality {name!r} already: give the new one another name.")
    return replace(
        config,
        domains_in=(*config.domains_in, *own),
        domains_out=(*config.domains_out, *own),
        vocab_overrides={**config.vocab_overrides, **vocab},
        own_modalities={**config.own_modalities, **own},
    )


def restricted(config: FourMConfig, inputs: Iterable[str], targets: Iterable[str]) -> FourMConfig:
    """A configuration with some of its modalities. Raises ModelError for those that it does not have."""
    chosen = tuple(inputs), tuple(targets)
    for names, known in zip(chosen, (config.domains_in, config.domains_out), strict=True):
        for name in names:
            if name not in known:
                raise ModelError(f"The checkpoint has no {name!r} there. Known: {', '.join(known)}.")
    names = {*chosen[0], *chosen[1]}
    return replace(
        config,
        domains_in=chosen[0],
        domains_out=chosen[1],
        vocab_overrides={k: v for k, v in config.vocab_overrides.items() if k in names},
        own_modalities={k: v for k, v in config.own_modalities.items() if k in names},
    )


def freeze_all_but(model: FourM, fresh: Sequence[str]) -> None:
    """Let only parameters learn whose names start with one of `fresh`."""
    model.requires_grad_(False)
    named = list(model.named_parameters(remove_duplicate=False))
    shared = {id(parameter) for name, parameter in named if not name.startswith(tuple(fresh))}
    for _, parameter in named:
        parameter.requires_grad_(id(parameter) not in shared)


def _missing_layers(config: FourMConfig, other: FourMConfig) -> tuple[str, ...]:
    """Prefixes of the layers that the first has and the second has not."""
    ins = [f"{_LAYERS[0]}{name}." for name in config.domains_in if name not in other.domains_in]
    outs = [f"{_LAYERS[1]}{name}." for name in config.targets if name not in other.targets]
    return (*ins, *outs)


def _require_alike(ours: FourMConfig, theirs: FourMConfig, checkpoint: Checkpoint) -> None:
    for field in fields(FourMConfig):
        if field.name in _OWN or getattr(ours, field.name) == getattr(theirs, field.name):
            continue
        # The published 4M-21 models started from 4M-7, whose modality embeddings are shared.
        if field.name == "share_modality_embeddings" and theirs.share_modality_embeddings:
            continue
        raise ModelError(
            f"{checkpoint.path} has {field.name} {getattr(theirs, field.name)}, the model "
            f"{getattr(ours, field.name)}; leave `model` out to take the checkpoint's."
        )
