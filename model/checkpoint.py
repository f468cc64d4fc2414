"""Open checkpoints from the hub or from disk, load what is needed of them strictly, and save them.

The format is that of the published 4M models: safetensors whose metadata hold the configuration, one string
per key, or a `config.json` beside the file.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, ModelError
from .fourm import FourM
from .parsing import literal_values
from .presets import FourMConfig
from .tensor_file import SCALE, TensorFile, TensorInfo, in_8_bits
from .tokenizers.build import ImageTokenizer, build_tokenizer, parse_tokenizer_config

ModelT = TypeVar("ModelT", bound=nn.Module)

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_JSON_KEYS = ("vocab_overrides", "own_modalities", "presets")
_MAX_CONFIG_BYTES = 10_000_000


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: configuration values and, on demand, tensors.

    Attributes:
        file: the weights, of which only the header has been read.
        config: values by configuration key, not yet checked.
    """

    file: TensorFile
    config: Mapping[str, object]

    @property
    def path(self) -> Path:
        """The weights on disk."""
        return self.file.path

    @property
    def bytes_read(self) -> int:
        """Bytes of the weights read so far, header included."""
        return self.file.bytes_read


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Find a checkpoint and read its header and configuration.

    Args:
        source: a safetensors file, a folder with one, or a hub id such as `EPFL-VILAB/4M-21_B`, which is
            downloaded into the hub's cache.

    Raises:
        CheckpointError: nothing there, a pickle, a damaged file, or no configuration.
    """
    path = find_weights(source)
    file = TensorFile(path)
    values = literal_values(file.metadata, json_keys=_JSON_KEYS)
    values.pop("format", None)
    if not values:
        values = _read_config(_config_beside(path, str(source)))
    return Checkpoint(file, values)


def find_weights(source: str | Path, file_name: str = WEIGHTS_NAME) -> Path:
    """Find a safetensors file on this machine, or download it into the hub's cache.

    Args:
        source: a file, a folder with one, or a hub id (owner/name).
        file_name: which file of a hub repository; in a folder, the one taken where there are several.

    Raises:
        CheckpointError: nothing there, a pickle, or several files.
    """
    path = Path(source)
    if path.is_dir():
        path = _weights_in(path, file_name)
    elif not path.exists():
        path = _download(str(source), file_name)
    if path.suffix in _PICKLES:
        raise CheckpointError(f"{path} may be a pickle, which can run code: it is not opened. {_CONVERT}")
    return path


_CONVERT = "Give a .safetensors file instead."


def load_fourm(
    source: str | Path | Checkpoint,
    *,
    inputs: Iterable[str] | None = None,
    targets: Iterable[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FourM:
    """Load a 4M model, or the part of it that given inputs and targets need; nothing else is read.

    Args:
        source: as for `open_checkpoint`, or what that returned.
        inputs: modalities to give to the model; None for all.
        targets: modalities to predict; None for all.
        device: where the weights go.
        dtype: floating type of the weights, whatever the file's.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: the file does not hold exactly what its configuration says.
        ModelError: an input or target that the model does not have.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    config = FourMConfig.parse(checkpoint.config, where=str(checkpoint.path))
    with torch.device("meta"):
        whole = FourM(config)
        wanted = FourM(config, inputs=inputs, targets=targets)
    return _load(wanted, whole, checkpoint, whole.tied_keys(), torch.device(device), dtype)


