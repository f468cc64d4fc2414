"""Depth against ground truth: what a map without a unit can be asked."""

import numpy as np

from ..readers.depth import standardize

_MIN_DEPTH = 1e-3  # a ratio divides by it; in the unit of the ground truth


def fit_affine(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`predicted` with the scale and shift that bring it closest to `truth`, by least squares; both (n,)."""
    columns = np.stack([predicted, np.ones_like(predicted)], axis=1)
    scale_shift, *_ = np.linalg.lstsq(columns, truth, rcond=None)
    return columns @ scale_shift


def depth_errors(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """Errors of one depth map.

    Args:
        predicted: float (H, W), larger is farther, in any unit.
        truth: float (H, W), above 0 where valid.
        valid: bool (H, W), three pixels or more.

    Returns:
        `l1`: mean absolute difference after both are standardised over the valid pixels (`standardize`).
        `abs_rel`: mean |d - t| / t, and `delta1`: share of pixels with max(d / t, t / d) < 1.25, after scale
        and shift are fitted to the ground truth.
    """
    found, wanted = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    l1 = np.abs(standardize(found) - standardize(wanted)).mean()
    fitted = fit_affine(found, wanted)
    ratio = np.maximum(fitted, _MIN_DEPTH) / wanted
    return {
        "l1": float(l1),
        "abs_rel": float((np.abs(fitted - wanted) / wanted).mean()),
        "delta1": float((np.maximum(ratio, 1 / ratio) < 1.25).mean()),
    }
