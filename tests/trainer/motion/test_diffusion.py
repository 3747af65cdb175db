"""The motion model's schedule, sampler and space do what they must."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import Tensor

from edge.skeleton import PARENTS
from tests.trainer.made import windows
from trainer.augment import rotation
from trainer.motion.diffusion import (
    NOISE_STEPS,
    MotionSpace,
    Place,
    absolute,
    cosine_schedule,
    sample,
    with_bones_of,
)

from .small import SHAPE, noise_of

JOINTS, VISIBLE = windows("walk", "wave", "fall", frames=24)


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


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 50), (1.0, 10), (0.4, 20), (0.02, 50)])
def test_with_an_oracle_ddim_finds_the_clean_sample(strength: float, steps: int) -> None:
    clean, start = noise_of(1), noise_of(2)
    found = sample(oracle(clean), start, noise_of(3), strength=strength, steps=steps)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_the_sampler_visits_the_levels_it_should() -> None:
    seen: list[tuple[int, float]] = []

    def denoise(z: Tensor, step: int) -> Tensor:
        seen.append((step, float(z.std())))
        return oracle(torch.zeros_like(z))(z, step)

    # On the way to a clean sample of zeros, each level has only its noise left: √(1−ᾱ).
    sample(denoise, torch.zeros(200, 8, 45), noise_of(4, (200, 8, 45)), strength=0.6, steps=6)
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
        sample(denoise, start, torch.zeros(3, 8, 45), strength=strength, steps=1)
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
