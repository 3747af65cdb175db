"""Maps many people of one layout onto core15 at once: the same as `cleaned` and `Layout.to_core15`, in few calls.

Sums over joints are matrix products, and so is copying each joint's number to its three coordinates: numpy is several
times slower at looping over an axis of two or three numbers than at a product with zeros and ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge.skeleton import COORDINATE_LIMIT, LAYOUTS, THRICE, Float, J, Layout, at_origin, cleaned, mask_bad

_ABOVE = np.ascontiguousarray(np.kron(np.eye(J, dtype=np.float32), np.array([[0, 1, 0]], np.float32)))


@lru_cache(64)
def _sums_of(name: str, c: int) -> tuple[NDArray[np.intp], Float, Float]:
    """The index and matrices that map a layout of J joints with c coordinates onto core15.

    The joint that each number belongs to (J·c,), the matrix from the numbers to core15's coordinates (J·c, 45), and the
    matrix from the joints' weights to its visibilities (J, 15).
    """
    layout = LAYOUTS[name]
    sums = np.kron(layout.matrix.T, np.eye(c, 3, dtype=np.float32))
    return np.repeat(np.arange(layout.size), c), np.ascontiguousarray(sums), np.ascontiguousarray(layout.matrix.T)


def core15(
    joints: Float,
    confidence: Float | None,
    layout: Layout,
    size: tuple[float, float] | None = None,
    min_confidence: float = 0.3,
) -> tuple[Float, Float, NDArray[np.int64] | None]:
    """Map joints (P, J, 2|3) as sent, with confidence (P, J) or None, onto core15.

    Returns joints (P, 15, 3) with y up, visible (P, 15), and how many of each person's joints (P,) were claimed visible
    at impossible coordinates, or None when there are none.
    """
    people, _, c = joints.shape
    height = size[1] if size and c == 2 else 1.0
    flat = joints.reshape(people, -1)
    limit = COORDINATE_LIMIT * height
    if people and not (flat.max() < limit and flat.min() > -limit):  # a NaN makes the comparison false
        return _with_bad(joints, confidence, layout, size, min_confidence)
    bad = None
    if (lost := at_origin(joints)) is not None:  # common: trackers also write zeros where the confidence is low
        claimed = lost if confidence is None else lost & (confidence >= min_confidence)
        if claimed.any():
            bad = claimed.sum(1)
            confidence = np.where(lost, 0, 1 if confidence is None else confidence).astype(np.float32)
    of, sums, weights = _sums_of(layout.name, c)
    if confidence is None:
        total, weight = flat @ sums, np.broadcast_to(weights.sum(0), (people, J))
    else:
        seen = (confidence >= min_confidence).astype(np.float32)  # NaN compares false: hidden
        each = seen.take(of, 1)
        each *= flat
        total, weight = each @ sums, seen @ weights
    enough = (weight > 0.5).astype(np.float32)
    scale = enough / np.maximum(weight, np.float32(0.5))
    if c == 3:
        total *= scale @ THRICE
    else:
        unit = np.tile(np.array([1 / height, -1 / height, 0], np.float32), J)
        total *= scale @ (THRICE * unit)
        if size:
            total += enough @ _ABOVE
    return total.reshape(people, J, 3), weight * enough, bad


def _with_bad(
    joints: Float,
    confidence: Float | None,
    layout: Layout,
    size: tuple[float, float] | None,
    min_confidence: float,
) -> tuple[Float, Float, NDArray[np.int64] | None]:
    """`core15` for people with impossible coordinates, which few cameras send: slower, by `cleaned`."""
    clean, seen, _ = cleaned(joints, confidence, size, min_confidence)
    claimed = mask_bad(np.zeros_like(clean), confidence, min_confidence)[1]
    bad = (claimed > 0).sum(1) - (seen > 0).sum(1)
    return *layout.to_core15(clean, seen), bad
