"""One small trained bundle, copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builder.examples import Examples, gate_examples
from builder.export import build_onnx
from edge.bundle import Bundle, open_bundle
from tests.trainer.made import tiny, write_set
from trainer.datasets import load_set
from trainer.fit import Trainer, make_bundle


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Trained, not built. Do not change it."""
    root = tmp_path_factory.mktemp("trained")
    trainer = Trainer([load_set(write_set(root / "set", ("walk", "wave", "squat")))], tiny(steps=3, learning_rate=1e-2))
    trainer.run(lambda step, loss, news: None)
    return make_bundle(trainer, root / "bundle")


@pytest.fixture
def bundle(trained: Bundle, tmp_path: Path) -> Bundle:
    """A copy of it."""
    return open_bundle(shutil.copytree(trained.root, tmp_path / "bundle"))


@pytest.fixture
def built(bundle: Bundle) -> Bundle:
    """One with its graph."""
    return build_onnx(bundle)


@pytest.fixture(scope="session")
def examples() -> Examples:
    """What the gate judges, for its frames and seconds."""
    return gate_examples(16, 1.0)
