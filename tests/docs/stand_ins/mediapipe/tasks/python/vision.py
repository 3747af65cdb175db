"""A landmarker that finds nobody at first, and then somebody who walks; times must rise, as in the real one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Any

from tests.docs.stand_ins.people import HEIGHT, WIDTH, walker


class RunningMode(enum.Enum):
    VIDEO = "VIDEO"


@dataclass
class PoseLandmarkerOptions:
    base_options: Any
    running_mode: RunningMode


class PoseLandmarker:
    def __init__(self) -> None:
        self.poses, self.last = iter(walker("mediapipe33")), -1

    @classmethod
    def create_from_options(cls, options: PoseLandmarkerOptions) -> PoseLandmarker:
        assert options.base_options.model_asset_path.endswith(".task") and options.running_mode is RunningMode.VIDEO
        return cls()

    def __enter__(self) -> PoseLandmarker:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None) -> None:
        pass

    def detect_for_video(self, image: object, timestamp_ms: int) -> SimpleNamespace:
        first, pose = self.last < 0, next(self.poses)
        if timestamp_ms <= self.last:
            raise ValueError("Input timestamp must be monotonically increasing.")
        self.last = timestamp_ms
        person = [SimpleNamespace(x=x / WIDTH, y=y / HEIGHT, visibility=seen) for x, y, seen in pose.tolist()]
        return SimpleNamespace(pose_landmarks=[] if first else [person])
