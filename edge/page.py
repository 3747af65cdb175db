"""Serves one small HTTP port: /metrics for Prometheus, /healthz (the process lives), /readyz (does it judge?)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge.errors import SettingsError
from edge.inference.counts import LATENCY_BUCKETS
from edge.runtime import Runtime


class RuntimeCollector(Collector):
    """Reads the loop's counters for each request; the loop itself knows nothing of Prometheus."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterable[Metric]:
        r = self._runtime
        ledger, counts = r.ledger, r.counts
        plain = (
            ("haad_frames", "pose messages accepted", ledger.frames),
            ("haad_people", "person-frames accepted", ledger.people),
            ("haad_frames_lost", "pose messages that never arrived, by sequence number", ledger.lost),
            ("haad_frames_out_of_order", "pose messages with an old sequence number", ledger.out_of_order),
            ("haad_stream_restarts", "publishers that restarted their sequence numbers", ledger.restarts),
            ("haad_bad_joints", "joints with impossible coordinates", ledger.bad_joints),
            ("haad_unstamped", "messages without a capture time, which got their arrival time", ledger.unstamped),
            ("haad_windows", "windows scored", counts.windows),
            ("haad_batches", "inference batches", counts.batches),
            ("haad_engine_seconds", "time spent in inference", counts.engine_seconds),
            ("haad_engine_fallbacks", "times that another engine took over", r.engine.fallbacks),
            ("haad_support_swaps", "support sets taken into use", counts.swaps),
            ("haad_journal_failures", "failed attempts to write alerts to disk", r.announcer.journal_failures),
            ("haad_alerts_unwritten", "alert messages published but never written to disk", r.announcer.unwritten),
            ("haad_evidence_lost", "windows of alerts that could not be kept", r.evidence.lost if r.evidence else 0),
        )
        for name, text, value in plain:
            yield CounterMetricFamily(name, text, value=value)
        for name, text, label, values in (
            ("haad_messages_dropped", "pose messages refused", "reason", dict(ledger.dropped)),
            (
                "haad_track_frames",
                "frames that were dropped, or began a track's window again",
                "fate",
                dict(r.windows.fate),
            ),
            ("haad_windows_skipped", "windows that were not scored", "reason", dict(counts.skipped)),
            ("haad_alerts", "alert messages", "type", dict(counts.alerts)),
            ("haad_replay_requests", "requests for alerts on record", "result", dict(r.announcer.replays)),
        ):
            family = CounterMetricFamily(name, text, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            yield family
        yield GaugeMetricFamily("haad_tracks", "people in view", value=r.windows.live)
        yield GaugeMetricFamily(
            "haad_tracks_unclear", "people in view too poorly seen to judge", value=r.book.unclear_count
        )
        yield GaugeMetricFamily("haad_streams", "streams known", value=len(r.windows.streams))
        yield GaugeMetricFamily(
            "haad_streams_silent", "streams from which nothing comes, though they did not end", len(r.health.silent)
        )
        ages = GaugeMetricFamily("haad_stream_age_seconds", "seconds since a stream's last message", labels=["stream"])
        for name, heard in r.health.heard.items():
            ages.add_metric([name], r.clock() - heard)
        yield ages
        yield GaugeMetricFamily("haad_alerts_standing", "alerts raised and not ended", value=int(r.book.raised.sum()))
        yield GaugeMetricFamily("haad_ready", "1 while the engine judges", value=int(r.ready[0]))
        info = InfoMetricFamily("haad_provenance", "what judges")
        info.add_metric([], asdict(r.announcer.by))
        yield info
        total, buckets = 0, []
        for bound, n in zip((*map(str, LATENCY_BUCKETS), "+Inf"), counts.latency.tolist(), strict=True):
            total += n
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            "haad_latency_seconds",
            "from a frame's arrival to its window's score",
            buckets=buckets,
            sum_value=counts.latency_sum,
        )


class Page:
    """Serves the page on `host:port` in a thread. Port 0 takes a free one, which `address` names."""

    def __init__(self, address: str, runtime: Runtime) -> None:
        registry = CollectorRegistry()
        registry.register(RuntimeCollector(runtime))

        def ready() -> tuple[int, str, bytes]:
            ok, text = runtime.ready
            return (200 if ok else 503), "text/plain", f"{text}\n".encode(errors="replace")

        answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/healthz": lambda: (200, "text/plain", b"alive\n"),
            "/readyz": ready,
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                answer = answers.get(self.path.split("?")[0])
                code, kind, body = answer() if answer else (404, "text/plain", b"/metrics /healthz /readyz\n")
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing: requests are of no interest."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore clients that hang up; report any other error, which is ours, without flooding the log."""
                e = sys.exc_info()[1]
                if not isinstance(e, ConnectionError | TimeoutError):
                    runtime.notices.say(f"the metrics page failed: {e!r:.200}", "page")

        host, _, port = address.rpartition(":")
        try:
            self._server = Server((host.strip("[]"), int(port)), Handler)
        except OSError as e:
            raise SettingsError(
                f"cannot serve metrics on {address}",
                why=e.strerror or str(e),
                fix="--metrics HOST:PORT, or --metrics off",
            ) from None
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
