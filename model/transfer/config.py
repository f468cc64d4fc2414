"""The settings of a transfer run: one YAML file, kept beside its result."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ..training.run_files import FullPath, RunConfig, parse_run, read_values

Task = Literal["classification", "segmentation", "depth", "detection", "detection3d"]
Input = Literal["rgb", "depth"]


class DataConfig(RunConfig):
    """Where samples are and what their numbers mean; docs/transfer.md shows the layouts.

    Attributes:
        train, val: a folder, or one folder per kind of file: `{rgb: DIR, depth: DIR, semseg: DIR}`; as `det`
            also one file in COCO's format, as `det3d` one in Omni3D's.
        attribute: what to classify, a key of the JSON file beside each picture; the name of the picture's
            folder where None.
        num_classes: of a segmentation.
        first_class: the id of its first class in files. 255 never counts, and 0 does not where this is 1.
        depth_scale: metres (or any unit) per stored number of a depth map; 0 is no depth.
        max_depth: from here on, in that unit, a depth does not count as ground truth.
    """

    train: FullPath | dict[str, FullPath]
    val: FullPath | dict[str, FullPath]
    attribute: str | None = None
    num_classes: int | None = Field(None, ge=2, le=254)
    first_class: Literal[0, 1] = 0
    depth_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    max_depth: float | None = Field(None, gt=0, allow_inf_nan=False)


class HeadConfig(RunConfig):
    """The ConvNeXt head of dense tasks (defaults of MultiMAE and 4M: arXiv 2204.01678, appendix), or FCOS's.

    Attributes:
        width: numbers that a token is mapped to before they are laid out as cells.
        cells: per side that a token becomes; 4 for segmentation, 8 for depth.
        channels: of the pyramid's maps, for detection.
        depth: ConvNeXt blocks; for detection, convolutions of each branch.
        readout: inputs whose tokens the head sees, side by side.
    """

    width: int = Field(6144, ge=1, le=2**16)
    cells: int = Field(4, ge=1, le=16)
    channels: int = Field(256, ge=32, le=4096, multiple_of=32)
    depth: int = Field(4, ge=0, le=64)
    readout: tuple[Input, ...] = Field(("rgb",), min_length=1)

    @model_validator(mode="after")
    def _divides(self) -> "HeadConfig":
        if self.width % self.cells**2:
            raise ValueError(f"width {self.width} is no multiple of cells x cells = {self.cells**2}")
        return self


class AugmentConfig(RunConfig):
    """How training pictures vary. Zeros switch off.

    Attributes:
        areas: of classification, the share of the picture that a random crop takes, from and to.
        scales: of segmentation and both detections, the size of the picture against the model's square
            ("large-scale jitter").
        mirror: chance of left for right.
        color: chance that brightness, contrast, saturation and hue change.
        grey: chance that colours go.
        rand_augment: magnitude of RandAugment (two operations each), 9 for ImageNet.
        mixup, cutmix: alpha of the Beta distribution; where both are set, each batch takes one.
        label_smoothing: share of the target that all classes get.
        center_share: of classification, the share of the shorter side that is looked at in evaluation.
    """

    areas: tuple[float, float] = (0.08, 1.0)
    scales: tuple[float, float] = (0.1, 2.0)
    mirror: float = Field(0.5, ge=0, le=1)
    color: float = Field(0.0, ge=0, le=1)
    grey: float = Field(0.0, ge=0, le=1)
    rand_augment: float = Field(0.0, ge=0, le=10)
    mixup: float = Field(0.0, ge=0, le=10)
    cutmix: float = Field(0.0, ge=0, le=10)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    center_share: float = Field(1.0, gt=0.1, le=1)

    @field_validator("areas", "scales")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.01 <= value[0] <= value[1] <= 10:
            raise ValueError(f"expected [from, to] within 0.01..10, got {list(value)}")
        return value


class RecipeConfig(RunConfig):
    """How long and how fast.

    Attributes:
        epochs, warmup_epochs: rounds over the training samples; the rate rises, then falls as a cosine to 0.
        batch: samples of a step.
        accumulate: passes that a step is split into, to fit the memory.
        learning_rate: of the head. The paper's rates for ImageNet are per 256 samples: times batch / 256.
        layer_decay: of the rate, from each encoder block to the one below.
        drop_path: chance that a sample skips a branch of the last block; blocks before it have less.
        lora_rank: where above 0, the encoder's matrices stay and low-rank changes of them are trained.
        ema: memory of the running average that is evaluated and kept; 0 takes the weights themselves.
        clip: norm that gradients are cut to; 0 never cuts.
        autocast: bfloat16 where the device is good at it.
        evaluate_every: epochs.
        save_every: steps between states that an interrupted run goes on from.
        workers: processes that read samples; of no effect on the result.
    """

    epochs: int = Field(64, ge=1)
    warmup_epochs: float = Field(1.0, ge=0)
    batch: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.05, ge=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    drop_path: float = Field(0.1, ge=0, lt=1)
    lora_rank: int = Field(0, ge=0, le=1024)
    ema: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    autocast: bool = False
    evaluate_every: int = Field(1, ge=1)
    save_every: int = Field(500, ge=1)
    workers: int = Field(0, ge=0, le=256)
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _splits(self) -> "RecipeConfig":
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} is no multiple of accumulate {self.accumulate}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in 0..1, got {list(self.betas)}")
        return self


class TransferConfig(RunConfig):
    """A run: which encoder, on which data, for what.

    Attributes:
        out: folder of the result.
        model: a name or a bundle folder.
        init: `random` takes the same network untrained, to compare with.
        start_from: folder of another run, whose encoder this one goes on from (ImageNet-21K before 1K).
        inputs: what the encoder is given; `rgb` always.
        depth_as: depth enters as the model's own `tokens` (the paper), or as `pixels` through a layer of its
            own, which starts as that of RGB; None takes tokens where the model has them.
        image_size: side of the square in pixels.
    """

    out: FullPath
    task: Task
    data: DataConfig
    model: str = "scenes"
    init: Literal["pretrained", "random"] = "pretrained"
    start_from: FullPath | None = None
    inputs: tuple[Input, ...] = ("rgb",)
    depth_as: Literal["tokens", "pixels"] | None = None
    image_size: int = Field(224, ge=16, le=4096)
    head: HeadConfig = HeadConfig()  # pyright: ignore[reportCallIssue]
    augment: AugmentConfig = AugmentConfig()  # pyright: ignore[reportCallIssue]
    recipe: RecipeConfig = RecipeConfig()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _fits(self) -> "TransferConfig":
        if "rgb" not in self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError("inputs: rgb, or rgb and depth, each once")
        if not set(self.head.readout) <= set(self.inputs):
            raise ValueError(f"head.readout: some of the inputs, {', '.join(self.inputs)}")
        if self.task == "segmentation" and self.data.num_classes is None:
            raise ValueError("a segmentation needs data.num_classes")
        if self.task == "depth" and "depth" in self.inputs:
            raise ValueError("depth from depth is nothing to learn; leave it out of the inputs")
        return self


def read_config(path: Path) -> TransferConfig:
    """Read the YAML file of a run. Raises ConfigError, which names what is unknown, missing or wrong."""
    return parse_run(read_values(path), TransferConfig, where=str(path))
