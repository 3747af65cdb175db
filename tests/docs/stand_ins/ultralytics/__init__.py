"""Ultralytics 8.4 as docs/trackers.md uses it: its results' types, without a network. At first nobody is followed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import torch

from tests.docs.stand_ins.people import HEIGHT, WIDTH, walker


class YOLO:
    def __init__(self, model: str) -> None:
        assert model.endswith("-pose.pt")

    def track(self, *, source: int | str, stream: bool, verbose: bool) -> Iterator[SimpleNamespace]:
        for n, pose in enumerate(torch.from_numpy(walker("coco17"))):
            found = pose[None] if n else pose[:0].reshape(0, 17, 3)
            yield SimpleNamespace(
                orig_shape=(HEIGHT, WIDTH),
                boxes=SimpleNamespace(id=torch.tensor([7.0]) if n > 1 else None),
                keypoints=SimpleNamespace(xy=found[..., :2], conf=found[..., 2]),
            )
