"""What may be searched, and how a wrong search file is refused."""

from pathlib import Path

import pytest

from mlspark.errors import ConfigError
from mlspark.settings.pipeline import Settings
from mlspark.tuning import search as searches

from ..conftest import ROOT, census_settings
from .conftest import search_of


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return census_settings(Path("unused"), tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.epoch: {low: 1, high: 2}", "search.yaml: training.epoch: unknown key, did you mean epochs?"),
        ("trainings.epochs: {low: 1, high: 2}", "trainings: unknown key, did you mean training?"),
        ("split.seed: {low: 1, high: 2}", "split.seed: cannot be searched, because trials share one prepared table"),
        ("name: {choices: [a, b]}", "name: cannot be searched"),
        ("training: {epochs: {low: 1, high: 2}}", "training: name one key with a dot, like training."),
        ("training.epochs: 4", "training.epochs: expected low and high, or choices, got 4"),
        ("training.epochs: {low: 4}", "training.epochs.high: missing"),
        ("training.epochs: {low: 4, hihg: 8}", "training.epochs.hihg: unknown key, did you mean high?"),
        ("training.epochs: {choices: [4, 8], log: true}", "training.epochs.log: unknown key, known here: choices"),
        ("training.epochs: {low: 8, high: 4}", "training.epochs: low 8 is not below high 4"),
        ("training.epochs: {low: 4, high: .inf}", "training.epochs.high: expected a finite number, got inf"),
        ("training.epochs: {low: 0, high: 4}", "training.epochs: input should be greater than or equal to 1, got 0"),
        ("training.epochs: {low: 4, high: 20, step: 3}", "steps of 3 from low 4 miss high 20; say 19"),
        ("training.epochs: {low: 4, high: 8, step: 0.5}", "step 0.5 between whole ends; write low as 4.0"),
        ("training.epochs: {low: 4, high: 8, step: 2, log: true}", "log: true goes with no step"),
        ("training.epochs: {choices: [4]}", "training.epochs.choices: tuple should have at least 2 items"),
        ("model.dropout: {low: 0.0, high: 1.0}", "model.dropout: input should be less than 1, got 1.0"),
        ("model.dropout: {low: 0.0, high: 0.5, log: true}", "log: true needs a low above 0, got 0.0"),
        ("model.dropout: {low: 1e-3, high: 0.5}", "model.dropout.low: expected a number, got '1e-3'; write 1.0e-03"),
        ("model.dropout: {low: yes, high: 2}", "model.dropout.low: expected a number, got True"),
        ("model.hidden: {choices: [[8], [x]]}", "model.hidden.0: input should be a valid integer, got 'x'"),
        ("training.global_batch_size: {low: 1, high: 8}", "training.global_batch_size=1 has fewer rows than"),
        ("training.epochs: {low: 0, high: 4}\nmodel.hiden: {choices: [1, 2]}", "did you mean hidden?"),
        ("{}", "nothing to search; give section.key"),
        ("training.epochs: {low: 1, high: 2}\ntraining.epochs: {low: 1, high: 3}", "given twice"),
    ],
)
def test_wrong_search_is_refused_by_name(tmp_path: Path, settings: Settings, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.yaml") as refused:
        search_of(tmp_path, settings, text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_absent_search_file_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"no/such.yaml: cannot be read .*; give --search an existing file"):
        searches.load("no/such.yaml", settings)


def test_lists_come_back_from_what_optuna_draws(tmp_path: Path, settings: Settings) -> None:
    search = search_of(
        tmp_path, settings, "model.hidden: {choices: [[8], [16, 8]]}\nmodel.dropout: {low: 0.0, high: 0.3}"
    )
    assert search.values({"model.hidden": "[16, 8]", "model.dropout": 0.1}) == {
        "model.hidden": [16, 8],
        "model.dropout": 0.1,
    }


def test_names_are_short_where_they_differ(tmp_path: Path, settings: Settings) -> None:
    text = "training.seed: {low: 1, high: 2}\nmodel.dropout: {low: 0.0, high: 0.3}\n"
    assert search_of(tmp_path, settings, text).names() == {"training.seed": "seed", "model.dropout": "dropout"}


def test_example_is_a_search_of_its_pipeline(settings: Settings) -> None:
    assert len(searches.load(str(ROOT / "conf" / "census.search.yaml"), settings).space) == 5
