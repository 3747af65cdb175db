"""The sizes a plan is built for, as they are typed."""

from __future__ import annotations

import pytest

from builder.profile import parse_profile, parse_range, shapes
from edge.errors import EngineError
from edge.support.enrol import MAX_WINDOWS


def test_the_profile_is_what_the_options_say() -> None:
    p = parse_profile("1:16:64", "1:4:32x1:8:64")
    assert (p.batch, p.categories, p.shots) == ([1, 16, 64], [1, 4, 32], [1, 8, 64])
    assert parse_range("8", "--batch") == [8, 8, 8]
    found = shapes(p, 48, 15, 128)
    assert found["joints"] == [(1, 48, 15, 3), (16, 48, 15, 3), (64, 48, 15, 3)]
    assert found["support"] == [(1, 1, 128), (4, 8, 128), (32, 64, 128)]
    assert found["support_mask"][2] == (32, 64) and found["visible"][0] == (1, 48, 15)


def test_by_default_there_is_room_for_any_category_that_a_folder_has() -> None:
    assert parse_profile().shots == [1, 64, MAX_WINDOWS] and parse_profile().batch == [1, 16, 64]


@pytest.mark.parametrize(
    ("batch", "support", "said"),
    [
        ("1:16", "1x1", "be MIN:USUAL:MAX"), ("0:1:2", "1x1", "ascending"), ("4:2:8", "1x1", "ascending"),
        ("a:b:c", "1x1", "--batch"), ("1:2:99999", "1x1", "65536"), ("1", "1:2:3", "CATEGORIESxWINDOWS"),
        ("1", "1x", "--support"), ("1", "1x1x1", "--support"), ("-1:2:3", "1x1", "MIN"), ("²", "1x1", "MIN"),
    ],
)  # fmt: skip
def test_a_profile_that_is_none_is_refused_with_an_example(batch: str, support: str, said: str) -> None:
    with pytest.raises(EngineError, match=said) as e:
        parse_profile(batch, support)
    option, example = e.value.fix.removeprefix("for example ").split()
    assert parse_profile(**{option.removeprefix("--"): example})
