"""A one-stage detector on the feature pyramid: FCOS (arXiv 1904.01355), with sampling at centres and GIoU.

Every cell of the pyramid says how far the sides of the box around it are, of which class the box is, and how
near the cell is to the box's centre. One network's answer is one tensor (B, L, 8 + K) over the L cells of all
maps; its columns are PLACE, STRIDE, CENTER, CORNERS and CLASSES.
"""

from collections.abc import Mapping
from math import log

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import TransferEncoder
from .config import HeadConfig
from .pyramid import FeaturePyramid

PLACE, STRIDE, CENTER, CORNERS, CLASSES = slice(0, 2), 2, 3, slice(4, 8), slice(8, None)
"""x and y of the cell's middle and its width in pixels of the square; a logit; x0, y0, x1, y1; K logits."""

NUM_FOUND = 100
"""Boxes of an answer, as COCO counts them."""

MIN_SCORE = 0.05
_NMS_OVERLAP, _NUM_CANDIDATES = 0.6, 1000
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss, arXiv 1708.02002
_RADIUS, _REACH = 1.5, 8.0  # strides: from a box's centre, to its farthest side
_PRIOR = 0.01
_GROUP = 8  # channels: 32 groups of FCOS's 256
_MAX_LOG = 8.0


class DetectionHead(nn.Module):
    """The pyramid and two branches of convolutions that all its maps share.

    Args:
        encoder: whose features it is given.
        num_classes: K.
        config: readout, channels and depth.
    """

    def __init__(self, encoder: TransferEncoder, num_classes: int, config: HeadConfig) -> None:
        super().__init__()
        channels, depth = config.channels, config.depth
        self.pyramid = FeaturePyramid(encoder, readout=config.readout, channels=channels)
        self.what, self.where = branch(channels, depth), branch(channels, depth)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.sides = nn.Conv2d(channels, 4, 3, padding=1)
        self.center = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.pyramid.strides)))
        for part in (self.what, self.where, self.classes, self.sides, self.center):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, std=0.01)
                    assert layer.bias is not None
                    nn.init.zeros_(layer.bias)
        # Almost all cells are of no class: said so at first, they do not drown the others.
        nn.init.constant_(self.classes.bias, -log((1 - _PRIOR) / _PRIOR))  # pyright: ignore[reportArgumentType]

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features (B, n, D) by input to float32 (B, L, 8 + K)."""
        maps = self.pyramid(features)
        return torch.cat(
            [
                self.read(x, scale, stride)
                for x, scale, stride in zip(
                    maps.values(), self.scales, self.pyramid.strides.values(), strict=True
                )
            ],
            dim=1,
        )

    def read(self, x: Tensor, scale: Tensor, stride: float) -> Tensor:
        """One map (B, channels, H, W) to answers of its cells."""
        batch, (height, width) = len(x), x.shape[-2:]
        rows, columns = (torch.arange(n, device=x.device) + 0.5 for n in (height, width))
        place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1) * stride
        where = self.where(x)
        sides, center, classes = (
            y.float().flatten(2).transpose(1, 2)
            for y in (scale * self.sides(where), self.center(where), self.classes(self.what(x)))
        )
        sides = stride * sides.clamp(max=_MAX_LOG).exp()
        corners = torch.cat([place - sides[..., :2], place + sides[..., 2:]], dim=-1)
        known = torch.cat([place, place.new_full((len(place), 1), stride)], dim=-1).expand(batch, -1, -1)
        return torch.cat([known, center, corners, classes], dim=-1)


def branch(channels: int, depth: int) -> nn.Sequential:
    """Convolutions on maps (B, channels, H, W)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(channels // _GROUP, channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def assign(cells: Tensor, boxes: Tensor) -> Tensor:
    """Which box each cell answers for: one whose size is that of the cell's map, near whose centre it lies.

    Args:
        cells: (L, 3): PLACE and STRIDE.
        boxes: (N, 4), corners in pixels of the square.

    Returns:
        int64 (L,), -1 for none; of several boxes the smallest.
    """
    if not len(boxes):
        return torch.full((len(cells),), -1, device=cells.device)
    place, stride = cells[:, None, :2], cells[:, None, 2]
    sides = torch.cat([place - boxes[:, :2], boxes[:, 2:] - place], dim=-1)
    from_center = (place - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(-1)
    reach = sides.amax(-1)
    finest, coarsest = stride.min(), stride.max()
    fits = (sides.amin(-1) > 0) & (from_center < _RADIUS * stride)
    fits &= (reach > _REACH / 2 * stride) | (stride == finest)
    fits &= (reach <= _REACH * stride) | (stride == coarsest)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1).expand(fits.shape)
    smallest = torch.where(fits, areas, torch.inf).min(dim=1)
    return torch.where(smallest.values < torch.inf, smallest.indices, -1)


def answering(output: Tensor, truth: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each picture the cells, bool (L,), that answer for a box, and the row of truth that each does."""
    found: list[tuple[Tensor, Tensor]] = []
    for row, known in zip(output, truth, strict=True):
        known = known[(known[:, 4] >= 0) & (known[:, 5] == 0)]
        owner = assign(row[:, : STRIDE + 1].detach(), known[:, :4])
        found.append((owner >= 0, known[owner[owner >= 0]]))
    return found


def detection_loss(output: Tensor, truth: Tensor) -> Tensor:
    """Focal loss of classes, GIoU loss of boxes, cross entropy of centres; per cell that has a box.

    Args:
        output: (B, L, 8 + K) of the head.
        truth: (B, M, 6 or more): x0, y0, x1, y1, class (-1 for none), whether a crowd, which is not learnt.
    """
    owned: list[Tensor] = []
    wanted = torch.zeros_like(output[..., CLASSES])
    for row, target, (cells, known) in zip(output, wanted, answering(output, truth), strict=True):
        target[cells, known[:, 4].long()] = 1
        owned.append(torch.cat([row[cells, : CORNERS.stop], known[:, :4]], dim=-1))
    cells = torch.cat(owned)
    count = max(len(cells), 1)
    found, boxes = cells[:, CORNERS], cells[:, CORNERS.stop :]
    sides = torch.cat([cells[:, PLACE] - boxes[:, :2], boxes[:, 2:] - cells[:, PLACE]], dim=-1)
    ratios = torch.minimum(sides[:, :2], sides[:, 2:]) / torch.maximum(sides[:, :2], sides[:, 2:])
    center = ratios.prod(-1).sqrt()
    shapes = (center * (1 - generalized_overlap(found, boxes))).sum() / center.sum().clamp(min=1e-6)
    centers = functional.binary_cross_entropy_with_logits(cells[:, CENTER], center, reduction="sum")
    return focal_loss(output[..., CLASSES], wanted) / count + shapes + centers / count


def focal_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of yes and no that counts less where it is small already (arXiv 1708.02002); the sum."""
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    share = logits.sigmoid()
    wrong = torch.where(truth > 0, 1 - share, share)
    return (torch.where(truth > 0, _ALPHA, 1 - _ALPHA) * wrong**_GAMMA * losses).sum()


def generalized_overlap(one: Tensor, other: Tensor) -> Tensor:
    """GIoU (arXiv 1902.09630) of boxes (N, 4) pair by pair, -1 to 1: (N,)."""
    inner = torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])
    outer = torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])
    shared, hull = inner.clamp(min=0).prod(-1), outer.prod(-1).clamp(min=1e-6)
    union = (one[:, 2:] - one[:, :2]).prod(-1) + (other[:, 2:] - other[:, :2]).prod(-1) - shared
    return shared / union.clamp(min=1e-6) - (hull - union) / hull


