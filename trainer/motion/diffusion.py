"""Defines a diffusion model of whole movements, which generates what a clip could also have looked like.

    joints (N, F, 15, 3) ─ Normalise ─► body (N, F, 45) ─ DCT, whitened ─► z (N, K, 45) ◄──► noise
        ▲                                                                        │ DDIM, with
        └──── Place puts it back in metres, where the clip stood ◄── body ◄──────┘ Denoiser

Motion is noised and denoised as the first K coefficients of its cosine transform over time, so that it is smooth. One
sampler does both forms of generation: it starts from a clip noised up to a *strength* (1: from pure noise), and puts
the frames that are *kept* back at every step, so that only the rest is made anew (masked completion).

Sources: the schedule is from Nichol and Dhariwal (2021, eq. 17), the DDIM sampler from Song, Meng and Ermon (2021,
eq. 12 and 16), the target v from Salimans and Ho (2022), starting from a noised sample from SDEdit (Meng et al. 2022),
completion in DCT space from HumanMAC (Chen et al. 2023): from their papers, not their code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from edge.skeleton import PARENTS, J
from trainer.encoder import EPS, Normalise, dct_matrix

NOISE_STEPS = 1000
FLOOR = 0.02
"""The least deviation by which a coefficient is divided, in metres of the reference body: below it is sensor noise."""
FADE = 8
"""Frames after the kept part over which the remaining jump at the seam fades out."""


@dataclass(frozen=True, slots=True)
class MotionShape:
    """The shape of the model. A clip of any length becomes `frames` rows; `coefficients` of its DCT are kept."""

    frames: int = 60
    coefficients: int = 20
    width: int = 128
    layers: int = 4
    heads: int = 4


def cosine_schedule() -> Tensor:
    """ᾱ(0) … ᾱ(NOISE_STEPS), the remaining share of the signal's variance: float64, from 1 down to almost 0.

    No single step removes more than 0.999 of what remains, so that the last one can be reversed.
    """
    s = 0.008
    f = torch.cos((torch.linspace(0, 1, NOISE_STEPS + 1, dtype=torch.float64) + s) / (1 + s) * math.pi / 2) ** 2
    left = (f[1:] / f[:-1]).clamp(min=0.001)
    return torch.cat([torch.ones(1, dtype=torch.float64), left.cumprod(0)])


@dataclass(frozen=True, slots=True)
class Place:
    """A clip's size, heading and place: joints = scale · turn(body) + move.

    scale and angle (about y, radians) are (N,), move is (N, 3) in metres.
    """

    scale: Tensor
    angle: Tensor
    move: Tensor

    @classmethod
    def between(cls, body: Tensor, joints: Tensor, visible: Tensor) -> Place:
        """Fit the similarity (about the vertical axis) that maps `body` (N, F, 15, 3) to the visible `joints`.

        Least squares in closed form; exact here, since `Normalise` applies such a similarity.
        """
        v = visible[..., None]
        total = v.sum((1, 2)) + EPS
        middle, goal = (body * v).sum((1, 2)) / total, (joints * v).sum((1, 2)) / total
        y, x = (body - middle[:, None, None]) * v, joints - goal[:, None, None]
        along = (y[..., 0] * x[..., 0] + y[..., 2] * x[..., 2]).sum((1, 2))
        across = (y[..., 0] * x[..., 2] - y[..., 2] * x[..., 0]).sum((1, 2))
        upward = (y[..., 1] * x[..., 1]).sum((1, 2))
        scale = (torch.hypot(along, across) + upward + EPS) / ((y * y).sum((1, 2, 3)) + EPS)
        place = cls(scale, torch.atan2(across, along), torch.zeros_like(goal))
        return cls(place.scale, place.angle, goal - place.back(middle[:, None, None])[:, 0, 0])

    def back(self, body: Tensor) -> Tensor:
        """Put a body back: (N, F, 15, 3) → joints in metres, in the clip's own frame of reference."""
        c, s = (f(self.angle)[:, None, None] * self.scale[:, None, None] for f in (torch.cos, torch.sin))
        x, y, z = body.unbind(-1)
        turned = torch.stack([c * x - s * z, y * self.scale[:, None, None], s * x + c * z], -1)
        return turned + self.move[:, None, None]


