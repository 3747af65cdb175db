"""Sets on disk, the split by subject, and what a batch holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clip import Clip, save_clip
from edge.errors import ClipError
from tests.trainer.made import made, write_set
from trainer.datasets import ClipSet, Sampler, find_sets, load_set, subject_split

UTD = Path(__file__).parents[2] / "../shared/data/utd_mhad"
some = settings(derandomize=True, deadline=None, max_examples=25)


def ramp(seconds: float, fps: float = 30.0) -> Clip:
    """Every joint's x is the time in seconds, so that a sample shows when it was taken."""
    t = np.arange(round(seconds * fps) + 1) / fps
    joints = np.zeros((len(t), 15, 3), np.float32)
    joints[:, :, 0] = t[:, None]
    return Clip(joints, np.ones(joints.shape[:2], np.float32), fps, "1")


def sampler(sets: list[ClipSet], **given: object) -> Sampler:
    return Sampler(sets, **({"frames": 16, "step": 1 / 16, "size": 48, "per_category": 4} | given))  # type: ignore[arg-type]


def test_one_set_or_several_are_found(folder: Path) -> None:
    assert find_sets(folder) == [folder / "first", folder / "second"]
    assert find_sets(folder / "first") == [folder / "first"]


def test_a_folder_without_clips_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"no clips.*neither"):
        find_sets(tmp_path)
    with pytest.raises(ClipError, match="no such folder"):
        find_sets(tmp_path / "absent")


def test_a_set_holds_every_clip_under_its_folders_name(folder: Path) -> None:
    s = load_set(folder / "first")
    assert s.name == "first" and s.names == ["clap", "squat", "walk", "wave"] and len(s.clips) == 32
    for clip, path, label in zip(s.clips, s.paths, s.label, strict=True):
        assert s.names[label] == path.parent.name
        assert clip.subject == path.stem[1] and len(clip.joints) == 31
    assert Counter(s.label.tolist()) == {0: 8, 1: 8, 2: 8, 3: 8}
    twos = s.subset(s.subjects == "2")
    assert len(twos.clips) == 8 and set(twos.subjects) == {"2"} and twos.names == s.names
    assert [p.parent.name for p in twos.paths] == [s.names[c] for c in twos.label]


def test_exclude_and_merge_go_by_globs_on_set_and_category(folder: Path) -> None:
    s = load_set(
        folder / "first", exclude=["first/wa[lk]*", "second/*"], merge={"first/?la*": "hands", "*/wave": "hands"}
    )
    assert s.names == ["hands", "squat"]
    assert Counter(p.parent.name for p in s.paths) == {"clap": 8, "wave": 8, "squat": 8}
    assert Counter(s.label.tolist()) == {0: 16, 1: 8}
    assert all(s.label[i] == (p.parent.name == "squat") for i, p in enumerate(s.paths))
    assert load_set(folder / "first", exclude=["walk"]).names == ["clap", "squat", "walk", "wave"]


