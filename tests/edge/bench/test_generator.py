"""The cameras' process, without an engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import zmq

from edge.bench.generator import sending
from edge.bench.traffic import Load
from edge.network.endpoint import Endpoint


def test_ctrl_c_is_for_who_started_the_cameras(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with zmq.Context() as context, sending(Load(1, 1, 30.0), f"push+bind:ipc://{tmp_path}/s", paced=True) as cameras:
        assert signal.getsignal(signal.SIGINT) == before and cameras._process.pid
        with Endpoint.parse(f"pull+connect:ipc://{tmp_path}/s").open(context, hwm=1000) as engine:
            cameras.started()
            os.kill(cameras._process.pid, signal.SIGINT)
            assert all(engine.poll(5000) and engine.recv() for _ in range(5))
            assert cameras.stop().messages >= 5
    assert cameras._process.exitcode == 0
