"""3-D joints against ground truth: distances in millimetres, before and after alignment."""

import numpy as np

_MM = 1000.0


def joint_error(predicted: np.ndarray, truth: np.ndarray, root: int = 0) -> float:
    """MPJPE: mean distance of joints in millimetres, both skeletons moved so that their roots coincide.

    Args:
        predicted, truth: float (J, 3) in metres, in the same orientation.
        root: which joint is the pelvis.
    """
    moved = (predicted - predicted[root]) - (truth - truth[root])
    return float(_MM * np.linalg.norm(moved, axis=1).mean())


def aligned_joint_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """PA-MPJPE: mean distance of joints in millimetres after the best rotation, scale and shift.

    Args:
        predicted, truth: float (J, 3) in metres.
    """
    return float(_MM * np.linalg.norm(procrustes(predicted, truth) - truth, axis=1).mean())


def procrustes(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Turn, scale and shift `points` (J, 3) to come closest to `target` (J, 3), without mirroring them.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991).
    """
    from_mean, to_mean = points.mean(0), target.mean(0)
    ours, theirs = points - from_mean, target - to_mean
    u, singular, vt = np.linalg.svd(theirs.T @ ours)
    handed = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (singular * handed).sum() / max((ours**2).sum(), 1e-12)
    return scale * ours @ ((u * handed) @ vt).T + to_mean
