"""Every setting of `haad-edge run`, once: command line over environment (`HAAD_…`) over YAML over default."""

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
"""The bridges' variables. A host may set them for all its services: they are no settings, and no mistake either."""


class Settings(BaseSettings):
    """None means: found out by itself. Seconds are seconds of capture time unless a field says otherwise."""

    model_config = SettingsConfigDict(env_prefix="HAAD_", extra="forbid", frozen=True, validate_default=True)

    support: Path | None = Field(None, description="folder support/<category>/*.npz: what is normal here")
    bundle: Path | None = Field(None, description="trained model; none: the base model inside the package")
    ingest: str = Field("sub+bind:tcp://127.0.0.1:5555", description="pose frames come in here (sub or pull)")
    alerts: str = Field("pub+bind:tcp://127.0.0.1:5556", description="alerts, scores and status go out here")
    replay: str = Field("router+bind:tcp://127.0.0.1:5557", description="answers for alerts on record; or 'off'")
    poses_out: str = Field("off", description="accepted poses go out here for record and support add (pub); or 'off'")
    metrics: str = Field("127.0.0.1:9464", description="host:port of /metrics /healthz /readyz, or 'off'")
    keys: Path | None = Field(None, description="folder of CURVE keys: encrypts, and lets in only its peers")
    allow_remote: bool = Field(False, description="permit endpoints that other hosts reach, unencrypted")

    journal: Path | None = Field(
        None, description="alerts go on disk here before they are published; none: ~/.local/state/haad-edge; or 'off'"
    )
    journal_mib: int = Field(64, ge=1, le=65536, description="the journal's oldest alerts go beyond so many MiB")
    journal_days: float = Field(30, gt=0, le=36500, description="and when they are so old")

    evidence: Path | None = Field(None, description="folder for the movement behind alerts; none or 'off': not kept")
    evidence_most: int = Field(1000, ge=1, le=1_000_000, description="files kept there, of 10 to 60 kB; the oldest go")

    engine: str = Field("onnx", description="inference back ends, the first that works: onnx, tensorrt,onnx")
    build_missing: bool = Field(False, description="build a TensorRT plan for this GPU if the bundle has none")
    threads: int = Field(1, ge=1, le=64, description="threads of ONNX Runtime; one is best beside other load")
    max_batch: int = Field(64, ge=1, le=4096, description="windows per inference at most")
    batch_deadline: float = Field(0.01, ge=0, le=1, description="seconds (wall clock) a due window waits for others")

    overload: Literal["wait", "drop-oldest", "widen-stride"] | None = Field(
        None,
        description="wait, drop-oldest or widen-stride when more is due than can be judged; "
        "none: wait for pull, drop-oldest for sub",
    )

    stride: float = Field(0.25, gt=0, le=10, description="seconds between two windows of a person")
    max_gap: float = Field(0.5, gt=0, le=5, description="a longer gap in a track starts its window anew")
    track_timeout: float = Field(2.0, gt=0, le=3600, description="a track unseen for so long is forgotten")
    min_confidence: float = Field(0.3, ge=0, le=1, description="a joint below this confidence counts as hidden")
    min_visible: float = Field(0.4, ge=0, le=1, description="a window with a smaller share of joints is not judged")

    threshold: float = Field(1.0, gt=0, le=1000, description="score that raises an alert; 1.0 is the limit of normal")
    sensitivity: Literal["low", "default", "high"] = Field(
        "default",
        description="low, default, high: 1, 6 or 30 false alarms per camera-hour of normal activity, "
        "as far as calibrated",
    )
    false_alarms: float | None = Field(
        None, gt=0, le=1000, description="per camera-hour, to aim for instead of what sensitivity stands for"
    )
    normal: dict[str, list[str]] = Field(
        {},
        description="stream (or a pattern such as 'cam*'): the categories that are normal there; none: all",
        examples=["{hall: [walk, wave]}"],
    )
    release: float = Field(0.9, gt=0, le=1, description="an alert ends below this share of the threshold")
    raise_after: int = Field(
        4, ge=1, le=1000, description="windows a fifth above the threshold before an alert; stronger ones count more"
    )
    clear_after: int = Field(4, ge=1, le=1000, description="windows in a row below the release before it ends")
    cool_down: float = Field(
        3.0, ge=0, le=3600, description="what begins so many seconds after an alert's end is that alert again"
    )
    update_every: float = Field(1.0, gt=0, le=3600, description="seconds between updates of a standing alert")

    max_turns: int = Field(
        136, ge=0, le=4096, description="pairs of categories, normal together, between which a change is normal too"
    )
    reload_every: float = Field(
        1.0, ge=0, le=3600, description="seconds (wall clock) between looks at the support folder; 0: never"
    )
    cache: Path | None = Field(None, description="folder of cached support features; none: ~/.cache/haad-edge")
    max_streams: int = Field(256, ge=1, le=65536)
    max_tracks: int = Field(4096, ge=1, le=262144)
    max_people: int = Field(256, ge=1, le=4096, description="people in one message")
    max_message_bytes: int = Field(1 << 20, ge=1024, le=16 << 20)
    max_queue: int = Field(
        10_000, ge=1, le=10_000_000, description="messages waiting in a socket (ZeroMQ high-water mark)"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == "":  # as a path it would be the working folder
            raise ValueError("is empty")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """~ is the home folder, as a shell has it; YAML's on and yes are no numbers."""
        kind = cls.model_fields[str(info.field_name)].annotation
        kinds = get_args(kind) or (kind,)
        if type(value) is bool and bool not in kinds and not {str, Path} & set(kinds):
            raise ValueError(f"is {str(value).lower()}, and a number is wanted")
        if Path in kinds and str(value).startswith("~"):
            try:
                return Path(value).expanduser()
            except RuntimeError:
                raise ValueError("begins with ~, and there is no such home") from None
        return value

    @field_validator("engine", mode="before")
    @classmethod
    def _engine(cls, value: Any) -> Any:
        names = value if isinstance(value, list) else str(value).split(",")
        names = [n.strip() if isinstance(n, str) else n for n in names]
        if strange := [n for n in names if n not in ENGINES]:
            raise ValueError(f"{strange[0]!r} is none of {', '.join(ENGINES)}")
        if len(set(names)) < len(names) or not names:
            raise ValueError("names each engine once")
        return ",".join(names)

    @property
    def engines(self) -> tuple[str, ...]:
        """The back ends, in the order of preference."""
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
    """YAML reads a bare `off` as false; people write it in other ways too, and none of them names a file."""
    return value is False or (value is not None and str(value).lower() in ("off", "no", "false", "none"))


def _endpoint(value: str, allowed: tuple[str, ...], example: str) -> str:
    """Several endpoints may stand in one setting, separated by commas."""
    for part in value.split(","):
        try:
            Endpoint.parse(part, allowed, example=example)
        except SettingsError as e:
            raise ValueError(f"{e.what}: {e.why}") from e  # `load_settings` takes the fix from it
    return value


def load_settings(overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Merge the sources; `overrides` come from the command line, None in them means not given.

    Raises SettingsError that names the field, the value and the source it came from.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    from_file = read_yaml(config) if config else {}
    names = Settings.model_fields
    # The environment stands between the two: what it sets must not be covered by the file.
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
            why="it is a table, and stands in a file only",
            fix=f"unset HAAD_{table.upper()}, and name a file that has it: --config FILE.yaml",
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
    """Whether a setting is a table, which neither the command line nor the environment can give."""
    return get_origin(Settings.model_fields[name].annotation) is dict


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of `name: value` lines. Raises SettingsError."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as e:
        raise SettingsError(f"{path}: cannot be read", why=e.strerror or str(e), fix="--config FILE.yaml") from None
    except (ValueError, yaml.YAMLError) as e:
        raise SettingsError(f"{path}: cannot be read as YAML", why=str(e)) from None
    except RecursionError:
        raise SettingsError(f"{path}: cannot be read as YAML", why="it is nested too deeply") from None
    if not isinstance(value, dict) or any(not isinstance(k, str) for k in value):
        raise SettingsError(f"{path}: must be 'name: value' lines, one setting each")
    return value