def load_tokenizer(
    source: str | Path | Checkpoint,
    *,
    encoder: bool = True,
    decoder: bool = True,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ImageTokenizer:
    """Load a tokenizer, or only what encoding or decoding needs.

    Args:
        source: as for `open_checkpoint`, or what that returned.
        encoder: load what turns values into ids.
        decoder: load what turns ids into values.
        device: where the weights go.
        dtype: floating type of the weights, whatever the file's. In bfloat16 a diffusion decoder takes half
            the time, each step off by about a hundredth; ids near the border of two codes change, so take
            float32 to encode.

    Returns:
        The tokenizer in evaluation mode.

    Raises:
        CheckpointError: the file does not hold exactly what its configuration says.
        ModelError: networks that are not known.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    config = parse_tokenizer_config(checkpoint.config, where=str(checkpoint.path))
    with torch.device("meta"):
        whole = build_tokenizer(config)
        wanted = build_tokenizer(config, encoder=encoder, decoder=decoder)
    return _load(wanted, whole, checkpoint, whole.tied_keys(), torch.device(device), dtype)


def save_checkpoint(model: FourM | ImageTokenizer, path: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a whole model in the published format.

    Args:
        model: built without leaving parts out.
        path: a `.safetensors` file; it appears under that name only when complete.
        dtype: floating type to store, float16 to halve the file; None keeps the model's. With int8, tables
            and matrices are stored in 8 bits with a scale per row (`tensor_file.py`), the rest in float16.

    Raises:
        ModelError: the model lacks parts of its configuration.
    """
    with torch.device("meta"):
        whole = FourM(model.config) if isinstance(model, FourM) else build_tokenizer(model.config)
    state = model.state_dict()
    missing = sorted(set(whole.state_dict()) - set(state))
    if missing:
        raise ModelError(f"Only a whole model can be saved; this one was opened without {missing[0]!r}.")
    copies: dict[str, Tensor] = {}
    for name, tensor in state.items():
        copies |= _stored(name, tensor.detach(), dtype)
    metadata = {key: _metadata_text(key, value) for key, value in model.config.values().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(copies, temporary, metadata)
        temporary.chmod(mode)  # safetensors lets nobody else read what it writes
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What stands for one tensor in the file.

    Tied tensors are written under both names, and safetensors refuses shared memory: each is a copy.
    """
    if dtype == torch.int8 and tensor.is_floating_point() and tensor.ndim >= 2 and tensor.shape[-1] >= 16:
        rows, scale = in_8_bits(tensor.cpu())
        return {name: rows.contiguous(), name + SCALE: scale}
    kind = torch.float16 if dtype == torch.int8 else dtype
    return {name: tensor.to("cpu", kind if tensor.is_floating_point() else None, copy=True).contiguous()}


def _metadata_text(key: str, value: object) -> str:
    if key in _JSON_KEYS:
        return json.dumps(value)
    return str(list(value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType]


def _load(
    wanted: ModelT,
    whole: nn.Module,
    checkpoint: Checkpoint,
    tied: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
) -> ModelT:
    """Fill `wanted` (on the meta device) from a file that must hold nothing that `whole` does not have."""
    file = checkpoint.file
    expected = whole.state_dict()
    for name, info in file.tensors.items():
        _require_fit(name, info, expected.get(name), file.path)
    pairs = {**tied, **{value: key for key, value in tied.items()}}
    stored = {name: _stored_name(name, pairs, file) for name in wanted.state_dict()}
    _fill(wanted, stored, file, device, dtype)
    return wanted.eval()


def _require_fit(name: str, info: TensorInfo, expected: Tensor | None, path: Path) -> None:
    if expected is None:
        raise CheckpointError(
            f"{path}: tensor {name!r} is in the file but not in the model of its configuration."
        )
    if info.shape != tuple(expected.shape):
        raise CheckpointError(
            f"{path}: tensor {name!r} should have shape {tuple(expected.shape)} by the configuration, "
            f"the file has {info.shape}."
        )
    if info.dtype.is_floating_point != expected.dtype.is_floating_point:
        raise CheckpointError(
            f"{path}: tensor {name!r} should be {expected.dtype}, the file has {info.dtype}."
        )


def _stored_name(name: str, pairs: Mapping[str, str], file: TensorFile) -> str:
    """Under which name the file holds a tensor: its own, or that of the tensor it is tied to."""
    if name in file.tensors:
        return name
    if pairs.get(name) in file.tensors:
        return pairs[name]
    raise CheckpointError(
        f"{file.path}: tensor {name!r} is missing; the file is not of this model, or not whole."
    )


def _fill(
    model: nn.Module, stored: Mapping[str, str], file: TensorFile, device: torch.device, dtype: torch.dtype
) -> None:
    loaded: dict[int, tuple[str, nn.Parameter]] = {}  # by the placeholder's identity: ties stay ties
    for prefix, module in model.named_modules():
        path = f"{prefix}." if prefix else ""
        for name, old in list(module.named_parameters(recurse=False)):
            source = stored[path + name]
            if id(old) not in loaded:
                tensor = _read(file, source, device, dtype)
                loaded[id(old)] = source, nn.Parameter(tensor, requires_grad=old.requires_grad)
            first, parameter = loaded[id(old)]
            if source != first and not torch.equal(_read(file, source, device, dtype), parameter):
                raise CheckpointError(
                    f"{file.path}: {first!r} and {source!r} differ, but the model of its configuration has "
                    "one tensor for both (of modality embeddings: share_modality_embeddings should be false)."
                )
            setattr(module, name, parameter)
        for name, _ in list(module.named_buffers(recurse=False)):
            setattr(module, name, _read(file, stored[path + name], device, dtype))


def _read(file: TensorFile, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor = file.read(name)
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def _weights_in(folder: Path, file_name: str) -> Path:
    if (folder / file_name).exists():
        return folder / file_name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder} holds several checkpoints ({names}): name one of them.")
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds only {', '.join(pickles)}: pickles can run code and are not opened. {_CONVERT}"
        )
    raise CheckpointError(f"{folder} holds no .safetensors file.")


def _config_beside(path: Path, source: str) -> Path:
    beside = path.with_name(CONFIG_NAME)
    if beside.exists() or Path(source).exists():
        return beside
    return _download(source, CONFIG_NAME)


def _read_config(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes: it is no configuration.")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"No configuration: {path} does not exist and the weights beside it carry none."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return values


def _download(source: str, name: str) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise CheckpointError(f"{source} is neither a file, nor a folder, nor a hub id (owner/name).")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(source, name))
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{source} is not on this machine, and {name} could not be fetched from the hub: {why}"
        ) from error
