"""The motion model: its schedule, sampler and space against what they must do, its training, and its files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import Tensor

from edge.clip import Clip
from edge.errors import BundleError, ClipError, SettingsError
from edge.skeleton import PARENTS
from tests.trainer.made import made, windows
from trainer.augment import rotation
from trainer.datasets import ClipSet
from trainer.motion.config import MotionConfig, load_motion_config
from trainer.motion.diffusion import (
    NOISE_STEPS,
    MotionNet,
    MotionShape,
    MotionSpace,
    Place,
    absolute,
    cosine_schedule,
    sample,
    with_bones_of,
)
from trainer.motion.fit import MotionTrainer, load_clip_sets, make_model, split, stretch
from trainer.motion.generate import COMPLETE, GENERATED, Recipe, generate
from trainer.motion.model import MANIFEST, WEIGHTS, MotionModel, open_motion

SHAPE = MotionShape(frames=24, coefficients=8, width=16, layers=1, heads=2)
JOINTS, VISIBLE = windows("walk", "wave", "fall", frames=24)
ROOT = Path(__file__).parents[3]


def tiny(**given: object) -> MotionConfig:
    values = {"name": "tiny", "steps": 7, "batch": 8, "validate_every": 3, "span": 1.0, "shape": SHAPE}
    return MotionConfig.model_validate(values | given)


def silent(step: int, loss: float, news: str) -> None:
    """A report that nobody reads."""


def noise_of(seed: int, shape: tuple[int, ...] = (3, 8, 45)):  # type: ignore[no-untyped-def]
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=rng)


@pytest.fixture(scope="module")
def model(sets: list[ClipSet], tmp_path_factory: pytest.TempPathFactory) -> MotionModel:
    trainer = MotionTrainer(sets, tiny(steps=3))
    trainer.run(silent)
    root = tmp_path_factory.mktemp("motion")
    make_model(trainer, root)
    return open_motion(root)


# The schedule and the sampler.


def test_the_schedule_is_the_closed_formula() -> None:
    found = cosine_schedule()
    assert found.shape == (NOISE_STEPS + 1,)

    def f(t: int) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in (0, 1, 250, 500, 999):
        assert float(found[t]) == pytest.approx(f(t) / f(0), rel=1e-9)
    # The last step would remove everything; it is held at 0.999.
    assert float(found[1000]) == pytest.approx(0.001 * f(999) / f(0), rel=1e-9)
    assert (found.diff() < 0).all()


def oracle(clean: Tensor):  # type: ignore[no-untyped-def]
    """A denoiser that knows the truth: v for the noise that is really in z."""
    schedule = cosine_schedule()

    def denoise(z: Tensor, step: int) -> Tensor:
        a = float(schedule[step])
        noise = (z - math.sqrt(a) * clean) / math.sqrt(1 - a)
        return math.sqrt(a) * noise - math.sqrt(1 - a) * clean

    return denoise


@pytest.mark.parametrize(
    ("strength", "steps", "eta"), [(1.0, 50, 0.0), (1.0, 10, 1.0), (0.4, 20, 0.0), (0.02, 50, 0.5)]
)
def test_with_an_oracle_ddim_finds_the_clean_sample(strength: float, steps: int, eta: float) -> None:
    clean, start = noise_of(1)(), noise_of(2)()
    found = sample(oracle(clean), start, noise_of(3), strength=strength, steps=steps, eta=eta)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_the_sampler_visits_the_levels_it_should() -> None:
    seen: list[tuple[int, float]] = []

    def denoise(z: Tensor, step: int) -> Tensor:
        seen.append((step, float(z.std())))
        return oracle(torch.zeros_like(z))(z, step)

    # Towards a clean sample of zeros all that is left at each level is its noise: √(1−ᾱ), with any eta.
    for eta in (0.0, 1.0):
        seen.clear()
        sample(denoise, torch.zeros(200, 8, 45), noise_of(4, (200, 8, 45)), strength=0.6, steps=6, eta=eta)
        assert [s for s, _ in seen] == [600, 500, 400, 300, 200, 100]
        for step, spread in seen:
            assert spread == pytest.approx(math.sqrt(1 - float(cosine_schedule()[step])), rel=0.02)


def test_the_strength_says_how_much_of_the_start_is_left() -> None:
    start = torch.full((3, 8, 45), 5.0)
    first: list[Tensor] = []

    def denoise(z: Tensor, step: int) -> Tensor:
        first.append(z)
        return torch.zeros_like(z)

    for strength in (0.3, 1.0):
        sample(denoise, start, lambda: torch.zeros(3, 8, 45), strength=strength, steps=1)
    assert float(first[0].mean()) == pytest.approx(5 * math.sqrt(float(cosine_schedule()[300])), rel=1e-5)
    assert first[1].eq(0).all()  # nothing: it is made anew


# The space.


def test_place_is_the_way_back_to_metres() -> None:
    space = MotionSpace(SHAPE)
    # Somewhere else, another size, another heading.
    turned = JOINTS @ rotation(torch.tensor([0.5, -2.0, 3.0]), torch.zeros(3), torch.zeros(3))[:, None]
    joints = turned * torch.tensor([0.7, 1.0, 1.4])[:, None, None, None] + torch.tensor([4.0, -1.0, 2.0])
    visible = VISIBLE.clone()
    visible[1, 5:9, 4] = 0
    visible[2, :, 14] = 0
    joints = joints * visible[..., None]
    body, place = space.body(joints, visible)
    assert body[:, 0, :3].abs().amax() < 1e-5  # the path begins at the origin
    back = place.back(absolute(body))
    torch.testing.assert_close(back[visible > 0], joints[visible > 0], atol=2e-4, rtol=0)
    # Nothing of place, size and heading is in the body.
    torch.testing.assert_close(space.body(JOINTS[:1], VISIBLE[:1])[0], body[:1], atol=1e-3, rtol=0)


def test_place_of_a_body_without_extent_is_finite() -> None:
    place = Place.between(torch.zeros(1, 4, 15, 3), torch.zeros(1, 4, 15, 3), torch.zeros(1, 4, 15))
    assert place.back(torch.zeros(1, 4, 15, 3)).eq(0).all()


def test_coefficients_are_the_whitened_cosine_transform() -> None:
    space = MotionSpace(SHAPE)
    body, _ = space.body(JOINTS, VISIBLE)
    expected = dct(body.numpy(), axis=1, norm="ortho")[:, :8]
    np.testing.assert_allclose(space.encode(body).numpy(), expected, atol=1e-4)
    space.fit(body)
    z = space.encode(body)
    np.testing.assert_allclose(space.mean.numpy(), expected.mean(0), atol=1e-4)
    torch.testing.assert_close(z.mean(0), torch.zeros(8, 45), atol=1e-3, rtol=0)
    free = space.deviation > 0.021
    torch.testing.assert_close(z.std(0, correction=0)[free], torch.ones(int(free.sum())), atol=1e-3, rtol=0)
    smooth = space.decode(z)
    torch.testing.assert_close(space.encode(smooth), z, atol=1e-3, rtol=0)
    assert (smooth - body).abs().mean() < 0.05


def test_history_repeats_the_last_frame_it_may_know() -> None:
    space = MotionSpace(SHAPE)
    body, _ = space.body(JOINTS, VISIBLE)
    found = space.history(body, torch.tensor([10, 24, 0]))
    padded = torch.cat([body[:1, :10], body[:1, 9:10].expand(-1, 14, -1)], 1)
    torch.testing.assert_close(found[:1], space.encode(padded))
    torch.testing.assert_close(found[1:2], space.encode(body[1:2]))
    assert found[2].eq(0).all()
    other = body.clone()
    other[:, 10:] += 1
    torch.testing.assert_close(space.history(other, torch.tensor([10, 10, 10]))[0], found[0])


def test_bones_get_the_sources_length_and_keep_their_direction() -> None:
    body, _ = MotionSpace(SHAPE).body(JOINTS, VISIBLE)
    new = body + 0.05 * torch.randn(body.shape, generator=torch.Generator().manual_seed(0))

    def bones(x: Tensor) -> Tensor:
        j = absolute(x)
        return torch.stack([j[:, :, i] - j[:, :, PARENTS[i]] for i in range(1, 15)], 2)

    out = with_bones_of(new, body)
    torch.testing.assert_close(bones(out).norm(dim=-1), bones(body).norm(dim=-1), atol=1e-4, rtol=0)
    cosine = torch.nn.functional.cosine_similarity(bones(out), bones(new), dim=-1)
    assert float(cosine.min()) > 0.9999
    assert torch.equal(out[..., :3], new[..., :3])  # the path


# Making clips.


def test_the_kept_part_of_a_completion_is_the_original(model: MotionModel) -> None:
    clips = [made("walk", 1, seconds=0.9), made("wave", 2, seconds=3.0)]
    first, second = generate(model, clips, recipe=COMPLETE)
    half = 8  # of 19 frames: those up to the model's twelfth
    np.testing.assert_array_equal(first.joints[:half], clips[0].joints[:half])
    assert np.abs(first.joints[half + 2 :] - clips[0].joints[half + 2 :]).max() > 0.05
    assert first.joints.shape == clips[0].joints.shape
    # A long clip gives a stretch of the model's second: its first half is somewhere in the original.
    assert second.joints.shape == (21, 15, 3)
    apart = [np.abs(second.joints[:half] - clips[1].joints[i : i + half]).max() for i in range(40)]
    assert min(apart) == 0


def test_what_follows_the_kept_part_follows_on(model: MotionModel) -> None:
    body, _ = model.net.space.body(JOINTS, VISIBLE)
    new = model.net.remake(body, 12, noise_of(0), strength=1.0, steps=10)
    assert torch.equal(new[:, :12], body[:, :12])
    step = (new[:, 12] - new[:, 11]).abs().amax()
    assert step < 0.35 and (new[:, 13:] - body[:, 13:]).abs().amax() > 0.1


def test_a_small_strength_changes_little_and_a_greater_one_more(model: MotionModel) -> None:
    clip = made("wave", 1, seconds=0.9)
    smooth, little, much = (
        generate(model, [clip], recipe=Recipe(strength=s))[0].joints - clip.joints for s in (0.01, 0.1, 0.6)
    )
    assert np.abs(smooth).mean() < np.abs(little).mean() < np.abs(much).mean()
    assert np.abs(smooth).mean() < 0.03


def test_a_generated_clip_stands_where_its_source_did(model: MotionModel) -> None:
    clip = made("wave", 2, seconds=0.9)
    there = replace(clip, joints=(clip.joints * 1.5 + [30, 1, -20]).astype(np.float32))
    found = generate(model, [there], recipe=Recipe(strength=0.2))[0]
    assert np.abs(found.joints.mean((0, 1)) - there.joints.mean((0, 1))).max() < 0.15
    assert np.ptp(found.joints[..., 1]) == pytest.approx(np.ptp(there.joints[..., 1]), rel=0.15)
    assert (found.fps, found.subject) == (there.fps, there.subject)
    assert found.source == f"{GENERATED}{model.name}, strength 0.2, keep 0, seed 0"


def test_what_is_hidden_stays_hidden(model: MotionModel) -> None:
    clip = made("wave", 2, seconds=0.9)
    visible = clip.visible.copy()
    visible[:, 5], visible[3:6, 8] = 0, 0
    clip = replace(clip, visible=visible, joints=np.where(visible[..., None] > 0, clip.joints, 0))
    found = generate(model, [clip])[0]
    np.testing.assert_array_equal(found.visible, visible)
    assert (found.joints[visible == 0] == 0).all() and np.isfinite(found.joints).all()


def test_the_seed_decides_and_the_company_does_not(model: MotionModel) -> None:
    a, b = made("walk", 1, seconds=0.9), made("squat", 2)
    one = generate(model, [a, b], 2)
    same = generate(model, [a, b], 2)
    assert all(np.array_equal(x.joints, y.joints) for x, y in zip(one, same, strict=True))
    alone = generate(model, [b], 1)[0]
    np.testing.assert_allclose(alone.joints, one[2].joints, atol=1e-4)
    assert not np.allclose(one[0].joints, one[1].joints, atol=1e-2)
    assert not np.allclose(generate(model, [a], seed=1)[0].joints, one[0].joints, atol=1e-2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(model, [a])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("given", [{"strength": 0.0}, {"strength": 1.5}, {"keep": 0.95}, {"steps": 0}, {"eta": -1.0}])
def test_a_recipe_out_of_range_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        Recipe(**given)  # type: ignore[arg-type]


# Training.


def test_stretches() -> None:
    clip = made("walk", 1, seconds=2.0)
    assert stretch(clip, 2.0, 0.5) is clip
    first, last = stretch(clip, 0.5, 0.0), stretch(clip, 0.5, 1.0)
    assert len(first.joints) == 11 and first.seconds == pytest.approx(0.5)
    np.testing.assert_array_equal(first.joints, clip.joints[:11])
    np.testing.assert_array_equal(last.joints, clip.joints[-11:])


def test_a_killed_run_ends_where_an_uninterrupted_one_does(sets: list[ClipSet], tmp_path: Path) -> None:
    whole = MotionTrainer(sets, tiny())
    whole.run(silent)

    def dies(step: int, loss: float, news: str) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MotionTrainer(sets, tiny()).run(dies, tmp_path / "c.pt")
    torch.manual_seed(99)
    seen: list[int] = []
    second = MotionTrainer(sets, tiny())
    second.run(lambda step, loss, news: seen.append(step), tmp_path / "c.pt")
    assert seen == [4, 5, 6, 7]
    for a, b in ((whole.net, second.net), (whole.average, second.average)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_the_checkpoint_of_another_run_is_refused(sets: list[ClipSet], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    MotionTrainer(sets, tiny()).save(path)
    for trainer in (MotionTrainer(sets, tiny(seed=1)), MotionTrainer(sets[:1], tiny())):
        with pytest.raises(SettingsError, match=r"checkpoint\.pt.*another run.*delete it"):
            trainer.load(path)
    path.write_bytes(b"rubbish")
    with pytest.raises(SettingsError, match=r"not a readable checkpoint.*delete it"):
        MotionTrainer(sets, tiny()).load(path)


def test_it_learns_what_it_is_shown(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny(steps=120, learning_rate=5e-3, average=0.9, validate_every=1000))
    before = trainer.validate()
    losses: list[float] = []
    trainer.run(lambda step, loss, news: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    after = trainer.validate()
    assert before and after and after < 0.8 * before


def test_held_out_people_are_not_trained_on(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny())
    assert {c.subject for c in split(sets, 4, held=True)} == {"4"} == {c.subject for c in trainer.test}
    assert "4" not in {c.subject for c in split(sets[:1], 4, held=False)}
    assert len(trainer.clips) + len(trainer.test) == sum(len(s.clips) for s in sets)
    with pytest.raises(SettingsError, match="hold_out 1 leaves no subject"):
        MotionTrainer(sets, tiny(hold_out=1))


def test_a_loss_that_is_no_number_stops_the_run(sets: list[ClipSet]) -> None:
    trainer = MotionTrainer(sets, tiny())
    with torch.no_grad():
        trainer.net.denoiser.place.fill_(float("nan"))
    with pytest.raises(SettingsError, match=r"loss is nan at step 1.*learning_rate"):
        trainer.run(silent)


# Configuration and files.


def test_the_committed_configuration_is_read() -> None:
    config = load_motion_config(ROOT / "configs/train-motion.yaml", seed=None, steps=9)
    assert config.steps == 9 and config.hold_out == 4 and "raw/*" in config.exclude


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 0", "'steps'"),
        ("widht: 3", "'widht'"),
        ("shape: {frames: 60, coefficients: 61}", "coefficients is 61"),
        ("shape: {width: 30, heads: 4}", "multiple of twice the heads"),
        ("- a\n- b", "not a list of settings"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_configurations_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"m\.yaml") as e:
        load_motion_config(path)
    assert said in str(e.value)


def test_the_model_is_what_was_trained_and_says_how(sets: list[ClipSet], tmp_path: Path) -> None:
    trainer = MotionTrainer(sets, tiny(steps=3, terms={"first": "made here"}))
    trainer.run(silent)
    wrote = make_model(trainer, tmp_path)
    found = open_motion(tmp_path)
    assert found.manifest == wrote.manifest and found.name == f"tiny-{found.manifest.weights[:12]}"
    for x, y in zip(found.net.state_dict().values(), trainer.average.state_dict().values(), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(found.net.denoiser.place, trainer.net.denoiser.place)
    record = found.manifest.training
    assert record["sets"][0]["terms"] == "made here" and record["sets"][0]["held_out_subjects"] == ["4"]
    assert record["sets"][1]["held_out_subjects"] == [] and record["held_out_loss"] > 0
    assert record["parameters"] == sum(p.numel() for p in MotionNet(SHAPE).parameters())


def test_broken_models_are_refused_with_the_reason(sets: list[ClipSet], tmp_path: Path) -> None:
    root = tmp_path / "m"
    with pytest.raises(BundleError, match=r"not a motion model.*haad-edge train-motion"):
        open_motion(root)
    make_model(MotionTrainer(sets, tiny()), root)
    good, weights = (root / MANIFEST).read_text(), (root / WEIGHTS).read_bytes()
    manifest = json.loads(good)

    def refused(said: str) -> None:
        with pytest.raises(BundleError, match=said) as e:
            open_motion(root)
        assert str(root) in str(e.value)

    for text, said in (
        ("{", "not JSON"),
        ("[]", "field"),
        (json.dumps(manifest | {"format": 2}), "format 2.*this program reads 1"),
        (json.dumps(manifest | {"span": -1}), "field 'span'"),
        (json.dumps(manifest | {"shape": manifest["shape"] | {"width": 24}}), "does not fit the shape"),
    ):
        (root / MANIFEST).write_text(text)
        refused(said)
    (root / MANIFEST).write_text(good)
    (root / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("sha256 is not the one")
    (root / WEIGHTS).unlink()
    refused("cannot be read")
    (root / WEIGHTS).write_bytes(weights)
    assert open_motion(root).manifest.name == "tiny"


def test_nothing_to_train_on(folder: Path) -> None:
    with pytest.raises(ClipError, match="nothing to train on"):
        load_clip_sets(folder, tiny(exclude=["*"]))
    assert [s.name for s in load_clip_sets(folder, tiny(exclude=["second/*"]))] == ["first"]


def test_a_clip_of_two_frames_can_be_varied(model: MotionModel) -> None:
    base = made("stand", 1)
    short = Clip(base.joints[:2], base.visible[:2], 20)
    assert generate(model, [short], recipe=COMPLETE)[0].joints.shape == (2, 15, 3)
