"""CPU by stage, tracks, names of machines, and the picture."""

from __future__ import annotations

import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

import edge
from edge.bench.inside import STAGE_OF_FILE, Stages, array_bytes, runtime
from edge.bench.machine import resident, short
from edge.bench.picture import bars, lines
from edge.bench.site import prepare
from edge.settings import Settings


def module(path: Path, text: str) -> ModuleType:
    path.write_text(text)
    made = ModuleType(path.stem)
    exec(compile(text, str(path), "exec"), made.__dict__)
    return made


def test_every_station_s_module_is_there() -> None:
    """One that is moved or renamed would be counted as its caller."""
    assert [name for name in STAGE_OF_FILE if not (Path(edge.__file__).parent / name).is_file()] == []


def test_time_goes_to_the_station_whose_code_runs(tmp_path: Path) -> None:
    spin = "import time\ndef work(s, inner=None):\n end = time.thread_time() + s\n"
    spin += " while time.thread_time() < end:\n  pass\n if inner: inner(s)\n"
    helper = module(tmp_path / "helper.py", spin)
    first, second = module(tmp_path / "first.py", spin), module(tmp_path / "second.py", spin)
    stages = Stages({"first.py": "one", "second.py": "two"}, root=str(tmp_path))
    run = stages.timed(lambda n: helper.work(0.1))
    with stages.watching():
        first.work(0.15, helper.work)  # what is in no listed file is the caller's: 0.3 s
        second.work(0.1)
        run(8)
    found = stages.seconds
    assert found["one"] == pytest.approx(0.3, abs=0.03) and found["two"] == pytest.approx(0.1, abs=0.03)
    assert found["engine"] == pytest.approx(0.1, abs=0.02) and stages.inferred == 8


def test_the_engines_time_is_not_given_to_what_called_it(tmp_path: Path) -> None:
    """One long step of C, that no timer can look into, between short ones."""
    import zlib

    data = bytes(range(256)) * 20_000
    spin = "import time\ndef work(s):\n end = time.thread_time() + s\n while time.thread_time() < end:\n  pass\n"
    first = module(tmp_path / "first.py", spin)
    stages = Stages({"first.py": "one"}, root=str(tmp_path))
    spent = 0.0

    def infer(n: int) -> None:
        nonlocal spent
        before = time.thread_time()
        zlib.crc32(data * 2)
        zlib.compress(data[: 1 << 20], 9)
        spent += time.thread_time() - before

    run = stages.timed(infer)
    with stages.watching():
        for _ in range(30):
            first.work(0.003)
            run(1)
    assert stages.seconds["engine"] == pytest.approx(spent, rel=0.1)
    assert stages.seconds["one"] == pytest.approx(0.09, rel=0.35)


def test_bytes_of_a_track_are_those_of_its_rows(tmp_path: Path) -> None:
    prepare(tmp_path)
    loop = runtime(tmp_path, Settings(metrics="off", max_tracks=77), None, inference=False)  # type: ignore[call-arg]
    window = 48 * 15 * 16
    assert window < array_bytes(loop) <= window + 1024


def test_names_and_memory() -> None:
    assert short("AMD EPYC, 2 cores") == "epyc2"
    assert short("Intel(R) Core(TM) i7-1165G7 @ 2.80GHz, 8 cores") == "i7-1165g78"
    assert short("aarch64, 4 cores") == "aarch644"
    before = resident()
    block = bytearray(b"\1" * (50 << 20))
    assert resident() - before > 40 << 20 and sys.getsizeof(block)


def test_pictures_are_svg_and_escaped() -> None:
    body = bars("a < b", ["x", "y"], [1.0, 2.0], " µs") + lines("t", {"p50": [(0, 1.0), (2, 3.0)]}, " ms", 6)
    root = ET.fromstring(f"<svg>{body}</svg>")
    heights = [float(r.attrib["height"]) for r in root.iter("rect") if r.attrib.get("class") == "b"]
    assert heights[1] == pytest.approx(2 * heights[0]) and "a < b" in [t.text for t in root.iter("text")]
