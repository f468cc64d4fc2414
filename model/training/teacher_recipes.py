"""What a YAML can say about a teacher: what it learns from, its size, how long, and what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from .fit import Count
from .generic_teachers import ContrastiveRecipe, DinoRecipe
from .run_files import FullPath, RunConfig, read_kind
from .teacher_networks import TowerConfig

Features = Literal["clip", "dinov2", "imagebind"]
Vectors = Literal["dinov2_global", "imagebind_global"]


class TeacherRun(RunConfig):
    """What is common to teachers.

    Attributes:
        data: folders of pictures, `rgb/0001.jpg` or `0001.jpg`.
        output: folder of all that the run makes.
        write_to: folder that features are written to, `dinov2_global/0001.npy`; `features` in the output
            folder where not given. Of several folders of data each has its own in it, `0`, `1`, ...
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
    """

    data: Annotated[tuple[FullPath, ...], Field(min_length=1)]
    output: FullPath
    write_to: FullPath | None = None
    device: str = "auto"

    @field_validator("data", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value


class OwnTeacherRun(TeacherRun):
    """A teacher that is trained.

    Attributes:
        features: the modality that its features are written as; null writes none.
        vector: likewise of its vectors.
        tower: shape of the network that sees pictures.
        held_out: share of the items that are not trained on.
        tensorboard: whether TensorBoard's files are written beside the JSON lines.
    """

    features: Features | None = None
    vector: Vectors | None = None
    tower: TowerConfig = TowerConfig()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    tensorboard: bool = False

    @model_validator(mode="after")
    def _buildable(self) -> OwnTeacherRun:
        problem = self.tower.problem()
        if problem:
            raise ValueError(f"tower: {problem}")
        return self


class DinoRun(OwnTeacherRun):
    """Learns from pictures alone."""

    kind: Literal["dino"]
    features: Features | None = "dinov2"
    vector: Vectors | None = "dinov2_global"
    training: DinoRecipe = DinoRecipe()


class ContrastiveRun(OwnTeacherRun):
    """Learns which picture belongs to which caption or depth map.

    Attributes:
        other: what lies beside the pictures.
        text_tokenizer: file of a vocabulary for captions; learned from them where not given.
    """

    kind: Literal["contrastive"]
    features: Features | None = "imagebind"
    vector: Vectors | None = "imagebind_global"
    other: Literal["caption", "depth"] = "caption"
    text_tokenizer: FullPath | None = None
    training: ContrastiveRecipe = ContrastiveRecipe()


class PublishedRun(TeacherRun):
    """A published teacher, opened from your own copy of its weights and not trained.

    Attributes:
        name: which.
        weights: safetensors file, or a folder with one.
        batch_size: pictures at once.
    """

    kind: Literal["published"]
    name: Literal["clip", "dinov2", "imagebind"]
    weights: FullPath
    batch_size: Count = 16


AnyTeacherRun = DinoRun | ContrastiveRun | PublishedRun
KINDS: Mapping[str, type[AnyTeacherRun]] = MappingProxyType(
    {"dino": DinoRun, "contrastive": ContrastiveRun, "published": PublishedRun}
)


def read_teacher_run(path: Path) -> AnyTeacherRun:
    """Read the YAML of a teacher.

    Raises:
        ConfigError: all that is wrong with it; unknown keys with those that are known.
    """
    return read_kind(path, KINDS)
