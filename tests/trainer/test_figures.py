"""The pictures: XML that parses, marks where the numbers say, names escaped, labels that do not cover each other."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from edge.clip import Clip
from edge.motion import make_motion
from edge.skeleton import CORE15, J
from trainer import figures

BAD = "<b>&\"'"
SVG = "{http://www.w3.org/2000/svg}"


def parse(picture: str) -> ET.Element:
    return ET.fromstring(picture)


def classed(root: ET.Element, kind: str) -> list[ET.Element]:
    return [e for e in root.iter() if kind in e.get("class", "").split()]


def turned(clip: Clip, angle: float) -> Clip:
    """The clip as the camera sees it after walking round it."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
    return replace(clip, joints=clip.joints @ turn.T)


@pytest.mark.parametrize("angle", [0.0, 1.0, np.pi, -2.0])
def test_a_person_faces_the_reader_whatever_the_heading(angle: float) -> None:
    clip = make_motion("wave", seconds=2, fps=20, seed=1)
    flat = figures.facing(clip.joints, clip.visible)
    np.testing.assert_allclose(figures.facing(turned(clip, angle).joints, clip.visible), flat, atol=1e-4)
    x = dict(zip(CORE15, flat[:, :, 0].mean(0), strict=True))
    y = dict(zip(CORE15, flat[:, :, 1].mean(0), strict=True))
    # Facing the reader: the person's left is on the reader's right; y counts downwards.
    assert x["l_shoulder"] > x["r_shoulder"] and x["l_hip"] > x["r_hip"] and x["pelvis"] == pytest.approx(0)
    assert y["head"] < y["pelvis"] < y["l_ankle"]


def test_a_strip_draws_each_pose_within_its_frame() -> None:
    clip = make_motion("jog", seconds=2, fps=20, seed=1)
    group = parse(figures.strip(clip, poses=5, width=40, height=80))
    assert group.tag == "g" and len(classed(group, "head")) == 5 and len(classed(group, "l")) == 5
    # Two arms and two legs of three bones each less the shared trunk: neck, head; arms and legs of each side.
    bones = [e.get("d", "").count("M") for e in classed(group, "bone") if e.get("d")]
    assert sum(bones) == 5 * (J - 1)
    for n, head in enumerate(classed(group, "head")):
        assert 40 * n <= float(head.get("cx", "nan")) <= 40 * (n + 1) and 0 <= float(head.get("cy", "nan")) <= 80


def test_a_strip_leaves_out_what_is_hidden() -> None:
    clip = make_motion("wave", seconds=1, fps=20, seed=1)
    visible = clip.visible.copy()
    visible[:, CORE15.index("head")] = 0
    visible[:, CORE15.index("l_elbow")] = 0
    group = parse(figures.strip(replace(clip, visible=visible), poses=3))
    assert classed(group, "head") == []
    assert sum(e.get("d", "").count("M") for e in classed(group, "bone")) == 3 * (J - 1 - 3)  # head; elbow's two
    dark = replace(clip, visible=np.zeros_like(visible), joints=np.zeros_like(clip.joints))
    assert classed(parse(figures.strip(dark)), "bone") == []
    picture = parse(figures.strip_picture(clip, BAD))
    assert picture.get("aria-label") == BAD and [t.text for t in picture.iter(f"{SVG}text")] == ["0 s", "1.0 s"]


