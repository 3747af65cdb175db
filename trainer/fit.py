"""Trains an encoder (sampler → augmentation → encoder → contrastive loss), and writes the bundle.

A step depends only on (seed, step) and the weights, so a run that was killed and resumed ends where an uninterrupted
one does. Under `torchrun` each process takes its rows of every batch; see `trainer.parallel`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import Tensor

from edge.bundle import CALIBRATION, WEIGHTS, Bundle, Manifest, write_bundle
from edge.clip import Clip
from edge.commands.embedding import embed_whole
from edge.errors import ClipError, SettingsError
from edge.skeleton import Float
from trainer.augment import augment
from trainer.calibrate import calibrate
from trainer.config import TrainConfig
from trainer.datasets import Batch, ClipSet, Sampler, find_sets, held_out, load_set, unmatched_globs
from trainer.encoder import Encoder, Graph
from trainer.evaluate import few_shot, mean_cosine
from trainer.head import Learner, condense
from trainer.losses import supervised_contrastive
from trainer.motion.generate import Recipe, widen
from trainer.motion.model import open_motion
from trainer.parallel import explain_lost_process, gather, own_rows, prepare, require_agreement, start_fabric
from trainer.progress import Stopped, check_state, learning_rate, never, read_checkpoint, sets_record, write_checkpoint

CONDENSE_BATCHES = 12
"""Batches of training windows to which the embedding's fixed maps are fitted."""
Report = Callable[[int, float, str], None]
"""Called with (step, loss, news); news is empty except after a validation."""


def load_sets(data: Path, config: TrainConfig, say: Callable[[str], object] = lambda text: None) -> list[ClipSet]:
    """Load all sets under `data` that the configuration does not exclude and that have two categories or more.

    Tells `say` of sets with fewer, and of globs that match nothing. Raises ClipError if no set remains.
    """
    found = [load_set(p, exclude=config.exclude, merge=config.merge) for p in find_sets(data)]
    sets = [s for s in found if len(s.names) >= 2]
    if not sets:
        raise ClipError(f"{data}: nothing to train on", why="a set needs two categories or more")
    for s in found:
        if len(s.names) < 2:
            say(f"left out: {s.name}, because a set needs two categories or more")
    for line in unmatched_globs(data, config.exclude, config.merge):
        say(line)
    return sets


def count_by_side(s: ClipSet, every: int) -> NDArray[np.int64]:
    """Count the clips of each category (2, C): of the people trained on, and of those held out."""
    test = held_out(s.subjects, every)
    return np.array([np.bincount(s.label[m], minlength=len(s.names)) for m in (~test, test)])


def not_validated(sets: Sequence[ClipSet], every: int) -> Iterator[str]:
    """Yield for each set that `validate` cannot measure a message that says why."""
    for s in sets:
        counts = count_by_side(s, every)
        missing = [n for n, least in zip(s.names, counts.min(0), strict=True) if not least]
        if not every:
            why = "hold_out is 0"
        elif not counts[1].any():
            why = f"hold_out {every} takes every {every}th person, and its clips name {len(set(s.subjects) - {''})}"
        elif missing:
            why = f"both these people and the others need clips of {', '.join(missing[:3])}"
        else:
            continue
        yield f"no AUROC on people held out of {s.name}: {why}"


NO_VALIDATION = "nothing to validate on: the held-out subjects and the others both need clips of every category"


def prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make the batches ahead in a thread; an exception raised there is raised here."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(4)
    stop = threading.Event()

    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.5)

    def work() -> None:
        try:
            for b in batches:
                put(b)
                if stop.is_set():
                    return
        except BaseException as e:
            put(e)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


@torch.no_grad()
def embed_arrays(encoder: Encoder, joints: Float, visible: Float, batch: int = 512) -> Float:
    """Embed windows, in evaluation mode and on the encoder's device: (N, D)."""
    encoder.eval()
    device = next(encoder.parameters()).device

    def on_device(x: Float) -> Tensor:
        return torch.from_numpy(x).to(device)

    spans = [slice(i, i + batch) for i in range(0, len(joints), batch)]
    return np.concatenate([encoder(on_device(joints[s]), on_device(visible[s])).cpu().numpy() for s in spans])


def embed_clips(encoder: Encoder, clips: list[Clip]) -> Float:
    """One embedding per whole clip (N, D)."""
    return embed_whole(partial(embed_arrays, encoder), clips, encoder.config.frames)


