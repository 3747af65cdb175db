"""Delivers alerts by HTTP POST, one each, signed; and the engine's state whenever it changes, if asked to.

X-Haad-Signature: sha256=HMAC-SHA256(secret, <X-Haad-Timestamp> "." <body>), in hex
Idempotency-Key:  <journal>-<seq> of an alert, the same in every try
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import hmac
import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from edge import __version__
from edge.bridge.core import Refused, Unavailable, as_json, shown
from edge.errors import SettingsError
from edge.events import Alert, Status

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
LOOK_S = 0.1
REFUSALS = (400, 405, 406, 409, 411, 413, 414, 415, 422, 431)
"""Statuses that are about this alert. Others (not found, forbidden, too many requests, server errors) may pass."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would arrive as a GET, and the alert would be lost."""

    def redirect_request(self, *args: object, **more: object) -> None:
        return None


class _Post(urllib.request.Request):
    """One try, which another thread can abort whatever it waits for. An aborted try is not received later."""

    over = False
    connection: http.client.HTTPConnection | None = None

    def give_up(self) -> None:
        """Abort the try; called from another thread."""
        self.over = True
        if self.connection and (sock := self.connection.sock):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def watch(self, connection: http.client.HTTPConnection) -> None:
        """Make `connection` the one that `give_up` shuts down."""
        connect, self.connection = connection.connect, connection

        def unless_over() -> None:
            connect()
            if self.over:
                raise TimeoutError("given up")

        connection.connect = unless_over  # type: ignore[method-assign]


class _Watched(urllib.request.AbstractHTTPHandler):
    """Tells a `_Post` which connection it uses."""

    def do_open(self, http_class: Any, req: Any, **more: Any) -> http.client.HTTPResponse:
        def opened(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connection: http.client.HTTPConnection = http_class(*args, **options)
            req.watch(connection)
            return connection

        return super().do_open(opened, req, **more)


class _Http(_Watched, urllib.request.HTTPHandler): ...


class _Https(_Watched, urllib.request.HTTPSHandler): ...


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of X-Haad-Signature."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhook:
    """See `edge.bridge.core.Target`: one alert at a time. A status of 200 to 299 means that the receiver has it."""

    most = 1

    def __init__(
        self,
        url: str,
        secret: bytes = b"",
        *,
        timeout: float = 10.0,
        states: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`timeout` (s) covers a whole try, from looking up the host to the answer; `states`: post these too.

        Raises SettingsError if `url` is not a web address.
        """
        _check(url)
        self._url, self._secret, self._timeout, self._now = url, secret, timeout, now
        self._states = states
        self._told: tuple[object, ...] = ()
        self._opener = urllib.request.build_opener(_NoRedirect, _Http, _Https)
        self._stopped = False

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """See `Target`."""
        alert = alerts[0]
        self._post(as_json(alert).encode(), {"Idempotency-Key": f"{alert.row}-{alert.seq}"})
        return 1

    def _post(self, body: bytes, headers: dict[str, str]) -> None:
        """Post once. Raises Refused or Unavailable unless the receiver has it.

        The try has a thread of its own: a socket's timeout restarts with every byte that arrives, and looking up a host
        name has no timeout.
        """
        stamp = str(int(self._now()))
        headers |= {
            "Content-Type": "application/json",
            "User-Agent": f"haad-edge/{__version__}",
            "X-Haad-Timestamp": stamp,
        }
        if self._secret:
            headers["X-Haad-Signature"] = sign(self._secret, stamp, body)
        post = _Post(self._url, body, headers, method="POST")
        answer: concurrent.futures.Future[int] = concurrent.futures.Future()
        until = time.monotonic() + self._timeout
        threading.Thread(target=self._try, args=(post, answer), name="webhook", daemon=True).start()
        while not (answer.done() or self._stopped) and (left := until - time.monotonic()) > 0:
            concurrent.futures.wait([answer], min(left, LOOK_S))  # a signal handler cannot interrupt a longer wait
        if not answer.done():
            post.give_up()
            why = "the bridge is stopping" if self._stopped else f"no complete answer within {self._timeout:g} s"
            raise Unavailable("the receiver cannot be reached", why=why)
        try:
            status = answer.result()
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise Unavailable("the receiver cannot be reached", why=f"{type(e).__name__}: {e}"[:200]) from None
        if 200 <= status < 300:
            return
        kind = Refused if status in REFUSALS else Unavailable
        raise kind(f"the receiver answered {status} {http.client.responses.get(status, '')}".strip())

    def _try(self, post: _Post, answer: concurrent.futures.Future[int]) -> None:
        try:
            with self._opener.open(post, timeout=self._timeout) as got:
                answer.set_result(got.status)
        except urllib.error.HTTPError as e:
            with e:
                answer.set_result(e.code)
        except BaseException as e:  # raised again in `deliver`
            answer.set_exception(e)

    def show_status(self, status: Status) -> None:
        """See `Target`. Posts the state when it changes, if that is wanted."""
        state = status.run, status.state, status.silent, status.warnings  # the reason may have figures that run on
        if not self._states or state == self._told:
            return
        body = json.dumps({"type": "status", **shown(status)}, ensure_ascii=False, separators=(",", ":"))
        self._post(body.encode(), {})
        self._told = state

    def stop(self) -> None:
        """See `Target`."""
        self._stopped = True

    def close(self) -> None:
        """Nothing to close: each request has a connection of its own."""


def _check(url: str) -> None:
    """Raises SettingsError for an address that no request could ever reach."""
    fix = "use http://HOST/PATH or https://HOST/PATH, with :PORT after HOST if needed"
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = urllib.parse.unquote(parts.hostname or ""), parts.port
        if parts.scheme not in ("http", "https") or not host:
            why = ""
        elif "@" in parts.netloc:
            why = "the user and password in it would not be sent"
            url, fix = url.replace(parts.netloc, "…@" + parts.netloc.rpartition("@")[2]), "leave them out"
        elif port == 0:
            why = "nothing can listen on port 0"
        elif _FORBIDDEN.search(url) or _FORBIDDEN.search(host):
            why, fix = "it contains a space or a control character", "write a space as %20"
        elif not (url + host).isascii():
            why, fix = "it contains non-ASCII characters", "percent-encode them; in the host write xn--…"
        else:
            host.encode("idna")
            return
    except ValueError as e:  # also for an impossible host name
        why = str(e)
    raise SettingsError(f"{url!r:.120} is not a web address", why=why, fix=fix)
