"""`haad-edge doctor`: reports what is installed, which engines work here, and what to do about the rest."""

from __future__ import annotations

import contextlib
import http.client
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from rich.markup import escape

from edge import __version__
from edge.alerts.keep import journal_path
from edge.bundle import open_bundle
from edge.commands.console import out, say
from edge.engine import embed, open_engine
from edge.engine.machine import this_machine
from edge.engine.plans import choose
from edge.errors import HaadError
from edge.journal.store import is_another_file
from edge.motion import make_motion
from edge.network.endpoint import Endpoint
from edge.settings import Settings, load_settings
from edge.support.cache import FeatureCache
from edge.support.enrol import clip_windows

STATUS_S = 2.5
"""How long to wait for an engine's status, which comes once a second."""
Verdict = Literal["ok", "absent", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix` says what to do unless the verdict is ok."""

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _onnx() -> Finding:
    bundle = open_bundle()
    engine = open_engine(bundle, "onnx", max_batch=8)
    m = bundle.manifest
    found = embed(engine, *clip_windows(make_motion("walk", seconds=3), m.frames, m.seconds))
    if not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3):
        return Finding(
            "engine onnx", "broken", "the base model's embeddings are not unit vectors", "reinstall onnxruntime"
        )
    return Finding("engine onnx", "ok", f"{engine.name} runs {bundle.model}")


def _tensorrt(s: Settings) -> Finding:
    here, name = this_machine(), "engine tensorrt"
    if here.problem:
        return Finding(
            name, "absent", here.problem, "not needed: haad-edge runs on ONNX Runtime, with or without a GPU"
        )
    assert here.gpu
    bundle = open_bundle(s.bundle)
    detail = f"TensorRT {here.tensorrt}, {here.gpu.name}, compute capability {here.gpu.capability}"
    try:
        record, _ = choose(bundle, here)
    except HaadError as e:
        return Finding(name, "absent", f"{detail}; {e.what}: {e.why}", e.fix)
    try:
        open_engine(bundle, "tensorrt", max_batch=1).close()
    except HaadError as e:
        return Finding(name, "broken", f"{detail}; {e.what}: {e.why}", e.fix)
    return Finding(name, "ok", f"{detail}; {bundle.model} has a plan for it: {record.target}")


def _ports(s: Settings) -> Finding:
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    busy = []
    try:
        for text in (s.ingest, s.alerts, s.replay):
            endpoint = None if text == "off" else Endpoint.parse(text)
            if endpoint is None or endpoint.mode == "connect":
                continue
            try:
                endpoint.open(context, hwm=1).close(0)
            except HaadError:
                busy.append(endpoint.address)
    finally:
        context.term()
    if s.metrics != "off" and not _free(s.metrics):
        busy.append(s.metrics)
    if not busy:
        return Finding("ports", "ok", "free")
    if _engine_answers(s):
        return Finding("ports", "ok", f"in use by a running haad-edge engine: {', '.join(busy)}")
    return Finding("ports", "broken", f"in use: {', '.join(busy)}", "stop the program that uses them, or set others")


def _free(address: str) -> bool:
    """Whether the page could be served there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the page's server does
        try:
            s.bind((host, int(port)))
        except OSError:
            return False
    return True


def _engine_answers(s: Settings) -> bool:
    """Whether a haad-edge engine has the ports: by its page or, if that is off, by the status it sends every second."""
    from edge.client import AlertSubscriber

    with contextlib.suppress(OSError, http.client.HTTPException):
        link = http.client.HTTPConnection(s.metrics, timeout=2)
        with contextlib.closing(link):
            link.request("GET", "/metrics")
            if b"\nhaad_ready " in link.getresponse().read(1 << 20):
                return True
    with contextlib.suppress(HaadError):
        address = Endpoint.parse(s.alerts).address
        with AlertSubscriber(f"sub+connect:{address}", topics=["status"], keys=s.keys) as subscriber:
            subscriber.wait(STATUS_S)
            return True
    return False


def _cache(s: Settings) -> Finding:
    root = FeatureCache(s.cache).root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root):
            pass
    except OSError as e:
        return Finding("cache", "broken", f"{root}: {e}", "name another: --cache DIR; without a cache, starts are slow")
    return Finding("cache", "ok", str(root))


def _journal(s: Settings) -> Finding:
    try:
        path = journal_path(s.journal)
    except HaadError as e:
        return Finding("journal", "broken", f"{e.what}: {e.why}", e.fix)
    if path is None:
        return Finding("journal", "absent", "off", "alerts are not kept: a subscriber that was away misses them")
    there = next(p for p in (path, *path.parents) if p.exists())
    # Do not open it: a running engine may have it open.
    if (there != path and not there.is_dir()) or not os.access(there, os.W_OK):
        return Finding("journal", "broken", f"{path}: {there} cannot be written", "name another: --journal PATH")
    if path.is_dir() or is_another_file(path):
        what = "a folder" if path.is_dir() else "a file, but not a journal"
        return Finding("journal", "broken", f"{path}: {what}", "name another: --journal PATH")
    held = f", {path.stat().st_size / (1 << 20):.1f} MiB" if there == path else ""
    return Finding("journal", "ok", f"{path}{held}")


def _training() -> Finding:
    wanted = ("torch", "onnx", "safetensors", "scikit-learn")
    missing = [p for p in wanted if version_of(p) is None]
    if missing:
        return Finding(
            "training",
            "absent",
            f"not installed: {', '.join(missing)}",
            "on a workstation: pip install 'haad-edge[train]'",
        )
    return Finding("training", "ok", ", ".join(f"{p} {version_of(p)}" for p in wanted))


def examine(config: Path | None = None) -> list[Finding]:
    """Check what `run` with these settings would use; returns all findings, in the order of the report."""
    packages = ("numpy", "pyzmq", "msgpack", "pydantic-settings", "onnxruntime", "prometheus-client")
    out = [
        Finding(
            "haad-edge",
            "ok",
            f"{__version__} in {Path(sys.prefix)}, Python {platform.python_version()}, {platform.machine()}",
        ),
        Finding("packages", "ok", ", ".join(f"{p} {version_of(p)}" for p in packages)),
    ]
    try:
        settings = load_settings({}, config)
    except HaadError as e:
        out.append(Finding("settings", "broken", e.what + (f": {e.why}" if e.why else ""), e.fix))
        settings = Settings.model_construct()  # the defaults
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("engine onnx", _onnx),
        ("engine tensorrt", partial(_tensorrt, settings)),
        ("training", _training),
        ("cache", partial(_cache, settings)),
        ("journal", partial(_journal, settings)),
        ("ports", partial(_ports, settings)),
    )
    for name, check in checks:
        try:
            out.append(check())
        except HaadError as e:
            out.append(Finding(name, "broken", e.what + (f": {e.why}" if e.why else ""), e.fix))
    return out


def show(findings: list[Finding]) -> bool:
    """Print one finding per line, with what to do below it. Returns whether any is broken."""
    colour = {"ok": "green", "absent": "yellow", "broken": "red"}
    for f in findings:
        # A bundle's files can have any name: allow no markup, and nothing that moves the terminal's cursor.
        name, detail, fix = (x if x.isprintable() else ascii(x) for x in (f.name, f.detail, f.fix))
        out.print(f"[{colour[f.verdict]}]{f.verdict:7}[/] [bold]{escape(name)}[/]  ", end="")
        say(detail)
        if fix:
            say(f"        → {fix}")
    return any(f.verdict == "broken" for f in findings)