def detections(output: Tensor, size: int, *, carried: Tensor | None = None) -> Tensor:
    """What the head found, the surest first.

    Args:
        output: (B, L, 8 + K) of the head.
        size: side of the square, which boxes end at.
        carried: (B, L, C), more that each cell says.

    Returns:
        float32 (B, NUM_FOUND, 6 + C): x0, y0, x1, y1, score 0..1, class, and what the cell carries; where
        there are fewer, score 0 and class -1.
    """
    carried = output[..., :0] if carried is None else carried
    # Each factor alone is too sure: a cell off the centre sees the class and not the sides.
    scores = (output[..., CLASSES].sigmoid() * output[..., CENTER, None].sigmoid()).sqrt()
    answer = output.new_zeros(len(output), NUM_FOUND, 6 + carried.shape[-1])
    answer[..., 5] = -1
    every = zip(scores, output[..., CORNERS].clamp(0, size), carried, answer, strict=True)
    for row, corners, more, result in every:
        values, places = row.flatten().topk(min(_NUM_CANDIDATES, row.numel()))
        cells, classes = places // row.shape[1], places % row.shape[1]
        corners, more = corners[cells], more[cells]
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=-1)
        kept = cv2.dnn.NMSBoxesBatched(
            boxes.cpu().tolist(), values.tolist(), classes.tolist(), MIN_SCORE, _NMS_OVERLAP
        )
        best = torch.from_numpy(np.array(kept, np.int64).reshape(-1)[:NUM_FOUND]).to(output.device)
        result[: len(best)] = torch.cat(
            [corners[best], values[best, None], classes[best, None], more[best]], dim=-1
        )
    return answer
