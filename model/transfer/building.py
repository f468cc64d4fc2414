"""From a run's settings to its network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import CheckpointError, ModelError
from ..fourm import FourM
from ..registry import Model, load_model
from ..tensor_file import TensorFile
from ..tokenizers.build import ImageTokenizer
from ..training.lora import Lora, add_lora
from .backbone import GridInput, TransferEncoder, grid_input, one_channel_input
from .config import TransferConfig
from .heads import TransferModel

BEST = "best.safetensors"
"""The weights that a run keeps, in its folder."""


@dataclass(frozen=True)
class DepthTokens:
    """Turns standardised depth into the ids that the model was trained on; its tokenizer stays as it is."""

    tokenizer: ImageTokenizer

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Depth (B, 1, S, S) among the inputs to ids (B, side, side)."""
        with torch.no_grad(), torch.autocast(inputs["depth"].device.type, enabled=False):
            return inputs | {"depth": self.tokenizer.encode(inputs["depth"])}


@dataclass(frozen=True)
class Backbone:
    """An encoder and what has to be known about it.

    Attributes:
        encoder: the network.
        tokenize: what inputs go through first.
        new: inputs whose layer the model did not come with.
        source: the model it is from.
    """

    encoder: TransferEncoder
    tokenize: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    new: tuple[str, ...]
    source: Model


def open_backbone(config: TransferConfig, device: str = "auto") -> Backbone:
    """The encoder of a run, in float32, before any training.

    Raises:
        ModelError: an unknown model, one that does not read pixels or lacks depth tokens that are asked for,
            or patches that do not fill the image size.
        CheckpointError: its files cannot be had, or those of the run to start from are of another encoder.
    """
    source = load_model(config.model, spaces=(), device=device, dtype="float32")
    parts = source.parts
    colors = parts.inputs.get("rgb")
    if colors is None or colors.kind != "pix":
        raise ModelError(f"The model {source.name!r} does not read pixels: it cannot transfer.")
    has_tokens = "depth" in parts.inputs
    as_tokens = config.depth_as == "tokens" or (config.depth_as is None and has_tokens)
    raws = ["rgb", "depth"] if "depth" in config.inputs and as_tokens else ["rgb"]
    if "depth" in raws and not has_tokens:
        raise ModelError(f"The model {source.name!r} has no depth tokens; take `depth_as: pixels`.")
    if config.init == "pretrained":
        fourm = parts.fourm(raws, ())
    else:
        torch.manual_seed(config.recipe.seed)
        names = [parts.inputs[raw].name for raw in raws]
        fourm = FourM(parts.config, inputs=names, targets=()).to(parts.device)
    if config.recipe.lora_rank:  # the paper's scale is 1; of which layers it does not say
        torch.manual_seed(config.recipe.seed)
        fourm.requires_grad_(False)
        add_lora(fourm, Lora(rank=config.recipe.lora_rank, alpha=config.recipe.lora_rank))
    layers = {raw: grid_input(fourm, parts.inputs[raw].name, config.image_size) for raw in raws}
    new = tuple(raw for raw in config.inputs if raw not in raws)
    layers |= {raw: one_channel_input(layers["rgb"]) for raw in new}
    _require_one_grid({raw: layers[raw] for raw in config.head.readout})
    encoder = TransferEncoder(
        fourm, {raw: layers[raw] for raw in config.inputs}, config.recipe.drop_path
    ).train()
    if config.start_from is not None:
        _go_on_from(TensorFile(config.start_from / BEST), encoder, new)
    tokenize = DepthTokens(parts.encoder("depth")) if "depth" in raws else _as_they_are
    return Backbone(encoder, tokenize, new, source)


def parameter_groups(
    model: TransferModel, config: TransferConfig, new: tuple[str, ...]
) -> list[dict[str, object]]:
    """What learns, in groups of one `scale` of the learning rate (layer-wise decay, arXiv 2003.10555).

    The head, the encoder's last norm and layers of new inputs learn at the full rate, the last block at
    `layer_decay` of it, and so on down; input layers come below the first block. Vectors do not decay.
    """
    recipe, depth = config.recipe, len(model.encoder.blocks)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below, parts = 0, name.split(".")
        if name.startswith("encoder.blocks."):
            below = depth - int(parts[2])
        elif name.startswith(("encoder.inputs.", "encoder.registers")) and parts[:3][-1] not in new:
            below = depth + 1
        is_vector = parameter.ndim <= 1 or parts[-1] in ("mod_emb", "registers")
        key = recipe.layer_decay**below, 0.0 if is_vector else recipe.weight_decay
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": found, "scale": scale, "weight_decay": decay} for (scale, decay), found in groups.items()
    ]


def _go_on_from(file: TensorFile, encoder: TransferEncoder, new: tuple[str, ...]) -> None:
    """Take the weights of another run's encoder; tables of positions, which depend on the size, stay."""
    for name, parameter in encoder.named_parameters():
        stored = file.tensors.get(f"encoder.{name}")
        if stored is None and name.split(".")[1] in new:
            continue
        if stored is None or stored.shape != parameter.shape:
            raise CheckpointError(
                f"{file.path} is of another encoder: {name!r} is missing or of another shape."
            )
        with torch.no_grad():
            parameter.copy_(file.read(f"encoder.{name}"))


def _as_they_are(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return inputs


def _require_one_grid(layers: dict[str, GridInput]) -> None:
    counts = {raw: layer.positions.shape[1] for raw, layer in layers.items()}
    if len(set(counts.values())) > 1:
        raise ModelError(f"head.readout takes tokens of equal grids, got {counts}; read one of them out.")
