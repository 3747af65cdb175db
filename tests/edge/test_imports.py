"""`edge` runs where torch, trainer and builder are not: the device's side depends on neither."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for p in sorted((ROOT / "edge").rglob("*.py"))
]
if importlib.util.find_spec("paho") is None:  # it has an extra of its own
    MODULES.remove("edge.bridge.mqtt")
ABSENT = ("torch", "onnx", "safetensors", "sklearn", "scipy", "tensorrt", "pycuda", "trainer", "builder")


def in_a_bare_environment(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where importing anything of ABSENT fails as if it were not installed."""
    block = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, timeout=60, cwd="/")


def test_every_module_of_edge_imports_without_torch_and_the_other_houses() -> None:
    assert len(MODULES) > 20
    done = in_a_bare_environment(f"import importlib\nfor m in {MODULES!r}: importlib.import_module(m)\nprint('fine')")
    assert done.stdout == "fine\n", done.stderr


def test_the_device_embeds_a_clip_without_torch() -> None:
    done = in_a_bare_environment(
        "from edge.bundle import open_bundle\n"
        "from edge.engine import embed, open_engine\n"
        "from edge.motion import make_motion\n"
        "from edge.support.enrol import clip_windows\n"
        "print(embed(open_engine(open_bundle()), *clip_windows(make_motion('walk', seconds=3), 48, 2.0)).shape)"
    )
    assert done.stdout == "(13, 128)\n", done.stderr


def test_no_source_of_edge_names_the_other_houses_and_none_names_those_above_it() -> None:
    above = {"edge": {"torch", "trainer", "builder"}, "trainer": {"builder"}}
    for house, forbidden in above.items():
        for path in (ROOT / house).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {n.split(".")[0] for n in names} & forbidden, path


def imports_of(path: Path) -> set[str]:
    """Modules that a source names, `from package import module` among them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def test_rooms_import_in_one_direction() -> None:
    """Each package of edge, and each module beside them, depends on others that do not depend on it in turn."""
    needs: dict[str, set[str]] = {}
    for path in (ROOT / "edge").rglob("*.py"):
        names = path.relative_to(ROOT).with_suffix("").parts
        if names[1] not in ("__init__", "__main__"):
            found = {n.split(".")[1] for n in imports_of(path) if n.startswith("edge.")}
            needs.setdefault(names[1], set()).update(found - {names[1], "__version__"})
    assert len(needs) > 25 and needs["runtime"] >= {"ingest", "windows", "inference", "judge", "alerts"}
    order = list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle
    assert order.index("errors") < order.index("engine") < order.index("runtime") < order.index("cli")


def leaves_the_encoding_open(call: ast.Call) -> bool:
    """Whether a call reads or writes text as the locale would have it. Linters know a Path only by its annotation."""
    given = {k.arg: k.value for k in call.keywords}
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    texts = [a.value for a in (*call.args, *given.values()) if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    mode = next((t for t in texts if re.fullmatch(r"[rwxabt+]{1,3}", t)), "")
    opens = (
        name in ("open", "fdopen") and (isinstance(call.func, ast.Name) or not call.args or mode) and "b" not in mode
    )
    text = name in ("read_text", "write_text") or opens or {"text", "universal_newlines"} & set(given)
    return bool(text) and "encoding" not in given


def test_no_source_leaves_the_encoding_of_text_to_the_locale() -> None:
    wrong = (
        "p.read_text()|p.write_text(x)|open(p)|open(p, 'w')|p.open()|p.open('a')|os.fdopen(1, 'w')|run(c, text=True)"
    )
    right = (
        "p.read_text(encoding=u)|open(p, 'rb')|p.open('r+b')|p.open('w', encoding=u)|os.open(p, flags)|e.open(c, n=1)"
    )
    for expected, calls in ((True, wrong), (False, right)):
        for c in calls.split("|"):
            assert leaves_the_encoding_open(ast.parse(c, mode="eval").body) is expected, c  # type: ignore[arg-type]
    for path in (
        p for house in ("edge", "builder", "trainer", "benchmarks", "docs") for p in (ROOT / house).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_bytes())):
            assert not (isinstance(node, ast.Call) and leaves_the_encoding_open(node)), f"{path}:{node.lineno}"


def test_numpy_is_not_imported_before_the_command_line_has_set_its_threads() -> None:
    done = in_a_bare_environment("import edge.cli\nprint('numpy' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_onnx_runtime_does_not_report_to_its_maker() -> None:
    """It does from 1.32 on, over the network, unless this is set before it is loaded."""
    code = "import os, sys, edge; assert 'onnxruntime' not in sys.modules; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert done.stdout.strip() == "1", done.stderr
