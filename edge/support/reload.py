"""Watches a support folder and reloads it when it has changed.

folder ─fingerprint─► changed, and the same twice in a row ─► load ─► taken by the loop between two batches
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge.support.enrol import REFINED, SupportSet

RETRY_S = 30.0
Fingerprint = tuple[tuple[str, int, int, int], ...]


def fingerprint(root: Path) -> Fingerprint:
    """Names, sizes and times of the folder's files. It differs after every change that needs a reload."""
    found = []
    # glob raises if the folder changes while it is listed; the next check sees it whole.
    with contextlib.suppress(OSError):
        for path in [*root.glob("*/*.npz"), *root.glob(REFINED)]:
            with contextlib.suppress(OSError):
                stat = path.stat()
                # ctime changes with the permissions too: a file that could not be read may be readable now.
                found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(sorted(found))


class SupportWatcher:
    """Reloads a changed folder in a thread of its own; `take` hands the result over between batches.

    `seen` is the fingerprint from before the support in use was loaded. A folder must look the same twice in a row
    before it is read, so that a copy in progress is not. When the new state cannot be loaded, the old support stays in
    use, the reason is logged and kept in `trouble`, and loading is tried again every `retry` seconds, since the cause
    may lie outside the folder.
    """

    def __init__(
        self,
        root: Path,
        load: Callable[[], SupportSet],
        every: float,
        say: Callable[[str, str | None], None],
        seen: Fingerprint,
        *,
        retry: float = RETRY_S,
    ) -> None:
        self.trouble, self._retry = "", retry
        self._root, self._load, self._every, self._say, self._seen = root, load, every, say, seen
        self._ready: SupportSet | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="support-watcher", daemon=True)
        if every > 0:
            self._thread.start()

    def take(self) -> SupportSet | None:
        """The newest support set loaded since the last call, if any."""
        if self._ready is None:
            return None
        with self._lock:
            ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        before, tried, again = self._seen, None, 0.0
        while not self._stop.wait(self._every):
            now = fingerprint(self._root)
            if now == self._seen:
                self.trouble = ""
            elif now == before and (now != tried or time.monotonic() >= again):
                tried = now
                try:
                    loaded = self._load()
                except Exception as e:  # any error: the folder may be corrected later, so the watch must go on
                    self.trouble, again = f"the changed support folder is not used: {e}", time.monotonic() + self._retry
                    self._say(self.trouble, self.trouble)
                else:
                    self._seen, self.trouble = now, ""
                    with self._lock:
                        self._ready = loaded
            before = now
