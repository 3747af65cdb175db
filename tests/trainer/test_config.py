"""What a training file may contain, and the errors for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import SettingsError
from trainer.config import TrainConfig, load_config

REPOSITORY = Path(__file__).parents[2]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return path


def test_the_file_is_read_and_the_command_line_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "steps: 50\nbatch: 32\nencoder: {width: 24}\naugment: {flat: 0.5}\nmerge: {a/*: b}\n")
    c = load_config(path, steps=70, seed=None)
    assert (c.steps, c.batch, c.seed) == (70, 32, 0)
    assert (c.encoder.width, c.encoder.frames, c.augment.flat, c.augment.tilt) == (24, 48, 0.5, 0.15)
    assert c.merge == {"a/*": "b"}
    assert load_config(None) == TrainConfig() == load_config(written(tmp_path, ""))


def test_what_made_the_base_model_is_a_valid_configuration() -> None:
    c = load_config(REPOSITORY / "configs/train-base.yaml")
    assert c.name == "base" and c.encoder.embedding == 128


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stepps: 5", "stepps"),
        ("steps: 0", "steps"),
        ("steps: many", "steps"),
        ("average: 1.0", "average"),
        ("share: 0", "share"),
        ("per_category: 1", "per_category"),
        ("encoder: {wdith: 8}", "encoder"),
        ("encoder: {width: wide}", "encoder.width"),
        ("augment: {mirrors: 1}", "augment"),
        ("encoder: {frames: 4}", "frames"),
        ("encoder: {frames: 16, coefficients: 17}", "coefficients"),
        ("encoder: {embedding: 4}", "embedding"),
        ("encoder: {temperature: 0}", "temperature"),
        ("encoder: {seconds: 0}", "seconds"),
        ("augment: {mirror: 1.5}", "mirror is 1.5"),
        ("augment: {noise: -0.1}", "noise is -0.1"),
        ("augment: {tilt: .nan}", "tilt is nan"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError) as e:
        load_config(written(tmp_path, text))
    assert named in str(e.value) and "train.yaml" in str(e.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepps: 5", r"unknown training setting 'stepps' .*did you mean 'steps'\? → there are name, seed, steps,"),
        ("encoder: {wdith: 8}", r"unknown .*'encoder.wdith' .*did you mean 'width'\? → there are frames,"),
        ("exclude: '*/a01*'", r"write exclude: \[\"\*/a01\*\"\]"),
        ("exclude: fall", r"'exclude' .*: must be a list → write exclude: \[fall\]"),
        ("encoder: 5", "'encoder' .*: 5: must be a table of 'name: value' → correct it"),
    ],
)
def test_a_wrong_field_is_answered_in_words_with_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_config(written(tmp_path, text))


@pytest.mark.parametrize("content", [b"steps: [", b"- steps", b"just words", b"\xff\xfe\x00"])
def test_what_is_no_mapping_in_yaml_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"train\.yaml"):
        load_config(tmp_path / "train.yaml")
    with pytest.raises(SettingsError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
