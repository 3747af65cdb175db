"""Trains a motion model (clips → body → coefficients → noise → denoiser), and writes it.

A step depends only on (seed, step) and the weights, so a run that was killed and resumed ends where an uninterrupted
one does.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.clip import Clip
from edge.errors import ClipError, SettingsError
from trainer.augment import mirror
from trainer.datasets import ClipSet, find_sets, held_out, load_set, unmatched_globs
from trainer.motion.config import MotionConfig
from trainer.motion.diffusion import NOISE_STEPS, MotionNet, cosine_schedule
from trainer.motion.model import MotionModel, write_motion
from trainer.progress import Stopped, check_state, learning_rate, never, read_checkpoint, sets_record, write_checkpoint

VALIDATED = 512
"""The most held-out clips that a validation uses; they are spread evenly."""
Report = Callable[[int, float, str], None]
"""Called with (step, loss, news); news is empty except after a validation."""


def load_clip_sets(data: Path, config: MotionConfig, say: Callable[[str], object] = lambda text: None) -> list[ClipSet]:
    """Load all sets under `data`, without what the configuration excludes.

    Tells `say` of globs that match nothing. Raises ClipError if no clip remains.
    """
    for line in unmatched_globs(data, config.exclude):
        say(line)
    sets = [load_set(p, exclude=config.exclude) for p in find_sets(data)]
    sets = [s for s in sets if s.clips]
    if not sets:
        raise ClipError(f"{data}: nothing to train on", why="'exclude' leaves out every clip")
    return sets


def split(sets: list[ClipSet], every: int, *, held: bool) -> list[Clip]:
    """Select the clips of the subjects held out, or of all others."""
    return [s.clips[i] for s in sets for i in np.flatnonzero(held_out(s.subjects, every) == held)]


def stack(views: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Stack views of clips into joints (N, F, 15, 3) and visible (N, F, 15)."""
    joints, visible = (np.stack(x) for x in zip(*views, strict=True))
    return torch.from_numpy(joints), torch.from_numpy(visible)


