"""Who listens, as the publishing sockets tell it."""

from __future__ import annotations

import time
from pathlib import Path

import zmq

from edge.network.endpoint import Endpoint
from edge.network.sink import ZmqSink


def test_a_subscriber_of_one_stream_alone_is_heard_by_the_sink(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sink = ZmqSink(context, [Endpoint.parse(f"pub+bind:ipc://{tmp_path}/out")], 10)
    subscriber, another = context.socket(zmq.SUB), context.socket(zmq.SUB)
    try:
        subscriber.connect(f"ipc://{tmp_path}/out")
        assert not sink.wanted(b"score/")
        subscriber.setsockopt(zmq.SUBSCRIBE, b"score/good")
        while not sink.newcomers():
            pass
        assert sink.wanted(b"score/") and sink.wanted(b"score/good") and not sink.wanted(b"score/other")
        assert not sink.wanted(b"alert/good")
        another.connect(f"ipc://{tmp_path}/out")
        another.setsockopt(zmq.SUBSCRIBE, b"score/good")
        while not sink.newcomers():  # told of though the topic was wanted before
            pass
        for one in (subscriber, another):
            one.setsockopt(zmq.UNSUBSCRIBE, b"score/good")
        until = time.monotonic() + 20
        while sink.wanted(b"score/good") and time.monotonic() < until:
            assert not sink.newcomers()
        assert not sink.wanted(b"score/good")
    finally:
        subscriber.close(0)
        another.close(0)
        sink.close()
        context.term()
