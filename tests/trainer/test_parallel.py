"""A run in two processes ends where a run in one does: real processes, over gloo on the loopback interface."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge.errors import SettingsError
from tests.trainer.made import ENCODER, tiny, windows
from tests.trainer.pair import train
from trainer.datasets import ClipSet
from trainer.encoder import Encoder
from trainer.fit import Trainer
from trainer.head import Learner
from trainer.parallel import SharedNorm, gather, start_fabric

ROOT = Path(__file__).parents[2]
LIMIT = 200
"""Seconds after which both processes are killed: nothing here can hang."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def one(folder: Path, out: Path) -> dict[str, Any]:
    """The run in this process alone; one_0.pt holds its fourth step."""
    return train(folder, out / "one_0.pt")


@pytest.fixture(scope="module")
def two(folder: Path, out: Path, one: dict[str, Any]) -> dict[str, Any]:
    """The results of both processes, what they printed, and how they ended."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    # What torchrun would set; torchrun itself is run by the commands of docs/train.md.
    common = {"TORCHELASTIC_RUN_ID": "pair", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.pair", str(folder), str(out)],
            cwd=ROOT,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [p.communicate(timeout=LIMIT)[0] for p in both]
    finally:
        for p in both:
            p.kill()
    files = [out / f"found_{rank}.pt" for rank in range(2)]
    assert all(f.exists() for f in files), "\n".join(said)
    return {"found": [torch.load(f) for f in files], "said": said, "ended": [p.returncode for p in both]}


def idle(gradients: dict[str, Tensor]) -> set[str]:
    """Weights that the loss does not depend on: biases before a normalisation. Their gradient is nothing but rounding
    errors, which AdamW turns into full steps."""
    still = {k for k, g in gradients.items() if float(g.abs().max()) < 1e-6}
    assert {k.rpartition(".")[2] for k in still} == {"bias"} and len(still) < len(gradients) / 3
    return still


def assert_same_model(found: dict[str, Any], one: dict[str, Any]) -> None:
    """Compare weights, averaged weights, and their outputs for a batch, in which the idle weights must not matter."""
    apart = idle(one["gradients"])
    joints, visible = windows("walk", "squat", "wave", "clap", "jog", "lift_box", frames=16)
    for k, v in one["encoder"].items():
        drifts = k in apart or k.endswith("running_mean")  # the mean follows the bias ahead of it
        torch.testing.assert_close(found["encoder"][k], v, atol=0.02 if drifts else 5e-5, rtol=1e-5, msg=k)
    for k, v in one["average"].items():
        if k.split(".")[0] in ("narrow", "leave", "leave_head", "leave_slow"):
            continue  # eigenvectors: their effect on motion is compared instead
        drifts = k in apart or k.endswith("running_mean")
        torch.testing.assert_close(found["average"][k], v, atol=0.02 if drifts else 5e-5, rtol=1e-5, msg=k)
    made, alike = [], []
    for state in (found, one):
        encoder = Encoder(ENCODER)
        encoder.load_state_dict(state["encoder"])
        torch.manual_seed(0)  # the same dropout
        made.append(Learner(encoder)(joints, visible))
        average = Encoder(ENCODER).eval()
        average.load_state_dict(state["average"])
        with torch.no_grad():
            embedding = average(joints, visible)
        alike.append(embedding @ embedding.T)
    torch.testing.assert_close(made[0], made[1], atol=5e-3, rtol=0)
    torch.testing.assert_close(alike[0], alike[1], atol=5e-3, rtol=0)  # the running means follow the biases late


def test_two_processes_end_where_one_does(one: dict[str, Any], two: dict[str, Any]) -> None:
    found = two["found"][0]["whole"]
    assert found["losses"] == pytest.approx(one["losses"], rel=1e-5) and len(one["losses"]) == 6
    assert found["gradients"].keys() == one["gradients"].keys()
    for k, g in one["gradients"].items():
        torch.testing.assert_close(found["gradients"][k], g, atol=1e-6, rtol=1e-4, msg=k)
    assert_same_model(found, one)


def test_both_processes_hold_the_same_weights(two: dict[str, Any]) -> None:
    first, second = (f["whole"] for f in two["found"])
    for part in ("encoder", "average"):
        for k, v in first[part].items():
            assert torch.equal(v, second[part][k]), k


def test_process_0_alone_validates_reports_and_writes(one: dict[str, Any], two: dict[str, Any], out: Path) -> None:
    first, second = (f["whole"] for f in two["found"])
    assert second["losses"] == [] and second["step"] == 6
    assert [bool(n) for n in first["news"]] == [False, False, False, True, False, False]
    assert first["news"][3].startswith("first ") and first["news"][3] == one["news"][3]
    assert (out / "of_0.pt").exists() and not (out / "of_1.pt").exists()


def test_a_run_goes_on_in_more_or_fewer_processes(
    one: dict[str, Any], two: dict[str, Any], folder: Path, out: Path
) -> None:
    found = [f["resumed"] for f in two["found"]]
    assert found[0]["losses"] == pytest.approx(one["losses"][4:], rel=1e-5) and found[1]["step"] == 6
    assert_same_model(found[0], one)
    alone = train(folder, out / "of_0.pt")
    assert alone["losses"] == pytest.approx(one["losses"][4:], rel=1e-5)
    assert_same_model(alone, one)


def test_processes_with_other_data_are_told_so(two: dict[str, Any]) -> None:
    first, second = two["found"]
    assert "disagreed" not in first and "process 1 has different data" in second["disagreed"]["said"]


def test_the_end_of_one_process_ends_the_other_with_a_word(two: dict[str, Any]) -> None:
    assert two["ended"] == [2, -signal.SIGKILL]
    assert "another process of this run has ended" in two["said"][0] and "Traceback" not in two["said"][0]


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for k, v in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "5"}.items():
        monkeypatch.setenv(k, v)
    with pytest.raises(SettingsError, match=r"batch 24.*5 processes"):
        start_fabric(tiny())


def test_a_gpu_that_is_not_there_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"0 GPUs.*device: cpu"):
        start_fabric(tiny(device="cuda"))
    assert start_fabric(tiny(device="auto")).device.type == "cpu"


def test_the_shared_normalisation_alone_is_torchs() -> None:
    rng = torch.Generator().manual_seed(0)
    plain, shared = nn.BatchNorm1d(6), SharedNorm(6)
    for step in range(3):
        x = torch.randn(9, 6, generator=rng) * 3 + 5
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        for norm, y in ((plain, a), (shared, b)):
            (norm(y) ** 3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4, msg=f"step {step}")
    for k, v in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[k], v)
    torch.testing.assert_close(plain.weight.grad, shared.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.eval()(x), shared.eval()(x))
    assert gather(x) is x


def test_mixed_precision_learns_the_same_and_spares_the_geometry(sets: list[ClipSet]) -> None:
    exact, mixed = (Trainer(sets, tiny(precision=p, steps=4)) for p in ("32-true", "bf16-mixed"))
    losses: list[list[float]] = [[], []]
    seen: list[Tensor] = []
    mixed.encoder.normalise.register_forward_hook(lambda m, given, out: seen.extend((given[0], out[0])))
    mixed.encoder.scale_in.register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    mixed.encoder.head.leave.register_forward_hook(lambda m, given, out: seen.append(out))
    for t, found in zip((exact, mixed), losses, strict=True):
        t.run(lambda step, loss, news, found=found: found.append(loss))  # type: ignore[misc]
    assert [x.dtype for x in seen[:4]] == [torch.float32] * 3 + [torch.bfloat16]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]
    assert {v.dtype for v in mixed.encoder.state_dict().values()} == {torch.float32, torch.int64}