class MotionTrainer:
    """One training run: weights, their running average, the optimiser, and the step they have reached."""

    def __init__(self, sets: list[ClipSet], config: MotionConfig) -> None:
        self.config, self.sets = config, sets
        torch.set_num_threads(config.threads or torch.get_num_threads())
        torch.manual_seed(config.seed)
        self.clips = split(sets, config.hold_out, held=False)
        if not self.clips:
            raise SettingsError(f"hold_out {config.hold_out} leaves no subject to train on")
        self.net = MotionNet(config.shape)
        frames = config.shape.frames
        joints, visible = stack([stretch(c, config.span, 0.5).resampled(frames) for c in self.clips])
        both = [self.net.space.body(j, v)[0] for j, v in ((joints, visible), mirror(joints, visible))]
        # Mirrored clips have the same share here as in the batches drawn.
        count = round(len(self.clips) * config.mirror)
        self.net.space.fit(torch.cat([both[0], both[1][:count]]))
        spread = self.net.space.deviation
        # A compromise between the squared error of coefficients, which neglects joints that move little, and that of
        # whitened ones, which weights all alike.
        self.weight = (spread / spread.mean()).clamp(0.2, 5.0)
        self.average = copy.deepcopy(self.net).eval()
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = cosine_schedule().float()
        self.step, self.seconds = 0, 0.0
        held = split(sets, config.hold_out, held=True)
        self.test = [held[i] for i in np.linspace(0, len(held) - 1, min(len(held), VALIDATED)).astype(int)]

    def rate(self) -> float:
        """The learning rate now."""
        return learning_rate(self.step, self.config.steps, self.config.learning_rate)

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch of stretches of training clips, a share of them mirrored: joints and visible."""
        frames, views = self.config.shape.frames, []
        for i in rng.integers(len(self.clips), size=self.config.batch):
            clip = stretch(self.clips[i], self.config.span, rng.random())
            start, stop = rng.uniform(0, 0.1), 1 - rng.uniform(0, 0.1)
            views.append(clip.at(np.linspace(start, stop, frames) * clip.seconds))
        joints, visible = stack(views)
        swap = torch.from_numpy(rng.random(len(joints)) < self.config.mirror)
        other = mirror(joints, visible)
        return (
            torch.where(swap[:, None, None, None], other[0], joints),
            torch.where(swap[:, None, None], other[1], visible),
        )

    def loss(self, net: MotionNet, body: Tensor, rng: torch.Generator) -> Tensor:
        """The weighted squared error of v, at random noise levels and with histories of random length."""
        n, frames = body.shape[:2]
        z = net.space.encode(body)
        # One level in each of n equal parts of the schedule, which has less variance than n independent draws.
        level = (torch.arange(n) + torch.rand(n, generator=rng)) / n
        step = (level * NOISE_STEPS).long().clamp(max=NOISE_STEPS - 1) + 1
        kept = torch.randint(frames // 4, frames * 3 // 4 + 1, (n,), generator=rng)
        kept = kept * (torch.rand(n, generator=rng) >= self.config.unconditional)
        noise = torch.randn(z.shape, generator=rng)
        a = self.schedule[step][:, None, None]
        target = a.sqrt() * noise - (1 - a).sqrt() * z
        found = net.denoiser(a.sqrt() * z + (1 - a).sqrt() * noise, step, net.space.history(body, kept), kept / frames)
        loss: Tensor = (self.weight * (found - target) ** 2).mean()
        return loss

    def train_step(self) -> float:
        """Do one optimiser step; returns the loss."""
        joints, visible = self.draw(np.random.default_rng((self.config.seed, self.step)))
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        self.net.train()
        loss = self.loss(self.net, self.net.space.body(joints, visible)[0], rng)
        for g in self.optimiser.param_groups:
            g["lr"] = self.rate()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.config.average, self.step / (self.step + 9))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return float(loss.detach())

    @torch.no_grad()
    def validate(self) -> float | None:
        """The loss on held-out subjects, with the same noise every time; None if nobody is held out."""
        if not self.test:
            return None
        frames = self.config.shape.frames
        joints, visible = stack([stretch(c, self.config.span, 0.5).resampled(frames) for c in self.test])
        body, _ = self.average.space.body(joints, visible)
        return float(self.loss(self.average, body, torch.Generator().manual_seed(1)))

    def run(self, report: Report, checkpoint: Path | None = None, stop: Callable[[], bool] = never) -> None:
        """Train to the last step, from the checkpoint if there is one.

        Once `stop` returns True, the checkpoint is written and Stopped is raised. Raises SettingsError if the loss is
        not finite.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        before, began = self.seconds, time.monotonic()
        while self.step < self.config.steps:
            if checkpoint is not None and stop():
                self.save(checkpoint)
                raise Stopped(self.step)
            loss = self.train_step()
            if not math.isfinite(loss):
                raise SettingsError(f"the loss is {loss} at step {self.step}", fix="lower learning_rate")
            news, self.seconds = "", before + time.monotonic() - began
            if self.step % self.config.validate_every == 0:
                if checkpoint is not None:
                    self.save(checkpoint)
                figure = self.validate()
                news = "no held-out subjects to validate on" if figure is None else f"held-out loss {figure:.4f}"
            report(self.step, loss, news)

    def _identity(self) -> dict[str, Any]:
        return {"motion": self.config.model_dump(), "data": [s.digest for s in self.sets]}

    def save(self, path: Path) -> None:
        """Write everything needed to resume, in one atomic step."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(path, self._identity() | state)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint. Raises SettingsError if it belongs to another configuration or other data."""
        state = check_state(read_checkpoint(path), self._identity(), path)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]


def stretch(clip: Clip, span: float, where: float) -> Clip:
    """Cut a clip longer than `span` seconds to that length. `where` places the cut: 0 at the start, 1 at the end."""
    n = round(span * clip.fps) + 1
    if len(clip.joints) <= n or n < 2:
        return clip
    first = int(where * (len(clip.joints) - n) + 0.5)
    part = slice(first, first + n)
    return Clip(clip.joints[part], clip.visible[part], clip.fps, clip.subject, clip.source)


def make_model(trainer: MotionTrainer, out: Path) -> MotionModel:
    """Write the averaged weights, with a record of how they were trained."""
    config = trainer.config
    figure = trainer.validate()
    training = {
        "sets": sets_record(trainer.sets, config.hold_out, config.terms),
        "seed": config.seed,
        "config": config.model_dump(exclude={"terms"}),
        "held_out_loss": figure,
        "parameters": sum(p.numel() for p in trainer.average.parameters()),
        "minutes": round(trainer.seconds / 60, 1),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    return write_motion(out, trainer.average, name=config.name, span=config.span, training=training)
