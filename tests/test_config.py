"""Settings: what is accepted, what is refused, and how a refusal reads."""

from pathlib import Path

import pytest

from mlspark import config
from mlspark.errors import ConfigError

from .conftest import ROOT

CENSUS = str(ROOT / "conf" / "census.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batchsize=4", "training.batchsize: unknown key, did you mean global_batch_size?"),
        ("trainings.epochs=4", "trainings: unknown key, did you mean training?"),
        ("sources.learn.seperator=;", "sources.learn.seperator: unknown key, did you mean separator?"),
        (
            "training.epochs=abc",
            "--set training.epochs=abc: training.epochs: input should be a valid integer, got 'abc'",
        ),
        ('training.epochs="3"', "training.epochs: input should be a valid integer, got '3'"),
        ("training.use_gpu=1", "training.use_gpu: input should be a valid boolean, got 1"),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, got 0"),
        ("training.num_processes=3", "training.global_batch_size=512 is no multiple of training.num_processes=3"),
        ("streaming.streams=3", "training.num_processes=2 does not divide streaming.streams=3"),
        ("sources=1", "sources: "),
        ("name=Census!", "name: string should match pattern"),
        ("training", "--set training: expected section.key=value"),
        (".x=1", "--set .x=1: expected section.key=value"),
        ("a=[", "--set a=[: not valid YAML"),
    ],
)
def test_wrong_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.load([CENSUS], [override])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\n", "key 'name' given twice"),
        ("[1, 2]", "expected sections with keys, got list"),
        ("name: [", "not valid YAML"),
        ("", "expected sections with keys, got NoneType"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("name: x\ncontract: c.json\nsources: {learn: {path: p}}\n", "features: missing"),
        ("name: 2020-01-01\n", "quote dates"),
    ],
)
def test_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"some\.yaml") as refused:
        config.load([str(file)])
    assert message in str(refused.value)


def test_absent_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no/such.yaml: cannot be read \(No such file or directory\)"):
        config.load(["no/such.yaml"])


def test_later_files_and_overrides_win_key_by_key(tmp_path: Path) -> None:
    overlay = tmp_path / "fast.yaml"
    overlay.write_text("training: {epochs: 2, seed: 5}\nmodel: {hidden: [8]}\n")
    settings = config.load([CENSUS, str(overlay)], ["training.seed=7"])
    assert (settings.training.epochs, settings.training.seed, settings.model.hidden) == (2, 7, (8,))
    assert settings.sources.learn.path == "adult/adult.data"  # untouched by the overlay


def test_source_of_another_kind_takes_over_no_setting() -> None:
    settings = config.load([CENSUS], ["sources.learn.kind=parquet", "sources.learn.path=some.parquet"])
    assert settings.sources.learn.model_dump() == {
        "kind": "parquet", "path": "some.parquet", "has_label": True, "filter": "",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"sources\.learn: kind: must be one of 'csv', 'json'"):
        config.load([CENSUS], ["sources.learn.kind=xls"])
    with pytest.raises(
        ConfigError, match=r"sources\.learn\.sheet: unknown key, known here: has_label, filter, path, kind"
    ):
        config.load([CENSUS], ["sources.learn.kind=orc", "sources.learn.path=x", "sources.learn.sheet=1"])


def test_saved_form_gives_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSPARK_HOME", "/some/home")
    settings = config.load([CENSUS])
    monkeypatch.setenv("MLSPARK_HOME", "/another")
    saved = tmp_path / "saved.yaml"
    saved.write_text(settings.to_yaml())
    assert config.load([str(saved)]) == settings
    assert settings.root == "/some/home"


def test_values_laid_over_settings_are_checked_like_a_file() -> None:
    settings = config.load([CENSUS])
    changed = config.override(settings, {"training.epochs": 3, "model.hidden": [8]}, source="some.yaml")
    assert (changed.training.epochs, changed.model.hidden, changed.training.seed) == (3, (8,), settings.training.seed)
    assert config.override(settings, {}, source="some.yaml") == settings
    with pytest.raises(ConfigError, match=r"some\.yaml: training\.epoch: unknown key, did you mean epochs\?"):
        config.override(settings, {"training.epoch": 3}, source="some.yaml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.load([CENSUS]).training.epochs = 3  # type: ignore[misc]
