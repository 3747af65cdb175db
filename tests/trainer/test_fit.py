"""A training run learns, can be killed at any time, and leaves what it should behind."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from edge.bundle import CALIBRATION, WEIGHTS, open_bundle
from edge.commands.embedding import CUTS
from edge.errors import ClipError, OutputError, SettingsError
from edge.score import match
from tests.trainer.made import ENCODER, made, tiny
from trainer.datasets import Batch, ClipSet, held_out
from trainer.encoder import Encoder
from trainer.evaluate import few_shot
from trainer.fit import Trainer, embed_clips, load_sets, make_bundle, not_validated, prefetched, validate
from trainer.progress import Stopped, checkpoint_path, stop_on_signal


def silent(step: int, loss: float, news: str) -> None:
    """Discard the reports."""


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Killed(Exception):
    """Stands for a power cut."""


def test_every_nth_subject_is_held_out_in_natural_order() -> None:
    subjects = np.array(["10", "1", "2", "3", "4", "5", "6", "7", "8", "9", "4"])
    assert sorted(set(subjects[held_out(subjects, 4)])) == ["4", "8"]
    assert sorted(set(subjects[held_out(subjects, 5)])) == ["10", "5"]
    assert held_out(subjects, 4).tolist().count(True) == 3
    assert not held_out(subjects, 0).any() and not held_out(np.array(["a", "b", "c"]), 4).any()


def test_sets_of_one_category_are_left_out(folder: Path) -> None:
    both = load_sets(folder, tiny())
    assert [s.name for s in both] == ["first", "second"]
    assert [s.name for s in load_sets(folder, tiny(exclude=["second/[jl]*"]))] == ["first"]
    with pytest.raises(ClipError, match="nothing to train on"):
        load_sets(folder, tiny(exclude=["*"]))


def test_globs_that_match_nothing_are_said(folder: Path) -> None:
    said: list[str] = []
    load_sets(folder, tiny(exclude=["second/[jl]*", "walk"], merge={"third/*": "x"}), said.append)
    told = [text for text in said if "matches nothing" in text]
    assert len(told) == 2 and told[0].startswith("'walk'") and told[1].startswith("'third/*'")
    assert "first/" in told[0]


def test_where_nothing_can_be_measured_on_people_held_out_the_reason_is_said(sets: list[ClipSet]) -> None:
    people = len(set(sets[0].subjects))
    assert list(not_validated(sets[:1], 2)) == []
    (none,) = not_validated(sets[:1], 0)
    (few,) = not_validated(sets[:1], people + 1)
    assert "hold_out is 0" in none and f"every {people + 1}th person, and its clips name {people}" in few
    lacking = sets[0].subset(~(held_out(sets[0].subjects, 2) & (sets[0].label == 1)))
    (gone,) = not_validated([lacking], 2)
    assert f"both these people and the others need clips of {sets[0].names[1]}" in gone and sets[0].name in gone


def test_a_run_that_is_told_to_stop_ends_where_an_uninterrupted_one_does(sets: list[ClipSet], tmp_path: Path) -> None:
    config = tiny(steps=7, validate_every=100)
    whole, first, second = (Trainer(sets, config) for _ in range(3))
    whole.run(silent)
    with stop_on_signal() as stop, pytest.raises(Stopped, match="5"):
        first.run(lambda step, *_: signal.raise_signal(signal.SIGTERM) if step == 5 else None, tmp_path / "c.pt", stop)
    seen: list[int] = []
    second.run(lambda step, *_: seen.append(step), tmp_path / "c.pt")
    assert seen == [6, 7] and same(second.average, whole.average)


def test_the_second_signal_ends_the_process_as_ever() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop() and signal.getsignal(signal.SIGINT) == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stop_on_signal(enabled=False) as stop:
        assert signal.getsignal(signal.SIGINT) == before and not stop()
    assert signal.getsignal(signal.SIGINT) == before


def test_only_a_finished_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert checkpoint_path(tmp_path, "manifest.json") == tmp_path / "checkpoint.pt"
    (tmp_path / "manifest.json").touch()
    with pytest.raises(OutputError, match="the result of an earlier training"):
        checkpoint_path(tmp_path, "manifest.json")
    (tmp_path / "checkpoint.pt").touch()
    assert checkpoint_path(tmp_path, "manifest.json").exists()


def test_a_killed_run_ends_where_an_uninterrupted_one_does(sets: list[ClipSet], tmp_path: Path) -> None:
    config = tiny(steps=7, validate_every=3)
    whole = Trainer(sets, config)
    whole.run(silent)

    def dies(step: int, loss: float, news: str) -> None:
        if step == 5:
            raise Killed

    checkpoint = tmp_path / "run/checkpoint.pt"
    first = Trainer(sets, config)
    with pytest.raises(Killed):
        first.run(dies, checkpoint)
    assert first.step == 5

    torch.manual_seed(99)  # a new process starts with another state of the generator
    seen: list[int] = []
    second = Trainer(sets, config)
    second.run(lambda step, loss, news: seen.append(step), checkpoint)
    assert seen == [4, 5, 6, 7]  # from the checkpoint at 3
    assert same(second.encoder, whole.encoder) and same(second.average, whole.average)
    assert not same(second.encoder, first.encoder)
    again = Trainer(sets, config)
    again.save(checkpoint)
    assert not checkpoint.with_suffix(".tmp").exists()


def test_a_finished_run_is_not_trained_further(sets: list[ClipSet], tmp_path: Path) -> None:
    config = tiny(steps=2, validate_every=2)
    done = Trainer(sets, config)
    done.run(silent, tmp_path / "c.pt")
    more = Trainer(sets, config)
    more.run(lambda *a: pytest.fail("a step too many"), tmp_path / "c.pt")
    assert more.step == 2 and same(done.average, more.average)


def test_the_checkpoint_of_another_run_is_refused(sets: list[ClipSet], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    Trainer(sets, tiny()).save(path)
    Trainer(sets, tiny()).load(path)
    other_data = [replace(sets[0], digest="0" * 64), sets[1]]
    with pytest.raises(SettingsError, match=r"differs in its config \(seed, threads\) and its data"):
        Trainer(other_data, tiny(seed=1, threads=2)).load(path)
    for trainer in (Trainer(sets, tiny(seed=1)), Trainer(other_data, tiny()), Trainer(sets[:1], tiny())):
        with pytest.raises(SettingsError, match=r"checkpoint\.pt.*another run.*delete it"):
            trainer.load(path)
    for bad in (b"", b"rubbish"):
        path.write_bytes(bad)
        with pytest.raises(SettingsError, match=r"not a readable checkpoint.*delete it"):
            Trainer(sets, tiny()).load(path)
    for strange in ({"weights": torch.ones(1)}, [1, 2]):
        torch.save(strange, path)
        with pytest.raises(SettingsError, match=r"checkpoint\.pt.*delete it"):
            Trainer(sets, tiny()).load(path)


def test_the_loss_falls(sets: list[ClipSet]) -> None:
    losses: list[float] = []
    config = tiny(steps=40, learning_rate=1e-2, validate_every=1000, hold_out=0)
    Trainer(sets[:1], config).run(lambda step, loss, news: losses.append(loss))
    assert len(losses) == 40 and all(map(math.isfinite, losses))
    # 24 samples of 4 categories: log 23 = 3.1 when all look alike.
    assert 2.3 < np.mean(losses[:4]) < 4.5
    assert np.mean(losses[-8:]) < np.mean(losses[:4]) - 0.25


def test_the_same_seed_gives_the_same_model(sets: list[ClipSet]) -> None:
    trained = []
    for seed in (0, 0, 1):
        trained.append(Trainer(sets, tiny(steps=2, seed=seed)))
        trained[-1].run(silent)
    assert same(trained[0].encoder, trained[1].encoder) and not same(trained[0].encoder, trained[2].encoder)


def test_the_rate_rises_and_then_falls_to_nothing(sets: list[ClipSet]) -> None:
    t = Trainer(sets, tiny(steps=1000, learning_rate=0.01))
    found = []
    for t.step in (0, 49, 100, 500, 999, 1000):
        found.append(t.rate())
    # Rise over 100 steps; half a cosine: cos(0.049π) and so on, worked out by hand.
    expected = [0.01 / 100, 0.005 * 0.994089, 0.01 * 0.975528, 0.005, 2.467e-8, 0]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-12)
    long = Trainer(sets, tiny(steps=100_000, learning_rate=1.0))
    long.step = 99
    assert long.rate() == pytest.approx(0.5, abs=1e-4)  # never more than 200 steps of rise
    for short in (1, 5):
        assert 0 < Trainer(sets, tiny(steps=short, learning_rate=1.0)).rate() <= 1


def test_the_average_follows_the_weights(sets: list[ClipSet]) -> None:
    t = Trainer(sets, tiny(average=0.15, steps=100, learning_rate=1e-2))
    name = "leave.weight"
    expected = t.average.state_dict()[name].clone()
    batches = t.sampler.batches()
    for keep in (0.1, 0.15, 0.15):  # 1/10, then the decay, which 2/11 exceeds
        t.train_step(next(batches))
        assert t.encoder.training
        t.encoder.eval()  # what validation may leave behind
        expected = keep * expected + (1 - keep) * t.encoder.state_dict()[name]
        torch.testing.assert_close(t.average.state_dict()[name], expected, atol=1e-6, rtol=0)
    assert t.average.state_dict()["scale_in.norm.num_batches_tracked"] == 3
    assert not t.average.training


def test_held_out_subjects_are_never_trained_on(sets: list[ClipSet]) -> None:
    t = Trainer(sets, tiny(hold_out=4))
    assert set(t.sampler.sets[0].subjects) == {"1", "2", "3"} and set(t.sampler.sets[1].subjects) == {"1", "2"}
    assert set(t.sets[0].subjects) == {"1", "2", "3", "4"}


def test_holding_everybody_out_is_refused(sets: list[ClipSet]) -> None:
    with pytest.raises(SettingsError, match=r"hold_out.*first"):
        Trainer(sets, tiny(hold_out=1))


def test_validation_is_few_shot_by_the_mean_over_the_shots(
    sets: list[ClipSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sets[0]
    embedding = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    monkeypatch.setattr("trainer.fit.embed_clips", lambda encoder, clips: embedding)
    found = validate(Encoder(ENCODER), sets, 4, draws=3)
    assert list(found) == ["first"]  # `second` has two subjects, so nobody is held out
    side = np.where(first.subjects == "4", "b", "a")
    names = np.array(first.names)[first.label]
    means = [
        few_shot(embedding, names, side, shots=3, draws=3, distance=distance).mean
        for distance in (partial(match, temperature=1e6), partial(match, temperature=0.05))
    ]
    assert found["first"] == means[0] != means[1]
    assert validate(Encoder(ENCODER), sets, 0) == {}


def test_a_loss_that_is_no_number_stops_the_run(sets: list[ClipSet]) -> None:
    t = Trainer(sets, tiny())
    with torch.no_grad():
        t.encoder.head.leave.bias.fill_(float("nan"))
    with pytest.raises(SettingsError, match=r"loss is nan at step 1.*learning_rate"):
        t.run(silent)


def test_whole_clips_are_embedded_by_the_frames_of_their_cuts(sets: list[ClipSet]) -> None:
    encoder = Encoder(ENCODER).eval()
    clips = [made("walk", 1), made("walk", 2, seconds=3.0), made("clap", 1)]
    found = embed_clips(encoder, clips)
    last, cuts = len(clips[1].joints) - 1, []
    for start, stop in CUTS:
        at = np.linspace(start * last, stop * last, 16)
        rows = [np.interp(at, np.arange(61), clips[1].joints[:, j, k]) for j in range(15) for k in range(3)]
        cuts.append(np.stack(rows, 1).reshape(16, 15, 3))
    made_of = encoder(torch.tensor(np.stack(cuts), dtype=torch.float32), torch.ones(len(cuts), 16, 15))
    expected = torch.nn.functional.normalize(made_of.mean(0), dim=0).detach().numpy()
    np.testing.assert_allclose(found[1], expected, atol=1e-4)


def test_the_bundle_opens_and_says_how_it_was_made(sets: list[ClipSet], tmp_path: Path) -> None:
    config = tiny(steps=2, terms={"first": "made here"})
    t = Trainer(sets, config)
    t.run(silent)
    t.seconds = 90.0
    made_bundle = make_bundle(t, tmp_path / "b")
    b = open_bundle(tmp_path / "b")
    assert b == made_bundle
    m = b.manifest
    assert (m.name, m.frames, m.seconds, m.embedding, m.temperature) == ("tiny", 16, 1.0, 16, 0.07)
    assert m.encoder == m.files[WEIGHTS] and set(m.files) == {WEIGHTS, CALIBRATION}
    assert m.architecture["width"] == 16 and m.architecture["parameters"] == sum(
        p.numel() for p in t.encoder.parameters()
    )
    weights = load_tensors(b.read(WEIGHTS))
    # The averaged weights become the model.
    assert torch.equal(weights["encoder.enter.0.mix"], t.average.enter[0].mix)
    assert not torch.equal(weights["encoder.enter.0.mix"], t.encoder.enter[0].mix)
    first, second = m.training["sets"]
    assert (first["name"], first["clips"], first["categories"], first["terms"]) == ("first", 32, 4, "made here")
    assert first["held_out_subjects"] == ["4"] and second["held_out_subjects"] == []
    assert second["terms"] == "not stated" and first["sha256"] == sets[0].digest
    assert m.training["minutes"] == 1.5 and m.training["seed"] == 0 and m.training["config"]["steps"] == 2
    assert set(m.accuracy["held_out_subjects_auroc_3_shot"]) == {"first"}
    calibration = b.calibration()
    assert {"cohort", "level", "level_one", "margin"} <= set(calibration)
    np.testing.assert_allclose(np.linalg.norm(calibration["cohort"].astype(float), axis=1), 1, atol=2e-3)


def test_what_a_sampler_raises_ends_the_training_instead_of_leaving_it_waiting() -> None:
    def batches() -> Iterator[Batch]:
        yield Batch(*(np.zeros(1) for _ in range(4)))  # type: ignore[arg-type]
        raise ValueError("no such clip")

    ahead = prefetched(batches())
    next(ahead)
    with pytest.raises(ValueError, match="no such clip"):
        next(ahead)
