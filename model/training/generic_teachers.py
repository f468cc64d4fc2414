"""What teachers of your own learn: DINO (arXiv 2104.14294) from pictures alone, and which picture belongs to
which caption or depth map (CLIP, arXiv 2103.00020).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from .crops import random_crops
from .fit import Count, FitRecipe, NotNegative, Positive, Share, full_precision
from .teacher_networks import TextTower, Tower, TowerConfig

_MAX_LOG_SCALE = math.log(100)


@dataclass(frozen=True)
class DinoRecipe(FitRecipe):
    """How a teacher learns from pictures alone.

    Attributes:
        prototypes: what pictures are sorted into.
        head_width: of the MLP before the prototypes.
        num_local: small crops of each picture, beside two large ones.
        global_area, local_area: smallest and largest share of the picture in a crop.
        teacher_temperature, student_temperature: of the softmax over prototypes.
        momentum: of the teacher's weights at the start; it goes to 1 along a cosine.
        center_momentum: of the mean that is taken off the teacher's logits.
        freeze_prototypes: steps for which prototypes stay, against collapse.
    """

    prototypes: Count = 4096
    head_width: Count = 1024
    num_local: Annotated[int, Field(ge=0)] = 6
    global_area: tuple[Share, Annotated[float, Field(gt=0, le=1)]] = (0.4, 1.0)
    local_area: tuple[Share, Annotated[float, Field(gt=0, le=1)]] = (0.05, 0.4)
    teacher_temperature: Positive = 0.04
    student_temperature: Positive = 0.1
    momentum: Share = 0.996
    center_momentum: Share = 0.9
    freeze_prototypes: Annotated[int, Field(ge=0)] = 100


class _Head(nn.Module):
    """Vectors (B, width) to logits over prototypes (B, K): an MLP, then cosines."""

    def __init__(self, width: int, hidden: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, width))

    def forward(self, vectors: Tensor) -> Tensor:
        found = functional.normalize(self.mlp(vectors), dim=-1)
        return found @ functional.normalize(self.prototypes, dim=-1).mT


class Dino(nn.Module):
    """Student and teacher; the teacher is what is kept."""

    center: Tensor

    def __init__(self, tower: TowerConfig, recipe: DinoRecipe) -> None:
        super().__init__()
        self.student = Tower(tower)
        self.student_head = _Head(tower.width, recipe.head_width, recipe.prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.register_buffer("center", torch.zeros(recipe.prototypes))

    def image_tower(self) -> Tower:
        """What features are made with."""
        return self.teacher


class DinoObjective:
    """The student says of each crop what the teacher says of another large crop of the same picture.

    Args:
        network: both.
        tower: their shape.
        recipe: how.
    """

    def __init__(self, network: Dino, tower: TowerConfig, recipe: DinoRecipe) -> None:
        self.network, self._recipe, self._size = network, recipe, tower.image_size
        half = tower.image_size // 2
        self._small = max(tower.patch_size, half - half % tower.patch_size)

    def loss(self, batch: Tensor) -> tuple[Tensor, Mapping[str, float]]:
        """Of pictures (B, 3, H, W) in -1..1."""
        recipe, network = self._recipe, self.network
        large = [random_crops(batch, self._size, recipe.global_area) for _ in range(2)]
        small = [random_crops(batch, self._small, recipe.local_area) for _ in range(recipe.num_local)]
        with torch.no_grad():
            logits = network.teacher_head(network.teacher(torch.cat(large))[0])
            with full_precision(logits.device):
                logits = logits.float()
                targets = ((logits - network.center) / recipe.teacher_temperature).softmax(-1).chunk(2)
                mean = logits.mean(0)
        answers = list(network.student_head(network.student(torch.cat(large))[0]).chunk(2))
        if small:
            answers += network.student_head(network.student(torch.cat(small))[0]).chunk(len(small))
        losses = [
            -(target * (answer.float() / recipe.student_temperature).log_softmax(-1)).sum(-1).mean()
            for i, target in enumerate(targets)
            for j, answer in enumerate(answers)
            if i != j
        ]
        with torch.no_grad():
            network.center.lerp_(mean, 1 - recipe.center_momentum)
        used = torch.cat(targets).argmax(-1).unique().numel()
        return torch.stack(losses).mean(), {"prototypes_in_batch": used}

    def update(self, step: int) -> Mapping[str, float]:
        """Let the teacher follow the student."""
        recipe, network = self._recipe, self.network
        rest = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        keep = 1 - (1 - recipe.momentum) * rest
        pairs = ((network.teacher, network.student), (network.teacher_head, network.student_head))
        with torch.no_grad():
            if step < recipe.freeze_prototypes:
                network.student_head.prototypes.copy_(network.teacher_head.prototypes)
            for teacher, student in pairs:
                for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                    mine.lerp_(theirs, 1 - keep)
        return {}


@dataclass(frozen=True)
class ContrastiveRecipe(FitRecipe):
    """How a teacher learns which picture belongs to which caption or depth map.

    Attributes:
        batch_size: the more, the harder the question.
        scale: of cosines at the start; it is learned.
        area: smallest and largest share of the picture in a crop.
        text_depth: blocks of the tower of captions.
        max_tokens: captions are cut there.
    """

    batch_size: Count = 256
    scale: Positive = 14.0
    area: tuple[Share, Annotated[float, Field(gt=0, le=1)]] = (0.6, 1.0)
    text_depth: Count = 4
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 64
    weight_decay: NotNegative = 0.1


class Contrastive(nn.Module):
    """A tower of pictures and one of captions or depth maps, into one space."""

    def __init__(self, tower: TowerConfig, recipe: ContrastiveRecipe, vocab_size: int | None) -> None:
        super().__init__()
        self.images = Tower(tower)
        self.others: TextTower | Tower
        if vocab_size is None:
            self.others = Tower(tower, num_channels=1)
        else:
            self.others = TextTower(
                vocab_size, recipe.max_tokens, tower.width, recipe.text_depth, tower.num_heads
            )
        self.log_scale = nn.Parameter(torch.tensor(math.log(recipe.scale)))

    def image_tower(self) -> Tower:
        """What features are made with."""
        return self.images

    def other_vectors(self, others: Tensor) -> Tensor:
        """Vectors (B, width) of token ids (B, L) or depth maps (B, 1, H, W)."""
        if isinstance(self.others, TextTower):
            return self.others(others)
        return self.others(others)[0]


class ContrastiveObjective:
    """Each picture is to find its own caption or depth map among those of the batch, and each of these it."""

    def __init__(self, network: Contrastive, tower: TowerConfig, recipe: ContrastiveRecipe) -> None:
        self.network, self._recipe, self._size = network, recipe, tower.image_size

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        """Of pictures (B, 3, H, W), and token ids (B, L) or depth maps (B, 1, H, W)."""
        images, others = batch
        if others.is_floating_point():  # depth has no colours, but is seen from as near
            pair = random_crops(torch.cat([images, others], 1), self._size, self._recipe.area, recolor=False)
            images, others = pair[:, :3], pair[:, 3:]
        else:
            images = random_crops(images, self._size, self._recipe.area, mirror=False)
        a = functional.normalize(self.network.image_tower()(images)[0], dim=-1)
        b = functional.normalize(self.network.other_vectors(others), dim=-1)
        with full_precision(a.device):
            logits = a.float() @ b.float().mT * self.network.log_scale.exp()
            wanted = torch.arange(len(a), device=a.device)
            loss = (
                functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.mT, wanted)
            ) / 2
        right = (logits.argmax(1) == wanted).float().mean().item()
        return loss, {"right_in_batch": right}

    def update(self, step: int) -> Mapping[str, float]:
        """Keep the scale in bounds."""
        del step
        with torch.no_grad():
            self.network.log_scale.clamp_(max=_MAX_LOG_SCALE)
        return {}
