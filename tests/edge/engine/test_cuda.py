"""What of the CUDA device can be seen without one: its context comes off pycuda's stack, and what was lost stays."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

from edge.engine.cuda import stay_current

IN_THE_END = """
import sys
from edge.engine.{module} import {name}

class Thing:
    def retain_primary_context(self):
        return self
    def push(self):
        print("pushed")
    def detach(self):
        print("detached")
    def __del__(self):
        print("destroyed")

{name}(Thing())
sys.exit("an error")
"""


def in_the_end(module: str, name: str) -> list[str]:
    script = IN_THE_END.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.strip() == "an error"
    return done.stdout.split()


class Context:
    """A pycuda context that knows which thread did what to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def retain_primary_context(self) -> Context:
        self.seen.append(("retain", threading.get_ident()))
        return self

    def push(self) -> None:
        self.seen.append(("push", threading.get_ident()))

    def detach(self) -> None:
        self.seen.append(("detach", threading.get_ident()))


def test_a_thread_has_one_context_and_takes_it_off_before_it_ends() -> None:
    context: Any = Context()

    def work() -> None:
        stay_current(context)
        stay_current(context)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [(what, who) for what, who in context.seen] == [(w, thread.ident) for w in ("retain", "push", "detach")]


def test_an_error_leaves_no_context_on_the_stack() -> None:
    """pycuda would abort the process for it."""
    assert in_the_end("cuda", "stay_current")[:2] == ["pushed", "detached"]


def test_what_was_lost_is_never_destroyed() -> None:
    assert in_the_end("pipeline", "abandon") == []