def test_a_set_has_its_name_also_from_inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise globs on it would silently match nothing."""
    whole = load_set(folder / "first", exclude=["first/walk"])
    monkeypatch.chdir(folder / "first")
    here = load_set(Path(), exclude=["first/walk"])
    assert (here.name, here.names, here.digest) == ("first", whole.names, whole.digest)
    monkeypatch.chdir(folder / "first" / "walk")
    assert load_set(Path("..")).name == "first"


def test_the_digest_tells_data_apart(tmp_path: Path, folder: Path) -> None:
    write_set(tmp_path / "a", ("walk", "wave"), subjects=1)
    before = load_set(tmp_path / "a").digest
    assert before == load_set(tmp_path / "a").digest
    save_clip(tmp_path / "a/walk/s1_t1.npz", made("walk", 7))
    assert load_set(tmp_path / "a").digest != before


def test_a_broken_clip_is_named_or_left_out(tmp_path: Path) -> None:
    write_set(tmp_path / "a", ("walk", "wave"), subjects=1)
    (tmp_path / "a/walk/s1_t1.npz").write_bytes(b"no clip")
    with pytest.raises(ClipError, match=r"walk/s1_t1\.npz"):
        load_set(tmp_path / "a")
    assert len(load_set(tmp_path / "a", strict=False).clips) == 3
    (tmp_path / "a/wave/s1_t1.npz").write_bytes(b"")
    with pytest.raises(ClipError, match=r"2 of 4 clips .*: walk/s1_t1\.npz, wave/s1_t1\.npz; the first: .*zip"):
        load_set(tmp_path / "a")


def test_every_other_subject_in_natural_order_is_for_training() -> None:
    subjects = np.array(["8", "1", "2", "3", "4", "5", "6", "7", "1"])
    assert sorted(set(subjects[subject_split(subjects)])) == ["1", "3", "5", "7"]
    ten = np.array(["s10", "s2", "s1"])
    assert subject_split(ten).tolist() == [True, False, True]  # 10 after 2
    with pytest.raises(ClipError, match="two subjects"):
        subject_split(np.array(["1", "1"]))


def test_batches_follow_from_seed_and_step_alone(sets: list[ClipSet]) -> None:
    batches = sampler(sets, seed=3).batches()
    first = [next(batches) for _ in range(3)]
    resumed = next(sampler(sets, seed=3).batches(2))
    np.testing.assert_array_equal(resumed.joints, first[2].joints)
    np.testing.assert_array_equal(resumed.visible, first[2].visible)
    np.testing.assert_array_equal(resumed.label, first[2].label)
    assert not np.array_equal(first[0].joints, first[1].joints)
    assert not np.array_equal(next(sampler(sets, seed=4).batches()).joints, first[0].joints)


def test_some_rows_are_those_of_the_whole_batch(sets: list[ClipSet]) -> None:
    s = sampler(sets, seed=3)
    whole = next(s.batches(5))
    for rows in (slice(0, 16), slice(16, 48), slice(7, 8)):
        part = next(s.batches(5, rows))
        np.testing.assert_array_equal(part.joints, whole.joints[rows])
        np.testing.assert_array_equal(part.visible, whole.visible[rows])
        np.testing.assert_array_equal(part.label, whole.label)
        np.testing.assert_array_equal(part.group, whole.group)


@some
@given(st.integers(0, 100_000), st.sampled_from([24, 48, 100]), st.sampled_from([0.6, 0.75, 1.0]))
def test_a_batch_keeps_to_its_plan(sets: list[ClipSet], seed: int, size: int, share: float) -> None:
    b = sampler(sets, size=size, share=share).draw(np.random.default_rng(seed))
    assert b.joints.shape == (size, 16, 15, 3) and b.visible.shape == (size, 16, 15)
    assert b.joints.dtype == b.visible.dtype == np.float32
    assert np.isfinite(b.joints).all() and ((b.visible >= 0) & (b.visible <= 1)).all()
    assert max(Counter(b.group.tolist()).values()) == round(size * share)
    # 'walk' of both sets is two labels: 0–3 are the first set's, 4–6 the second's.
    assert all((g == 0) == (c < 4) for g, c in zip(b.group, b.label, strict=True)) and b.label.max() < 7
    per_label = Counter(b.label.tolist())
    assert min(per_label.values()) >= 2
    for g, n in Counter(b.group.tolist()).items():
        most = min(len(sets[g].names), max(2, n // 4))
        assert sum((c < 4) == (g == 0) for c in per_label) == most


def test_each_set_is_drawn_from_by_the_root_of_its_size(sets: list[ClipSet]) -> None:
    s = sampler(sets, size=8, frames=8)
    mains = [Counter(s.draw(np.random.default_rng(i)).group.tolist()).most_common(1)[0][0] for i in range(1500)]
    expected = np.sqrt(32) / (np.sqrt(32) + np.sqrt(12))  # 0.62
    assert np.mean(np.array(mains) == 0) == pytest.approx(expected, abs=0.04)


def test_a_lone_set_fills_the_batch(sets: list[ClipSet]) -> None:
    b = sampler(sets[:1], size=30).draw(np.random.default_rng(0))
    assert len(b.label) == 30 and set(b.group) == {0} and set(b.label) == {0, 1, 2, 3}


def test_a_sample_shows_a_clip_of_its_label(sets: list[ClipSet]) -> None:
    # In a set of one still pose per category, the pose says which category it came from.
    still = [Clip(np.full((40, 15, 3), c, np.float32), np.ones((40, 15), np.float32), 20, "1") for c in range(5)]
    s = ClipSet("still", still, [Path()] * 5, np.arange(5), list("abcde"), "")
    b = sampler([s], size=40).draw(np.random.default_rng(0))
    np.testing.assert_allclose(b.joints, b.label[:, None, None, None] * np.ones((40, 16, 15, 3)), atol=1e-6)


@some
@given(st.integers(0, 100_000))
def test_a_whole_view_runs_once_through_the_clip(seed: int) -> None:
    j, _ = sampler([], whole=1.0).sample(ramp(10), np.random.default_rng(seed))
    t = j[:, 0, 0]
    assert (np.diff(t) > 0).all()  # warped, never backwards
    assert -1e-3 <= t[0] <= 1.2 + 1e-3 and 8.8 - 0.1 <= t[-1] <= 10 + 1e-3  # up to 12 % off either end


@some
@given(st.integers(0, 100_000), st.sampled_from([0.8, 10.0]))
def test_a_cut_view_lasts_about_as_long_as_the_devices_window(seed: int, seconds: float) -> None:
    s = sampler([], whole=0.0, frames=33, step=1 / 16)
    j, v = s.sample(ramp(seconds), np.random.default_rng(seed))
    t = j[:, 0, 0]
    assert (np.diff(t) > -1e-4).all() and (v > 0).all()
    # 2 s ± e^0.2; the ramp stands still while a round is bridged, and starts anew up to four times.
    rounds = np.ceil(2 * np.exp(0.2) / (seconds + 0.15)) + 1
    assert 2 * np.exp(-0.2) - 0.25 * rounds < t[-1] - t[0] < 2 * np.exp(0.2) + 1e-2


def test_views_differ_in_phase_span_and_crop() -> None:
    s = sampler([], whole=0.0, frames=33, step=1 / 16)
    cut = np.array([s.sample(ramp(20), np.random.default_rng(i))[0][[0, -1], 0, 0] for i in range(200)])
    assert np.ptp(cut[:, 0]) > 15 and cut[:, 0].std() == pytest.approx(20 / 12**0.5, rel=0.15)  # any phase
    span = cut[:, 1] - cut[:, 0]
    assert span.min() < 1.75 and span.max() > 2.35
    half = sampler([], frames=33, step=1 / 16)  # most of the views are whole clips, by default
    long = [np.ptp(half.sample(ramp(20), np.random.default_rng(i))[0][:, 0, 0]) > 5 for i in range(400)]
    assert np.mean(long) == pytest.approx(0.7, abs=0.08)


@pytest.mark.parametrize(("frames", "fps"), [(8, 30), (8, 10), (2, 25)])
def test_clips_of_a_few_frames_can_be_sampled(frames: int, fps: float) -> None:
    rng = np.random.default_rng(0)
    clip = Clip(rng.standard_normal((frames, 15, 3)).astype(np.float32), np.ones((frames, 15), np.float32), fps, "1")
    for i in range(60):
        j, v = sampler([], whole=0.5).sample(clip, np.random.default_rng(i))
        assert j.shape == (16, 15, 3) and v.shape == (16, 15) and np.isfinite(j).all() and v.min() > 0


@pytest.mark.skipif(not UTD.is_dir(), reason="the UTD-MHAD clips are not at ../shared/data/utd_mhad")
def test_utd_mhad_is_what_its_paper_says() -> None:
    s = load_set(UTD)
    assert len(s.clips) == 861 and len(s.names) == 27
    assert sorted(set(s.subjects)) == list("12345678")
    train = subject_split(s.subjects)
    assert sorted(set(s.subjects[train])) == ["1", "3", "5", "7"]
    assert set(s.label[train]) == set(s.label[~train]) == set(range(27))
