"""Defines and loads the settings of `haad-edge run`: command line over environment (`HAAD_…`), YAML, default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from edge.errors import SettingsError
from edge.network.endpoint import Endpoint
from edge.wrong import nearest, refusal

ENGINES = ("onnx", "tensorrt")
WEBHOOK_SECRET, MQTT_PASSWORD = "HAAD_WEBHOOK_SECRET", "HAAD_MQTT_PASSWORD"
"""Environment variables of the bridges. They are not settings, but a host may set them for all its services."""


class Settings(BaseSettings):
    """The settings. None means that the value is found out automatically.

    Seconds are seconds of capture time unless a field says otherwise.
    """

    model_config = SettingsConfigDict(env_prefix="HAAD_", extra="forbid", frozen=True, validate_default=True)

    support: Path | None = Field(None, description="folder support/<category>/*.npz: what is normal here")
    bundle: Path | None = Field(None, description="folder of a trained model; none: the package's base model")
    ingest: str = Field("sub+bind:tcp://127.0.0.1:5555", description="pose frames come in here (sub or pull)")
    alerts: str = Field("pub+bind:tcp://127.0.0.1:5556", description="alerts, scores and status go out here")
    replay: str = Field("router+bind:tcp://127.0.0.1:5557", description="answers for alerts on record; or 'off'")
    poses_out: str = Field("off", description="accepted poses go out here for record and support add (pub); or 'off'")
    metrics: str = Field("127.0.0.1:9464", description="host:port of /metrics /healthz /readyz, or 'off'")
    keys: Path | None = Field(None, description="folder of CURVE keys: encrypt, and admit only the peers in it")
    allow_remote: bool = Field(False, description="permit endpoints that other hosts can reach, unencrypted")

    journal: Path | None = Field(
        None,
        description="file that alerts are written to before they are published; none: in ~/.local/state/haad-edge; "
        "or 'off'",
    )
    journal_mib: int = Field(64, ge=1, le=65536, description="largest journal in MiB; the oldest alerts are deleted")
    journal_days: float = Field(30, gt=0, le=36500, description="alerts older than this are deleted from the journal")

    evidence: Path | None = Field(None, description="folder for the movement behind alerts; none or 'off': not kept")
    evidence_most: int = Field(
        1000, ge=1, le=1_000_000, description="files kept there, of 10 to 60 kB each; the oldest are deleted"
    )

    evidence_days: float = Field(30, gt=0, le=36500, description="files there that are older than this are deleted")

    engine: str = Field(
        "auto",
        description="inference back ends; the first that works is used: onnx, tensorrt,onnx; "
        "auto: tensorrt,onnx if the bundle has a TensorRT plan, or --build-missing is given, else onnx",
    )
    build_missing: bool = Field(False, description="build a TensorRT plan for this GPU if the bundle has none")
    threads: int = Field(1, ge=1, le=64, description="threads of ONNX Runtime; one is best beside other load")
    max_batch: int = Field(64, ge=1, le=4096, description="most windows in one inference")
    batch_deadline: float = Field(
        0.01, ge=0, le=1, description="seconds (wall clock) that a due window waits for others"
    )

    overload: Literal["wait", "drop-oldest", "widen-stride"] | None = Field(
        None,
        description="what to do when more is due than can be judged: wait, drop-oldest or widen-stride; "
        "none: wait for pull, drop-oldest for sub",
    )

    stride: float = Field(0.25, gt=0, le=10, description="seconds between two windows of a person")
    max_gap: float = Field(0.5, gt=0, le=5, description="after a longer gap in a track its window begins again")
    track_timeout: float = Field(2.0, gt=0, le=3600, description="seconds after which an unseen track is forgotten")
    expect: str | None = Field(
        None, description="streams that should always send, such as hall,gate; told of when they do not"
    )
    silent_after: float = Field(
        10.0,
        ge=0,
        le=86400,
        description="seconds (wall clock) without a message after which a stream counts as silent; 0: never",
    )
    min_confidence: float = Field(0.3, ge=0, le=1, description="a joint below this confidence counts as hidden")
    min_visible: float = Field(
        0.4, ge=0, le=1, description="a window with a smaller share of visible joints is not judged"
    )

    threshold: float = Field(
        1.0, gt=0, le=1000, description="score that counts towards an alert; 1.0 is the limit of normal"
    )
    sensitivity: Literal["low", "default", "high"] = Field(
        "default",
        description="low, default, high: 1, 6 or 30 false alarms per camera-hour of normal activity, "
        "as far as calibrated",
    )
    false_alarms: float | None = Field(
        None, gt=0, le=1000, description="false alarms per camera-hour to aim for, in place of sensitivity"
    )
    normal: dict[str, list[str]] = Field(
        {},
        description="stream (or a pattern such as 'cam*'): the categories that are normal there; none: all",
        examples=["{hall: [walk, wave]}"],
    )
    release: float = Field(0.9, gt=0, le=1, description="an alert ends below this share of the threshold")
    raise_after: int = Field(
        4, ge=1, le=1000, description="windows a fifth above the threshold before an alert; higher scores count more"
    )
    clear_after: int = Field(
        4, ge=1, le=1000, description="windows in a row below the release level before an alert ends"
    )
    cool_down: float = Field(
        3.0, ge=0, le=3600, description="an anomaly within so many seconds of an alert's end continues that alert"
    )
    update_every: float = Field(1.0, gt=0, le=3600, description="seconds between updates of a standing alert")

    max_transitions: int = Field(
        136, ge=0, le=4096, description="most pairs of categories between which a transition counts as normal"
    )
    reload_every: float = Field(
        1.0, ge=0, le=3600, description="seconds (wall clock) between checks of the support folder; 0: never"
    )
    cache: Path | None = Field(None, description="folder of cached support features; none: ~/.cache/haad-edge")
    max_streams: int = Field(256, ge=1, le=65536)
    max_tracks: int = Field(4096, ge=1, le=262144)
    max_people: int = Field(256, ge=1, le=4096, description="most people in one message")
    max_message_bytes: int = Field(1 << 20, ge=1024, le=16 << 20)
    max_queue: int = Field(
        10_000, ge=1, le=10_000_000, description="most messages waiting in a socket (ZeroMQ high-water mark)"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == "":  # as a path it would mean the working folder
            raise ValueError("is empty")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Expand ~ to the home folder, as a shell does; refuse YAML's on and yes where a number is needed."""
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = get_args(kind) or (kind,)
        if type(value) is bool and bool not in kinds and not {str, Path} & set(kinds):
            raise ValueError(f"is {str(value).lower()}, but a number is needed")
        if Path in kinds and str(value).startswith("~"):
            try:
                return Path(value).expanduser()
            except RuntimeError:
                raise ValueError("begins with ~, but there is no such home folder") from None
        return value

    @field_validator("engine", mode="before")
    @classmethod
    def _engine(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else str(value).split(",")
        names = [n.strip() if isinstance(n, str) else n for n in names]
        if names == ["auto"]:
            return "auto"
        if unknown := [n for n in names if n not in ENGINES]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(ENGINES)}")
        if len(set(names)) < len(names) or not names:
            raise ValueError("must name each engine at most once")
        return ",".join(names)

    @field_validator("expect", mode="before")
    @classmethod
    def _expect(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else str(value).split(",")
        if not isinstance(value, str | int | list) or any(not isinstance(n, str) for n in names):
            return value
        if wrong := [n for n in names if "," in n or not n.strip()]:
            raise ValueError(f"holds {wrong[0]!r}, which cannot be a stream's name here")
        return ",".join(n.strip() for n in names)

    @property
    def expected(self) -> tuple[str, ...]:
        """The streams that should always send."""
        return tuple(self.expect.split(",")) if self.expect else ()

    @property
    def engines(self) -> tuple[str, ...]:
        """The back ends in order of preference, or `auto`."""
        return tuple(self.engine.split(","))

    @field_validator("ingest")
    @classmethod
    def _ingest(cls, value: str) -> str:
        return _endpoint(value, ("sub", "pull"), cls.model_fields["ingest"].default)

    @field_validator("alerts")
    @classmethod
    def _alerts(cls, value: str) -> str:
        return _endpoint(value, ("pub",), cls.model_fields["alerts"].default)

    @field_validator("replay")
    @classmethod
    def _replay(cls, value: str) -> str:
        return value if value == "off" else _endpoint(value, ("router",), cls.model_fields["replay"].default)

    @field_validator("poses_out")
    @classmethod
    def _poses_out(cls, value: str) -> str:
        return value if value == "off" else _endpoint(value, ("pub",), "pub+bind:tcp://127.0.0.1:5558")

    @field_validator("metrics", "journal", "replay", "poses_out", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if _is_off(value) else value

    @field_validator("evidence", mode="before")
    @classmethod
    def _evidence(cls, value: Any) -> Any:
        return None if _is_off(value) else value

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value != "off" and not (host and port.isdigit() and int(port) < 65536):
            raise ValueError("is neither host:port nor 'off'")
        return value


def _is_off(value: Any) -> bool:
    """Whether a value means "off": YAML reads a bare `off` as false, and people write it in other ways too."""
    return value is False or (value is not None and str(value).lower() in ("off", "no", "false", "none"))


def _endpoint(value: str, allowed: tuple[str, ...], example: str) -> str:
    """Check a setting's endpoints, one or several separated by commas. Raises ValueError."""
    for part in value.split(","):
        try:
            Endpoint.parse(part, allowed, example=example)
        except SettingsError as e:
            raise ValueError(f"{e.what}: {e.why}") from e  # `edge.wrong` takes the fix from the cause
    return value


def load_settings(overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Merge the sources. `overrides` come from the command line; None in them means not given.

    Raises SettingsError that names the field, the value and the source it came from.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    from_file = read_yaml(config) if config else {}
    names = Settings.model_fields
    # The environment ranks between the two, so values that it sets must not be hidden by the file's.
    variables = {k.upper() for k in os.environ} - {WEBHOOK_SECRET, MQTT_PASSWORD}
    env = {k.removeprefix("HAAD_").lower() for k in variables if k.startswith("HAAD_")}
    for source, keys in (("the command line", given), (str(config), from_file), ("the environment", env)):
        for key in keys:
            if key not in names:
                raise SettingsError(
                    f"unknown setting '{key}' from {source}",
                    why=nearest(key, names),
                    fix="haad-edge run --help lists them all",
                )
    if table := next((k for k in sorted(env) if is_table(k)), None):
        raise SettingsError(
            f"setting '{table}' from the environment",
            why="it is a table, which can only be given in a file",
            fix=f"unset HAAD_{table.upper()}, and give it in a file: --config FILE.yaml",
        )
    try:
        return Settings(**{**{k: v for k, v in from_file.items() if k not in env}, **given})
    except ValidationError as e:
        first = e.errors()[0]
        key = str(first["loc"][0])
        source = "the command line" if key in given else f"HAAD_{key.upper()}" if key in env else str(config)
        if first.get("input") == "":
            raise SettingsError(f"setting '{key}' is empty", fix=f"give {source} a value, or leave it out") from None
        raise refusal(Settings, e, "setting", source) from None


def is_table(name: str) -> bool:
    """Whether a setting is a table, which can be given neither on the command line nor in the environment."""
    return get_origin(Settings.model_fields[name].annotation) is dict


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines. Raises SettingsError."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read", why=e.strerror or str(e), fix="--config FILE.yaml") from None
    except RecursionError:
        raise SettingsError(f"{path}: cannot be read as YAML", why="it is nested too deeply") from None
    except Exception as e:  # PyYAML raises many kinds over a value that is not of its tag's type
        raise SettingsError(f"{path}: cannot be read as YAML", why=str(e)) from None
    if not isinstance(value, dict) or any(not isinstance(k, str) for k in value):
        raise SettingsError(f"{path}: must be 'name: value' lines, one setting each")
    return value
