"""`haad-edge bridge mqtt|webhook|jsonl`."""

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

app = typer.Typer(no_args_is_help=True, help="Carry alerts on to other systems; nothing is lost while they are down.")
From = Annotated[str, typer.Option("--from", help="where the engine publishes")]
Cursor = Annotated[Path, typer.Option(help="file that remembers how far this bridge has come")]
Since = Annotated[int | None, typer.Option(min=0, help="a new bridge begins at this number; none: with the next alert")]
Stream = Annotated[str, typer.Option(help="only streams whose name begins so")]
Replay = Annotated[str | None, typer.Option(help="where to ask for missed alerts; none: where the engine says")]
ENGINE = "sub+connect:tcp://127.0.0.1:5556"


def _carry(
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
    try:
        with (
            signals() as call_on_signal,
            AlertSubscriber(
                source,
                topics=[f"alert/{stream}", "status"],
                since=since,
                cursor=cursor,
                replay=replay,
                patience=60.0,
                keys=keys,
                allow_remote=remote,
            ) as subscriber,
        ):
            bridge = Bridge(subscriber, target, notices, aside=cursor.with_name(f"{cursor.name}.refused.jsonl"))
            call_on_signal(bridge.stop)
            notices.say("bridge ready")
            bridge.run()
            notices.say(f"stopped: {bridge.delivered} delivered, {bridge.refused} refused, {subscriber.missed} missed")
    finally:
        target.close()


def _secret(file: Path) -> bytes:
    fix = "name a file that holds the secret: --secret-file FILE"
    try:
        secret = file.read_bytes().strip()
    except OSError as e:
        raise SettingsError(f"{file}: cannot be read", why=e.strerror or str(e), fix=fix) from None
    if not secret:
        raise SettingsError(f"{file}: empty", why="the secret signs what is posted", fix=fix)
    return secret


@app.command("jsonl")
def jsonl(
    file: Annotated[Path, typer.Argument(help="file that lines are added to")],
    source: From = ENGINE,
    cursor: Annotated[
        Path | None, typer.Option(help="file that remembers how far it has come; none: FILE.cursor")
    ] = None,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Write alerts to a file, one JSON object a line, each on disk before the next."""
    from edge.bridge.jsonl import JsonLines

    at = cursor or file.with_name(f"{file.name}.cursor")
    _carry(JsonLines(file), source, at, since, stream, replay, keys, allow_remote)


@app.command("webhook")
def webhook(
    url: Annotated[str, typer.Argument(help="http:// or https:// address that alerts are posted to")],
    cursor: Cursor,
    source: From = ENGINE,
    secret_file: Annotated[Path | None, typer.Option(help=f"file with the secret; or in {WEBHOOK_SECRET}")] = None,
    timeout: Annotated[float, number("seconds for all of a try, to the answer", min=0.1)] = 10.0,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Post alerts to a web server, signed, again and again until it has them."""
    from edge.bridge.webhook import Webhook

    secret = _secret(secret_file) if secret_file else os.environ.get(WEBHOOK_SECRET, "").encode()
    _carry(Webhook(url, secret, timeout=timeout), source, cursor, since, stream, replay, keys, allow_remote)


@app.command("mqtt")
def mqtt(
    broker: Annotated[str, typer.Argument(help="mqtt://HOST[:PORT], or mqtts:// with TLS")],
    cursor: Cursor,
    source: From = ENGINE,
    prefix: Annotated[str, typer.Option(help="topics begin with it")] = "haad-edge",
    client_id: Annotated[str, typer.Option(help="one for each bridge at a broker")] = "haad-edge-bridge",
    username: Annotated[str | None, typer.Option(help=f"the password stands in {MQTT_PASSWORD}")] = None,
    ca: Annotated[Path | None, typer.Option(help="certificate of who signed the broker's; none: the system's")] = None,
    since: Since = None,
    stream: Stream = "",
    replay: Replay = None,
    keys: Keys = None,
    allow_remote: Remote = False,
) -> None:
    """Publish alerts at an MQTT broker, QoS 1, and the engine's state, retained."""
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
    _carry(target, source, cursor, since, stream, replay, keys, allow_remote)
