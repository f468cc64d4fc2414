"""Ray casting of the unit shapes.

Each shape is centred at the origin and fits the box -1..1 (a torus is flatter). Rays are float32 arrays
`(3, N)`; either side may be `(3, 1)` and broadcasts. Distances are `(N,)` along the given directions (which
need no unit length), infinite where the ray misses or the shape is behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_FAR = np.float32(np.inf)
_EPS = np.float32(1e-4)


@dataclass(frozen=True)
class Shape:
    """A unit shape: how rays meet it, and its outward normals at points on it.

    `half` are the half sides of its box.
    """

    half: tuple[float, float, float]
    intersect: Callable[[Array, Array], Array]
    normals: Callable[[Array], Array]


def dot(a: Array, b: Array) -> Array:
    """Dot products of columns, `(3, N)` twice to `(N,)`; written out: a sum over axis 0 is slow."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _first(near: Array, far: Array, hit: NDArray[np.bool_]) -> Array:
    """Choose the nearest distance in front of the origin from an interval."""
    t = np.where(near > _EPS, near, far)
    return np.where(hit & (t > _EPS), t, _FAR).astype(np.float32, copy=False)


def _roots(a: Array, b: Array, c: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Solve a t^2 + 2 b t + c = 0; the roots ascend, and mean nothing where the mask is false."""
    disc = b * b - a * c
    hit = disc > 0
    root = np.sqrt(np.where(hit, disc, 0))
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    t0, t1 = (-b - root) / a, (-b + root) / a
    return np.minimum(t0, t1), np.maximum(t0, t1), hit


def _sphere(o: Array, d: Array) -> Array:
    near, far, hit = _roots(dot(d, d), dot(o, d), dot(o, o) - 1)
    return _first(near, far, hit)


def _slab(o: Array, d: Array, half: float) -> tuple[Array, Array]:
    dz = np.where(np.abs(d[2]) < 1e-7, np.float32(1e-7), d[2])
    t0, t1 = (-half - o[2]) / dz, (half - o[2]) / dz
    return np.minimum(t0, t1), np.maximum(t0, t1)


def _cylinder(o: Array, d: Array) -> Array:
    near, far, hit = _roots(
        d[0] * d[0] + d[1] * d[1],
        o[0] * d[0] + o[1] * d[1],
        o[0] * o[0] + o[1] * o[1] - 1,
    )
    low, high = _slab(o, d, 1)
    near, far = np.maximum(near, low), np.minimum(far, high)
    return _first(near, far, hit & (near < far))


def _cylinder_normals(p: Array) -> Array:
    cap = np.abs(p[2]) > 1 - 2e-3
    n = np.stack([p[0], p[1], np.zeros_like(p[2])])
    return np.where(cap, np.stack([0 * p[0], 0 * p[0], np.sign(p[2])]), n).astype(np.float32)


def _cone(o: Array, d: Array) -> Array:
    """Meet the lateral surface or the base, whichever is nearer (solid cone, apex up, slope 1/2)."""
    k2 = np.float32(0.25)
    oz = o[2] - 1
    near, far, hit = _roots(
        d[0] * d[0] + d[1] * d[1] - k2 * d[2] * d[2],
        o[0] * d[0] + o[1] * d[1] - k2 * oz * d[2],
        o[0] * o[0] + o[1] * o[1] - k2 * oz * oz,
    )
    best = np.full(np.broadcast_shapes(near.shape, (1,)), _FAR, dtype=np.float32)
    for t in (near, far):
        z = o[2] + t * d[2]
        good = hit & (np.abs(z) <= 1) & (t > _EPS) & (t < best)
        best = np.where(good, t, best)
    dz = np.where(np.abs(d[2]) < 1e-7, np.float32(1e-7), d[2])
    t = (-1 - o[2]) / dz
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    good = (x * x + y * y <= 1) & (t > _EPS) & (t < best)
    return np.where(good, t, best).astype(np.float32, copy=False)


def _cone_normals(p: Array) -> Array:
    base = p[2] < -1 + 2e-3
    flat = np.hypot(p[0], p[1]) + 1e-6
    n = np.stack([p[0] / flat, p[1] / flat, np.full_like(flat, 0.5)]) / np.hypot(1, 0.5)
    return np.where(base, np.array([[0], [0], [-1]]), n).astype(np.float32)


def _polyhedron(
    planes: list[tuple[float, float, float, float]],
) -> tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]:
    """Build a convex solid from planes n.x <= h given as (nx, ny, nz, h) with unit n."""
    table = np.array(planes, dtype=np.float32)
    n, h = table[:, :3], table[:, 3:]

    def intersect(o: Array, d: Array) -> Array:
        slope = n @ d
        slope = np.where(np.abs(slope) < 1e-7, np.float32(1e-7), slope)
        t = (h - n @ o) / slope
        near = np.where(slope < 0, t, -_FAR).max(0)
        far = np.where(slope > 0, t, _FAR).min(0)
        return _first(near, far, near < far)

    def normals(p: Array) -> Array:
        return n[np.argmax(n @ p - h, axis=0)].T

    return intersect, normals


_TORUS_MAJOR, _TORUS_MINOR = 0.7, 0.3


def _torus_distance(p: Array) -> Array:
    ring = np.sqrt(p[0] * p[0] + p[1] * p[1]) - _TORUS_MAJOR
    return np.sqrt(ring * ring + p[2] * p[2]) - _TORUS_MINOR


def _torus(o: Array, d: Array) -> Array:
    """Walk along the ray by the distance to the surface (sphere tracing), inside the bounding slab only."""
    shape = np.broadcast_shapes(o.shape, d.shape)
    length = np.sqrt(dot(d, d))
    low, high = _slab(o, d, _TORUS_MINOR)
    near, far, hit = _roots(dot(d, d), dot(o, d), dot(o, o) - 1)
    start, end = np.maximum(np.maximum(near, low), 2 * _EPS), np.minimum(far, high)
    out = np.full(shape[1], _FAR, dtype=np.float32)
    live = np.flatnonzero(np.broadcast_to(hit & (start < end), shape[1:]))
    if not live.size:
        return out
    o, d = np.broadcast_to(o, shape)[:, live], np.broadcast_to(d, shape)[:, live]
    t, end = np.broadcast_to(start, shape[1:])[live].copy(), np.broadcast_to(end, shape[1:])[live]
    length = np.broadcast_to(length, shape[1:])[live]
    gap = _torus_distance(o + t * d)
    for _ in range(28):
        t += gap / length
        gap = _torus_distance(o + t * d)
    out[live] = np.where((gap < 5e-3) & (t < end + 1e-2), t, _FAR)
    return out


def _torus_normals(p: Array) -> Array:
    flat = np.hypot(p[0], p[1]) + 1e-6
    pull = (flat - _TORUS_MAJOR) / flat
    n = np.stack([p[0] * pull, p[1] * pull, p[2]])
    return (n / (np.sqrt(dot(n, n)) + 1e-6)).astype(np.float32)


_box, _box_normals = _polyhedron(
    [(*(s * np.eye(3)[axis]).tolist(), 1.0) for axis in range(3) for s in (-1.0, 1.0)]
)
_TILT = float(np.hypot(2, 1))
_pyramid, _pyramid_normals = _polyhedron(
    [(0.0, 0.0, -1.0, 1.0)]
    + [(x * 2 / _TILT, y * 2 / _TILT, 1 / _TILT, 1 / _TILT) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
)

UNIT_SHAPES: dict[str, Shape] = {
    "sphere": Shape((1, 1, 1), _sphere, lambda p: p),
    "box": Shape((1, 1, 1), _box, _box_normals),
    "cylinder": Shape((1, 1, 1), _cylinder, _cylinder_normals),
    "cone": Shape((1, 1, 1), _cone, _cone_normals),
    "pyramid": Shape((1, 1, 1), _pyramid, _pyramid_normals),
    "torus": Shape((1, 1, _TORUS_MINOR), _torus, _torus_normals),
}
