"""Spreads one training over several processes, with the result of a single one.

`torchrun` starts the processes, and Lightning Fabric joins them:

    each process:  (seed, step) ─► plan of the whole batch ─► its own rows ─► encoder ─► embeddings of its rows
                                                                                 │                 │
    all together:                                      batch statistics (SharedNorm)               │ gather
                                                                                                   ▼
    each process:                                                        embeddings of the batch ─► loss

Every process computes the loss of the whole batch. In the backward pass, `gather` adds up all processes' gradients of a
row, so the gradients of the W processes sum to W times that of a single process; DistributedDataParallel takes their
mean. Only process 0 validates, reports and writes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

from edge.errors import HaadError, SettingsError
from trainer.config import TrainConfig
from trainer.head import Learner


class _Mixed(MixedPrecision):
    """Uses bfloat16 inside the encoder only: joints stay as they are, since bfloat16 rounds 5 m to 2 cm."""

    def convert_input(self, data: Any) -> Any:
        return data


def start_fabric(config: TrainConfig) -> Fabric:
    """Join the processes that torchrun started; without torchrun, run alone.

    Raises SettingsError if the device is not there, or the batch cannot be divided evenly.
    """
    elastic = TorchElasticEnvironment.detect()
    world, local = (int(os.environ[k]) if elastic else 1 for k in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if config.batch % world:
        raise SettingsError(f"batch {config.batch} cannot be divided evenly among {world} processes")
    found = torch.cuda.device_count()
    device = config.device if config.device != "auto" else "cuda" if found else "cpu"
    if device == "cuda" and found < local:
        raise SettingsError(
            f"{local} processes on this machine, {found} GPUs",
            why=f"device is {config.device}, and each process needs a GPU of its own",
            fix="give torchrun a smaller --nproc-per-node, or set device: cpu",
        )
    # Given explicitly, so that Fabric does not mistake the variables of a Slurm or MPI job for processes of this run.
    plugins: list[Any] = [TorchElasticEnvironment() if elastic else LightningEnvironment()]
    if config.precision != "32-true":
        plugins.append(_Mixed(config.precision, device))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def own_rows(fabric: Fabric, batch: int) -> slice:
    """This process' rows of a batch, whose size the number of processes divides."""
    each = batch // fabric.world_size
    return slice(each * fabric.global_rank, each * (fabric.global_rank + 1))


def require_agreement(fabric: Fabric, state: object) -> None:
    """Raises SettingsError if `state` differs from process 0's, since machines may have different data or settings."""
    if fabric.broadcast(state) != state:
        raise SettingsError(
            f"process {fabric.global_rank} has different data or a different configuration from process 0",
            fix="give every machine the same clips and the same configuration",
        )


@contextmanager
def explain_lost_process(fabric: Fabric) -> Iterator[None]:
    """Raises HaadError, which says so plainly, if a collective operation fails because another process has ended."""
    try:
        yield
    except RuntimeError as e:
        if fabric.world_size == 1 or not (isinstance(e, dist.DistError) or "gloo" in str(e)):
            raise
        raise HaadError(
            "another process of this run has ended",
            why=str(e).splitlines()[0].split(". ")[0][:160],
            fix="see what that process printed, then run the same command again: it goes on from the last checkpoint",
        ) from None


class _Gather(torch.autograd.Function):
    """Implements `gather`. torch.distributed.nn has such an operation, but deprecated, and slow without NCCL."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        total = grad[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Gather (n, …) of each of W processes → (W·n, …) in their order, differentiably. A process alone gets x back."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    out: Tensor = _Gather.apply(x.contiguous())  # type: ignore[no-untyped-call]
    return out


class SharedNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes, each of which has the same number of rows.

    torch.nn.SyncBatchNorm does the same on GPUs only; this runs anywhere, so that the tests test what is used.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        var, mean = torch.var_mean(x, 0, correction=0)
        means, variances = gather(torch.stack([mean, var])[None]).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean) ** 2).mean(0)
        with torch.no_grad():
            n = len(x) * len(means)
            assert (
                self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            )
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (n / (n - 1)), momentum)
            self.num_batches_tracked.add_(1)
        y = (x - mean) * (self.weight * torch.rsqrt(var + self.eps)) + self.bias
        return y.to(input.dtype)


def prepare(
    fabric: Fabric, learner: Learner, optimiser: torch.optim.Optimizer, precision: str = "32-true"
) -> tuple[Any, Any]:
    """Wrap the learner and its optimiser for the training loop. `learner` itself keeps its names and weights."""
    if fabric.world_size > 1:
        for m in learner.modules():
            if type(m) is nn.BatchNorm1d:
                m.__class__ = SharedNorm  # the same parameters and buffers under the same names
    if precision == "bf16-mixed":
        # Geometry stays in float32.
        exact = torch.autocast(fabric.device.type, enabled=False)(learner.encoder.spectrum)
        learner.encoder.spectrum = exact  # type: ignore[method-assign]
    model, wrapped = fabric.setup(learner, optimiser)
    return model, wrapped
