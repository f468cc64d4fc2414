"""Boxes in three dimensions from one picture: each cell of FCOS also tells the cuboid of its box.

As in Cube R-CNN (arXiv 2207.10660) a cuboid is where its centre is seen, how far that is, its three sides and
a turn of six numbers (arXiv 1812.07035). Depth is told for a camera whose focal length is the side of the
square, so that what looks alike is told alike; the real camera makes metres of it. One network's answer is
(B, L, 12 + 8 + K): the columns PLACE, DEPTH, SIDES and TURN, then those of `detector`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import TransferEncoder
from .config import HeadConfig
from .cuboids import CORNERS as SIGNS
from .detector import DetectionHead, answering, branch, detection_loss, detections

PLACE, DEPTH, SIDES, TURN = slice(0, 2), 2, slice(3, 6), slice(6, 12)
"""x and y in pixels of the square; logarithms of the depth and of metres; two columns of a matrix."""

FLAT = slice(12, None)
"""Columns of `detector`."""

BOX, CORNERS, CAMERA = slice(0, 6), slice(6, 30), slice(30, 34)
"""Columns of what is true: those of `detector`, 8 corners, and the camera in pixels of the square."""

_MAX_LOG = 6.0


class CuboidHead(DetectionHead):
    """A third branch of convolutions on the pyramid.

    Args:
        encoder, num_classes, config: as `DetectionHead`.
        start: mean logarithms of depth and of the three sides, which an untrained head says everywhere.
    """

    def __init__(
        self, encoder: TransferEncoder, num_classes: int, config: HeadConfig, start: tuple[float, ...]
    ) -> None:
        super().__init__(encoder, num_classes, config)
        self.solid = branch(config.channels, config.depth)
        self.cuboids = nn.Conv2d(config.channels, FLAT.start, 3, padding=1)
        nn.init.normal_(self.cuboids.weight, std=0.01)
        assert self.cuboids.bias is not None
        with torch.no_grad():
            self.cuboids.bias.copy_(torch.tensor([0, 0, *start, 1, 0, 0, 0, 1, 0]))

    def read(self, x: Tensor, scale: Tensor, stride: float) -> Tensor:
        """One map (B, channels, H, W) to answers of its cells."""
        flat = super().read(x, scale, stride)
        told = self.cuboids(self.solid(x)).float().flatten(2).transpose(1, 2)
        return torch.cat([flat[..., :2] + stride * told[..., PLACE], told[..., DEPTH:], flat], dim=-1)


def cuboid_loss(output: Tensor, truth: Tensor, size: int) -> Tensor:
    """FCOS's loss, and of each cell with a box how wrong its cuboid is, part by part.

    The place counts in pixels of the finest cells, depth and sides by their logarithms; of the turn, how far
    corners lie from the nearest true ones with the true sides, so that turns which give the same cuboid are
    equally right.

    Args:
        output: (B, L, 12 + 8 + K) of the head.
        truth: (B, M, 34): BOX, CORNERS, CAMERA.
        size: side of the square.
    """
    flat = output[..., FLAT]
    pairs = answering(flat, truth)
    told = torch.cat([row[cells, : FLAT.start] for row, (cells, _) in zip(output, pairs, strict=True)])
    known = torch.cat([rows for _, rows in pairs])
    if not len(known):
        return detection_loss(flat, truth) + 0 * told.sum()
    strides = torch.cat([row[cells, 2] for row, (cells, _) in zip(flat, pairs, strict=True)])
    corners, camera = known[:, CORNERS].unflatten(-1, (8, 3)), known[:, CAMERA]
    middle, sides, turn = measured(corners)
    place = middle[:, :2] / middle[:, 2:] * camera[:, :2] + camera[:, 2:]
    depth = (middle[:, 2] * size / _focal(camera)).log()
    places = functional.huber_loss(told[:, PLACE] / strides[:, None], place / strides[:, None])
    depths = (told[:, DEPTH] - depth).abs().mean()
    lengths = (told[:, SIDES] - sides.log()).abs().mean()
    zero, diagonal = torch.zeros_like(middle), sides.norm(dim=-1)
    apart = torch.cdist(corners_of(zero, sides, matrix(told[:, TURN])), corners_of(zero, sides, turn))
    turns = ((apart.amin(1).mean(-1) + apart.amin(2).mean(-1)) / diagonal).mean()
    return detection_loss(flat, truth) + places + depths + lengths + turns


def cuboid_detections(output: Tensor, size: int) -> Tensor:
    """What the head found, the surest first: float32 (B, NUM_FOUND, 6 + 12), as `detections`, then PLACE,
    DEPTH, SIDES and TURN; a camera lifts them."""
    return detections(output[..., FLAT], size, carried=output[..., : FLAT.start])


def lifted(told: Tensor, camera: Tensor, size: int) -> Tensor:
    """Corners (..., 8, 3) in metres of cuboids that were found.

    Args:
        told: (..., 12): PLACE, DEPTH, SIDES, TURN.
        camera: (..., 4) in pixels of the square.
        size: side of the square.
    """
    depth = told[..., DEPTH, None].clamp(-_MAX_LOG, _MAX_LOG).exp() * _focal(camera)[..., None] / size
    middle = torch.cat([(told[..., PLACE] - camera[..., 2:]) / camera[..., :2] * depth, depth], dim=-1)
    return corners_of(middle, told[..., SIDES].clamp(-_MAX_LOG, _MAX_LOG).exp(), matrix(told[..., TURN]))


def corners_of(middle: Tensor, sides: Tensor, turn: Tensor) -> Tensor:
    """Corners (..., 8, 3) from centres (..., 3), lengths (..., 3) and rotations (..., 3, 3)."""
    signs = torch.from_numpy(SIGNS).to(middle)
    return middle[..., None, :] + (signs * sides[..., None, :] / 2) @ turn.mT


def matrix(turn: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from two columns (..., 6) of any length and angle."""
    first = functional.normalize(turn[..., :3], dim=-1)
    second = turn[..., 3:] - (first * turn[..., 3:]).sum(-1, keepdim=True) * first
    second = functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def measured(corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (N, 3), lengths (N, 3), rotations (N, 3, 3)."""
    edges = (corners[:, [1, 3, 4]] - corners[:, :1]).mT
    sides = edges.norm(dim=1)
    return corners.mean(1), sides, edges / sides[:, None]


def _focal(camera: Tensor) -> Tensor:
    return (camera[..., 0] * camera[..., 1]).sqrt()
