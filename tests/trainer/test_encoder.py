"""The model: what its normalisation removes and keeps, and the match compared with a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from edge.score import match
from edge.skeleton import CORE15, MIRROR, PARENTS
from tests.trainer.made import ENCODER, windows
from trainer.encoder import Encoder, Graph, Match, Normalise, dct_matrix

MOTIONS = ("walk", "wave", "pick_up", "fall", "squat")
JOINTS, VISIBLE = windows(*MOTIONS)
NORMALISE = Normalise(48)
R_WRIST, R_ELBOW, L_WRIST = (CORE15.index(n) for n in ("r_wrist", "r_elbow", "l_wrist"))
some = settings(derandomize=True, deadline=None, max_examples=30)


def normalise(joints: Tensor, visible: Tensor = VISIBLE) -> Tensor:
    return NORMALISE(joints, visible)[0].permute(0, 3, 2, 1)


def turned(joints: Tensor, yaw: float) -> Tensor:
    """Rotated about the vertical through the origin, from the textbook matrix for column vectors."""
    c, s = math.cos(yaw), math.sin(yaw)
    return torch.einsum("ij,...j->...i", torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]), joints)


@pytest.mark.parametrize(("n", "k"), [(48, 20), (16, 8), (7, 7), (60, 1)])
def test_the_dct_is_scipys(n: int, k: int) -> None:
    np.testing.assert_allclose(dct_matrix(n, k).numpy(), dct(np.eye(n), type=2, norm="ortho", axis=0)[:k], atol=1e-6)


@some
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-30, 30), st.floats(-math.pi, math.pi))
def test_place_and_heading_are_removed(x: float, y: float, z: float, yaw: float) -> None:
    moved = turned(JOINTS, yaw) + torch.tensor([x, y, z])
    # Single precision: at 50 m a coordinate is accurate to 4e-6 m.
    torch.testing.assert_close(normalise(moved), normalise(JOINTS), atol=2e-4, rtol=0)


@some
@given(st.floats(0.05, 1000))
def test_size_is_removed_up_to_half_a_percent(scale: float) -> None:
    expected, found = normalise(JOINTS), normalise(JOINTS * scale)
    factor = float((expected * found).sum() / (expected * expected).sum())
    assert 0.995 < factor < 1.005
    # Apart from that common factor nothing changes, least of all the pose.
    torch.testing.assert_close(found, expected * factor, atol=2e-3, rtol=0)


def test_the_result_stands_upright_faces_the_camera_and_has_the_reference_bodys_size() -> None:
    out = normalise(turned(JOINTS, 1.1))
    left, right = (out[:, :, [CORE15.index(f"{side}_{n}") for n in ("shoulder", "hip")]].mean((1, 2)) for side in "lr")
    across = right - left
    assert (across[:, 0] > 0.1).all()
    torch.testing.assert_close(across[:, 2], torch.zeros(len(MOTIONS)), atol=1e-4, rtol=0)
    walk, wave = out[0], out[1]
    assert float(walk[:, CORE15.index("head"), 1].min()) > 0.4  # up stays up
    shin = (wave[:, CORE15.index("l_ankle")] - wave[:, CORE15.index("l_knee")]).norm(dim=-1).mean()
    assert 0.38 < float(shin) < 0.47  # 0.246 of 1.7 m, the body differs by some percent
    torch.testing.assert_close(out[:, :, 0].mean(1), torch.zeros(len(MOTIONS), 3), atol=1e-5, rtol=0)


def test_left_and_right_stay_apart() -> None:
    mirrored = JOINTS[:, :, MIRROR] * torch.tensor([-1.0, 1.0, 1.0])
    out, other = normalise(JOINTS), normalise(mirrored)
    wave = MOTIONS.index("wave")
    # A right-hand wave's mirror image is a left-hand wave, not another view of the same.
    assert float(out[wave, :, R_WRIST, 1].mean() - out[wave, :, L_WRIST, 1].mean()) > 0.5
    assert float(other[wave, :, R_WRIST, 1].mean() - other[wave, :, L_WRIST, 1].mean()) < -0.5
    # The pelvis column is a path, so its own mirror image is x negated too.
    torch.testing.assert_close(other, out[:, :, MIRROR] * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-4, rtol=0)


def test_a_falls_drop_is_kept() -> None:
    joints, visible = windows("fall", frames=75)
    path = Normalise(75)(joints, visible)[0][0, 1, 0].numpy()
    metres = joints[0, :, 0, 1].numpy()
    bones = [np.linalg.norm(joints[0, :, j] - joints[0, :, PARENTS[j]], axis=-1).mean() for j in range(1, 15)]
    adult = [0.49, 0.20, 0.22, 0.32, 0.25, 0.22, 0.32, 0.25, 0.16, 0.42, 0.42, 0.16, 0.42, 0.42]
    scale = np.mean(np.array(bones) / adult)
    assert metres.max() - metres.min() > 0.7
    np.testing.assert_allclose(path, (metres - metres.mean()) / scale, atol=0.015)


@pytest.mark.parametrize("joint", [R_WRIST, CORE15.index("pelvis"), CORE15.index("l_knee")])
def test_a_joint_hidden_for_a_few_frames_is_filled_near_its_true_place(joint: int) -> None:
    joints, visible = windows("walk", "squat")
    hidden = visible.clone()
    hidden[:, 20:24, joint] = 0
    whole, filled = normalise(joints, visible), normalise(joints, hidden)
    at = [0, joint] if joint == 0 else [joint]
    # Body units are close to metres: within 9 cm in a stride's or a squat's quickest moment.
    assert float((filled - whole)[:, :, at].norm(dim=-1).max()) < 0.09
    rest = normalise(torch.where(hidden[..., None] > 0, joints, 0.0), visible)  # what no filling at all would give
    assert float((rest - whole)[:, :, at].norm(dim=-1).max()) > 0.3


def test_a_joint_never_seen_stands_at_the_centre_of_the_others() -> None:
    visible = VISIBLE.clone()
    visible[:, :, R_WRIST] = 0
    out, seen = normalise(JOINTS, visible), NORMALISE(JOINTS, visible)[1][:, 0, :, 0]
    assert seen[:, R_WRIST].eq(0).all() and seen[:, R_ELBOW].eq(1).all()
    places = out.clone()
    places[:, :, 0] = 0  # the pelvis is the origin of the others
    others = [j for j in range(15) if j != R_WRIST]
    torch.testing.assert_close(out[:, :, R_WRIST], places[:, :, others].mean(2), atol=2e-3, rtol=0)


@some
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from([1.0, 100.0, 1e5]))
def test_what_is_stored_in_hidden_joints_has_no_influence(seed: int, share: float, size: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    visible = (torch.rand(VISIBLE.shape, generator=rng) > share).float()
    garbage = torch.randn(JOINTS.shape, generator=rng) * size
    torch.testing.assert_close(
        normalise(torch.where(visible[..., None] > 0, JOINTS, garbage), visible),
        normalise(torch.where(visible[..., None] > 0, JOINTS, 0.0), visible),
        atol=1e-5,
        rtol=0,
    )


def test_windows_with_almost_nothing_to_see_stay_finite() -> None:
    encoder = Encoder(ENCODER).eval()
    joints, visible = windows("walk", "walk", "walk", frames=16)
    visible[0] = 0
    visible[1] = 0
    visible[1, 3, R_WRIST] = 1
    visible[2, :, 1:] = 0
    out = encoder(joints, visible)
    assert out.isfinite().all()
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(3), atol=1e-5, rtol=0)
    assert normalise(JOINTS, VISIBLE * 0).isfinite().all()


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    encoder = Encoder(ENCODER).eval()
    joints, visible = windows(*MOTIONS, frames=16)
    whole = encoder(joints, visible)
    assert whole.shape == (5, 16)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5), atol=1e-5, rtol=0)
    alone = torch.cat([encoder(joints[i : i + 1], visible[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)
    assert (whole[0] - whole[3]).norm() > 1e-3


def plain_distance(e: np.ndarray, support: np.ndarray, tau: float) -> float:
    """Σ w d with w = softmax(−d / τ), one number at a time."""
    d = [1 - sum(float(a) * float(b) for a, b in zip(e, s, strict=True)) for s in support]
    w = [math.exp(-x / tau) for x in d]
    return sum(a * b for a, b in zip(w, d, strict=True)) / sum(w)


def ragged(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unit embedding (4, 8), support (3, 6, 8), mask of 6, 3 and 1 rows."""
    rng = torch.Generator().manual_seed(seed)
    e, s = (torch.nn.functional.normalize(torch.randn(*n, generator=rng), dim=-1) for n in ((4, 8), (3, 6, 8)))
    return e, s, (torch.arange(6) < torch.tensor([[6], [3], [1]])).float()


