"""Runs torch for benchmarks.gpu, in a process of its own, since TensorRT may be installed in another Python.

parent ─{"way", "batch", "seconds"}─► python -m benchmarks.gpu_torch BUNDLE ─{"ms": [...]}─► parent
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.gpu_floor import CATEGORIES, SHOTS, timed
from edge.skeleton import Float, J

EAGER = ("torch eager, float32", "torch eager, float16")
COMPILED = "torch.compile, float16"


def windows(n: int, frames: int) -> tuple[Float, Float]:
    """Make windows of random joints, a tenth of them hidden."""
    rng = np.random.default_rng(n)
    joints = rng.normal(0, 0.5, (n, frames, J, 3)).astype(np.float32)
    return joints, (rng.random((n, frames, J)) > 0.1).astype(np.float32)


def support(embedding: int) -> tuple[Float, Float]:
    """Make a support of random unit rows, and its mask."""
    rows = np.random.default_rng(0).normal(size=(CATEGORIES, SHOTS, embedding)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.ones((CATEGORIES, SHOTS), np.float32)


class Torch:
    """The other process. `failed`: the ways that cannot be measured, and why."""

    def __init__(self, bundle: Path, command: str = "") -> None:
        argv = [*(shlex.split(command) or [sys.executable]), "-m", "benchmarks.gpu_torch", str(bundle)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        first = self._read()
        self.version: str = first.get("torch", "")
        self.failed = dict.fromkeys((*EAGER, COMPILED), first["why"]) if "why" in first else {}

    def __enter__(self) -> Torch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def ms(self, way: str, batch: int, seconds: float) -> list[float]:
        """Measure the milliseconds of each call; [] once this way has failed."""
        if way in self.failed:
            return []
        assert self._process.stdin
        try:
            print(json.dumps({"way": way, "batch": batch, "seconds": seconds}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the process has ended, as `_read` will report
        answer = self._read()
        if "why" in answer:
            self.failed[way] = answer["why"]
        return list(answer.get("ms", []))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"why": f"its process ended, status {self._process.wait()}"}


def calls(bundle: Path) -> Callable[[str, int], Callable[[], object]]:
    """A factory of calls, by way and size: pinned memory in, distances out, as the pipeline does."""
    import torch

    from builder.export import load_graph
    from builder.slim import slim
    from edge.bundle import open_bundle

    model = open_bundle(bundle)
    m = model.manifest
    graph = slim(load_graph(model)).cuda()  # the same operations that TensorRT gets
    rows, mask = (torch.from_numpy(x).cuda() for x in support(m.embedding))
    made: dict[int, Any] = {}

    def call(way: str, batch: int) -> Callable[[], object]:
        joints, visible = (torch.from_numpy(x).pin_memory() for x in windows(batch, m.frames))
        run: Any = graph
        if way == COMPILED:
            if batch not in made:
                torch.compiler.reset()  # otherwise, after some sizes, it gives up and runs eagerly
                made.clear()
                made[batch] = torch.compile(graph, dynamic=False, mode="reduce-overhead")
            run = made[batch]

        def go() -> object:
            there = joints.cuda(non_blocking=True), visible.cuda(non_blocking=True)
            return run(*there, rows, mask)[1].cpu()

        return go

    return call


def serve(bundle: Path, reply: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until the parent closes its end."""
    try:
        import torch
    except ImportError as e:
        return reply({"why": f"torch cannot be imported: {e}"})
    if not torch.cuda.is_available():
        return reply({"why": f"torch {torch.__version__} sees no GPU"})
    call = calls(bundle)
    reply({"torch": torch.__version__})
    for line in sys.stdin:
        asked = json.loads(line)
        half = asked["way"] != EAGER[0]
        try:
            # Entered once, so that weights are cast only once, and not in every call.
            with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=half):
                go = call(asked["way"], asked["batch"])
                for _ in range(5):
                    go()
                reply({"ms": timed(go, asked["seconds"])})
        except Exception as e:  # whatever it is, the parent goes on without this way
            reply({"why": f"batch {asked['batch']}: {e!s:.300}"})


def main() -> None:
    """Serve on stdin and the original stdout; what torch prints to stdout goes to stderr instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(Path(sys.argv[1]), lambda reply: print(json.dumps(reply), file=answers, flush=True))


if __name__ == "__main__":
    main()
