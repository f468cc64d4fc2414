"""Teachers: small convolutional networks whose global embeddings the model learns to predict.

`SelfSupervised` stands for DINOv2: it sees images only and learns which two renderings show one scene.
`Aligned` stands for ImageBind: it learns which caption and which maps belong to an image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_GRID = 4
_CAPTION_WEIGHT = 4.0
"""Where things are tells scenes apart so well that a contrast with maps alone forgets what things are."""

BOUND = ("depth", "normal", "semseg", "sam_edge")
"""Maps that the aligned teacher binds to images."""


@dataclass(frozen=True)
class TeacherConfig:
    """Shape of a teacher.

    Attributes:
        widths: channels of the stages at 1/4, 1/8 and 1/16 of the image's side.
        blocks: residual blocks of each stage.
        dim: size of the embedding.
        places: channels of what is seen in each of 4 x 4 parts of the image; with 0 the embedding does not
            know where things are.
    """

    widths: tuple[int, int, int] = (40, 80, 160)
    blocks: tuple[int, int, int] = (1, 1, 1)
    dim: int = 192
    places: int = 0


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(self.norm(x))))


class ImageTower(nn.Module):
    """Images to embeddings of unit length: uint8 `(B, S, S, 3)` to float32 `(B, dim)`."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for stage, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            step = 4 if stage == 0 else 2
            layers.append(
                nn.Conv2d(
                    previous, width, 6 if stage == 0 else 2, stride=step, padding=1 if stage == 0 else 0
                )
            )
            layers += [_Block(width) for _ in range(blocks)]
            previous = width
        self.body = nn.Sequential(*layers)
        self.places = nn.Conv2d(previous, config.places, 1) if config.places else None
        pooled = 2 * previous + config.places * _GRID**2
        self.norm = nn.LayerNorm(pooled)
        self.head = nn.Sequential(
            nn.Linear(pooled, 2 * config.dim), nn.GELU(), nn.Linear(2 * config.dim, config.dim)
        )

    def features(self, rgb: Tensor) -> Tensor:
        """Dense features `(B, width, S / 16, S / 16)` of images as in `forward`."""
        x = rgb.permute(0, 3, 1, 2).to(torch.float32).contiguous(memory_format=torch.channels_last)
        return self.body(x / 127.5 - 1)

    def forward(self, rgb: Tensor) -> Tensor:
        """Embed images; see the class."""
        x = self.features(rgb)
        # Mean for how much there is of something, maximum for whether it is there at all.
        pooled = [x.mean((2, 3)), x.amax((2, 3))]
        if self.places is not None:
            pooled.append(F.adaptive_avg_pool2d(self.places(x), _GRID).flatten(1))
        return F.normalize(self.head(self.norm(torch.cat(pooled, dim=1))).float(), dim=1)


class CaptionTower(nn.Module):
    """Caption ids `(B, L)`, 0 where none, to embeddings of unit length `(B, dim)`."""

    def __init__(self, vocab_size: int, dim: int, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=0)
        # Five words span a phrase such as "a large red metal sphere", whose words belong together.
        self.conv1 = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.conv2 = nn.Conv1d(2 * width, 2 * width, 3, padding=1)
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Sequential(nn.Linear(2 * width, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed captions; see the class."""
        used = (ids != 0).unsqueeze(1).float()
        x = F.gelu(self.conv1(self.embedding(ids).transpose(1, 2))) * used
        x = F.gelu(self.conv2(x)) * used
        pooled = x.sum(2) / 16  # a sum: two spheres are not one
        return F.normalize(self.head(self.norm(pooled)).float(), dim=1)


class SelfSupervised(nn.Module):
    """Image tower trained by telling apart scenes from two renderings (InfoNCE, arXiv 2002.05709)."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.images = ImageTower(config)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Contrast two renderings each of B scenes, uint8 `(B, S, S, 3)`."""
        a, b = self.images(torch.cat([first, second])).chunk(2)
        return contrast(a, b, self.scale)


class Aligned(nn.Module):
    """Towers of image, caption and maps trained to agree with the image (arXiv 2103.00020, 2305.05665);
    those of image and caption also tell the scene's attributes.

    Args:
        config: of the tower of images.
        vocab_size: of captions.
        num_attributes: of scenes.
    """

    def __init__(self, config: TeacherConfig, vocab_size: int, num_attributes: int) -> None:
        super().__init__()
        self.images = ImageTower(config)
        narrow = replace(config, widths=tuple(-(-width // 16) * 8 for width in config.widths))
        self.maps = nn.ModuleDict({raw: ImageTower(narrow) for raw in BOUND})
        self.captions = CaptionTower(vocab_size, config.dim)
        self.attributes = nn.Linear(config.dim, num_attributes)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def loss(self, rgb: Tensor, captions: Tensor, attributes: Tensor, *maps: Tensor) -> Tensor:
        """Contrast images with their captions and maps.

        The side loss asks for the attributes: a contrast alone is content with the few that tell the scenes
        of one batch apart.

        Args:
            rgb: uint8 `(B, S, S, 3)`.
            captions: ids `(B, L)`.
            attributes: `(B, A)`, 0 or 1 each.
            maps: of each of `BOUND`, uint8 `(B, M, M, 3)`.
        """
        image, text = self.images(rgb), self.captions(captions)
        side = sum(
            F.binary_cross_entropy_with_logits(self.attributes(10 * x), attributes) for x in (image, text)
        )
        found = [tower(one) for tower, one in zip(self.maps.values(), maps, strict=True)]
        loss = _CAPTION_WEIGHT * contrast(image, text, self.scale) + 10 * side
        return sum((contrast(image, one, self.scale) for one in found), start=loss)


def contrast(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between rows of two unit-length `(B, D)`; row i belongs to row i."""
    logits = a @ b.T * log_scale.clamp(max=4.0).exp()
    target = torch.arange(len(a))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
