"""The program of the two processes of `test_parallel`: `python -m tests.trainer.pair SETS OUT`.

torchrun's variables tell each process which of the two it is. It writes its results to OUT; at the end process 1 kills
itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from edge.errors import HaadError
from tests.trainer.made import tiny
from trainer.datasets import load_set
from trainer.fit import Trainer
from trainer.parallel import require_agreement


def trainer(folder: Path) -> Trainer:
    """A run of six steps, with a checkpoint at the fourth; without dropout, which depends on the process of a row."""
    sets = [load_set(folder / "first"), load_set(folder / "second")]
    t = Trainer(sets, tiny(steps=6, validate_every=4))
    for m in t.encoder.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    return t


def train(folder: Path, checkpoint: Path) -> dict[str, Any]:
    """Train; returns the reports, the first gradients and the last weights. Leaves the fourth step's checkpoint."""
    t, fourth = trainer(folder), checkpoint.with_suffix(".4")
    found: dict[str, Any] = {"losses": [], "news": []}

    def report(step: int, loss: float, news: str) -> None:
        found["losses"].append(loss)
        found["news"].append(news)
        if step == 4:
            shutil.copy(checkpoint, fourth)
        if step == 1:
            found["gradients"] = {k: p.grad.clone() for k, p in t.encoder.named_parameters() if p.grad is not None}

    t.run(report, checkpoint)
    if fourth.exists():
        fourth.replace(checkpoint)
    return found | {"step": t.step, "encoder": t.encoder.state_dict(), "average": t.average.state_dict()}


def main(folder: Path, out: Path) -> None:
    rank = int(os.environ["RANK"])
    found = {"whole": train(folder, out / f"of_{rank}.pt")}
    # Only process 0 has the checkpoint that both go on from: that of the run in one process.
    found["resumed"] = train(folder, out / f"one_{rank}.pt")
    t = trainer(folder)
    try:
        require_agreement(t.fabric, {"seed": rank})
    except HaadError as e:
        found["disagreed"] = {"said": str(e)}
    torch.save(found, out / f"found_{rank}.pt")
    go_on = t.train_step

    def train_step(batch: Any) -> torch.Tensor:
        if rank == 1 and t.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return go_on(batch)

    t.train_step = train_step  # type: ignore[method-assign]
    try:
        t.run(lambda *a: None)
    except HaadError as e:
        print(e)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