def validate(encoder: Encoder, sets: list[ClipSet], every: int, draws: int = 5, least: int = 1) -> dict[str, float]:
    """Mean few-shot AUROC of each set: three support clips from the training subjects, tested on those held out.

    With fewer clips in a set's smallest category, as many as it has. A set is left out if that is fewer than `least`,
    or if a category has no clips of the training subjects or none to test.
    """
    out = {}
    for s in sets:
        test = held_out(s.subjects, every)
        counts = count_by_side(s, every)
        if counts.min() < 1 or counts[0].min() < least:
            continue
        names = np.array(s.names)[s.label]
        # few_shot splits by subject itself, so the two sides are given as two made-up subjects.
        side = np.where(test, "2", "1")
        shots = int(min(3, counts[0].min()))
        out[s.name] = few_shot(
            embed_clips(encoder, s.clips), names, side, shots=shots, draws=draws, distance=mean_cosine
        ).mean
    return out


class Trainer:
    """One training run: weights, their running average, the optimiser, and the step they have reached.

    `model` is the encoder up to its head, wrapped by Fabric for its device, its precision and the other processes.
    """

    def __init__(self, sets: list[ClipSet], config: TrainConfig) -> None:
        self.config, self.sets = config, sets
        torch.set_num_threads(config.threads or torch.get_num_threads())
        self.fabric = start_fabric(config)
        self.chief = self.fabric.is_global_zero
        with explain_lost_process(self.fabric):
            require_agreement(self.fabric, self.identity())
        torch.manual_seed(config.seed)
        self.encoder = Encoder(config.encoder)
        self.average = copy.deepcopy(self.encoder).eval().to(self.fabric.device)
        weights = [w for w in self.encoder.parameters() if w.requires_grad]
        optimiser = torch.optim.AdamW(weights, config.learning_rate, weight_decay=config.weight_decay)
        self.model, self.optimiser = prepare(self.fabric, Learner(self.encoder), optimiser, config.precision)
        self.rows = own_rows(self.fabric, config.batch)
        self.step, self.seconds = 0, 0.0
        train = [s.subset(~held_out(s.subjects, config.hold_out)) for s in sets]
        for s in train:
            if not s.clips:
                raise SettingsError(f"hold_out {config.hold_out} leaves no subject of set '{s.name}' to train on")
        if config.motion is not None:
            model, recipe = open_motion(config.motion), Recipe(strength=config.strength)
            train = [widen(s, model, config.generated, seed=config.seed, recipe=recipe) for s in train]
        c = config.encoder
        self.sampler = Sampler(
            train,
            frames=c.frames,
            step=c.seconds / c.frames,
            size=config.batch,
            per_category=config.per_category,
            share=config.share,
            whole=config.whole,
            seed=config.seed,
        )

    def rate(self) -> float:
        """The learning rate now."""
        return learning_rate(self.step, self.config.steps, self.config.learning_rate)

    def identity(self) -> dict[str, Any]:
        """What must be the same in a checkpoint, and in the other processes."""
        return {
            "config": self.config.model_dump(mode="json", exclude={"device"}),
            "data": [s.digest for s in self.sets],
        }

    def train_step(self, batch: Batch) -> Tensor:
        """Do one optimiser step with this process' rows; returns the loss of the whole batch."""
        seed = self.config.seed * 1_000_003 + self.step
        rng = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + self.fabric.global_rank * 15_485_863)  # for dropout: different in each process
        joints, visible, label, group = map(torch.from_numpy, (batch.joints, batch.visible, batch.label, batch.group))
        part = (self.rows, len(label))
        joints, visible = augment(joints, visible, self.config.augment, rng, part)
        joints, visible, label, group = self.fabric.to_device((joints, visible, label, group))
        self.model.train()
        embedding = gather(self.model(joints, visible))
        loss = supervised_contrastive(embedding, label, self.config.temperature, group)
        for g in self.optimiser.param_groups:
            g["lr"] = self.rate()
        self.optimiser.zero_grad()
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.config.average, self.step / (self.step + 9))
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.encoder.state_dict().values(), strict=True):
                mean.lerp_(now, 1 - keep) if mean.dtype.is_floating_point else mean.copy_(now)
        return loss.detach()

    def run(self, report: Report, checkpoint: Path | None = None, stop: Callable[[], bool] = never) -> None:
        """Train to the last step, from the checkpoint if there is one. Only process 0 reports.

        Once `stop` returns True, which it must in all processes alike, the checkpoint is written and Stopped is raised.
        Raises SettingsError if the loss is not finite.
        """
        with explain_lost_process(self.fabric):
            if checkpoint is not None and self.fabric.broadcast(checkpoint.exists()):
                self.load(checkpoint)
            batches = prefetched(self.sampler.batches(self.step, self.rows))
            before, began = self.seconds, time.monotonic()
            for batch in batches:
                if self.step >= self.config.steps:
                    break
                if checkpoint is not None and stop():
                    self.save(checkpoint)
                    raise Stopped(self.step)
                loss = float(self.train_step(batch))
                if not math.isfinite(loss):
                    raise SettingsError(f"the loss is {loss} at step {self.step}", fix="lower learning_rate")
                news, self.seconds = "", before + time.monotonic() - began
                if self.step % self.config.validate_every == 0:
                    news = self.checkpoint_and_validate(checkpoint) if self.chief else ""
                    self.fabric.barrier()
                if self.chief:
                    report(self.step, loss, news)
            batches.close()  # type: ignore[attr-defined]
            if checkpoint is not None and self.chief:
                self.save(checkpoint)  # condensing and calibration take minutes too
        self.condense()

    def condense(self) -> None:
        """Fit the averaged encoder's fixed maps to its features of the training clips."""
        device = self.fabric.device
        # Seeds from steps that no training reaches, so that the windows are the same whenever this is called.
        seeds = [(self.config.seed, 2**32 + i) for i in range(CONDENSE_BATCHES)]
        draws = (self.sampler.draw(np.random.default_rng(seed)) for seed in seeds)
        condense(
            self.average,
            ((torch.from_numpy(b.joints).to(device), torch.from_numpy(b.visible).to(device)) for b in draws),
        )

    def checkpoint_and_validate(self, checkpoint: Path | None) -> str:
        """Write a checkpoint and validate; returns the figures as text."""
        if checkpoint is not None:
            self.save(checkpoint)
        self.condense()
        figures = validate(self.average, self.sets, self.config.hold_out)
        return "  ".join(f"{k} {v:.4f}" for k, v in figures.items()) or NO_VALIDATION

    def save(self, path: Path) -> None:
        """Write everything needed to resume, in one atomic step."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(path, self.identity() | state)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint, which process 0 reads for all, since only its machine has it.

        Raises SettingsError if it belongs to another configuration or other data.
        """
        found = self.fabric.broadcast(read_checkpoint(path) if self.chief else None)
        state = check_state(found, self.identity(), path)
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]