class MotionSpace(nn.Module):
    """Maps joints ↔ body ↔ whitened coefficients. `mean` and `deviation` (K, 45) come from the training clips."""

    dct: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: MotionShape) -> None:
        super().__init__()
        k, f = shape.coefficients, shape.frames
        self.normalise = Normalise(f)
        self.register_buffer("dct", dct_matrix(f, k), persistent=False)
        self.register_buffer("mean", torch.zeros(k, J * 3))
        self.register_buffer("deviation", torch.ones(k, J * 3))

    def body(self, joints: Tensor, visible: Tensor) -> tuple[Tensor, Place]:
        """Normalise joints (N, F, 15, 3), visible (N, F, 15) → body (N, F, 45), and the Place that puts it back.

        Joint 0 is the pelvis' path relative to its first frame. Relative to its mean, as in `Normalise`, the beginning
        would reveal how the clip ends.
        """
        x = self.normalise(joints, visible)[0].permute(0, 3, 2, 1)
        path = x[:, :, :1] - x[:, :1, :1]
        x = torch.cat([path, x[:, :, 1:]], 2)
        return x.flatten(2), Place.between(absolute(x), joints, visible)

    def fit(self, body: Tensor) -> None:
        """Set mean and deviation to those of bodies (N, F, 45)."""
        spectrum = self.dct @ body
        self.mean.copy_(spectrum.mean(0))
        self.deviation.copy_(spectrum.std(0, correction=0).clamp(min=FLOOR))

    def encode(self, body: Tensor) -> Tensor:
        """body (N, F, 45) → z (N, K, 45)."""
        return (self.dct @ body - self.mean) / self.deviation

    def decode(self, z: Tensor) -> Tensor:
        """z (N, K, 45) → body (N, F, 45), without the coefficients beyond K."""
        return self.dct.T @ (z * self.deviation + self.mean)

    def history(self, body: Tensor, kept: Tensor) -> Tensor:
        """Encode what the denoiser may know: the first `kept` (N,) frames, the last of them repeated: (N, K, 45)."""
        frame = torch.arange(body.shape[1])[None].minimum(kept[:, None] - 1).clamp(min=0)
        padded = body.gather(1, frame[..., None].expand(-1, -1, body.shape[2]))
        return self.encode(padded) * (kept > 0)[:, None, None]


def absolute(body: Tensor) -> Tensor:
    """Turn a body (N, F, 45 or 15, 3), relative to the pelvis, into joints (N, F, 15, 3) relative to one origin."""
    x = body.reshape(*body.shape[:2], J, 3)
    return torch.cat([x[:, :, :1], x[:, :, 1:] + x[:, :, :1]], 2)


def with_bones_of(made: Tensor, source: Tensor) -> Tensor:
    """Give `made` (N, F, 45) each bone length that `source` has in the same frame; directions and path stay.

    The model generates each coordinate by itself, so its bones change their length more than a sensor's do.
    """
    new, old = (x.reshape(*x.shape[:2], J, 3) for x in (made, source))
    out = [torch.zeros_like(new[:, :, 0])]  # joints are relative to the pelvis
    for j in range(1, J):
        p = PARENTS[j]
        bone = new[:, :, j] - (new[:, :, p] if p else 0)
        length = (old[:, :, j] - (old[:, :, p] if p else 0)).norm(dim=-1, keepdim=True)
        out.append(out[p] + bone / (bone.norm(dim=-1, keepdim=True) + EPS) * length)
    out[0] = new[:, :, 0]
    return torch.stack(out, 2).flatten(2)


