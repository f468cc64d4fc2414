"""What a finished run gives: a network that answers for new pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ...errors import CheckpointError, InputError
from ..inputs import normalize_pixels
from ..tensor_file import TensorFile
from .augment import cut
from .building import BEST, Backbone, open_backbone
from .config import TransferConfig, read_config
from .cuboids import placed_camera
from .detector3d import lifted
from .feeding import PADDING, standard_depth
from .goals import Classification, Depth, Detection, Detection3d, Goal, Segmentation
from .heads import TransferModel
from .running import SETTINGS


@dataclass(frozen=True)
class Transferred:
    """A fine-tuned network.

    Attributes:
        config: of its run.
        classes: names, of a classification or detection.
        metrics: on the validation samples of the run, and the `step` that was the best.
    """

    config: TransferConfig
    classes: tuple[str, ...]
    metrics: Mapping[str, float]
    _goal: Goal
    _backbone: Backbone
    _model: TransferModel

    def predict(
        self,
        rgb: np.ndarray,
        depth: np.ndarray | None = None,
        *,
        camera: tuple[float, float, float, float] | None = None,
    ) -> np.ndarray:
        """Answer for one picture.

        Args:
            rgb: uint8 (H, W, 3).
            depth: real numbers (H, W) of the same size in any unit, 0 where unknown; if the run had it.
            camera: fx, fy, cx, cy in pixels of the picture; for cuboids.

        Returns:
            Probabilities float32 (K,) of the classes; or int64 (H, W) of segments, 0 the first class; or
            depths float32 (side, side) of the central square, in the unit of the run; or boxes float32
            (N, 6), the surest first: x0, y0, x1, y1 in pixels, score 0..1, number of the class; or these and
            their cuboids (N, 30), each 8 corners x, y, z in metres before the camera.

        Raises:
            InputError: another shape or type, or depth or the camera missing or too much.
        """
        _require(rgb, depth, "depth" in self.config.inputs)
        _require_camera(camera, self.config.task)
        height, width = rgb.shape[:2]
        view, size = self._goal.view(None, width, height), self.config.image_size
        device = self._backbone.source.parts.device
        inputs = {"rgb": torch.from_numpy(normalize_pixels(cut(rgb, view, size, PADDING)[None])).to(device)}
        if depth is not None:
            standard = standard_depth(cut(depth.astype(np.float32), view, size, 0.0))
            inputs["depth"] = torch.from_numpy(standard[None, None]).to(device)
        with torch.inference_mode():
            output = self._goal.answer(self._model(self._backbone.tokenize(inputs)))
            if self.config.task == "classification":
                return output[0].float().softmax(0).cpu().numpy()
            if self.config.task in ("detection", "detection3d"):
                found = output[0][output[0, :, 5] >= 0].cpu()
                boxes = found[:, :6].numpy()
                boxes[:, :4] *= np.array([width / view.width, height / view.height] * 2, np.float32)
                boxes[:, :4] = boxes[:, :4].clip(0, [width, height] * 2)
                if camera is None:
                    return boxes
                seen_by = placed_camera(np.array(camera), view)
                corners = lifted(found[:, 6:], torch.from_numpy(seen_by), size).numpy()
                return np.concatenate([boxes, corners.reshape(len(boxes), -1)], axis=1)
            wanted = (height, width) if self.config.task == "segmentation" else (min(height, width),) * 2
            output = functional.interpolate(
                output[..., : view.height, : view.width], size=wanted, mode="bilinear", align_corners=False
            )
            found = output[0].argmax(0) if self.config.task == "segmentation" else output[0, 0]
            return found.cpu().numpy()


def open_transfer(folder: Path, *, device: str = "auto") -> Transferred:
    """Open the best weights of a run.

    Raises:
        ConfigError: the folder has no readable settings.
        CheckpointError: its weights are missing, damaged or of another network.
        ModelError: the model that it came from cannot be had; it tells the shape of the network.
    """
    config, file = read_config(folder / SETTINGS), TensorFile(folder / BEST)
    told = _told(file)
    goal = _goal(config, told)
    backbone = open_backbone(config, device)
    model = TransferModel(backbone.encoder, goal.head(backbone.encoder))
    model.to(backbone.source.parts.device)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if expected != {name: torch.Size(info.shape) for name, info in file.tensors.items()}:
        raise CheckpointError(f"{file.path} is not of the network that {SETTINGS} beside it describes.")
    model.load_state_dict({name: file.read(name) for name in expected})
    return Transferred(config, tuple(told["classes"]), told["metrics"], goal, backbone, model.eval())


def _told(file: TensorFile) -> dict[str, Any]:
    try:
        told = json.loads(file.metadata["told"])
        classes, depths, metrics = told["classes"], told["depths"], told["metrics"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file.path} holds no weights of a transfer run.") from error
    if not (isinstance(classes, list) and isinstance(depths, list) and isinstance(metrics, dict)):
        raise CheckpointError(f"{file.path} holds no weights of a transfer run.")
    return told


def _goal(config: TransferConfig, told: Mapping[str, Any]) -> Goal:
    if config.task == "segmentation":
        return Segmentation(config)
    if config.task == "depth":
        return Depth(config, *told["depths"])
    if config.task == "detection":
        return Detection(config, tuple(told["classes"]))
    if config.task == "detection3d":
        return Detection3d(config, tuple(told["classes"]))
    return Classification(config, tuple(told["classes"]))


def _require(rgb: np.ndarray, depth: np.ndarray | None, takes_depth: bool) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise InputError(f"rgb: expected pixels uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}.")
    if (depth is not None) != takes_depth:
        raise InputError("This network was trained " + ("with" if takes_depth else "without") + " depth.")
    if depth is not None and (
        depth.shape != rgb.shape[:2] or not np.isfinite(depth).all() or depth.min() < 0
    ):
        raise InputError(f"depth: expected {rgb.shape[:2]} of numbers from 0 on, got {depth.shape}.")


def _require_camera(camera: tuple[float, float, float, float] | None, task: str) -> None:
    if (camera is not None) != (task == "detection3d"):
        raise InputError(
            f"camera=(fx, fy, cx, cy) is for cuboids, and needed there: this network's task is {task}."
        )
    if camera is not None and (len(camera) != 4 or not np.isfinite(camera).all() or min(camera[:2]) <= 0):
        raise InputError(f"camera: expected fx, fy, cx, cy in pixels, fx and fy above 0, got {camera}.")
