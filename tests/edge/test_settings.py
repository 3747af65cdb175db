"""Settings: which source wins, and that a wrong one is named with its field, value and place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge.errors import SettingsError
from edge.settings import MQTT_PASSWORD, WEBHOOK_SECRET, Settings, load_settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [k for k in os.environ if k.upper().startswith("HAAD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "edge.yaml"


def refused(overrides: dict[str, Any] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as e:
        load_settings(overrides, config)
    return str(e.value)


def test_the_defaults_stand_on_their_own_and_stay_on_this_host() -> None:
    s = load_settings()
    assert (s.ingest, s.alerts) == ("sub+bind:tcp://127.0.0.1:5555", "pub+bind:tcp://127.0.0.1:5556")
    assert s.support is None and s.bundle is None and s.allow_remote is False
    assert (s.threshold, s.threads, s.max_message_bytes) == (1.0, 1, 1024 * 1024)


# Which of file, environment and command line set the stride → the one that must win (default 0.25).
@pytest.mark.parametrize(
    ("in_file", "in_env", "on_line", "wins"),
    [
        (None, None, None, 0.25),
        (1.0, None, None, 1.0),
        (None, 2.0, None, 2.0),
        (None, None, 3.0, 3.0),
        (1.0, 2.0, None, 2.0),
        (1.0, None, 3.0, 3.0),
        (None, 2.0, 3.0, 3.0),
        (1.0, 2.0, 3.0, 3.0),
    ],
)
def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
    config: Path,
    in_file: float | None,
    in_env: float | None,
    on_line: float | None,
    wins: float,
) -> None:
    config.write_text("threads: 3\n" + (f"stride: {in_file}\n" if in_file else ""))
    if in_env:
        monkeypatch.setenv("HAAD_STRIDE", str(in_env))
    s = load_settings({"stride": on_line, "max_batch": None}, config)
    assert s.stride == wins
    assert (s.threads, s.max_batch) == (3, 64)  # one field's source does not shadow another's


def test_the_environment_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setenv("haad_threads", "5")
    config.write_text("threads: 2\n")
    assert load_settings({}, config).threads == 5


def test_every_field_can_be_set_from_every_source(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    free = {"overload": "wait"}
    values = {k: free.get(k, f"/{k}") if v is None else str(v) for k, v in Settings().model_dump().items()}
    values["false_alarms"] = "3.5"
    del values["normal"]  # a table, which stands in a file only
    normal = {"cam*": ["walk"]}
    expected = Settings(**{**values, "normal": normal})  # type: ignore[arg-type]
    assert expected.support == Path("/support") and expected.model_fields_set == set(Settings.model_fields)
    config.write_text(table := f"normal: {json.dumps(normal)}\n")
    for name, value in values.items():
        monkeypatch.setenv(f"HAAD_{name.upper()}", value)
    assert load_settings({}, config) == expected
    for name in values:
        monkeypatch.delenv(f"HAAD_{name.upper()}")
    config.write_text(table + "".join(f"{k}: {v}\n" for k, v in values.items()))
    assert load_settings({}, config) == expected == load_settings({**values, "normal": normal})


@pytest.mark.parametrize("value", ["", "hall: a03_wave", '{"hall": ["walk"]}'])
def test_a_table_in_the_environment_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HAAD_NORMAL", value)
    assert refused() == (
        "setting 'normal' from the environment: it is a table, which can only be given in a file"
        " → unset HAAD_NORMAL, and give it in a file: --config FILE.yaml"
    )


def test_the_bridges_own_variables_are_no_settings_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK_SECRET, "x")
    monkeypatch.setenv(MQTT_PASSWORD.lower(), "x")
    assert load_settings() == Settings()
    monkeypatch.setenv("HAAD_WEBHOOK_SECRETS", "x")
    assert "unknown setting 'webhook_secrets'" in refused()


def test_an_empty_file_and_one_of_comments_are_fine(config: Path) -> None:
    for text in ("", "# nothing yet\n", "---\n"):
        config.write_text(text)
        assert load_settings({}, config) == Settings()


@pytest.mark.parametrize("text", ["hall, gate", "[hall, gate]", "hall,gate"])
def test_streams_that_are_expected_are_a_list_or_words_with_commas(config: Path, text: str) -> None:
    assert load_settings().expected == ()
    config.write_text(f"expect: {text}\n")
    assert load_settings({}, config).expected == ("hall", "gate")


@pytest.mark.parametrize("value", ["hall,", "','", "'hall, ,gate'", "['a,b']", "[hall, 3]", "{hall: 1}"])
def test_an_expected_stream_has_a_name(config: Path, value: str) -> None:
    config.write_text(f"expect: {value}\n")
    assert f"setting 'expect' from {config}" in refused({}, config)


def test_metrics_off_means_off_in_yaml_too(config: Path) -> None:
    for text in ("metrics: off\n", "metrics: 'off'\n"):
        config.write_text(text)
        assert load_settings({}, config).metrics == "off"
    config.write_text("metrics: on\n")
    assert "'metrics'" in refused({}, config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stride", 0), ("stride", -1), ("stride", float("nan")), ("max_gap", 6), ("threads", 0), ("threads", "many"),
        ("threads", 1.5), ("threshold", 0), ("threshold", float("nan")), ("release", 1.1), ("max_people", 0),
        ("max_message_bytes", 1000), ("min_visible", 1.01), ("engine", "tensorflow"), ("allow_remote", "perhaps"),
        ("metrics", "9464"), ("metrics", "localhost"), ("metrics", ":9464"), ("metrics", "127.0.0.1:65536"),
        ("metrics", "127.0.0.1:²"), ("ingest", "tcp://127.0.0.1:5555"), ("ingest", "pub+bind:tcp://127.0.0.1:5555"),
        ("alerts", "sub+bind:tcp://127.0.0.1:5555"), ("ingest", "sub+bind:tcp://127.0.0.1:5555,"),
        ("ingest", "sub+bind:tcp://127.0.0.1:99999"), ("update_every", float("inf")), ("update_every", 3601),
        ("reload_every", float("inf")), ("reload_every", 1e10), ("threshold", float("inf")), ("threshold", 1001),
        ("max_queue", 10_000_001),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_field_value_and_source(
    monkeypatch: pytest.MonkeyPatch, config: Path, field: str, value: Any
) -> None:
    text = refused({field: value})
    assert f"setting '{field}' from the command line" in text and str(value).strip("'")[:60] in text
    config.write_text(f"{field}: {'.nan' if value != value else repr(value)}\n")
    text = refused({}, config)
    assert f"setting '{field}' from {config}" in text and str(value)[:60] in text
    monkeypatch.setenv(f"HAAD_{field.upper()}", str(value))
    text = refused({}, config)
    assert f"setting '{field}' from HAAD_{field.upper()}" in text and str(value)[:60] in text


@pytest.mark.parametrize(
    ("field", "example"),
    [
        ("ingest", "sub+bind:tcp://127.0.0.1:5555"), ("alerts", "pub+bind:tcp://127.0.0.1:5556"),
        ("replay", "router+bind:tcp://127.0.0.1:5557"), ("poses_out", "pub+bind:tcp://127.0.0.1:5558"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["tcp://127.0.0.1:5556", "PATTERN+bind:tcp://127.0.0.1"])
def test_an_endpoint_that_is_none_is_answered_with_one_that_fits_the_setting(
    field: str, example: str, value: str
) -> None:
    with pytest.raises(SettingsError) as e:
        load_settings({field: value.replace("PATTERN", example.partition("+")[0])})
    assert e.value.fix == f"for example {example}" and "for example" not in e.value.why


def test_a_good_value_over_a_wrong_one_makes_it_no_matter(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    config.write_text("stride: -1\n")
    monkeypatch.setenv("HAAD_STRIDE", "0.5")
    assert load_settings({}, config).stride == 0.5


def test_an_unknown_name_is_refused_with_its_source_and_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    text = refused({"treshold": 1})
    assert "'treshold'" in text and "the command line" in text and "did you mean 'threshold'?" in text
    config.write_text("alert: x\n")
    text = refused({}, config)
    assert "'alert'" in text and str(config) in text and "did you mean 'alerts'?" in text
    monkeypatch.setenv("HAAD_MAX_TRACK", "1")
    text = refused()
    assert "'max_track'" in text and "the environment" in text and "did you mean 'max_tracks'?" in text


def test_a_name_like_no_other_gets_no_guess() -> None:
    assert "did you mean" not in refused({"qqqqqq": 1})


@pytest.mark.parametrize(
    "text",
    [
        *("a: [1", "- stride\n", "5\n", "stride\n", "1: 2\n", "a: 2024-13-45\n", "\tstride: 1\n"),
        *("a: !!python/none 1", "a: " + "[" * 3000, "a: !!bool x", "a: !!timestamp x"),
    ],
    ids=lambda text: text[:12],
)
def test_a_file_that_holds_no_settings_is_refused_by_name(config: Path, text: str) -> None:
    config.write_text(text)
    assert str(config) in refused({}, config)


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, config: Path) -> None:
    config.write_bytes(b"\xff\xfe\x00")
    for path in (config, tmp_path, tmp_path / "absent.yaml"):
        assert str(path) in refused({}, path)


def test_several_endpoints_may_stand_in_one_setting() -> None:
    both = "sub+bind:tcp://127.0.0.1:1,pull+bind:ipc:///tmp/x"
    assert load_settings({"ingest": both}).ingest == both


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().threshold = -1


@pytest.mark.parametrize("field", ["support", "bundle", "cache", "keys", "stride", "ingest", "metrics"])
def test_an_empty_value_is_refused_and_not_the_working_folder(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.setenv(f"HAAD_{field.upper()}", "")
    assert refused() == f"setting '{field}' is empty → give HAAD_{field.upper()} a value, or leave it out"


def test_a_list_as_a_file_is_told_how_it_must_look(config: Path) -> None:
    config.write_text("- stride: 1\n")
    assert "must be 'name: value' lines, one setting each" in refused({}, config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("normal: {hall: walk}", "'normal.hall' from FILE: 'walk': must be a list → write hall: [walk]"),
        ("normal: {hall: }", "'normal.hall' from FILE: nothing: must be a list → write hall: [walk]"),
        ("normal: walk", "must be a table of 'name: value' → for example normal: {hall: [walk, wave]}"),
        ("normal: {hall: [3]}", "'normal.hall.0' from FILE: 3: must be text; put it in quotes if YAML takes it for"),
        ("stride: fast", "'stride' from FILE: 'fast': must be a number → correct it"),
        ("stride: 11", "'stride' from FILE: 11: must be at most 10 →"),
        ("threads: 1.5", "must be a whole number"),
        ("allow_remote: perhaps", "must be true or false"),
        ("sensitivity: none", "must be 'low', 'default' or 'high'"),
        ("support: 3", "'support' from FILE: 3: must be a path"),
    ],
)
def test_what_a_value_must_be_is_said_in_plain_words(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    found = refused({}, config)
    assert said.replace("FILE", str(config)) in found and "Input" not in found and "valid" not in found


@pytest.mark.parametrize("value", [False, "off", Path("off")])
def test_evidence_off_is_none_and_no_folder_of_that_name(config: Path, value: Any) -> None:
    config.write_text("evidence: kept\n")
    assert load_settings({}, config).evidence == Path("kept")
    assert load_settings({"evidence": value}, config).evidence is None
    config.write_text("evidence: off\n")
    assert load_settings({}, config).evidence is None


@pytest.mark.parametrize("off", ["off", "'Off'", "OFF", "no", "'none'", "false"])
def test_off_is_off_however_it_is_written(tmp_path: Path, off: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"journal: {off}\nevidence: {off}\nmetrics: {off}\n")
    s = load_settings({}, config)
    assert (str(s.journal), s.evidence, s.metrics) == ("off", None, "off")
    assert load_settings().journal is None and load_settings().metrics != "off"  # what is not given is not off


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("journal: ~/j.db\nsupport: ~/s\n")
    s = load_settings({}, tmp_path / "c.yaml")
    assert (s.journal, s.support) == (tmp_path / "j.db", tmp_path / "s")


@pytest.mark.parametrize("line", ["threshold: yes", "max_streams: true", "stride: on", "journal_mib: on"])
def test_yes_is_no_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "c.yaml").write_text(line)
    with pytest.raises(SettingsError, match="is true, but a number is needed"):
        load_settings({}, tmp_path / "c.yaml")
