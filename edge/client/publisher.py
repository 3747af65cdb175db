"""Sends a camera's poses to the engine, numbered, and refuses what the engine would refuse."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq
from numpy.typing import ArrayLike, NDArray

from edge.errors import HaadError, WireError
from edge.network.endpoint import Endpoint, milliseconds, no_answer, open_alone
from edge.skeleton import get_layout
from edge.wire import Limits, PoseFrame, decode_pose, encode_pose, stream_of, whole_number

POSES = "pub+connect:tcp://127.0.0.1:5555"
IMAGE_LAYOUTS = ("coco17", "halpe26", "body25")
"""Layouts of trackers that work on images, and often give (x, y, confidence), which looks like 3-D."""


class PosePublisher:
    """Sends one stream's pose frames and numbers them. `pub` never blocks; `push` waits for a slow engine.

    `keys` is a folder of CURVE keys, see `edge.network.keys`. `limits` are the engine's, if they are not the defaults.
    """

    def __init__(
        self,
        endpoint: str = POSES,
        *,
        stream: str,
        layout: str = "core15",
        hwm: int = 10_000,
        keys: Path | str | None = None,
        allow_remote: bool = False,
        limits: Limits = Limits(),
    ) -> None:
        self.stream = stream_of(f"pose/{stream}".encode(errors="surrogatepass"), limits)
        self.layout, self.seq, self._limits = get_layout(layout), 0, limits
        self._where = Endpoint.parse(endpoint, ("pub", "push"), example=POSES)
        self._refused = threading.Event()
        self._socket, self._stack = open_alone(self._where, hwm, keys, allow_remote, self._refused.set)

    def wait(self, seconds: float = 10) -> None:
        """Wait until an engine listens, so that the first frames are not lost. Raises HaadError if none does."""
        self._check_open()
        ready = self._socket.poll(milliseconds(seconds), zmq.POLLOUT if self._where.pattern == "push" else zmq.POLLIN)
        if not ready:
            what, why = f"nobody listens at {self._where.address}", f"no engine subscribed within {seconds:g} s"
            raise no_answer(self._where, self._refused, what, why)

    def send(
        self,
        ids: Sequence[int],
        joints: ArrayLike,
        *,
        t: int | None = None,
        visible: ArrayLike | None = None,
        size: tuple[float, float] | None = None,
        end: bool = False,
    ) -> None:
        """Send one frame: ids (P,), joints (P, J, 2 or 3), visible (P, J); `t`: capture time in ns (None: now).

        `size` is the image's width and height if joints are 2-D, in pixels, y down. (x, y, confidence) is not 3-D: pass
        the confidence as `visible`. Raises WireError for what the engine would refuse, before anything is sent, and
        HaadError after `close`.
        """
        self._check_open()
        named, places = _array("ids", ids, None), _array("joints", joints, np.float32)
        seen = None if visible is None else _array("visible", visible, np.float32)
        if named.ndim == 0:
            raise WireError("field_ids", f"ids are {ids!r:.40}, not a list of integers")
        people = len(named)
        try:
            now = time.time_ns() if t is None else operator.index(t)
        except TypeError:
            raise WireError("field_t", f"t is {t!r:.40}", why="t is an integer, in ns") from None
        if people and (named.ndim != 1 or named.dtype.kind not in "iu"):
            raise WireError("field_ids", f"ids are {ids!r:.40}, not a list of integers")
        expected = (people, self.layout.size)
        if people and (places.ndim != 3 or places.shape[:2] != expected or places.shape[2] not in (2, 3)):
            raise WireError(
                "field_joints", f"joints have shape {places.shape}", why=f"{self.layout.name} needs {expected} × 2 or 3"
            )
        if people and seen is not None and seen.shape != expected:
            raise WireError("field_visible", f"visible has shape {seen.shape}, not {expected}")
        if people and size is not None and places.shape[2] == 3 and self.layout.name in IMAGE_LAYOUTS:
            raise WireError(
                "field_joints",
                f"{self.layout.name} joints with three numbers and an image size",
                why="x, y, confidence is not 3-D",
                fix="pass joints[..., :2], and confidence as `visible`",
            )
        frame = PoseFrame(
            self.stream,
            self.seq,
            now,
            self.layout,
            named,
            places if places.size else np.zeros((0, self.layout.size, 3), np.float32),
            seen,
            None if size is None else _array("size", size, None).ravel().tolist(),
            end,
        )
        whole_number({"t": now}, "t")  # msgpack is limited to 64 bits, and would raise an error of its own
        message = encode_pose(frame)
        decode_pose([message], self._limits)
        self.seq += 1
        self._socket.send(message)

    def end(self, t: int | None = None) -> None:
        """Announce the end of the stream: its tracks' alerts end with it."""
        self.send([], np.zeros((0, self.layout.size, 3)), t=t, end=True)

    def _check_open(self) -> None:
        if self._socket.closed:
            raise HaadError(
                f"{self.stream}: the publisher is closed",
                why="`close` was called, or its `with` block was left",
                fix="make a new PosePublisher, and close it after the last frame",
            )

    def close(self) -> None:
        """Wait up to 5 s until everything is transmitted, then close."""
        self._socket.close(5000)
        self._stack.close()

    def __enter__(self) -> PosePublisher:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _array(name: str, value: object, kind: type[np.float32] | None) -> NDArray[Any]:
    """The value as a numpy array. Raises WireError if it is not numeric."""
    try:
        array = np.asarray(value, kind)
        if array.dtype.hasobject:
            raise TypeError("numpy cannot store its values as numbers")
        return array
    except (TypeError, ValueError, OverflowError) as e:
        raise WireError(f"field_{name}", f"'{name}' is {value!r:.40}, not an array of numbers", why=str(e)) from None