class Denoiser(nn.Module):
    """A small transformer over the K coefficients.

    z (N, K, 45), step (N,), history (N, K, 45), kept (N,) → v (N, K, 45), see `sample`. `kept` is the share of frames
    that the history covers; with 0, and a history of zeros, the model is unconditional.
    """

    frequency: Tensor

    def __init__(self, shape: MotionShape) -> None:
        super().__init__()
        w = shape.width
        self.enter = nn.Linear(2 * J * 3 + 1, w)
        self.place = nn.Parameter(torch.randn(shape.coefficients, w) * 0.02)
        self.time = nn.Sequential(nn.Linear(w, w), nn.SiLU(), nn.Linear(w, w))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(w, shape.heads, 2 * w, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(shape.layers)
        )
        self.leave = nn.Sequential(nn.LayerNorm(w), nn.Linear(w, J * 3))
        frequency = torch.exp(-math.log(10_000) * torch.arange(w // 2) / (w // 2))
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, z: Tensor, step: Tensor, history: Tensor, kept: Tensor) -> Tensor:
        angle = step[:, None].float() * self.frequency
        time = self.time(torch.cat([angle.cos(), angle.sin()], -1))[:, None]
        share = kept[:, None, None].expand(-1, z.shape[1], 1)
        h = self.enter(torch.cat([z, history, share], -1)) + self.place
        for layer in self.layers:
            h = layer(h + time)
        v: Tensor = self.leave(h)
        return v


class MotionNet(nn.Module):
    """The space and the denoiser: the module that is trained, averaged and written."""

    def __init__(self, shape: MotionShape | None = None) -> None:
        super().__init__()
        self.shape = shape or MotionShape()
        self.space = MotionSpace(self.shape)
        self.denoiser = Denoiser(self.shape)

    @torch.no_grad()
    def remake(
        self,
        body: Tensor,
        kept: int,
        noise: Tensor,
        *,
        strength: float,
        bones: bool = True,
    ) -> Tensor:
        """Generate other movements that begin like `body` (N, F, 45): the first `kept` frames stay as they are.

        With strength 1 nothing else of the body is known; below 1 the rest is varied. `noise` (N, K, 45) holds standard
        normal numbers. With `bones`, bones get the body's lengths.
        """
        n, frames = body.shape[:2]
        count = torch.full((n,), kept)
        history = self.space.history(body, count)

        def put_back(z: Tensor) -> Tensor:
            if not kept:
                return z
            return self.space.encode(torch.cat([body[:, :kept], self.space.decode(z)[:, kept:]], 1))

        def denoise(z: Tensor, step: int) -> Tensor:
            v: Tensor = self.denoiser(z, torch.full((n,), step), history, count / frames)
            return v

        z = sample(denoise, self.space.encode(body), noise, strength=strength, put_back=put_back)
        made = self.space.decode(z)
        if bones:
            # The lengths are those of the smoothed body: the original's would carry the sensor's jitter with them.
            made = with_bones_of(made, self.space.decode(self.space.encode(body)))
        if kept:
            # `made` lacks the coefficients beyond K: let the difference at the seam fade out instead of jumping.
            fade = (1 - torch.arange(1, frames - kept + 1) / FADE).clamp(min=0)[:, None]
            rest = made[:, kept:] + fade * (body[:, kept - 1 : kept] - made[:, kept - 1 : kept])
            made = torch.cat([body[:, :kept], rest], 1)
        return made


def sample(
    denoise: Callable[[Tensor, int], Tensor],
    start: Tensor,
    noise: Tensor,
    *,
    strength: float = 1.0,
    steps: int = 50,
    put_back: Callable[[Tensor], Tensor] = lambda z: z,
) -> Tensor:
    """DDIM: noise `start` (N, K, 45) up to `strength` in (0, 1] of the schedule, and denoise it in `steps` steps.

    `denoise(z, step)` gives v = √ᾱ·ε − √(1−ᾱ)·z₀. `put_back` corrects the estimate of z₀. The estimate is then noised
    again with the noise that the sample carries, not with fresh noise (η = 0), so that both sides of the seam share it
    and the denoiser does not see the seam itself.
    """
    schedule = cosine_schedule()
    first = max(1, round(strength * NOISE_STEPS))
    times = torch.linspace(first, 0, min(steps, first) + 1).round().int().tolist()
    # With strength 1 nothing of the start may show through, but the last ᾱ is not quite 0.
    a = float(schedule[first]) if strength < 1 else 0.0
    z = math.sqrt(a) * start + math.sqrt(1 - a) * noise
    for now, then in pairwise(times):
        a, b = float(schedule[now]), float(schedule[then])
        v = denoise(z, now)
        clean = put_back(math.sqrt(a) * z - math.sqrt(1 - a) * v)
        carried = math.sqrt(1 - a) * z + math.sqrt(a) * v
        z = math.sqrt(b) * clean + math.sqrt(1 - b) * carried
    return z
