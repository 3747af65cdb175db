"""The parts of the GPU benchmark that can be tested without a GPU: its floor, its latencies, its torch process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import profiles, run_overlapped, run_sequentially
from benchmarks.gpu_floor import CATEGORIES, SHOTS, Ceilings, multiply_adds
from benchmarks.gpu_torch import COMPILED, EAGER, Torch, support, windows
from builder.export import load_graph
from builder.slim import slim
from edge.bundle import BASE, GRAPH, open_bundle
from edge.engine.machine import this_machine
from tests.edge.engine.test_pipeline import fill, make
from tests.edge.engine.test_pipeline import support as made_support

NO_GPU = pytest.mark.skipif(not this_machine().problem, reason="this machine has a GPU: pytest -m gpu")


def test_its_products_are_those_that_torch_counts() -> None:
    bundle = open_bundle()
    m = bundle.manifest
    graph = slim(load_graph(bundle))
    given = [torch.from_numpy(x) for x in (*windows(1, m.frames), *support(m.embedding))]
    assert given[2].shape[:2] == (CATEGORIES, SHOTS)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(*given)
    assert 2 * multiply_adds(bundle.read(GRAPH)) == counter.get_total_flops()


def test_the_floor_is_what_bytes_and_operations_take() -> None:
    found = Ceilings(bytes_in=1e9, bytes_out=1e6, multiply_adds=1e12, of_a_window=10**7).floor(100, 48)
    into, out, compute = 100 * 48 * 15 * 16 / 1e6, 100 * 4 * CATEGORIES / 1e3, 100 * 1e7 / 1e9
    assert found["ms"] == pytest.approx(into + out + compute)
    assert found["rate"] == pytest.approx(100 / (max(into, out, compute) / 1000))


def test_latency_is_from_a_batch_s_own_submission() -> None:
    """With three batches in flight each waits for those before it: its time is not that between two results."""
    pipeline, *_ = make()
    pipeline.bind(*made_support(0))
    for _ in range(2):
        fill(pipeline, 4, 0)
        pipeline.submit(4)
        pipeline.collect()
    alone, three = (way(pipeline, 4, 0.05) for way in (run_sequentially, run_overlapped))
    assert pipeline.pending == 0
    for rate, ms in (alone, three):
        assert rate > 0 and len(ms) >= 50
    between = 1000 * 4 / three[0]
    assert np.mean(three[1]) > 2 * between and np.mean(alone[1]) == pytest.approx(1000 * 4 / alone[0])


def test_sizes_beyond_the_default_plan_get_one_of_their_own() -> None:
    assert profiles([1, 64, 256, 1024]) == {"1:16:64": [1, 64], "256:1024:1024": [256, 1024]}
    assert profiles([16]) == {"1:16:64": [16]} and profiles([65]) == {"65:65:65": [65]}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        pytest.param("", f"torch {torch.__version__} sees no GPU", marks=NO_GPU),
        ("false", "its process ended, status 1"),
    ],
)
def test_without_torch_it_goes_on_and_says_why(command: str, why: str) -> None:
    with Torch(BASE, command) as other:
        assert other.failed == dict.fromkeys((*EAGER, COMPILED), why)
        assert other.ms(COMPILED, 1, 0.1) == []


def test_a_way_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    program = tmp_path / "other.py"
    program.write_text(
        "import json, sys\n"
        'print(json.dumps({"torch": "9"}), flush=True)\n'
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        '    answer = {"why": "no"} if "compile" in asked["way"] else {"ms": [asked["batch"]]}\n'
        "    print(json.dumps(answer), flush=True)\n"
    )
    with Torch(BASE, f"{sys.executable} {program}") as other:
        ways: list[Any] = [other.ms(way, 7, 0.1) for way in (EAGER[0], COMPILED, EAGER[1], COMPILED)]
        assert ways == [[7], [], [7], []] and other.failed == {COMPILED: "no"} and other.version == "9"


@NO_GPU
def test_without_a_gpu_it_measures_nothing_and_says_so() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 77
    assert f"nothing measured: {this_machine().problem}" in done.stdout + done.stderr
