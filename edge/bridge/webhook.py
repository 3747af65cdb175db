"""Alerts by HTTP POST, one each, signed.

X-Haad-Signature: sha256=HMAC-SHA256(secret, <X-Haad-Timestamp> "." <body>), in hex
Idempotency-Key:  <journal>-<seq>, the same in every try
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence

from edge import __version__
from edge.bridge.core import Refused, Unavailable, as_json
from edge.errors import SettingsError
from edge.events import Alert, Status

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
REFUSALS = (400, 405, 406, 409, 411, 413, 414, 415, 422, 431)
"""Answers that are about this alert. Others (no such page, no right, too many, at fault) may pass."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive as a GET, and the alert would be lost."""

    def redirect_request(self, *args: object, **more: object) -> None:
        return None


def sign(secret: bytes, timestamp: str, body: bytes) -> str:
    """The value of X-Haad-Signature."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhook:
    """See `edge.bridge.core.Target`, one at a time. An answer of 200 to 299 says that the receiver has the alert."""

    most = 1

    def __init__(
        self, url: str, secret: bytes = b"", *, timeout: float = 10.0, now: Callable[[], float] = time.time
    ) -> None:
        """Raises SettingsError for what is no web address."""
        _check(url)
        self._url, self._secret, self._timeout, self._now = url, secret, timeout, now
        self._opener = urllib.request.build_opener(_NoRedirect)

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """See `Target`."""
        alert = alerts[0]
        body, stamp = as_json(alert).encode(), str(int(self._now()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"haad-edge/{__version__}",
            "Idempotency-Key": f"{alert.row}-{alert.seq}",
            "X-Haad-Timestamp": stamp,
        }
        if self._secret:
            headers["X-Haad-Signature"] = sign(self._secret, stamp, body)
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                status = answer.status
        except urllib.error.HTTPError as e:
            with e:
                status = e.code
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise Unavailable("the receiver cannot be reached", why=f"{type(e).__name__}: {e}"[:200]) from None
        if 200 <= status < 300:
            return 1
        kind = Refused if status in REFUSALS else Unavailable
        raise kind(f"the receiver answered {status} {http.client.responses.get(status, '')}".strip())

    def tell(self, status: Status) -> None:
        """States are not posted."""

    def close(self) -> None:
        """Each request has a connection of its own."""


def _check(url: str) -> None:
    """Raises SettingsError for an address that no try could ever reach."""
    fix = "http://HOST/PATH or https://HOST/PATH, with :PORT behind HOST if need be"
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = urllib.parse.unquote(parts.hostname or ""), parts.port
        if parts.scheme not in ("http", "https") or not host:
            why = ""
        elif "@" in parts.netloc:
            why = "a user and password in it would not be sent"
            url, fix = url.replace(parts.netloc, "…@" + parts.netloc.rpartition("@")[2]), "leave them out"
        elif port == 0:
            why = "nothing can listen on port 0"
        elif _FORBIDDEN.search(url) or _FORBIDDEN.search(host):
            why, fix = "it has a space or a control character in it", "write a space as %20"
        elif not (url + host).isascii():
            why, fix = "it has letters beyond ASCII", "percent-encode them, or write them as xn--… in the host"
        else:
            host.encode("idna")
            return
    except ValueError as e:  # also of a host name that none can have
        why = str(e)
    raise SettingsError(f"{url!r:.120} is no web address", why=why, fix=fix)
