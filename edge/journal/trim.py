"""Trims the journal: deletes what is too old and, if there is too much, updates before beginnings and ends of alerts.

A standing alert is updated about every second. Without this, a few alerts that stand for a night would fill the journal
and push out the beginnings and ends of all others.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

CLOCK_SET_NS = 1_577_836_800 * 10**9
"""The start of 2020. An earlier row was written before the machine's clock was set; the rows after it date it."""
# CROSS JOIN starts from the few passing rows. Otherwise SQLite would scan half of all messages at each append.
_PASSING = """
SELECT passing.seq, length(message) FROM passing CROSS JOIN alert ON alert.seq = passing.seq WHERE passing.seq < ?
ORDER BY passing.seq
"""
_HOLES = """
DELETE FROM hole WHERE seq < max(
    coalesce((SELECT min(seq) FROM alert), 0),
    coalesce((SELECT max(seq) FROM hole WHERE seq < (SELECT value FROM meta WHERE key = 'thinned')), 0)
)
"""
_ANY = "SELECT seq, length(message) FROM alert WHERE seq < ? ORDER BY seq"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that the journal keeps: messages, bytes of messages, and days."""

    rows: int = 100_000
    bytes: int = 64 << 20
    days: float = 30.0


def trim(db: sqlite3.Connection, bounds: Bounds, rows: int, size: int, at: int, following: int) -> tuple[int, int]:
    """Delete what exceeds a bound. Returns how many messages are left, and their bytes.

    `rows`, `size`: messages now, and their bytes; `at`: the time (ns); `following`: the number after the newest. Runs
    in the caller's transaction.
    """
    old, gone, thinned = at - round(bounds.days * 86_400e9), [], 0
    aged: list[tuple[int, int]] = []
    for seq, when, n in db.execute("SELECT seq, at, length(message) FROM alert ORDER BY seq"):
        unset = when < CLOCK_SET_NS < at  # the clock was not set: older than the next row whose time is known
        if when >= old and not unset:
            break
        aged.append((seq, n))
        if not unset:
            gone += aged
            aged.clear()
    rows, size = rows - len(gone), size - sum(n for _, n in gone)
    _delete(db, gone)
    # The newest half keeps its updates, so that a subscriber that was away briefly gets all of them.
    for query, below in ((_PASSING, following - rows // 2), (_ANY, following)):
        much: list[tuple[int, int]] = []
        for seq, n in db.execute(query, (below,)):
            if rows <= bounds.rows and size <= bounds.bytes:
                break
            much.append((seq, n))
            rows, size = rows - 1, size - n
        if query is _PASSING and much:
            thinned = much[-1][0] + 1
        _delete(db, much)
        gone += much
    if gone:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('next', ?)", (following,))
    if thinned:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('thinned', ?)", (thinned,))
    if gone:
        db.execute(_HOLES)  # only the last hole among what was thinned is asked for, and none below the first message
    return rows, size


def _delete(db: sqlite3.Connection, found: list[tuple[int, int]]) -> None:
    for table in ("alert", "passing"):
        db.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq, _ in found])
