"""Publishes alerts to an MQTT broker, QoS 1: they count as delivered once the broker has acknowledged them.

<prefix>/alert/<stream>   the alert as JSON
<prefix>/status           retained: the engine's state as JSON; the broker itself says "offline" if this bridge dies
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge.bridge.core import Unavailable, as_json, shown
from edge.errors import SettingsError
from edge.events import Alert, Status

PORTS = {"mqtt": 1883, "mqtts": 8883}


def level(stream: str) -> str:
    """A stream's name as one topic level: characters that MQTT reserves, or that are not ASCII, are percent-encoded."""
    return urllib.parse.quote(stream, safe=" !$&'(),:;=@~")


class Mqtt:
    """See `edge.bridge.core.Target`."""

    most = 100

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "haad-edge",
        client_id: str = "haad-edge-bridge",
        username: str | None = None,
        password: str | None = None,
        ca: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        """`url` is mqtt://HOST[:PORT], or mqtts:// with TLS. `ca` is a file with the CA of the broker's certificate.

        Raises SettingsError for another address, or a `ca` that holds no certificate.
        """
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in PORTS or not parts.hostname or port == 0:
            raise SettingsError(
                f"{url!r:.120} is not a broker's address", fix="use mqtt://HOST:1883 or mqtts://HOST:8883"
            )
        if ca and parts.scheme != "mqtts":
            raise SettingsError(
                "--ca is for TLS, which mqtt:// does not use", fix=f"use mqtts://{parts.hostname}, or leave out --ca"
            )
        if not prefix or any(c in prefix for c in "#+\0"):
            raise SettingsError(
                f"a topic cannot begin with {prefix!r}", why="# and + are wildcards", fix="for example --prefix site1"
            )
        self._host, self._port = parts.hostname, port or PORTS[parts.scheme]
        self._prefix, self._id, self._timeout = prefix, client_id, timeout
        self._username, self._password = username, password
        self._tls = _trusting(ca) if parts.scheme == "mqtts" else None
        self._client: mqtt.Client | None = None
        self._stopped = False
        self._status: dict[str, Any] = {"state": "offline", "reason": "the engine has not been heard from yet"}
        self._told: dict[str, Any] | None = None

    def _connected(self) -> mqtt.Client:
        """The connected client: a new one after any failure, so that it holds no old messages."""
        if self._client and self._client.is_connected():
            return self._client
        self._drop()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self._id, reconnect_on_failure=False)
        client.max_inflight_messages_set(1000)
        if self._username:
            client.username_pw_set(self._username, self._password)
        if self._tls:
            client.tls_set_context(self._tls)
        gone = {"state": "offline", "reason": "the bridge is gone"}
        client.will_set(f"{self._prefix}/status", json.dumps(gone), qos=1, retain=True)
        refused: list[str] = []

        def connected(_: Any, __: Any, ___: Any, code: Any, ____: Any) -> None:
            if code.is_failure:
                refused.append(str(code))

        client.on_connect = connected
        client.connect_timeout = self._timeout
        try:
            client.connect(self._host, self._port, keepalive=20)
        except (OSError, ValueError) as e:
            raise Unavailable(f"no broker answers at {self._host}:{self._port}", why=str(e)) from None
        client.loop_start()
        until = time.monotonic() + self._timeout
        while not (client.is_connected() or refused or self._stopped) and time.monotonic() < until:
            time.sleep(0.01)
        self._client, self._told = client, None
        if not client.is_connected():
            self._drop()
            raise Unavailable(
                f"the broker at {self._host}:{self._port} does not accept the connection",
                why=(refused or ["it does not answer"])[0],
            )
        return client

    def deliver(self, alerts: Sequence[Alert]) -> int:
        """See `Target`. All are sent at once, and counted up to the first that is not acknowledged."""
        client = self._connected()
        self._announce()
        sent = []
        try:
            for a in alerts:
                sent.append(client.publish(f"{self._prefix}/alert/{level(a.stream)}", as_json(a).encode(), qos=1))
            until = time.monotonic() + self._timeout
            for i, info in enumerate(sent):
                while not info.is_published():
                    left = until - time.monotonic()
                    if left <= 0 or self._stopped or not client.is_connected():
                        if i:
                            self._drop()
                            return i
                        lost = left > 0 and not self._stopped
                        raise Unavailable("the broker does not acknowledge", why="connection lost" if lost else "")
                    info.wait_for_publish(min(left, 0.1))
        except (RuntimeError, ValueError) as e:
            self._drop()
            raise Unavailable("the message cannot be sent to the broker", why=str(e)) from None
        except Unavailable:
            self._drop()
            raise
        return len(sent)

    def show_status(self, status: Status) -> None:
        """Publish the state, retained, whenever it changes. Raises Unavailable."""
        self._status = shown(status)
        self._connected()
        self._announce()

    def _announce(self) -> None:
        if self._client and self._told != self._status:
            with contextlib.suppress(RuntimeError, ValueError):
                self._client.publish(f"{self._prefix}/status", json.dumps(self._status), qos=1, retain=True)
                self._told = self._status

    def _drop(self) -> None:
        if self._client:
            self._client.on_connect = None
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def stop(self) -> None:
        """See `Target`."""
        self._stopped = True

    def close(self) -> None:
        """Publish that the engine's state is no longer known, and disconnect."""
        self._status = {"state": "offline", "reason": "the bridge was stopped"}
        if self._client and self._client.is_connected():
            with contextlib.suppress(RuntimeError, ValueError):
                message = self._client.publish(f"{self._prefix}/status", json.dumps(self._status), qos=1, retain=True)
                message.wait_for_publish(2)
        self._drop()


def _trusting(ca: str | None) -> ssl.SSLContext:
    """A TLS context that trusts the CA certificates in the file `ca`, or None: the system's. Raises SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except OSError as e:  # ssl.SSLError is one
        why = "it holds no certificate" if isinstance(e, ssl.SSLError) else e.strerror or str(e)
        fix = "name a file of certificates in PEM format: --ca FILE"
        raise SettingsError(f"{ca}: cannot be read", why=why, fix=fix) from None
    return context
