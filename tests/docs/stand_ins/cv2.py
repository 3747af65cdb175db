"""OpenCV as docs/trackers.md uses it: a camera that gives some black images."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tests.docs.stand_ins.people import FRAMES, HEIGHT, WIDTH

COLOR_BGR2RGB = 4


class VideoCapture:
    def __init__(self, source: int | str) -> None:
        self.left = FRAMES

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        time.sleep(0.01)  # a camera makes one wait
        self.left -= 1
        return (True, np.zeros((HEIGHT, WIDTH, 3), np.uint8)) if self.left >= 0 else (False, None)


def cvtColor(image: NDArray[np.uint8], code: int) -> NDArray[np.uint8]:
    assert code == COLOR_BGR2RGB
    return image[..., ::-1].copy()
