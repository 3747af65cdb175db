"""Measures how fast the engine and its peers are here: `make bench`, or `python -m benchmarks.stream [--seconds 600]`.

`haad-edge bench` with all its sections, then `benchmarks.peers`, as one report: `bench-<machine>-<date>.json` and
`.svg` in `benchmarks/results`, and the table in docs/speed.md. Compare figures of the same run only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `haad-edge` does, before numpy is imported

from benchmarks.peers import compare
from edge.bench.machine import short
from edge.bench.measure import measure
from edge.bench.picture import picture
from edge.bench.report import markdown, tables
from edge.bench.traffic import Load
from edge.commands.console import out, say

ROOT = Path(__file__).parents[1]
SECTIONS = ("start", "sustained", "ceiling", "stages", "tracks")


def fill(page: Path, report: dict[str, Any], plot: Path) -> None:
    """Put the report's table and picture between the page's markers."""
    where = os.path.relpath(plot, page.parent)
    text = f"{markdown(report)}\n![the same as a picture]({where})\n"
    was = page.read_text(encoding="utf-8")
    made, n = re.subn(r"(<!-- figures -->\n).*?(<!-- /figures -->)", lambda m: m[1] + text + m[2], was, flags=re.S)
    if not n:
        raise SystemExit(f"{page}: no <!-- figures --> … <!-- /figures --> to fill")
    page.write_text(made, encoding="utf-8")


def main() -> None:
    """Measure everything, print the tables, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the paced load")
    parser.add_argument("--cameras", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-seconds", type=float, default=4.0, help="length of each round of a peer")
    parser.add_argument("--most-tracks", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "speed.md", help="the page in which to fill the table"
    )
    options = parser.parse_args()
    load = Load(cameras=options.cameras)
    report = measure(
        load,
        sections=SECTIONS,
        seconds=options.seconds,
        stride=0.25,
        max_batch=64,
        engine="onnx",
        threads=1,
        rounds=options.rounds,
        most_tracks=options.most_tracks,
        scores=True,
        bundle=None,
        progress=say,
    )
    say("measuring peers")
    plain = Load(cameras=options.cameras, passers=0.0)
    report["peers"] = compare(plain, seconds=options.round_seconds, rounds=options.rounds)
    report["command"] = f"python -m benchmarks.stream --seconds {options.seconds:g} --rounds {options.rounds}"
    for table in tables(report):
        out.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"bench-{short(report['machine'])}-{report['date']}"
    plot = stem.with_suffix(".svg")
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot.write_text(picture(report), encoding="utf-8")
    fill(options.page, report, plot)
    say(f"written: {stem}.json, .svg, {options.page}")


if __name__ == "__main__":
    main()
