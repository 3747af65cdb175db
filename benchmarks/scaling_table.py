"""Holds the rows of `benchmarks.scaling`, and makes its tables."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

GROWTH = (10, 100, 1000)
"""Numbers of categories for which the growth is computed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; None is not known. `numbers`, `seconds` and `ms` are pairs: once, and for each category."""

    method: str
    clips: float
    numbers: tuple[float, float]
    seconds: tuple[float | None, float]
    auroc: float
    interval: tuple[float, float]
    auroc_not_trained_on: float | None
    ms: tuple[float, float]
    draws: int

    def grown(self, categories: int) -> dict[str, float | None]:
        """Compute the cost of many categories: once + categories × each."""
        once, each = self.seconds
        return {
            "categories": categories,
            "numbers": self.numbers[0] + categories * self.numbers[1],
            "seconds": None if once is None else once + categories * each,
            "seconds_of_categories": categories * each,
            "ms_a_clip": self.ms[0] + categories * self.ms[1],
        }


def tables(rows: list[Row], categories: int) -> list[Table]:
    """Make the tables of the comparison and of its growth."""

    def number(x: float | None) -> str:
        return "–" if x is None else f"{x:,.0f}" if x >= 100 else f"{x:.3g}"

    first = Table(
        "method", "clips", "numbers once", f"of {categories}", "each", "seconds once", f"of {categories}", "each new",
        "AUROC", "95 % of draws", "not trained on", "ms a clip once", "each",
        title="one model, or one for each category",
    )  # fmt: skip
    for r in rows:
        total = r.numbers[0] + categories * r.numbers[1]
        free = "–" if r.auroc_not_trained_on is None else f"{r.auroc_not_trained_on:.4f}"
        first.add_row(
            r.method, f"{r.clips:.3g}",
            number(r.numbers[0]), number(total), number(r.numbers[1]),
            number(r.seconds[0]), number(categories * r.seconds[1]), number(r.seconds[1]),
            f"{r.auroc:.4f}", f"{r.interval[0]:.4f} – {r.interval[1]:.4f}", free, number(r.ms[0]), number(r.ms[1]),
        )  # fmt: skip
    second = Table(
        "method", "clips", "categories", "numbers", "seconds, without once", "ms a clip", title="growth, computed"
    )
    for r in rows:
        for g in GROWTH:
            at = r.grown(g)
            second.add_row(
                r.method, f"{r.clips:.3g}", str(g), number(at["numbers"]), number(at["seconds_of_categories"]),
                number(at["ms_a_clip"]),
            )  # fmt: skip
    return [first, second]