def test_roc_curves_lie_where_they_should() -> None:
    grid = np.linspace(0, 1, 101)
    curves = {"model": np.minimum(1, 0.9 + grid), BAD: grid}
    root = parse(figures.roc(curves, grid))
    assert root.get("aria-label") == f"ROC curves: model, {BAD}"
    first = classed(root, "c0")[0].get("points", "").split()
    points = np.array([p.split(",") for p in first], float)
    # 300 units square from (46, 8): begins at the lower left, jumps to 0.9, ends at the upper right.
    np.testing.assert_allclose(points[[0, 1, -1]], [(46, 308), (46, 38), (346, 8)], atol=0.1)
    chance = [float(v) for p in classed(root, "c1")[0].get("points", "").split()[1:] for v in p.split(",")]
    np.testing.assert_allclose(np.array(chance[::2]) - 46, 308 - np.array(chance[1::2]), atol=0.11)
    corner = parse(figures.roc(curves, grid, corner=0.2))
    x, y = np.array([p.split(",") for p in classed(corner, "c0")[0].get("points", "").split()], float).T
    assert x.min() == 46 and x.max() == 346 and y[0] == pytest.approx(158) and y.min() == 8  # 0.9 is half way down
    assert classed(corner, "c1")[0].get("points") == ""  # never in this corner
    assert len(classed(parse(figures.small_roc(list(curves.values()), grid, BAD)), "curve")) == 2


def test_bars_are_as_long_as_their_figures() -> None:
    rows = [("walk", [0.9, 0.7], 0.85, 0.95, False), (BAD, [1.0, 0.5], 1.0, 1.0, True)]
    root = parse(figures.bars(rows, ["model", "floor"]))
    a, b = (float(e.get("width", "nan")) for e in classed(root, "bar"))
    assert a / b == pytest.approx(0.8, abs=1e-3)  # (0.9 − 0.5) / (1 − 0.5)
    left = float(classed(root, "bar")[0].get("x", "nan"))
    marks = [(float(e.get("x1", "nan")) - left) / b for e in classed(root, "mark")]
    assert marks == pytest.approx([0.4, 0], abs=1e-3)
    whisker = classed(root, "whisker")[0]
    assert float(whisker.get("x2", "nan")) - float(whisker.get("x1", "nan")) == pytest.approx(0.2 * b, abs=0.2)
    words = [t.text for t in root.iter(f"{SVG}text")]
    assert f"{BAD} ◆" in words and "walk" in words and "0.900" in words
    # A figure below chance moves the axis' beginning.
    low = parse(figures.bars([("walk", [0.32], 0.31, 0.4, False)], ["model"]))
    assert next(t.text for t in low.iter(f"{SVG}text")) == "0.3" and len(classed(low, "chance")) == 1


def test_labels_keep_apart_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    dots = rng.uniform(0, 300, (200, 2))
    anchors = rng.uniform(100, 160, (20, 2))
    widths = [60.0] * 20
    places = figures.place_labels(anchors, widths, dots, (600, 500))
    for i in range(20):
        assert 30 <= places[i, 0] <= 570 and 0 <= places[i, 1] <= 500
        for j in range(i):
            assert abs(places[i, 0] - places[j, 0]) >= 60 or abs(places[i, 1] - places[j, 1]) >= 15
    np.testing.assert_array_equal(places, figures.place_labels(anchors, widths, dots, (600, 500)))
    alone = figures.place_labels(np.array([(200.0, 200.0)]), [40.0], np.array([(500.0, 400.0)]), (600, 500))
    np.testing.assert_array_equal(alone, [(200, 200)])


def test_the_map_marks_support_and_unseen() -> None:
    places = np.random.default_rng(0).standard_normal((12, 2))
    category = ["walk"] * 6 + [BAD] * 6
    pool, unseen = np.arange(12) % 2 == 0, np.arange(12) >= 6
    root = parse(figures.embedding_map(places, category, pool, unseen, [f"{BAD}{i}" for i in range(12)]))
    circles, diamonds = list(root.iter(f"{SVG}circle")), list(root.iter(f"{SVG}path"))
    assert len(circles) == len(diamonds) == 6
    assert [len([e for e in kind if e.get("class") == "ring"]) for kind in (circles, diamonds)] == [3, 3]
    assert {t.text for t in root.iter(f"{SVG}title")} == {f"{BAD}{i}" for i in range(12)}
    assert {t.text for t in classed(root, "name")} == {"walk", BAD}


def test_forty_categories_have_forty_colours() -> None:
    assert len({figures.colour(n) for n in range(40)}) == 40
