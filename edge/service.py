"""`haad-edge run`: opens everything that the settings ask for, serves until a signal, and closes it in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from edge.alerts.evidence import Evidence, prepare
from edge.alerts.keep import open_journal
from edge.bundle import Bundle, open_bundle
from edge.commands.console import signals
from edge.engine import Engine, open_engine
from edge.engine.fallback import in_order, open_first
from edge.errors import BundleError, SettingsError
from edge.ingest.source import ZmqSource
from edge.ingest.tap import Tap
from edge.journal.outbox import SharedSink
from edge.journal.trim import Bounds
from edge.network.endpoint import Endpoint
from edge.network.keys import Keys, open_keys
from edge.network.sink import ZmqSink
from edge.notices import Notices
from edge.page import Page
from edge.runtime import Runtime
from edge.settings import Settings
from edge.support.cache import FeatureCache
from edge.support.enrol import SupportSet, load_support
from edge.support.reload import SupportWatcher, fingerprint
from edge.support.transitions import TransitionPlan
from edge.systemd import supervised

WATCHER_BATCH = 32


@dataclass(frozen=True, slots=True)
class Service:
    """The runtime, its page (None: off), and the journal's path (None: not kept)."""

    runtime: Runtime
    page: Page | None
    journal: Path | None


def endpoints(text: str, allow_remote: bool, keys: Keys | None) -> list[Endpoint]:
    """Parse a setting's comma-separated endpoints. Raises SettingsError if one is reachable without protection."""
    found = [Endpoint.parse(part) for part in text.split(",")]
    for endpoint in found:
        endpoint.check_reach(allow_remote, keys)
    return found


@contextlib.contextmanager
def serving(settings: Settings, notices: Notices) -> Iterator[Service]:
    """Open bundle, engine, support, sockets, journal and page; close them afterwards. Raises HaadError."""
    s = settings
    if s.support is None:
        raise SettingsError(
            "no support folder is set",
            why="it defines what is normal here",
            fix="haad-edge run --support DIR, with DIR/<category>/*.npz",
        )
    keys = open_keys(s.keys)
    poses, alerts = (endpoints(text, s.allow_remote, keys) for text in (s.ingest, s.alerts))
    root = s.support
    if s.evidence:
        prepare(s.evidence)
    if s.overload is None:
        # A sender that pushes is meant to wait. One that publishes cannot, and whole messages would be lost.
        s = s.model_copy(update={"overload": "wait" if all(p.pattern == "pull" for p in poses) else "drop-oldest"})
    bundle = open_bundle(s.bundle)
    with contextlib.ExitStack() as stack:
        engine = open_first(
            bundle,
            names := in_order(s.engines, bundle, s.build_missing),
            max_batch=s.max_batch,
            threads=s.threads,
            build_missing=s.build_missing,
            tell=lambda e, name: notices.say(f"engine {name or 'none'}, since {e}"),
            say=notices.say,
        )
        stack.callback(engine.close)
        if (room := engine.staging.size) < s.max_batch:
            notices.say(
                f"batches hold at most {room} windows, as the plan was built for that many; max_batch is {s.max_batch}"
            )
        cache = FeatureCache(s.cache)
        seen = fingerprint(root)
        # Features always come from the reference engine, whichever engine compares with them: the cache and the
        # support's version rely on it.
        reader = engine if names[0] == "onnx" else open_engine(bundle, max_batch=WATCHER_BATCH)
        support = load_support(root, bundle, reader, cache, transitions=_transitions(s, engine))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.term)
        if keys:
            stack.enter_context(keys.guard(context, lambda text: notices.say(text, key=text)))
        source = ZmqSource(context, poses, s.max_queue, keys)
        stack.callback(source.close)
        sink = SharedSink(ZmqSink(context, alerts, s.max_queue, keys))
        stack.callback(sink.close)
        watcher = SupportWatcher(root, _reloader(bundle, engine, s, cache), s.reload_every, notices.say, seen)
        stack.callback(watcher.close)
        tap = evidence = None
        if s.poses_out != "off":
            out = ZmqSink(context, endpoints(s.poses_out, s.allow_remote, keys), s.max_queue, keys)
            stack.callback(out.close)
            tap = Tap(out)
        if s.evidence:
            m = bundle.manifest
            evidence = Evidence(s.evidence, m.frames / m.seconds, s.evidence_most, notices, days=s.evidence_days)
            stack.callback(evidence.close)
        runtime = Runtime(
            s, bundle, engine, support, source, sink, feed=watcher, tap=tap, evidence=evidence, notices=notices
        )
        engine.tell = runtime.engine_lost
        off = "off" in (s.replay, str(s.journal))
        asked = [] if off else endpoints(s.replay, s.allow_remote, keys)
        bounds = Bounds(bytes=s.journal_mib << 20, days=s.journal_days)
        journal = open_journal(s.journal, bounds, asked, runtime.announcer, sink, notices, context, keys, stack)
        page = None
        if s.metrics != "off":
            page = Page(s.metrics, runtime)
            stack.callback(page.close)
        yield Service(runtime, page, journal)


def _transitions(s: Settings, judge: Engine) -> TransitionPlan:
    return TransitionPlan(s.normal, s.max_transitions, judge.categories)


def _reloader(bundle: Bundle, judge: Engine, settings: Settings, cache: FeatureCache) -> Callable[[], SupportSet]:
    """A function that loads the support folder with an engine of its own, opened at the first call.

    The loop's engine, `judge`, is not shared between threads. A set that it has no room for is refused here, so that
    the old one stays in use.
    """
    engines: list[Engine] = []

    def load() -> SupportSet:
        assert settings.support is not None
        if not engines:
            try:
                engines.append(open_engine(bundle, max_batch=WATCHER_BATCH))
            except BundleError as e:
                raise BundleError(
                    f"{bundle.root}: not the bundle that this engine was started with",
                    why=e.what,
                    fix="restart the engine, so that it uses the new bundle",
                ) from None
        support = load_support(settings.support, bundle, engines[0], cache, transitions=_transitions(settings, judge))
        judge.admit(support.features)
        return support

    return load


def serve(settings: Settings) -> None:
    """Run until SIGTERM, SIGINT or a closed terminal; then drain."""
    notices = Notices()
    with signals() as call_on_signal, serving(settings, notices) as service:
        r = service.runtime
        call_on_signal(r.stop)
        by = r.announcer.by
        notices.say(f"model {by.model}, engine {by.engine}, support {by.support}: {r.support.summary}")
        notices.say(
            f"poses {settings.ingest}, alerts {settings.alerts} from a score of {r.book.threshold:.2f} on"
            + (f", page {service.page.address}" if service.page else "")
        )
        if settings.poses_out != "off":
            notices.say(f"poses are passed on at {settings.poses_out}")
        if service.journal:
            notices.say(f"journal {service.journal}, replay {r.announcer.replay or 'off'}")
        notices.say("ready")
        with supervised(r):
            r.run()
        ledger, counts = r.ledger, r.counts
        notices.say(
            f"stopped: {ledger.frames} frames in, {ledger.lost} lost, {sum(ledger.dropped.values())} refused, "
            f"{counts.windows} windows scored, {counts.alerts['new']} alerts"
        )
