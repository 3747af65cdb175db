"""The commands `haad-edge bridge mqtt|webhook|jsonl`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.commands.console import Keys, Remote, need, number, signals
from edge.errors import SettingsError
from edge.settings import MQTT_PASSWORD, WEBHOOK_SECRET

if TYPE_CHECKING:
    from edge.bridge.core import Target

app = typer.Typer(no_args_is_help=True, help="Forward alerts to other systems; nothing is lost while they are down.")
From = Annotated[str, typer.Option("--from", help="where the engine publishes")]
Cursor = Annotated[Path, typer.Option(help="file that remembers how far this bridge has come")]
Since = Annotated[int | None, typer.Option(min=0, help="number where a new bridge begins; none: with the next alert")]
Stream = Annotated[str, typer.Option(help="only streams whose names begin with this")]
Replay = Annotated[
    str | None, typer.Option(help="where to ask for missed alerts; none: the address that the engine announces")
]
ENGINE = "sub+connect:tcp://127.0.0.1:5556"


def _run_bridge(
    target: Target,
    source: str,
    cursor: Path,
    since: int | None,
    stream: str,
    replay: str | None,
    keys: Path | None,
    remote: bool,
) -> None:
    from edge.bridge.core import Bridge
    from edge.client import AlertSubscriber
    from edge.notices import Notices

    notices = Notices()
    with signals() as call_on_signal:  # until the target is closed as well, which may take a moment
        try:
            with AlertSubscriber(
                source,
                topics=[f"alert/{stream}", "status"],
                since=since,
                cursor=cursor,
                replay=replay,
                patience=60.0,
                keys=keys,
                allow_remote=remote,
            ) as subscriber:
                bridge = Bridge(subscriber, target, notices, aside=cursor.with_name(f"{cursor.name}.refused.jsonl"))
                call_on_signal(bridge.stop)
                notices.say("bridge ready")
                bridge.run()
                notices.say(
                    f"stopped: {bridge.delivered} delivered, {bridge.refused} refused, {subscriber.missed} missed"
                )
        finally:
            target.close()


def _secret(file: Path) -> bytes:
    fix = "name a file that holds the secret: --secret-file FILE"
    try:
        secret = file.read_bytes().strip()
    except OSError as e:
        raise SettingsError(f"{file}: cannot be read", why=e.strerror or str(e), fix=fix) from None
    if not secret:
        raise SettingsError(f"{file}: empty", why="a secret is needed to sign what is posted", fix=fix)
    return secret


@app.command("jsonl")
def jsonl(
    file: Annotated[Path, typer.Argument(help="file to append lines to")],
    source: From = ENGINE,
    cursor: Annotated[
        Path | None, typer.Option(help="file that remembers how far this bridge has come; none: FILE.cursor")
    ] = None,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Append alerts to a file, one JSON object per line, flushed to disk."""
    from edge.bridge.jsonl import JsonLines

    at = cursor or file.with_name(f"{file.name}.cursor")
    _run_bridge(JsonLines(file), source, at, since, stream, replay, keys, allow_remote)


@app.command("webhook")
def webhook(
    url: Annotated[str, typer.Argument(help="http:// or https:// address to post alerts to")],
    cursor: Cursor,
    source: From = ENGINE,
    secret_file: Annotated[Path | None, typer.Option(help=f"file with the secret; or set {WEBHOOK_SECRET}")] = None,
    timeout: Annotated[float, number("seconds for a whole try, up to the answer", min=0.1)] = 10.0,
    status: Annotated[bool, typer.Option(help="also post the engine's state and its silent streams")] = False,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Post alerts to a web server, signed, retrying each until the server has it."""
    from edge.bridge.webhook import Webhook

    secret = _secret(secret_file) if secret_file else os.environ.get(WEBHOOK_SECRET, "").encode()
    _run_bridge(
        Webhook(url, secret, timeout=timeout, states=status), source, cursor, since, stream, replay, keys, allow_remote
    )


@app.command("mqtt")
def mqtt(
    broker: Annotated[str, typer.Argument(help="mqtt://HOST[:PORT], or mqtts:// with TLS")],
    cursor: Cursor,
    source: From = ENGINE,
    prefix: Annotated[str, typer.Option(help="what topics begin with")] = "haad-edge",
    client_id: Annotated[
        str, typer.Option(help="MQTT client id; each bridge at a broker needs its own")
    ] = "haad-edge-bridge",
    username: Annotated[str | None, typer.Option(help=f"user name; set the password in {MQTT_PASSWORD}")] = None,
    ca: Annotated[Path | None, typer.Option(help="CA certificate for the broker; none: the system's")] = None,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Publish alerts to an MQTT broker, QoS 1, and the engine's state, retained."""
    need("mqtt", "paho")
    from edge.bridge.mqtt import Mqtt

    password = os.environ.get(MQTT_PASSWORD)
    target = Mqtt(
        broker,
        prefix=prefix,
        client_id=client_id,
        username=username,
        password=password,
        ca=str(ca) if ca else None,
    )
    _run_bridge(target, source, cursor, since, stream, replay, keys, allow_remote)
