"""Records that cannot be true, plans that are damaged, and the commands that make them anew."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge.bundle import Bundle, open_bundle, write_bundle
from edge.engine.plans import choose
from edge.engine.record import FOLDER, RECORD, read_plan
from edge.errors import BundleError, NoPlan

from .test_plans import ORIN, bundle, put, record_of  # noqa: F401


@pytest.mark.parametrize(
    "changed", [{"latency_ms": {"8": [0.1]}}, {"together": 8}, {"together": 1 << 40}, {"workspace_mib": -1}]
)
def test_a_record_that_cannot_be_true_is_none(bundle: Bundle, changed: dict[str, Any]) -> None:  # noqa: F811
    with pytest.raises(ValidationError):
        record_of(bundle, **changed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"no JSON", r"engine\.json: not a record"),
        (b"[]", r"engine\.json: not a record"),
        (b'{"format": 2}', r"field 'format': another version of haad-edge wrote it → upgrade haad-edge, or haad-edge "),
    ],
)
def test_what_is_no_record_or_of_another_version_is_said(bundle: Bundle, text: bytes, said: str) -> None:  # noqa: F811
    name = f"{FOLDER}/tensorrt-10.3.0-sm87-fp16/{RECORD}"
    with pytest.raises(BundleError, match=said):
        read_plan(write_bundle(bundle.root, bundle.manifest, {name: text}), "tensorrt-10.3.0-sm87-fp16")


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"half a plan")])
def test_a_damaged_plan_does_not_fit_and_the_next_best_is_taken(
    bundle: Bundle,  # noqa: F811
    damage: Callable[[Path], object],
) -> None:
    best, other = "tensorrt-10.3.0-sm87-fp16", "tensorrt-10.3.0-sm87-fp32"
    both = put(put(bundle), target=other, precision="fp32")
    damage(both.root / FOLDER / best / "engine.plan")
    assert choose(both, ORIN)[0].target == other
    damage(both.root / FOLDER / other / "engine.plan")
    with pytest.raises(NoPlan, match=rf"{best}: .*engine\.plan: .*{other}: .*→ haad-edge build .*--build-missing"):
        choose(both, ORIN)


def test_a_command_can_be_copied_whatever_the_folder_is_called(bundle: Bundle, tmp_path: Path) -> None:  # noqa: F811
    named = open_bundle(shutil.copytree(bundle.root, tmp_path / "my model's"))
    with pytest.raises(NoPlan) as e:
        choose(named, ORIN)
    words = shlex.split(e.value.fix.partition(", or run")[0])
    assert words[:3] == ["haad-edge", "build", str(named.root)]