def make_bundle(trainer: Trainer, out: Path) -> Bundle:
    """Calibrate the trained encoder and write its bundle with a full record; `haad-edge build` adds the graph later."""
    config, encoder = trainer.config, trainer.average
    weights = save_tensors({k: v.cpu().contiguous() for k, v in Graph(encoder).state_dict().items()})
    test = [held_out(s.subjects, config.hold_out) for s in trainer.sets]
    arrays, calibration = calibrate(trainer.sets, test, lambda j, v: embed_arrays(encoder, j, v), config)
    manifest = Manifest(
        name=config.name,
        frames=config.encoder.frames,
        seconds=config.encoder.seconds,
        embedding=config.encoder.embedding,
        temperature=config.encoder.temperature,
        encoder=hashlib.sha256(weights).hexdigest(),
        architecture=asdict(config.encoder) | {"parameters": sum(p.numel() for p in encoder.parameters())},
        training=training_record(trainer),
        accuracy={
            "held_out_subjects_auroc_3_shot": validate(encoder, trainer.sets, config.hold_out, draws=20, least=3),
            "calibration": calibration,
        },
    )
    return write_bundle(out, manifest, {WEIGHTS: weights, CALIBRATION: arrays})


def training_record(trainer: Trainer) -> dict[str, Any]:
    """The manifest's record of the training: data, terms, seed, configuration and circumstances."""
    config = trainer.config
    return {
        "sets": sets_record(trainer.sets, config.hold_out, config.terms),
        "seed": config.seed,
        "config": config.model_dump(mode="json", exclude={"terms"}),
        "processes": trainer.fabric.world_size,
        "minutes": round(trainer.seconds / 60, 1),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
