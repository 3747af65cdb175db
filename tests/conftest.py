"""What holds for every test, and for every process that one starts."""

from __future__ import annotations

import os

# Two threads of a torch step wait for each other by spinning: beside anything else, another test above all, a step of
# a tiny model then takes seconds instead of milliseconds. It is read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
