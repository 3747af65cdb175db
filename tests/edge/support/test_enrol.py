"""The support folder: what is cut, cached, packed, and what a bad clip does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.clip import Clip, load_clip, save_clip
from edge.engine import Engine, open_engine, run_all
from edge.errors import SupportError
from edge.ingest.posture import POSTURE_RULE
from edge.motion import make_motion
from edge.score import match
from edge.support.cache import FeatureCache
from edge.support.enrol import RULE, SupportSet, clip_windows, load_support


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(open_bundle(), max_batch=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "support"
    for name, shots in (("walk", 3), ("squat", 1)):
        for k in range(shots):
            save_clip(root / name / f"{k}.npz", make_motion(name, seconds=3, seed=k))
    return root


def load(root: Path, engine: Engine, cache: Path | None = None) -> SupportSet:
    return load_support(root, open_bundle(), engine, FeatureCache(cache or root.parent / "cache"))


def test_what_stands_on_its_head_is_told_of_whatever_the_cache_holds(folder: Path, engine: Engine) -> None:
    def said() -> list[str]:
        return [p.partition(" hips:")[0] for p in load(folder, engine).problems if "below hips" in p]

    assert said() == []
    for action, expected in (("squat", "category 'squat': heads are below"), ("walk", "support: heads are below")):
        for path in (folder / action).glob("*.npz"):
            clip = load_clip(path)
            save_clip(path, replace(clip, joints=clip.joints * np.array([1, -1, -1], np.float32)))
        for _ in range(2):
            assert said() == [expected]


def test_a_short_clip_is_looped_and_cut_at_every_phase() -> None:
    clip = make_motion("walk", seconds=3)
    joints, visible = clip_windows(clip, 48, 2.0)
    assert joints.shape == (13, 48, 15, 3) and visible.shape == (13, 48, 15)
    for k, start in enumerate(np.arange(0, 3.01, 0.25)):
        np.testing.assert_allclose(joints[k], clip.looped(start + np.arange(48) / 24)[0], atol=1e-5)


def test_a_long_clip_is_cut_as_it_is() -> None:
    clip = make_motion("walk", seconds=10)
    joints, _ = clip_windows(clip, 48, 2.0)
    assert len(joints) == 32
    np.testing.assert_allclose(joints[-1], clip.at(7.75 + np.arange(48) / 24)[0], atol=1e-5)
    just = Clip(np.zeros((121, 15, 3), np.float32), np.ones((121, 15), np.float32), 30)
    assert just.seconds == 4 and len(clip_windows(just, 48, 2.0)[0]) == 8, "two windows are long enough"


def test_even_two_frames_give_a_window() -> None:
    short = Clip(np.zeros((2, 15, 3), np.float32), np.ones((2, 15), np.float32), 30)
    assert clip_windows(short, 48, 2.0)[0].shape == (1, 48, 15, 3)


def test_features_are_the_engines_embeddings_padded_under_a_mask(folder: Path, engine: Engine) -> None:
    support = load(folder, engine)
    assert support.names == ("squat", "walk") and support.shots == (1, 3)
    assert support.mask.sum(1).tolist() == [13, 39] and support.features.shape[1] == 40
    expected = run_all(engine, *clip_windows(make_motion("squat", seconds=3, seed=0), 48, 2.0))[0]
    np.testing.assert_allclose(support.features[0][:13], expected, atol=1e-5)
    assert (support.features[support.mask == 0] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(support.features[support.mask > 0], axis=1), 1, atol=1e-5)
    assert (support.limit > 0).all() and (support.limit < 2).all()


def test_the_graphs_distance_is_the_reference_match(folder: Path, engine: Engine) -> None:
    support = load(folder, engine)
    engine.bind(support.features, support.mask)
    embedding, distance = run_all(engine, *clip_windows(make_motion("wave", seconds=4, seed=9), 48, 2.0))
    for g in range(2):
        rows = support.features[g][support.mask[g] > 0]
        np.testing.assert_allclose(
            distance[:, g], match(embedding, rows, open_bundle().manifest.temperature), atol=1e-5
        )


def test_the_second_load_embeds_nothing(folder: Path, engine: Engine) -> None:
    first = load(folder, engine)

    class Idle:
        staging, name = engine.staging, "idle"

        def bind(self, support: object, mask: object) -> None: ...

        def run(self, n: int) -> object:
            raise AssertionError("the cache should have known")

    again = load(folder, Idle())  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.features, first.features)
    assert again.version == first.version


def test_a_damaged_cache_is_made_anew(folder: Path, engine: Engine) -> None:
    first = load(folder, engine)
    for path in (folder.parent / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(load(folder, engine).features, first.features)


@pytest.mark.parametrize(
    "head", [b"\x93NUMPY\x01\x00v\x00\xd7'descr': '<f4', }" + b" " * 99 + b"\n", b"PK\3\4 nor this"]
)
def test_no_damage_of_the_cache_is_an_error(tmp_path: Path, head: bytes) -> None:
    cache, made = FeatureCache(tmp_path), np.ones((2, 3), np.float32)
    (tmp_path / "k.npy").write_bytes(head)
    np.testing.assert_array_equal(cache.get("k", 3, lambda: made), made)


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path, engine: Engine) -> None:
    nowhere = folder / "walk" / "0.npz"
    np.testing.assert_array_equal(load(folder, engine, nowhere).features, load(folder, engine).features)


def test_what_is_kept_is_of_one_encoder_and_one_window(folder: Path, engine: Engine) -> None:
    load(folder, engine)
    m = open_bundle().manifest
    kinds = {path.name.rpartition("-")[0] for path in (folder.parent / "cache").iterdir()}
    assert kinds == {f"{m.encoder[:16]}-{RULE}-{m.frames}x{m.seconds:g}", f"p{POSTURE_RULE}"}


def test_the_version_is_the_contents(folder: Path, engine: Engine, tmp_path: Path) -> None:
    before = load(folder, engine).version
    assert load(folder.rename(tmp_path / "elsewhere"), engine).version == before
    (tmp_path / "elsewhere" / "walk").rename(tmp_path / "elsewhere" / "stroll")
    assert load(tmp_path / "elsewhere", engine).version != before, "a category's name is part of it"
    (tmp_path / "elsewhere" / "stroll").rename(tmp_path / "elsewhere" / "walk")
    save_clip(tmp_path / "elsewhere" / "walk" / "0.npz", make_motion("walk", seconds=3, seed=7))
    assert load(tmp_path / "elsewhere", engine).version != before


def test_a_corrupt_clip_is_left_out_and_named(folder: Path, engine: Engine) -> None:
    (folder / "walk" / "1.npz").write_bytes(b"not a clip")
    (folder / "squat" / "0.npz").write_bytes(b"PK\3\4 nor this")
    support = load(folder, engine)
    assert support.names == ("walk",) and support.shots == (2,)
    text = "\n".join(support.problems)
    assert "1.npz" in text and "0.npz" in text and "category 'squat' has no usable clip" in text


@pytest.mark.parametrize("state", ["absent", "empty", "empty category", "only corrupt"])
def test_a_folder_without_a_usable_clip_is_refused(tmp_path: Path, engine: Engine, state: str) -> None:
    root = tmp_path / "support"
    if state != "absent":
        root.mkdir()
    if state.startswith(("empty c", "only")):
        (root / "walk").mkdir()
    if state == "only corrupt":
        (root / "walk" / "a.npz").write_bytes(b"x")
    with pytest.raises(SupportError, match="support"):
        load(root, engine)


def test_a_very_long_recording_is_thinned_evenly(tmp_path: Path, engine: Engine) -> None:
    clip = make_motion("walk", seconds=90)
    save_clip(tmp_path / "s" / "walk" / "0.npz", clip)
    assert load(tmp_path / "s", engine).mask.sum() == 256
    joints, _ = clip_windows(clip, 48, 2.0)
    for k, start in ((0, 0.0), (-1, 87.75)):
        np.testing.assert_allclose(joints[k], clip.at(start + np.arange(48) / 24)[0], atol=1e-4)


def test_a_clip_too_short_to_show_anything_is_named_and_used(folder: Path, engine: Engine) -> None:
    for name, seconds in (("blink", 0.4), ("half", 0.5)):
        save_clip(folder / "walk" / f"{name}.npz", make_motion("walk", seconds=seconds))
    found = load_support(folder, open_bundle(), engine, FeatureCache(None))
    assert [p for p in found.problems if "too short" in p] == [
        f"{folder / 'walk' / 'blink.npz'}: shorter than 0.5 s, which is too short to show an action"
    ]
    assert found.clips[found.names.index("walk")].count("blink.npz") == 1


def test_a_long_clip_does_not_crowd_out_the_short_ones(folder: Path, engine: Engine) -> None:
    save_clip(folder / "walk" / "0.npz", make_motion("walk", seconds=90))
    assert load(folder, engine).mask.sum(1).tolist() == [13, 256 // 3 + 2 * 13]


def test_the_nearest_clip_is_the_one_that_a_window_was_cut_from(folder: Path, engine: Engine) -> None:
    support = load(folder, engine)
    assert [support.nearest_clip(row, 1) for row in support.features[1][[0, 14, 38]]] == ["0.npz", "1.npz", "2.npz"]
    away = -support.features[1, :39].mean(0)  # what pads the rows is no clip, though it is nearer than all of them
    best = int((support.features[1, :39] @ away).argmax())
    assert (support.features[1, :39] @ away).max() < 0 and support.nearest_clip(away, 1) == f"{best // 13}.npz"


def test_wider_margins_lower_all_scores_alike(folder: Path, engine: Engine) -> None:
    support = load(folder, engine)
    wide = support.widened(2.0)
    np.testing.assert_allclose(wide.limit, 2 * support.limit)
    np.testing.assert_allclose(wide.limit * wide.usual, support.limit * support.usual, rtol=1e-12)


def test_a_folder_name_that_is_no_text_and_a_pipe_stop_nothing(folder: Path, engine: Engine) -> None:
    save_clip(Path(os.fsdecode(os.fsencode(folder) + b"/gr\xfcn")) / "0.npz", make_motion("wave", seconds=3))
    os.mkfifo(folder / "walk" / "pipe.npz")
    support = load(folder, engine)
    assert sorted(support.names) == ["gr\ufffdn", "squat", "walk"]
    assert any("pipe.npz" in p and "not a regular file" in p for p in support.problems)


def test_a_category_without_a_clip_is_named(folder: Path, engine: Engine) -> None:
    (folder / "jump").mkdir()
    (folder / ".git").mkdir()
    assert [p for p in load(folder, engine).problems if "holds no .npz" in p] == [
        "category 'jump' holds no .npz file that can be seen, and is not part of the support"
    ]


def test_a_category_with_a_single_clip_is_named_with_how_sure_its_limit_is(folder: Path, engine: Engine) -> None:
    (said,) = (p for p in load(folder, engine).problems if "one clip" in p)
    assert said.startswith("category 'squat' has one clip, so its limit is a guess: off by a factor of")


def test_as_many_categories_as_can_be_matched_and_no_more(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.support.enrol.MAX_CATEGORIES", 2)
    assert len(load(folder, engine).names) == 2
    monkeypatch.setattr("edge.support.enrol.MAX_CATEGORIES", 1)
    with pytest.raises(SupportError, match=r"2 categories.*at most 1 are matched"):
        load(folder, engine)


def test_of_more_clips_than_windows_some_have_none(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.support.enrol.MAX_WINDOWS", 2)
    assert load(folder, engine).mask.sum(1).tolist() == [2, 2], "of one clip, and of three"


@pytest.mark.parametrize("damage", ["narrow", "empty", "nan", "double"])
def test_a_cached_array_of_another_form_is_made_anew(folder: Path, engine: Engine, damage: str) -> None:
    first = load(folder, engine)
    for path in (folder.parent / "cache").iterdir():
        a = np.load(path)
        spoilt = {"narrow": a[:, :5], "empty": a[:0], "nan": a * np.float32("nan"), "double": a.astype(float)}
        np.save(path, spoilt[damage])
    np.testing.assert_array_equal(load(folder, engine).features, first.features)
    assert {np.load(path).dtype.str for path in (folder.parent / "cache").iterdir()} == {"<f4"}


def test_the_bytes_that_were_hashed_are_the_ones_embedded(
    folder: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(folder, engine)
    read = Path.read_bytes

    def read_and_replace(path: Path) -> bytes:
        data = read(path)
        if folder in path.parents:
            save_clip(path, make_motion("fall", seconds=3, seed=9))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    again = load(folder, engine, folder.parent / "other cache")
    assert again.version == first.version
    np.testing.assert_allclose(again.features, first.features, atol=1e-6)


def test_an_hour_at_one_frame_a_second_is_cut_into_few_windows() -> None:
    clip = Clip(np.zeros((100_000, 15, 3), np.float32), np.ones((100_000, 15), np.float32), 1.0)
    assert len(clip_windows(clip, 48, 2.0)[0]) == 256
