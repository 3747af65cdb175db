"""Fits one model per category, for comparison: a Gaussian, a normalising flow, deep support vector data description.

    all training clips ─► raw DCT (N, 900) ─► Basis: the P main directions ─┬─► Gaussian … ─► distance to its mean
                                                                            ├─► Flow  of category 1 ─► −log likelihood
                                                                            ├─► Flow  of category 2 ─► …
                                                                            └─► DeepSvdd … ─► distance to a centre

Each learns from its category's normal clips alone and is trained anew for every new category; the device runs none of
them. The features are those of `trainer.baselines.raw_dct`, so place, heading and size are dealt with as everywhere.

The basis is fitted once, without labels, on the training clips of all categories. A category's own clips span only one
direction less than there are clips (two, for three clips), and anything abnormal outside these would go unseen. The
basis is not whitened: whitening amplifies directions that hold nothing but noise.

The defaults were chosen on UTD-MHAD's training subjects alone (1 3 5 7: fitted on all clips of three, judged on the
fourth, every third category). Tried for the flow, mean AUROC: autoregressive 0.948 to 0.983, spline 0.976 and coupling
transforms 0.975 to 0.985; 1 or 3 of them; 32 and 64 directions; 100 and 300 steps; noise of 0.1 to 1 of the spread,
which mattered most: without it a flow memorises its few clips. For deep SVDD: 50 steps 0.981, 300 steps 0.980, with
noise 0.926 to 0.979. Nothing was chosen separately for three clips. The Gaussian, which has nothing to choose, reached
0.988 in the same trials: with 16 clips per category a flow has little to learn beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.commands.console import need
from edge.errors import ClipError
from edge.skeleton import Float

FEWEST = 2
"""A single clip has no spread that could serve as the unit."""


class OneClass(Protocol):
    """A model of one category."""

    @property
    def numbers(self) -> int:
        """How many numbers the model consists of: trained parameters, or stored features."""

    def score(self, features: Float) -> NDArray[np.float64]:
        """How anomalous each row (N, P) is: (N,), higher is worse, always finite."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The directions in which clips differ most: features (N, D) → (N, P), in one common unit, not whitened."""

    mean: Float
    rows: Float

    @classmethod
    def fit(cls, features: Float, most: int = 64) -> Basis:
        """At most `most` directions of features (N, D); fewer when the clips do not span so many.

        Raises ClipError for fewer than two clips.
        """
        check(features)
        mean = features.mean(0)
        _, size, rows = np.linalg.svd(features - mean, full_matrices=False)
        keep = min(most, int((size > 1e-5 * size[0]).sum()))
        return cls(mean, np.ascontiguousarray(rows[:keep], np.float32))

    @property
    def numbers(self) -> int:
        return self.mean.size + self.rows.size

    def __call__(self, features: Float) -> Float:
        out: Float = ((features - self.mean) @ self.rows.T).astype(np.float32)
        return out


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """A flow of affine coupling layers and its training. `noise` is in units of the category's own spread."""

    transforms: int = 3
    hidden: int = 64
    steps: int = 300
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    noise: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SvddConfig:
    """The network of deep SVDD and its training, which is short: a long one collapses all movement onto the centre."""

    hidden: int = 64
    out: int = 32
    steps: int = 50
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Unit:
    """A category's centre (P,) and its spread: a single number, so that directions keep their proportions."""

    mean: Float
    spread: float

    @classmethod
    def of(cls, features: Float) -> Unit:
        mean = features.mean(0)
        return cls(mean, float(np.sqrt(((features - mean) ** 2).mean())) or 1.0)

    def __call__(self, features: Float) -> Tensor:
        return torch.from_numpy(np.asarray((features - self.mean) / self.spread, np.float32))


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A fitted normal distribution: mean (P,) and the inverse of its covariance (P, P)."""

    mean: Float
    precision: NDArray[np.float64]

    @property
    def numbers(self) -> int:
        p = len(self.mean)
        return p + p * (p + 1) // 2

    def score(self, features: Float) -> NDArray[np.float64]:
        """The squared Mahalanobis distance of each row: (N,)."""
        off = features.astype(np.float64) - self.mean
        found: NDArray[np.float64] = np.einsum("np,pq,nq->n", off, self.precision, off)
        return found


class Flow:
    """A fitted normalising flow. (Dinh, Sohl-Dickstein, Bengio 2017: affine coupling; the layers are zuko's.)"""

    def __init__(self, unit: Unit, network: nn.Module) -> None:
        self._unit, self._network = unit, network
        self.numbers = parameters(network)

    @torch.no_grad()
    def score(self, features: Float) -> NDArray[np.float64]:
        """The negative log-likelihood of each row, in nats, up to a constant of the category: (N,)."""
        return finite(-self._network().log_prob(self._unit(features)))


class DeepSvdd:
    """A fitted deep support vector data description: the squared distance to a fixed centre in a learned space."""

    def __init__(self, unit: Unit, network: nn.Module, centre: Tensor) -> None:
        self._unit, self._network, self._centre = unit, network, centre
        self.numbers = parameters(network) + centre.numel()

    @torch.no_grad()
    def score(self, features: Float) -> NDArray[np.float64]:
        """The squared distance of each row to the centre: (N,)."""
        return finite(((self._network(self._unit(features)) - self._centre) ** 2).sum(1))


def fit_gaussian(features: Float) -> Gaussian:
    """Fit a Gaussian to the normal clips of one category: features (N, P). Nothing in it is random.

    The covariance is shrunk towards a sphere by the amount that Ledoit and Wolf (2004) find best for so few rows.
    Raises ClipError for fewer than two clips.
    """
    from sklearn.covariance import LedoitWolf

    check(features)
    unit = Unit.of(features)
    x = unit(features).numpy().astype(np.float64)
    return Gaussian(unit.mean, LedoitWolf(assume_centered=True).fit(x).precision_ / unit.spread**2)


def fit_flow(features: Float, config: FlowConfig | None = None) -> Flow:
    """Fit a flow to the normal clips of one category: features (N, P), P ≥ 2. The same seed gives the same flow.

    Every batch draws clips with replacement and adds Gaussian noise: a dozen points in 64 dimensions have no density of
    their own, and without noise a flow puts an infinite one on each of them. Raises ClipError for fewer than two clips,
    MissingExtra without zuko.
    """
    need("dev", "zuko")
    from zuko.flows import NICE  # type: ignore[import-untyped]

    c = config or FlowConfig()
    check(features)
    if features.shape[1] < 2:
        raise ClipError(
            "a flow needs two features or more", why="these clips span only one direction", fix="give more clips"
        )
    unit = Unit.of(features)
    x = unit(features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c.seed)
        network = NICE(x.shape[1], transforms=c.transforms, hidden_features=(c.hidden, c.hidden), randmask=True)
        optimiser = torch.optim.AdamW(network.parameters(), c.learning_rate, weight_decay=c.weight_decay)
        for _ in range(c.steps):
            rows = drawn(x, c.batch)
            loss = -network().log_prob(rows + c.noise * torch.randn_like(rows)).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
    return Flow(unit, network.eval())


def fit_svdd(features: Float, config: SvddConfig | None = None) -> DeepSvdd:
    """Fit deep SVDD to the normal clips of one category: features (N, P). The same seed gives the same model.

    The one-class objective of Ruff et al. 2018 (Deep One-Class Classification, ICML), eq. 4: no biases, and a centre
    away from zero, so that mapping everything to the centre is not a solution. Raises ClipError for fewer than two
    clips.
    """
    c = config or SvddConfig()
    check(features)
    unit = Unit.of(features)
    x = unit(features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c.seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], c.hidden, bias=False), nn.LeakyReLU(), nn.Linear(c.hidden, c.out, bias=False)
        )
        with torch.no_grad():
            centre = network(x).mean(0)
            centre = torch.where(centre < 0, centre.clamp(max=-0.1), centre.clamp(min=0.1))
        optimiser = torch.optim.AdamW(network.parameters(), c.learning_rate, weight_decay=c.weight_decay)
        for _ in range(c.steps):
            loss = ((network(drawn(x, c.batch)) - centre) ** 2).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return DeepSvdd(unit, network.eval(), centre)


def check(features: Float) -> None:
    """Raises ClipError if there are too few rows, or one is not finite."""
    if len(features) < FEWEST:
        raise ClipError(
            f"a model of a category needs {FEWEST} clips or more, found {len(features)}",
            why="a single clip has no spread",
            fix="record more clips of this category",
        )
    if not np.isfinite(features).all():
        raise ClipError("the features of a clip are not all finite", fix="look at the clips with haad-edge embed")


def drawn(x: Tensor, batch: int) -> Tensor:
    """Draw `batch` rows of x (N, P), with replacement."""
    return x[torch.randint(len(x), (batch,))]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def finite(score: Tensor) -> NDArray[np.float64]:
    """Replace what is not finite by the largest float32: a row whose score overflows is as anomalous as can be."""
    most = float(np.finfo(np.float32).max)
    return np.nan_to_num(score.numpy().astype(np.float64), nan=most, posinf=most, neginf=-most)
