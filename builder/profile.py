"""Parses a plan's profile: the minimum, usual and maximum batch size, categories, and windows in a category."""

from __future__ import annotations

from collections.abc import Sequence

from edge.engine.record import Profile
from edge.errors import EngineError

WORKSPACE = 1024
BATCH, SUPPORT = "1:16:64", "1:8:64x1:64:256"
"""The maximum of windows is `edge.support.enrol.MAX_WINDOWS`, so that no support folder has too many."""


def parse_range(text: str, option: str, example: str = BATCH) -> list[int]:
    """'1:16:64' → [1, 16, 64]; one number alone stands for all three. Raises EngineError with the `example`."""
    parts = text.strip().split(":")
    if len(parts) == 1:
        parts *= 3
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
        raise EngineError(f"{option} {text!r}", why="it must be MIN:USUAL:MAX", fix=f"for example {option} {example}")
    least, usual, most = (int(p) for p in parts)
    if not 1 <= least <= usual <= most <= 65536:
        raise EngineError(
            f"{option} {text!r}",
            why="the three must be in ascending order, between 1 and 65536",
            fix=f"for example {option} {example}",
        )
    return [least, usual, most]


def as_range(axis: Sequence[int]) -> str:
    """[1, 16, 64] → '1:16:64'."""
    return ":".join(map(str, axis))


def parse_profile(batch: str = BATCH, support: str = SUPPORT) -> Profile:
    """Parse --batch and --support. `support` is categories x windows in each, like 1:8:64x1:64:256.

    Raises EngineError.
    """
    categories, cross, shots = support.partition("x")
    if not cross:
        raise EngineError(
            f"--support {support!r}",
            why="it must be CATEGORIESxWINDOWS, each MIN:USUAL:MAX",
            fix=f"for example --support {SUPPORT}",
        )
    return Profile(
        batch=parse_range(batch, "--batch"),
        categories=parse_range(categories, "--support", SUPPORT),
        shots=parse_range(shots, "--support", SUPPORT),
    )


def shapes(profile: Profile, frames: int, joints: int, embedding: int) -> dict[str, list[tuple[int, ...]]]:
    """Minimum, usual and maximum shape of every input of the graph."""
    out: dict[str, list[tuple[int, ...]]] = {"joints": [], "visible": [], "support": [], "support_mask": []}
    for b, g, k in zip(profile.batch, profile.categories, profile.shots, strict=True):
        out["joints"].append((b, frames, joints, 3))
        out["visible"].append((b, frames, joints))
        out["support"].append((g, k, embedding))
        out["support_mask"].append((g, k))
    return out
