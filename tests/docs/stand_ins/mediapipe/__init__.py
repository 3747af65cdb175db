"""MediaPipe's Tasks API (0.10 to 1.2) as docs/trackers.md uses it."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray


class ImageFormat(enum.Enum):
    SRGB = 1


class Image:
    def __init__(self, image_format: ImageFormat, data: NDArray[np.uint8]) -> None:
        assert image_format is ImageFormat.SRGB and data.dtype == np.uint8 and data.flags.c_contiguous
