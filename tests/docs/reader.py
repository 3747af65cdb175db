"""One who reads a page and types all of it, in a folder of their own, with a real engine.

What differs from a reader's terminal, and nothing else does:
- addresses: every tcp://…:5555 to …:5558 becomes an ipc:// one of the test's own, and 127.0.0.1:9464 a free port, so
  that runs side by side do not meet; `haad-edge run|publish|listen|bridge|record|replay|support add` get those where a
  page relies on the defaults too;
- length: `demo` gets `--seconds 5`; `bench` a second of two cameras; `train` two steps and a tiny model, whatever the
  page's configuration says of it; `train-motion` two steps; `motion-report` two clips; minutes of `record` six seconds;
- order: what runs until it is stopped (`haad-edge run`, `listen`, `bridge`, a subscriber in Python) goes to the
  background. An engine serves the rest of its page, or up to the next one, or to a recording in its place; a listener
  must print what it hears of a fall, a bridge into a file must deliver it;
- people: while `record` or `support add --from-stream` listens, camera cam1 sees somebody walk, as track 7; before
  `support accept` somebody falls, and the id is that alert's;
- `make`, `pip`, `systemctl`, `sudo`, making a venv: not run; their targets, extras and unit are looked up instead;
- trackers and cameras: stand-ins of the same names, in `stand_ins`, that give what those gave;
- a TensorRT plan is built where there is a GPU; elsewhere the command must say that there is none.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from edge.bundle import BASE, GRAPH
from edge.client import AlertSubscriber, PosePublisher
from edge.clip import save_clip
from edge.engine.machine import this_machine
from edge.events import Status
from edge.motion import make_motion
from edge.recordings.playback import capture_ns, play

from .pages import ROOT, blocks

TINY = {
    "name": "mine",
    "batch": 24,
    "encoder": {"frames": 16, "seconds": 2.0, "coefficients": 8, "width": 16, "blocks": 1, "embedding": 16},
}
LOOKED_UP = ("make", "pip", "systemctl", "python3", ".", "sudo")
PATIENCE = 120.0


@dataclass
class Engine:
    """A running `haad-edge run`, a subscriber that has heard it, and who listens to it."""

    process: subprocess.Popen[bytes]
    log: Path
    status: AlertSubscriber
    keys: Path | None
    listeners: list[subprocess.Popen[bytes]] = field(default_factory=list)
    bridges: list[subprocess.Popen[bytes]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    """What bridges write."""

    @property
    def page(self) -> str:
        found = re.search(r"page (\S+)", self.log.read_text())
        assert found, self.log.read_text()
        return found[1]


class Reader:
    """Types one page's blocks, in order, in a folder of their own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.stack, self.count = folder, stack, 0
        self.engine: Engine | None = None
        self.poses, self.alerts = f"ipc://{folder}/in", f"ipc://{folder}/out"
        own = {k: v for k, v in os.environ.items() if not k.startswith(("HAAD_", "XDG_"))}
        path = f"{Path(sys.executable).parent}:{own['PATH']}"
        self.environment = {**own, "PATH": path, "HOME": str(folder), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        self.environment["PYTHONPATH"] = f"{Path(__file__).parent / 'stand_ins'}:{ROOT}"

    def local(self, text: str) -> str:
        """The text with this test's own addresses in it."""
        text = re.sub(r"tcp://[^\s\",:]+:5555", self.poses, text)
        text = re.sub(r"tcp://[^\s\",:]+:5556", self.alerts, text)
        text = re.sub(r"tcp://[^\s\",:]+:5557", f"ipc://{self.folder}/replay", text)
        text = re.sub(r"tcp://[^\s\",:]+:5558", f"ipc://{self.folder}/poses", text)
        return text.replace("127.0.0.1:9464", self.engine.page) if self.engine else text

    def read(self, page: Path) -> None:
        for block in blocks(page):
            where = f"{page.name}:{block.line}"
            if block.kind == "bash":
                for command in filter(None, map(str.strip, block.text.replace("\\\n", " ").split("\n"))):
                    self.type(command, page, where)
            elif block.kind == "python":
                self.python(block.text, where)
            elif block.kind == "yaml":
                name = re.match(r"# (\S+\.yaml)\n", block.text)
                assert name, f"{where}: the first line of a yaml block names its file"
                given = yaml.safe_load(block.text)
                (self.folder / name[1]).write_text(yaml.safe_dump(given | TINY if "train" in name[1] else given))
            else:
                assert block.kind in ("text", "ini"), f"{where}: nobody runs a block of {block.kind}"
        self.leave()

    def type(self, command: str, page: Path, where: str) -> None:
        words = shlex.split(command, comments=True)
        given = [w for w in words if re.match(r"[A-Z_]+=", w)]
        words = words[len(given) :]
        if not words:
            return
        if words[0] in LOOKED_UP:
            look_up(words, page)
        elif words[:2] == ["haad-edge", "build"] and "tensorrt" in words:
            self.plan(words, where)
        elif words[:2] == ["haad-edge", "run"]:
            self.run(words, dict(w.split("=", 1) for w in given))
        elif words[:2] == ["haad-edge", "bridge"]:
            assert self.engine, f"{where}: nobody to hear"
            words += [] if "--from" in words else ["--from", f"sub+connect:{self.alerts}"]
            self.bridge([self.local(w) for w in words], dict(w.split("=", 1) for w in given))
        elif words[:2] == ["haad-edge", "listen"]:
            assert self.engine, f"{where}: nobody to listen to"
            words += [] if "--from" in words else ["--from", f"sub+connect:{self.alerts}"]
            self.listen([self.local(w) for w in words])
        else:
            extra = {
                "demo": ["--seconds", "5"],
                "bench": ["--seconds", "1", "--cameras", "2", "--rounds", "1", "--most-tracks", "10"],
                "publish": [] if "--to" in words else ["--to", f"pub+connect:{self.poses}"],
                "replay": [] if "--to" in words else ["--to", f"pub+connect:{self.poses}"],
                "record": [] if "--from" in words else ["--from", f"sub+connect:ipc://{self.folder}/poses"],
                "support": ["--poses", f"sub+connect:ipc://{self.folder}/poses"] if "add" in words else [],
                "train-motion": ["--steps", "2"],
                "motion-report": ["--clips", "2"],
                "train": ["--steps", "2", *([] if "--config" in words else ["--config", "tiny.yaml"])],
            }.get(words[words.index("haad-edge") + 1] if "haad-edge" in words else "", [])
            line = self.local(" ".join([command.split(" #")[0], *extra]))
            if words[:3] == ["haad-edge", "support", "accept"]:
                line = line.replace(words[3], self.alert())
            if words[:3] == ["haad-edge", "view", "evidence"]:
                self.alert()
            live = words[:2] == ["haad-edge", "record"] or words[:3] == ["haad-edge", "support", "add"]
            alone = words[:2] == ["haad-edge", "record"] and any(w.startswith("sub+bind") for w in words)
            if alone:
                self.leave()
                line = re.sub(r"--seconds \d{2,}", "--seconds 6", line)
            if {"train", "train-motion"} & set(words):  # pages build on a bundle that is there, and this one makes it
                shutil.rmtree(self.folder / words[words.index("--out") + 1], ignore_errors=True)
            with self.somebody() if live and (alone or "--from" not in words) else contextlib.nullcontext():
                self.finish(["bash", "-euc", line], where, sends=not {"publish", "replay"}.isdisjoint(words))

    def plan(self, words: list[str], where: str) -> None:
        """Built where there is a GPU; elsewhere it says that there is none. The bundle has its graph by then."""
        shutil.copy(BASE / GRAPH, self.folder / words[2])
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        problem = this_machine().problem
        assert done.returncode == (2 if problem else 0), f"{where}: {done.stdout}{done.stderr}"
        assert problem in done.stderr and "Traceback" not in done.stderr

    def python(self, text: str, where: str) -> None:
        self.count += 1
        file = self.folder / f"block_{self.count}.py"
        file.write_text(self.local(text))
        if "AlertSubscriber(" in text or "zmq.SUB)" in text:
            self.listen([sys.executable, str(file)])
        else:
            self.finish([sys.executable, str(file)], where, sends="PosePublisher(" in text or "zmq.XPUB)" in text)

    def finish(self, command: list[str], where: str, *, sends: bool) -> None:
        """Run to the end. What sends poses sends a second and more of them: they arrive, and none is refused."""
        before = self.frames(0) if sends else 0
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{where}: {command[-1]}\n{done.stdout}{done.stderr}"
        if sends:
            assert self.engine
            self.frames(before + 30)
            with urllib.request.urlopen(f"http://{self.engine.page}/metrics", timeout=10) as answer:
                assert b"haad_messages_dropped_total{" not in answer.read(), self.engine.log.read_text()

    def frames(self, least: int) -> int:
        """How many pose messages the engine has taken, once they are so many."""
        assert self.engine, "nobody to send to"
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            event = self.engine.status.receive(left)
            if isinstance(event, Status) and event.frames >= least:
                return event.frames
        raise AssertionError(f"the engine never took {least} messages\n{self.engine.log.read_text()}")

    def run(self, words: list[str], given: dict[str, str]) -> None:
        """Start an engine, and wait until it answers."""
        self.leave()
        for option, value in (
            ("--ingest", f"sub+bind:{self.poses}"),
            ("--alerts", f"pub+bind:{self.alerts}"),
            ("--replay", f"router+bind:ipc://{self.folder}/replay"),
            ("--metrics", "127.0.0.1:0"),
        ):
            words += [] if option in words else [option, value]
        self.count += 1
        log = self.folder / f"engine_{self.count}.log"
        with log.open("wb") as f:
            process = subprocess.Popen(
                [self.local(w) for w in words], cwd=self.folder, env=self.environment | given, stdout=f, stderr=f
            )
        self.stack.callback(process.wait, 20)
        self.stack.callback(process.kill)
        keys = self.folder / words[words.index("--keys") + 1] / ".." / "client" if "--keys" in words else None
        status = self.stack.enter_context(
            AlertSubscriber(f"sub+connect:{self.alerts}", topics=["status"], **({"keys": keys} if keys else {}))
        )
        self.engine = Engine(process, log, status, keys)
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            if status.receive(0.2):
                return
        raise AssertionError(f"{words} does not serve\n{log.read_text()}")

    def listen(self, words: list[str]) -> None:
        assert self.engine, "nobody to listen to"
        process = subprocess.Popen(
            words, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.stack.callback(process.communicate)
        self.stack.callback(process.kill)
        self.engine.listeners.append(process)

    def bridge(self, words: list[str], given: dict[str, str]) -> None:
        """Until it is ready. What its receiver gets, its own tests tell; a file must have got the fall at the end."""
        assert self.engine
        process = subprocess.Popen(
            words, cwd=self.folder, env=self.environment | given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.stack.callback(process.communicate)
        self.stack.callback(process.kill)
        assert process.stderr and b"bridge ready" in process.stderr.readline()
        self.engine.bridges.append(process)
        if words[2] == "jsonl":
            self.engine.files.append(self.folder / words[3])

    def leave(self) -> None:
        """Let people fall until every listener and every bridge into a file has told of it, then stop them all."""
        e = self.engine
        if e is None:
            return
        until, n = time.monotonic() + PATIENCE, 0
        with selectors.DefaultSelector() as waiting:
            for p in e.listeners:
                assert p.stdout
                waiting.register(p.stdout, selectors.EVENT_READ, p)
            while waiting.get_map() or not all(f.exists() and f.stat().st_size for f in e.files):
                assert time.monotonic() < until, [*(k.data.args for k in waiting.get_map().values()), *e.files]
                self.fall(f"check{n}", e.keys)
                n += 1
                for key, _ in waiting.select(0.5):
                    assert key.data.poll() is None and key.fileobj.read1(), key.data.communicate()  # type: ignore[union-attr]
                    waiting.unregister(key.fileobj)
        for p in e.bridges:
            p.send_signal(signal.SIGTERM)
            said = p.communicate(timeout=20)[1]
            assert p.returncode == 0 and b"Traceback" not in said, said
        for p in e.listeners:
            p.send_signal(signal.SIGINT)
            _, err = p.communicate(timeout=20)
            if "python" not in Path(p.args[0]).name:  # type: ignore[index]
                assert (p.returncode, err) == (0, b"")
        e.process.send_signal(signal.SIGTERM)
        assert e.process.wait(20) == 0, e.log.read_text()
        assert "Traceback" not in e.log.read_text()
        e.status.close()
        self.engine = None

    @contextlib.contextmanager
    def somebody(self) -> Iterator[None]:
        """Camera cam1 sees track 7 walk."""
        over = threading.Event()

        def walk() -> None:
            with PosePublisher(f"pub+connect:{self.poses}", stream="cam1") as camera:
                camera.wait(20)
                for joints in make_motion("walk", seconds=60, fps=20, seed=7).joints:
                    camera.send([7], joints[None])
                    if over.wait(0.05):
                        break

        thread = threading.Thread(target=walk)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20)

    def alert(self) -> str:
        """The id of an alert whose movement the engine has kept."""
        assert self.engine
        self.fall("cam2", self.engine.keys)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if kept := sorted((self.folder / "evidence").glob("*.npz")):
                return kept[0].stem.partition("-")[0]
            time.sleep(0.1)
        raise AssertionError(self.engine.log.read_text())

    def fall(self, stream: str, keys: Path | None) -> None:
        clip = self.folder / "fall.npz"
        save_clip(clip, make_motion("fall", seconds=8, fps=20, seed=0))
        with PosePublisher(f"pub+connect:{self.poses}", stream=stream, **({"keys": keys} if keys else {})) as camera:
            camera.wait(20)
            for shot in play([clip], fps=None):
                camera.send(shot.ids, shot.joints, t=capture_ns(0, shot))
            camera.end(capture_ns(0, shot))


def look_up(words: list[str], page: Path) -> None:
    """Commands that change the reader's machine: what they name must exist."""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), words
    elif words[0] == "pip":
        assert words[1] == "install"
        project = (ROOT / "pyproject.toml").read_text()
        for word in words[2:]:
            for extra in re.findall(r"\[([\w,]+)\]", word):
                assert all(re.search(rf"^{e} = \[", project, re.M) for e in extra.split(",")), words
            assert not word.endswith(".txt") or (ROOT / word).is_file(), words
    elif words[0] == "systemctl":
        unit = [w for w in words if w.endswith(".service")]
        assert all(f"# /etc/systemd/system/{u}\n" in page.read_text() for u in unit), words
    elif words[0] == "sudo":
        assert words[1] in ("apt-get", "nvpmodel", "jetson_clocks"), words
    else:
        venv = ["python3", "-m", "venv"]
        known = ([*venv, ".venv"], [*venv, "--system-site-packages", ".venv"], [".", ".venv/bin/activate"])
        assert words in known, words
