"""Training: sampler → augmentation → encoder → contrastive loss, and the bundle that comes of it.

Every step depends on (seed, step) and the weights alone, so that a run which was killed and resumed ends where an
uninterrupted one does.
"""

from __future__ import annotations

import copy
import hashlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from edge.bundle import CALIBRATION, WEIGHTS, Bundle, Manifest, write_bundle
from edge.clip import Clip, natural
from edge.errors import ClipError, SettingsError
from edge.score import match
from edge.skeleton import Float
from trainer.augment import augment
from trainer.calibrate import calibrate
from trainer.config import TrainConfig
from trainer.datasets import Batch, ClipSet, Sampler, find_sets, load_set
from trainer.encoder import Encoder, Graph
from trainer.evaluate import few_shot
from trainer.losses import supervised_contrastive

CHECKPOINT = "checkpoint.pt"
Report = Callable[[int, float, str], None]
"""Called with (step, loss, news); news is empty but for a validation figure."""


def held_out(subjects: np.ndarray, every: int) -> np.ndarray:
    """True for every `every`-th subject in natural order, from the last of the first `every` on; none for 0."""
    order = sorted(set(subjects.tolist()), key=natural)
    return np.isin(subjects, order[every - 1 :: every] if every else [])


def load_sets(data: Path, config: TrainConfig) -> list[ClipSet]:
    """All sets under `data` but for what the configuration excludes."""
    sets = [load_set(p, exclude=config.exclude, merge=config.merge) for p in find_sets(data)]
    sets = [s for s in sets if len(s.names) >= 2]
    if not sets:
        raise ClipError(f"{data}: nothing to train on", why="a set needs two categories or more")
    return sets


