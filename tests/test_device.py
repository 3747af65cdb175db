"""On a device, which has neither torch nor what else training needs, `pytest` runs what is for a device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ABSENT = ("torch", "lightning_fabric", "safetensors", "sklearn", "zuko", "onnx", "paho", "tensorrt_rtx_bindings")
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_its_tests_are_collected_without_what_training_needs() -> None:
    command = [sys.executable, "-c", WITHOUT, "-p", "no:cacheprovider", "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-2000:]
    found = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert found >= {
        "tests/edge/engine/test_gpu.py",
        "tests/integration/test_gpu.py",
        "tests/edge/test_runtime.py",
        "tests/integration/test_process.py",
    }
    assert not [name for name in found if name.startswith(("tests/trainer", "tests/builder"))]
