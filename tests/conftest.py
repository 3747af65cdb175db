"""What holds for every test, and for every process that one starts."""

from __future__ import annotations

import importlib.util
import os
import signal

# Two threads of a torch step wait for each other by spinning: beside anything else, another test above all, a step of
# a tiny model then takes seconds instead of milliseconds. It is read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Where the tests run in a shell's background or under nohup these are ignored, and so they would be by every engine and
# listener that a test starts, and stops by them.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# A device has no torch. There the tests of what runs there are collected, those on its GPU among them, and no others.
if importlib.util.find_spec("torch") is None:
    collect_ignore = ["builder", "docs", "trainer", "edge/test_reference.py", "integration/test_real_clips.py"]
    collect_ignore += ["test_benchmarks.py", "test_conditions.py", "test_gpu_benchmark.py"]