def prefetched(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, made ahead in a thread."""
    ready: queue.Queue[Batch] = queue.Queue(4)
    stop = threading.Event()

    def work() -> None:
        for b in batches:
            while not stop.is_set():
                try:
                    ready.put(b, timeout=0.5)
                    break
                except queue.Full:
                    continue
            if stop.is_set():
                return

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            yield ready.get()
    finally:
        stop.set()


@torch.no_grad()
def embed_arrays(encoder: Encoder, joints: Float, visible: Float, batch: int = 512) -> Float:
    """Embeddings (N, D) of windows, in evaluation mode."""
    encoder.eval()
    parts = [
        encoder(torch.from_numpy(joints[i : i + batch]), torch.from_numpy(visible[i : i + batch])).numpy()
        for i in range(0, len(joints), batch)
    ]
    return np.concatenate(parts)


def embed_clips(encoder: Encoder, clips: list[Clip]) -> Float:
    """One embedding per whole clip (N, D)."""
    views = [c.resampled(encoder.config.frames) for c in clips]
    return embed_arrays(encoder, np.stack([j for j, _ in views]), np.stack([v for _, v in views]))


def validate(encoder: Encoder, sets: list[ClipSet], every: int, draws: int = 5) -> dict[str, float]:
    """Mean few-shot AUROC of each set: support from the training subjects, test on those held out."""
    out = {}
    for s in sets:
        test = held_out(s.subjects, every)
        counts = np.array([[(s.label[m] == c).sum() for c in range(len(s.names))] for m in (~test, test)])
        if counts.min() < 1:
            continue
        names = np.array(s.names)[s.label]
        # few_shot splits by subject itself; two made-up subjects say which clips are which.
        side = np.where(test, "2", "1")
        shots = int(min(3, counts[0].min()))
        distance = partial(match, temperature=encoder.config.temperature)
        out[s.name] = few_shot(
            embed_clips(encoder, s.clips), names, side, shots=shots, draws=draws, distance=distance
        ).mean
    return out


class Trainer:
    """One run: weights, their running average, the optimiser, and the step they have reached."""

    def __init__(self, sets: list[ClipSet], config: TrainConfig) -> None:
        self.config, self.sets = config, sets
        torch.set_num_threads(config.threads or torch.get_num_threads())
        torch.manual_seed(config.seed)
        self.encoder = Encoder(config.encoder)
        self.average = copy.deepcopy(self.encoder).eval()
        self.optimiser = torch.optim.AdamW(
            self.encoder.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        train = [s.subset(~held_out(s.subjects, config.hold_out)) for s in sets]
        for s in train:
            if not s.clips:
                raise SettingsError(f"hold_out {config.hold_out} leaves no subject of set '{s.name}' to train on")
        c = config.encoder
        self.sampler = Sampler(
            train,
            frames=c.frames,
            step=c.seconds / c.frames,
            size=config.batch,
            per_category=config.per_category,
            share=config.share,
            seed=config.seed,
        )

    def rate(self) -> float:
        """The learning rate now: a short rise, then half a cosine to zero."""
        c = self.config
        rise = min(1.0, (self.step + 1) / min(200, max(1, c.steps // 10)))
        return c.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * self.step / c.steps))

    def train_step(self, batch: Batch) -> Tensor:
        """One step of the optimiser; returns the loss."""
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # dropout
        joints, visible = augment(
            torch.from_numpy(batch.joints), torch.from_numpy(batch.visible), self.config.augment, rng
        )
        self.encoder.train()
        embedding = self.encoder(joints, visible)
        group = torch.from_numpy(batch.group)
        loss = supervised_contrastive(embedding, torch.from_numpy(batch.label), self.config.temperature, group)
        for g in self.optimiser.param_groups:
            g["lr"] = self.rate()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.config.average, self.step / (self.step + 9))
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.encoder.state_dict().values(), strict=True):
                mean.lerp_(now, 1 - keep) if mean.dtype.is_floating_point else mean.copy_(now)
        return loss.detach()

    def run(self, report: Report, checkpoint: Path | None = None) -> None:
        """Train to the last step, from where a checkpoint left off if there is one."""
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        batches, before, began = prefetched(self.sampler.batches(self.step)), self.seconds, time.monotonic()
        for batch in batches:
            if self.step >= self.config.steps:
                break
            loss = float(self.train_step(batch))
            if not math.isfinite(loss):
                raise SettingsError(f"the loss is {loss} at step {self.step}", fix="lower learning_rate")
            news, self.seconds = "", before + time.monotonic() - began
            if self.step % self.config.validate_every == 0:
                if checkpoint is not None:
                    self.save(checkpoint)
                figures = validate(self.average, self.sets, self.config.hold_out)
                news = "  ".join(f"{k} {v:.4f}" for k, v in figures.items()) or "no held-out subjects to validate on"
            report(self.step, loss, news)
        batches.close()  # type: ignore[attr-defined]

    def save(self, path: Path) -> None:
        """Write everything needed to go on, in one atomic step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        state = {
            "config": self.config.model_dump(),
            "data": [s.digest for s in self.sets],
            "step": self.step,
            "seconds": self.seconds,
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises SettingsError if it belongs to another configuration or other data."""
        try:
            state = torch.load(path, weights_only=True)
        except Exception as e:
            raise SettingsError(
                f"{path}: not a readable checkpoint", why=str(e)[:200], fix="delete it to start anew"
            ) from None
        mine = {"config": self.config.model_dump(), "data": [s.digest for s in self.sets]}
        if not isinstance(state, dict) or any(state.get(k) != v for k, v in mine.items()):
            raise SettingsError(
                f"{path}: the checkpoint of another run",
                why="its configuration or its data differ",
                fix="delete it to start anew",
            )
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]


def make_bundle(trainer: Trainer, out: Path) -> Bundle:
    """Calibrate the trained encoder and write it, with all that is known about it. The graph is built afterwards."""
    config, encoder = trainer.config, trainer.average
    weights = save_tensors({k: v.contiguous() for k, v in Graph(encoder).state_dict().items()})
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
            "held_out_subjects_auroc_3_shot": validate(encoder, trainer.sets, config.hold_out, draws=20),
            "calibration": calibration,
        },
    )
    return write_bundle(out, manifest, {WEIGHTS: weights, CALIBRATION: arrays})


def training_record(trainer: Trainer) -> dict[str, Any]:
    """Data, terms, seed and configuration, for the manifest."""
    config = trainer.config
    return {
        "sets": [
            {
                "name": s.name,
                "clips": len(s.clips),
                "categories": len(s.names),
                "held_out_subjects": sorted(
                    set(s.subjects[held_out(s.subjects, config.hold_out)].tolist()), key=natural
                ),
                "terms": config.terms.get(s.name, "not stated"),
                "sha256": s.digest,
            }
            for s in trainer.sets
        ],
        "seed": config.seed,
        "config": config.model_dump(exclude={"terms"}),
        "minutes": round(trainer.seconds / 60, 1),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
