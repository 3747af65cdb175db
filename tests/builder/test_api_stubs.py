"""The code that touches TensorRT and pycuda, type-checked against the API of every TensorRT version it is for.

The stubs of TensorRT are not part of this repository: TENSORRT_STUBS names a folder <version>/tensorrt/__init__.pyi.
pycuda's are `typings/pycuda`, after its sources, with no more than what is used. All runs share `make lint`'s cache:
mypy reads anew what depends on the stubs, and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = Path(os.environ.get("TENSORRT_STUBS", ROOT.parent / "shared" / "tensorrt-api"))
VERSIONS = ("8.5.3", "8.6.0", "10.3.0", "10.13.3.9", "11.4.0.106")
FILES = (
    "edge/engine/tensorrt.py",
    "edge/engine/cuda.py",
    "builder/plan.py",
    "builder/compile.py",
    "benchmarks/gpu.py",
    "benchmarks/gpu_floor.py",
)

pytestmark = pytest.mark.skipif(not STUBS.is_dir(), reason=f"no stubs of TensorRT's API at {STUBS}")


def check(version: str, *files: str) -> str:
    """What mypy says of the files, for this version; '' if nothing."""
    assert (STUBS / version / "tensorrt" / "__init__.pyi").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *files],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": f"{ROOT / 'typings'}:{STUBS / version}"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    names = "|".join(re.escape(Path(w).name) for w in files)
    return "\n".join(line for line in done.stdout.splitlines() if re.match(rf"\S*\b(?:{names}):\d+: error", line))


@pytest.mark.parametrize("version", VERSIONS)
def test_only_what_this_version_has_is_used(version: str) -> None:
    assert check(version, *FILES) == ""


@pytest.mark.parametrize(
    ("file", "name", "wrong", "version"),
    [
        ("edge/engine/tensorrt.py", "execute_async_v3(", "execute_async_v2(", "11.4.0.106"),
        ("edge/engine/tensorrt.py", "num_io_tensors", "num_bindings", "10.3.0"),
        ("edge/engine/cuda.py", "mem_get_info", "mem_get_infos", "8.5.3"),
        ("builder/plan.py", "set_memory_pool_limit(", "set_memory_limit(", "8.6.0"),
        ("builder/plan.py", 'hasattr(layer, "precision") and hasattr(layer, "set_output_type")', "held", "11.4.0.106"),
    ],
)  # fmt: skip
def test_the_check_finds_a_call_that_a_version_has_not(
    tmp_path: Path, file: str, name: str, wrong: str, version: str
) -> None:
    source = (ROOT / file).read_text()
    assert name in source
    changed = tmp_path / "changed.py"
    changed.write_text(source.replace(name, wrong))
    done = check(version, str(changed))
    assert "has no attribute" in done, done


@pytest.mark.parametrize(("version", "there"), [("8.6.0", True), ("10.3.0", False), ("11.4.0.106", False)])
def test_the_versions_are_told_apart(tmp_path: Path, version: str, there: bool) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import tensorrt as trt\n\ndef f(c: trt.IBuilderConfig) -> int:\n    return c.max_workspace_size\n"
    )
    assert ("max_workspace_size" in check(version, str(probe))) == (not there)
