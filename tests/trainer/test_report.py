"""The page parses, states the figures that were measured, escapes names, and needs nothing from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edge.score import match
from tests.trainer.made import made
from trainer import report
from trainer.baselines import raw_dct
from trainer.datasets import ClipSet
from trainer.evaluate import Evaluation, Method, evaluate
from trainer.protocols import by_subject, leave_out

EVIL = '<script>alert("x")</script>&'
VOID = {"meta", "br", "wbr", "rect", "line", "circle", "path", "polyline"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def clips() -> ClipSet:
    names = ["walk", "jog", EVIL]
    rows = [
        (made(motion, s, t), Path(f"{EVIL}/s{s}_t{t}.npz"), g)
        for g, motion in enumerate(("walk", "jog", "wave"))
        for s in (1, 2)
        for t in (1, 2, 3)
    ]
    found, paths, label = zip(*rows, strict=True)
    return ClipSet(EVIL, list(found), list(paths), np.array(label, np.int64), names, "")


def measured(clips: ClipSet, *, fold: int | None = None, shots: tuple[int, ...] = (1, 3, 5)) -> Evaluation:
    near = partial(match, temperature=0.05)
    embedding = raw_dct(clips.clips)
    protocol = by_subject(clips.subjects)
    if fold is not None:
        protocol = leave_out(protocol, clips.label, fold)
    rough = embedding[:, :2] / np.linalg.norm(embedding[:, :2], axis=1, keepdims=True)
    methods = [Method("model-0", embedding, near), Method("floor: raw DCT", rough, near)]
    category = np.array(clips.names)[clips.label]
    return evaluate(methods, category, clips.subjects, protocol, shots=shots, draws=4, seed=0)


def write(folder: Path, clips: ClipSet, found: Evaluation, note: str = "") -> str:
    page = report.write_report(folder, found, clips, model=f"model {EVIL}", data=EVIL, note=note)
    assert page == folder / "index.html"
    return page.read_text(encoding="utf-8")


def test_the_page_says_what_was_measured(tmp_path: Path, clips: ClipSet) -> None:
    found = measured(clips, fold=1)
    text = write(tmp_path / "deep/er", clips, found, note=f"trained on {EVIL}")
    page = Page(text)
    words = re.sub(r"\s+", " ", " ".join(page.words))
    for k in (1, 3):
        for r in found.results[k].values():
            assert f"{r.mean:.4f}" in words
    own = found.results[3]["model-0"]
    assert f"{100 * own.mean:.1f} of 100" in words and f"{own.parts['unseen'].mean:.4f}" in words
    assert "Read with care: trained on" in words.replace("  ", " ") and "18 clips, 3 categories, 2 people" in words
    assert "5 clips: no category has enough clips" in words
    for name, value in own.categories.items():
        assert name.split("_")[0] in words and f"{value:.4f}" in words


def test_the_page_needs_nothing_from_outside_and_runs_nothing(tmp_path: Path, clips: ClipSet) -> None:
    text = write(tmp_path, clips, measured(clips))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a", "use", "image"} & set(page.tags)
    assert not [a for a, _ in page.attributes if a.startswith("on") or a in ("src", "href", "xlink:href")]
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text and "url(" not in text
    assert "prefers-color-scheme:dark" in text and 'name="viewport"' in text


def test_names_are_escaped_and_pictures_are_xml(tmp_path: Path, clips: ClipSet) -> None:
    text = write(tmp_path, clips, measured(clips))
    assert "<script" not in text and "&lt;script&gt;" in text
    pictures = re.findall(r"<svg.*?</svg>", text, re.S)
    kinds = [ET.fromstring(p).get("class") for p in pictures]
    assert {"roc", "mini", "bars", "map", "strip"} >= set(kinds) >= {"roc", "mini", "bars", "map"}
    assert kinds.count("mini") == 3 and kinds.count("strip") % 2 == 0


def test_every_class_that_is_used_has_a_style(tmp_path: Path, clips: ClipSet) -> None:
    page = Page(write(tmp_path, clips, measured(clips, fold=0), note="x"))
    used = {k for a, v in page.attributes if a == "class" for k in (v or "").split()}
    assert {k for k in used if f".{k}" not in report.STYLE} <= {"roc", "mini", "strip", "label"}


def test_it_is_the_same_page_every_time(tmp_path: Path, clips: ClipSet) -> None:
    assert write(tmp_path / "a", clips, measured(clips)) == write(tmp_path / "b", clips, measured(clips))


def test_few_clips_are_arranged_too() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 11, 12, 40):
        assert report.arrange(rng.standard_normal((n, 8)).astype(np.float32)).shape == (n, 2)
    # Two distant groups stay two groups.
    far = np.repeat(np.eye(8), 10, axis=0)[:20] + 0.01 * rng.standard_normal((20, 8))
    one, other = report.arrange(far.astype(np.float32)).reshape(2, 10, 2)
    spread = max(np.linalg.norm(x - x.mean(0), axis=1).max() for x in (one, other))
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > spread


def test_without_a_confusion_it_says_so(clips: ClipSet) -> None:
    assert "None: no clip" in report.confusion_part([], clips)
