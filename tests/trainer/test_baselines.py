"""The floor against scipy's transform of poses normalised by hand."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct

from edge.clip import Clip
from edge.motion import make_motion
from trainer.baselines import raw_dct
from trainer.encoder import EncoderConfig


def test_the_floor_is_the_unit_dct_of_the_normalised_clip() -> None:
    # A person who already faces −z, of any size: only root and scale remain to be removed.
    rng = np.random.default_rng(0)
    base = make_motion("stand", seconds=2, seed=0).joints[0]
    across = base[[6, 12]].sum(0) - base[[3, 9]].sum(0)
    yaw = np.arctan2(across[2], across[0])
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    t = np.linspace(0, 1, 24)[:, None]
    wave = np.zeros((24, 15, 3))
    wave[:, 5] = np.sin(2 * np.pi * t) * [0.0, 0.2, 0.1]
    joints = ((base - base[0]) @ turn + wave + rng.normal(0, 1e-4, wave.shape)).astype(np.float32)
    found = raw_dct([Clip(joints, np.ones((24, 15), np.float32), 23)], EncoderConfig(frames=24, coefficients=6))[0]

    relative = joints - joints[:, :1]
    relative[:, 0] = joints[:, 0] - joints[:, 0].mean(0)
    expected = dct(relative.reshape(24, 45), axis=0, norm="ortho")[:6].ravel()
    assert float(found @ expected / np.linalg.norm(expected)) > 0.999
    np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-5)


def test_it_tells_made_motions_apart_and_knows_a_turned_one() -> None:
    clips = [make_motion(n, seconds=4, seed=s) for n, s in (("squat", 1), ("squat", 2), ("wave", 3))]
    turned = Clip(clips[0].joints[:, :, [2, 1, 0]] * [-1, 1, 1], clips[0].visible, clips[0].fps)
    a, b, c, a_turned = raw_dct([*clips, Clip(turned.joints.astype(np.float32), turned.visible, turned.fps)])
    assert a @ b > a @ c
    assert a @ a_turned > 0.999
