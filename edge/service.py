"""`haad-edge run`: everything opened from the settings, served until a signal, closed in order."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from edge.alerts import ZmqSink
from edge.bundle import Bundle, open_bundle
from edge.endpoint import Endpoint
from edge.engine import Engine, open_engine
from edge.errors import SettingsError
from edge.ingest import ZmqSource
from edge.journal.outbox import Outbox, SharedSink
from edge.journal.replay import ReplayServer
from edge.journal.store import Bounds, Journal, JournalError
from edge.keys import Keys, open_keys
from edge.notices import Notices
from edge.page import Page
from edge.runtime import Runtime
from edge.settings import Settings
from edge.support import FeatureCache, SupportSet, SupportWatcher, fingerprint, load_support

WATCHER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Service:
    """A runtime and the page beside it."""

    runtime: Runtime
    page: Page | None


def endpoints(text: str, allow_remote: bool, keys: Keys | None) -> list[Endpoint]:
    """The comma-separated endpoints of a setting, each checked for who could reach it."""
    found = [Endpoint.parse(part) for part in text.split(",")]
    for endpoint in found:
        endpoint.check_reach(allow_remote, keys)
    return found


@contextlib.contextmanager
def serving(settings: Settings, notices: Notices) -> Iterator[Service]:
    """Open bundle, engine, support, sockets and page; close them afterwards. Raises HaadError."""
    s = settings
    if s.support is None:
        raise SettingsError(
            "no support folder",
            why="it says what is normal here",
            fix="haad-edge run --support DIR, with DIR/<category>/*.npz",
        )
    keys = open_keys(s.keys)
    poses, alerts = (endpoints(text, s.allow_remote, keys) for text in (s.ingest, s.alerts))
    bundle = open_bundle(s.bundle)
    engine = open_engine(bundle, s.engine, max_batch=s.max_batch, threads=s.threads)
    cache, root = FeatureCache(s.cache), s.support
    seen = fingerprint(root)
    support = load_support(root, bundle, engine, cache)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.ExitStack() as stack:
        stack.callback(context.term)
        if keys:
            stack.enter_context(keys.guard(context))
        source = ZmqSource(context, poses, s.max_queue, keys)
        stack.callback(source.close)
        sink = SharedSink(ZmqSink(context, alerts, s.max_queue, keys))
        stack.callback(sink.close)
        watcher = SupportWatcher(root, _reloader(bundle, s, cache), s.reload_every, notices.say, seen)
        stack.callback(watcher.close)
        runtime = Runtime(s, bundle, engine, support, source, sink, feed=watcher, notices=notices)
        _keep_alerts(s, runtime, sink, notices, context, keys, stack)
        page = None
        if s.metrics != "off":
            page = Page(s.metrics, runtime)
            stack.callback(page.close)
        yield Service(runtime, page)


def journal_path(setting: Path | None) -> Path | None:
    """Where alerts are written down; None for 'off'."""
    if setting is None:
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
        return Path(home) / "haad-edge" / "journal.db"
    return None if str(setting) == "off" else setting


def _keep_alerts(
    s: Settings,
    runtime: Runtime,
    sink: SharedSink,
    notices: Notices,
    context: zmq.Context[zmq.Socket[bytes]],
    keys: Keys | None,
    stack: contextlib.ExitStack,
) -> None:
    """Put journal and replay behind the announcer. Without a disk to write on the engine serves on, degraded."""
    announcer, path = runtime.announcer, journal_path(s.journal)
    if path is None:
        return
    asked = [] if s.replay == "off" else endpoints(s.replay, s.allow_remote, keys)
    try:
        journal = Journal(path, Bounds(bytes=s.journal_mib << 20, days=s.journal_days))
        outbox = Outbox(journal, sink, notices)
        stack.callback(outbox.close)
        if journal.note:
            notices.say(journal.note)
        announcer.write_to(outbox)
    except JournalError as e:
        announcer.trouble = str(e)
        notices.say(f"degraded: {e}; alerts are published, and not kept")
        return
    if asked:
        replay = ReplayServer(context, asked, journal.id, outbox, notices, keys)
        stack.callback(replay.close)
        announcer.replay, announcer.replays = replay.address, replay.answered
    outbox.start()


def _reloader(bundle: Bundle, settings: Settings, cache: FeatureCache) -> Callable[[], SupportSet]:
    """Loads the support folder with an engine of its own, opened when first needed: the loop's is not shared."""
    engines: list[Engine] = []

    def load() -> SupportSet:
        assert settings.support is not None
        if not engines:
            engines.append(open_engine(bundle, settings.engine, max_batch=WATCHER_BATCH))
        return load_support(settings.support, bundle, engines[0], cache)

    return load


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    notices = Notices()
    with serving(settings, notices) as service:
        r = service.runtime
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: r.stop())
        by = r.announcer.by
        notices.say(f"model {by.model}, engine {by.engine}, support {by.support}: {r.support.summary}")
        notices.say(
            f"poses {settings.ingest}, alerts {settings.alerts}"
            + (f", page {service.page.address}" if service.page else "")
        )
        if path := journal_path(settings.journal):
            notices.say(f"journal {path}, replay {r.announcer.replay or 'off'}")
        notices.say("ready")
        r.run()
        ledger, counts = r.ledger, r.counts
        notices.say(
            f"stopped: {ledger.frames} frames in, {ledger.lost} lost, {sum(ledger.dropped.values())} refused, "
            f"{counts.windows} windows scored, {counts.alerts['new']} alerts"
        )
