"""Writes the figures of `benchmarks.accuracy` as the page accuracy.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HEADS = {
    "floor": "floor: raw DCT",
    "floor-cuts": "raw DCT of six cuts",
    "paper": "recipe paper",
    "paper-generated": "recipe paper, with generated clips",
    "ours": "ours",
    "ours-generated": "ours, with generated clips",
}
ORDER = tuple(HEADS)
PARTS = ("seen", "unseen")
MORE = {
    "ours, head 0": "ours, head 0",
    "ours, head 0.25": "ours, head 0.25",
    "share": "our error over the floor's",
    "share-cuts": "and over that of six cuts",
}


def write_table(folder: Path, page: Path) -> str:
    """Write `page` from the jobs in `folder`; returns its text."""
    jobs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"))]
    if not jobs:
        return "no figures yet"
    lines = [
        "# Accuracy",
        "",
        "Mean AUROC over categories, K = 3, support and judged clips of different people; in brackets 95 % of the",
        "support draws. Made by `make accuracy DATA=…`; `benchmarks/accuracy.py` says what each job is.",
        "",
        "Read with these: the folds' encoders have no share of the head, the usual augmentation and 3,000 steps;",
        "`base` has a share of 0.5, more tilt and 10,000. Those of sets left out are made as `base`, with 3,000",
        "steps. Cuts, match and shares were chosen by the unseen categories of fold 0 and by the sets left out, so the",
        "figures there are a little too good. The floor takes a clip as a whole; we take the mean of six cuts of it,",
        "and so does 'raw DCT of six cuts'. Recipe paper takes the categories of all its sets for negatives of each",
        "other, we those of one set. The intervals are of the draws alone: other categories would move the means more.",
        "",
        "## UTD-MHAD, four folds: every fourth category unseen",
        "",
        *folds(jobs),
        "",
        "## One data set left out of training",
        "",
        "`ui_prmd`: five correct repetitions of a person against that person's other correct and incorrect ones.",
        "",
        *left_out(jobs),
        "",
        "## Commands",
        "",
        "| figures | command | seed | draws | CPU minutes | machine, date |",
        "|---|---|---|---|---|---|",
        *(
            f"| {j['job']}, {HEADS[j['method']]} | `{j['command']}` | {j['seed']} | {j['draws']} | {j['cpu_minutes']} "
            f"| {j['machine']}, {j['date']} |"
            for j in sorted(jobs, key=lambda j: (ORDER.index(j["method"]), j["job"]))
        ),
        "",
    ]
    text = "\n".join(lines)
    page.write_text(text, encoding="utf-8")
    return text


def summary(folder: Path) -> dict[str, Any]:
    """The means of our encoder's jobs, for a manifest: how its recipe does on categories or sets that were left out."""
    jobs = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*-ours.json"))]
    of_folds = [j["figures"] for j in jobs if j["job"].startswith("fold-")]
    return {
        "utd_mhad_four_folds": {
            condition: {
                part: round(float(np.mean([f[condition][part]["auroc"] for f in of_folds])), 4) for part in PARTS
            }
            for condition in (of_folds[0] if of_folds else ())
        },
        "one_set_left_out": {
            j["job"].removeprefix("without-"): round(j["figures"]["as recorded"]["unseen"]["auroc"], 4)
            for j in jobs
            if j["job"].startswith("without-")
        },
        "made_by": "python -m benchmarks.accuracy",
    }


def folds(jobs: list[dict[str, Any]]) -> list[str]:
    """A row for each condition, and for seen and unseen categories: the mean over the folds that were run."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for method in ORDER:
        mine = [j for j in jobs if j["method"] == method and j["job"].startswith("fold-")]
        for condition in dict.fromkeys(c for j in mine for c in j["figures"]):
            for part in PARTS:
                found = [j["figures"][condition][part] for j in mine]
                auroc, low, high = (np.mean([f[k] for f in found]) for k in ("auroc", "low", "high"))
                note = "" if len(found) == 4 else f" ({len(found)} of 4 folds)"
                rows.setdefault((condition, part), {})[method] = f"{auroc:.4f} [{low:.4f}–{high:.4f}]{note}"
    return table(["clips judged", "categories"], {k: v for k, v in rows.items()})


def left_out(jobs: list[dict[str, Any]]) -> list[str]:
    """A row for each set left out, with our error as a share of the floor's."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    error: dict[tuple[str, str], float] = {}
    for j in jobs:
        if j["job"].startswith("without-"):
            name = j["job"].removeprefix("without-")
            for condition, figures in j["figures"].items():
                f, method = figures["unseen"], j["method"] + condition.removeprefix("as recorded")
                rows.setdefault((name,), {})[method] = f"{f['auroc']:.4f} [{f['low']:.4f}–{f['high']:.4f}]"
                error[name, method] = 1 - f["auroc"]
    for (name,), row in rows.items():
        if (name, "ours") in error and error.get((name, "floor"), 0) > 0:
            row["share"] = f"{error[name, 'ours'] / error[name, 'floor']:.2f}"
        if (name, "ours") in error and error.get((name, "floor-cuts"), 0) > 0:
            row["share-cuts"] = f"{error[name, 'ours'] / error[name, 'floor-cuts']:.2f}"
    return table(["set left out"], dict(sorted(rows.items())), MORE)


def table(
    keys: list[str], rows: dict[tuple[str, ...], dict[str, str]], more: dict[str, str] | None = None
) -> list[str]:
    """A Markdown table; a cell for which nothing was measured holds a dash."""
    heads = HEADS | (more or {})
    columns = [m for m in heads if any(m in row for row in rows.values())]
    out = ["| " + " | ".join([*keys, *(heads[m] for m in columns)]) + " |", "|" + "---|" * (len(keys) + len(columns))]
    for key, row in rows.items():
        out.append("| " + " | ".join([*key, *(row.get(m, "–") for m in columns)]) + " |")
    return out
