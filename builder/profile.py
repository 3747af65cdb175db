"""What a plan is built for: least, usual and most windows in a batch, categories, and windows of a category."""

from __future__ import annotations

from collections.abc import Sequence

from edge.engine.record import Profile
from edge.errors import EngineError

WORKSPACE = 1024
BATCH, SUPPORT = "1:16:64", "1:8:64x1:64:256"
"""The most windows are `edge.support.enrol.MAX_WINDOWS`, so that no folder is refused for them."""


def parse_range(text: str, option: str) -> list[int]:
    """'1:16:64' → [1, 16, 64]; one number alone stands for all three. Raises EngineError."""
    parts = text.strip().split(":")
    if len(parts) == 1:
        parts *= 3
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
        raise EngineError(f"{option} {text!r}", why="is not LEAST:USUAL:MOST", fix=f"for example {option} {BATCH}")
    least, usual, most = (int(p) for p in parts)
    if not 1 <= least <= usual <= most <= 65536:
        raise EngineError(
            f"{option} {text!r}",
            why="the three must not fall, and lie between 1 and 65536",
            fix=f"for example {option} {BATCH}",
        )
    return [least, usual, most]


def as_range(axis: Sequence[int]) -> str:
    """[1, 16, 64] → '1:16:64'."""
    return ":".join(map(str, axis))


def parse_profile(batch: str = BATCH, support: str = SUPPORT) -> Profile:
    """Both options as a profile. `support` is categories x windows of each, as 1:8:64x1:64:256."""
    categories, cross, shots = support.partition("x")
    if not cross:
        raise EngineError(
            f"--support {support!r}",
            why="is not CATEGORIESxWINDOWS, each LEAST:USUAL:MOST",
            fix=f"for example --support {SUPPORT}",
        )
    return Profile(
        batch=parse_range(batch, "--batch"),
        categories=parse_range(categories, "--support"),
        shots=parse_range(shots, "--support"),
    )


def shapes(profile: Profile, frames: int, joints: int, embedding: int) -> dict[str, list[tuple[int, ...]]]:
    """Least, usual and greatest shape of every input of the graph."""
    out: dict[str, list[tuple[int, ...]]] = {"joints": [], "visible": [], "support": [], "support_mask": []}
    for b, g, k in zip(profile.batch, profile.categories, profile.shots, strict=True):
        out["joints"].append((b, frames, joints, 3))
        out["visible"].append((b, frames, joints))
        out["support"].append((g, k, embedding))
        out["support_mask"].append((g, k))
    return out
