"""Open a teacher strictly from safetensors, and make features of pictures with it."""

from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import CheckpointError, InputError, ModelError
from ..checkpoint import find_weights
from ..fingerprint import checkpoint_digest
from ..prediction import normalized
from ..tensor_file import TensorFile
from .sources import TEACHERS, TeacherSource


class Teacher:
    """A network that makes modalities of RGB; `load_teacher` opens one.

    Pictures are standardised with ImageNet's statistics whichever the teacher, CLIP and ImageBind included:
    of such pictures are the features that the published tokenizers learned from (arXiv 2406.09406).

    Attributes:
        source: its row of TEACHERS.
        fingerprint: sha256 over architecture and weights: equal fingerprints, equal features up to rounding.
    """

    def __init__(self, source: TeacherSource, network: nn.Module, fingerprint: str) -> None:
        self.source = source
        self.fingerprint = fingerprint
        self._network = network

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it makes of a picture, by the user's names."""
        return self.source.modalities

    def extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Make the modalities of B pictures.

        Args:
            images: uint8 (B, 224, 224, 3), as `InputReader.read` gives `rgb`.

        Returns:
            By name of the modality, float32 (B, C, h, w), or (B, C) of a global embedding, as they are:
            nothing is normalised to unit length.

        Raises:
            InputError: another shape or type.
        """
        size = self.source.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise InputError(
                f"The teacher {self.source.name!r} sees pixels uint8 (B, {size}, {size}, 3), got "
                f"{images.dtype} {images.shape}."
            )
        if not len(images):  # open_clip cannot take none, and the shapes are the network's to tell
            one = self.extract(np.zeros((1, size, size, 3), np.uint8))
            return {name: value[:0] for name, value in one.items()}
        parameter = next(self._network.parameters())
        with torch.inference_mode():
            writable = np.require(images, requirements="W")  # torch warns of others, as Pillow's are
            pixels = normalized(writable, parameter.device, parameter.dtype)
            found = self.source.features(self._network, pixels)
            return {name: value.float().cpu().numpy() for name, value in found.items()}


def load_teacher(
    name: str | TeacherSource,
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Teacher:
    """Open a teacher.

    Args:
        name: `clip` (patch features), `dinov2` or `imagebind` (patch features and global embedding each).
        weights: a safetensors file, a folder with one, or a hub id, which is downloaded; by default the
            published ones. Of ImageBind none are published as safetensors.
        device: where it runs.
        dtype: floating type in which it runs.

    Raises:
        ModelError: unknown name (the known ones are listed), or the extra `teachers` is not installed.
        CheckpointError: the file is missing, a pickle, damaged, or not exactly of this network.
    """
    source = name if isinstance(name, TeacherSource) else _known(name)
    weights = weights or source.weights
    if weights is None:
        raise ModelError(
            f"No weights of {source.name} are published as safetensors: name a file of your own "
            "(docs/indexing.md says how to convert the published pickle)."
        )
    _require_package(source)
    file = TensorFile(find_weights(weights, source.file_name))
    with torch.device("meta"):
        network = source.build(source.architecture, source.image_size)
    _fill(network, source, file, torch.device(device), dtype)
    identity = checkpoint_digest(file, {"teacher": source.name, "architecture": source.architecture})
    return Teacher(source, network.eval().requires_grad_(False), identity)


def _known(name: str) -> TeacherSource:
    if name not in TEACHERS:
        raise ModelError(f"Unknown teacher {name!r}. Known: {', '.join(TEACHERS)}.")
    return TEACHERS[name]


def _require_package(source: TeacherSource) -> None:
    """Import what the network is built with, or say how to get it."""
    if source.package is None:
        return
    try:
        import_module(source.package)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"The teacher {source.name!r} needs {error.name}, which is not installed: "
            "pip install 'anyseek[teachers]'.",
            code="model.extra",
        ) from error
    except Exception as error:  # a torchvision built for another torch fails with RuntimeError
        raise ModelError(
            f"The teacher {source.name!r} needs {source.package}, which is installed and fails to import "
            f"({error}); often torchvision is of another release than torch: pip install --upgrade "
            "torch torchvision 'anyseek[teachers]'.",
            code="model.extra",
        ) from error


def _fill(
    network: nn.Module, source: TeacherSource, file: TensorFile, device: torch.device, dtype: torch.dtype
) -> None:
    """Put a file's tensors into a network on the meta device: all of them, and no others."""
    expected = network.state_dict()
    stored = {name for name in file.tensors if name.startswith(source.prefixes)}
    for names, what in ((expected.keys() - stored, "missing"), (stored - expected.keys(), "not of it")):
        if names:
            raise CheckpointError(
                f"{file.path} is no {source.name} ({source.architecture}): tensor {min(names)!r} and "
                f"{len(names) - 1} others are {what}."
            )
    state: dict[str, Tensor] = {}
    for name, wanted in expected.items():
        tensor = file.read(name)
        if source.fit is not None:
            tensor = source.fit(name, tensor, wanted.shape)
        if tensor.shape != wanted.shape or not tensor.is_floating_point():
            raise CheckpointError(
                f"{file.path}: tensor {name!r} should be floating (shape {tuple(wanted.shape)}) in "
                f"{source.name} ({source.architecture}), the file has {tensor.dtype} {tuple(tensor.shape)}."
            )
        state[name] = tensor.to(device, dtype)
    network.load_state_dict(state, strict=True, assign=True)