@pytest.mark.parametrize("tau", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_the_match_is_the_softmax_weighted_cosine_distance(seed: int, tau: float) -> None:
    e, s, mask = ragged(seed)
    found = Match(tau)(e, s, mask).numpy()
    rows = mask.sum(1).int().tolist()
    expected = [[plain_distance(x, s[g, : rows[g]].numpy(), tau) for g in range(3)] for x in e.numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for g in range(3):
        np.testing.assert_allclose(match(e.numpy(), s[g, : rows[g]].numpy(), tau), np.array(expected)[:, g], atol=2e-6)


def test_the_nearest_rows_count_most_and_an_empty_category_counts_as_far() -> None:
    e, s, mask = ragged(0)
    found, plain_mean = Match(0.05)(e, s, mask), 1 - torch.einsum("bd,gkd->bgk", e, s).mul(mask).sum(-1) / mask.sum(1)
    assert (plain_mean[:, :2] > found[:, :2] + 0.05).all()
    torch.testing.assert_close(plain_mean[:, 2], found[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(Match(100.0)(e, s, mask), plain_mean, atol=0.02, rtol=0)
    torch.testing.assert_close(Match(0.05)(e, s, mask * 0), torch.ones(4, 3), atol=1e-6, rtol=0)


def test_a_row_that_the_mask_leaves_out_may_lie_nearer_than_all_others_at_any_temperature() -> None:
    e = torch.eye(8)[:1]
    s = torch.stack([-e, e, e], 1)  # exp((1 − (−1)) / 0.01) is beyond float32
    torch.testing.assert_close(Match(0.01)(e, s, torch.tensor([[1.0, 0, 0]])), torch.tensor([[2.0]]), atol=1e-5, rtol=0)


@some
@given(st.integers(0, 10_000))
def test_padding_and_order_of_the_support_change_nothing(seed: int) -> None:
    e, s, mask = ragged(seed)
    found = Match(0.05)(e, s, mask)
    assert (found > -1e-5).all() and (found < 2 + 1e-5).all()
    rng = torch.Generator().manual_seed(seed)
    padding = torch.nn.functional.normalize(torch.randn(s.shape, generator=rng), dim=-1)
    filled = torch.where(mask[..., None] > 0, s, padding)
    longer = torch.cat([filled, padding], 1)
    torch.testing.assert_close(Match(0.05)(e, longer, torch.cat([mask, mask * 0], 1)), found, atol=1e-6, rtol=0)
    order = torch.randperm(6, generator=rng)
    torch.testing.assert_close(Match(0.05)(e, s[:, order], mask[:, order]), found, atol=1e-5, rtol=0)


def test_the_ends_of_the_distance() -> None:
    e = torch.eye(4)[:1]
    one = torch.ones(1, 1)
    for support, expected in ((e, 0.0), (-e, 2.0), (torch.eye(4)[1:2], 1.0)):
        assert float(Match(0.05)(e, support[None], one)) == pytest.approx(expected, abs=3e-6)
    among_others = torch.stack([e[0], torch.eye(4)[1], torch.eye(4)[2]])[None]
    assert float(Match(0.05)(e, among_others, torch.ones(1, 3))) == pytest.approx(0, abs=3e-6)
    both_ends = torch.stack([torch.eye(4)[1], -torch.eye(4)[1]])[None]
    assert float(Match(0.05)(e, both_ends, torch.ones(1, 2))) == pytest.approx(1, abs=3e-6)


def test_the_graph_is_the_encoder_then_the_match() -> None:
    torch.manual_seed(1)
    graph = Graph(Encoder(ENCODER)).eval()
    joints, visible = windows("walk", "wave", frames=16)
    support = torch.nn.functional.normalize(torch.randn(2, 3, 16), dim=-1)
    support[1, 0] = graph.encoder(joints, visible)[0]
    embedding, distance = graph(joints, visible, support, torch.ones(2, 3))
    assert embedding.shape == (2, 16) and distance.shape == (2, 2)
    for g in range(2):
        expected = match(embedding.detach().numpy(), support[g].detach().numpy(), ENCODER.temperature)
        np.testing.assert_allclose(distance[:, g].detach().numpy(), expected, atol=1e-5)
    assert distance[0, 1] < distance[0, 0]


def test_a_person_of_whom_only_single_joints_are_seen_stays_bounded() -> None:
    # No bone has both its ends: the size is unknown, and must not be taken for 0.
    visible = torch.zeros_like(VISIBLE)
    visible[..., [CORE15.index(n) for n in ("head", "l_wrist", "r_ankle")]] = 1
    assert float(normalise(JOINTS * visible[..., None], visible).abs().max()) < 6


def test_the_default_encoder_is_small_enough_for_the_edge() -> None:
    encoder = Encoder().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(1, 48, 15, 3), torch.ones(1, 48, 15))
    multiply_adds = counter.get_total_flops() / 2
    assert 3e6 < multiply_adds < 5e6  # docs/train.md says 4.6 million
    assert 400_000 < sum(p.numel() for p in encoder.parameters()) < 500_000
