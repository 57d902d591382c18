"""Settings: what is accepted, what is refused, and how a refusal reads."""

from pathlib import Path

import pytest

from mlspark.errors import ConfigError
from mlspark.settings import loading

from ..conftest import ROOT

CENSUS = str(ROOT / "conf" / "census.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batchsize=4", "training.batchsize: unknown key, did you mean global_batch_size?"),
        ("trainings.epochs=4", "trainings: unknown key, did you mean training?"),
        ("sources.learn.seperator=;", "sources.learn.seperator: unknown key, did you mean separator?"),
        (
            "training.epochs=abc",
            "--set: training.epochs: input should be a valid integer, got 'abc'",
        ),
        ('training.epochs="3"', "training.epochs: input should be a valid integer, got '3'"),
        ("training.use_gpu=1", "training.use_gpu: input should be a valid boolean, got 1"),
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, got 0"),
        (
            "training.num_processes=9",
            "training.num_processes=9 is more than streaming.lanes=8; set streaming.lanes to 9",
        ),
        ("streaming.lanes=1", "training.num_processes=2 is more than streaming.lanes=1"),
        (
            "training.global_batch_size=1",
            "training.global_batch_size=1 has fewer rows than training.num_processes=2 parts",
        ),
        (
            "training.accumulation_steps=300",
            "training.global_batch_size=512 has fewer rows than training.num_processes=2 x accumulation_steps=300 parts",
        ),
        (
            "training.best=rmse",
            "training.best=rmse: a binary task has no such metric; choose one of accuracy, roc_auc, ",
        ),
        ("training.best=f1_x", "training.best=f1_x: a binary task has no such metric; choose one of accuracy, "),
        ("task.loss.gamma=2.0", "task.loss: kind: must be one of 'cross_entropy', 'focal', 'custom'"),
        ("sources=1", "sources: "),
        ("task.loss.label_smoothing=0.1", "task.loss: kind: must be one of 'cross_entropy', 'focal', 'custom'"),
        ("task.loss=mse", "task.loss: must be a section with kind, one of 'cross_entropy', 'focal', 'custom'"),
        ("training.loss=mse", "--set: training.loss: unknown key, did you mean task.loss?"),
        ("training.learning_rate=1", "unknown key, did you mean training.optimizer.learning_rate?"),
        ("training.epoch=3", "training.epoch: unknown key, did you mean epochs?"),
        ("training.columns=3", "training.columns: unknown key, known here: num_processes, use_gpu"),
        ("model=trees", "model: must be a section with kind, one of 'tabular', "),
        ("model.kind=tree", "model: kind: must be one of 'tabular', "),
        ("registry.model_name=a/b", "registry.model_name: 'a/b' names no registered model"),
        ("registry.model_name=o'neil", "names no registered model"),
        ("registry.alias=v1", "registry.alias: 'v1' is no alias"),
        ("name=Census!", "name: string should match pattern"),
        ("training", "--set training: expected section.key=value"),
        (".x=1", "--set .x: expected section.key=value"),
        ("a=[", "--set a: not valid YAML: line "),
    ],
)
def test_wrong_setting_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loading.load([CENSUS], [override])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


NUMBER = "{kind: regression, target: age}"
OPEN = "{kind: multiclass, target: income}"  # its classes are those of the training rows


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"task={NUMBER}", "training.best=log_loss"], "training.best=log_loss: a regression task has no such metric; "
         "choose one of rmse, mae, median_ae, r2, mape, pinball, or leave it empty for rmse"),
        ([f"task={NUMBER}", "training.best=coverage"], "training.best=coverage: a regression task has no such metric"),
        ([f"task={OPEN}", "training.best=class_distance"], "training.best=class_distance: a multiclass task has no such"),
        (["task.loss={kind: focal}"], "model.kind=trees has no task.loss.kind=focal; choose another loss, or a network"),
        (["task.loss={kind: cross_entropy, label_smoothing: 0.1}"],
         "model.kind=trees has no task.loss.label_smoothing=0.1; set it to 0, or a"),
        ([f"task={OPEN}", "task.loss={kind: focal}"], "model.kind=trees has no task.loss.kind=focal; "),
        ([f"task={NUMBER}", "task.loss={kind: custom, function: 'a:b'}"], "has no task.loss.kind=custom; choose another"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loading.load([CENSUS], ["model.kind=trees", *overrides])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [f"task={OPEN}", "training.best=f1_some"],
        [f"task={OPEN}", "training.best=top_2_accuracy"],
        ["training.best=roc_auc"],
        [f"task={NUMBER}", "training.best=r2"],
        [f"task={NUMBER}", "task.loss={kind: quantile}", "training.best=coverage"],
        ["model.kind=trees", "training.num_processes=3"],  # the batches of a network cannot be shared out so
        ["model.kind=trees", "training.patience=2", "training.optimizer.kind=sgd"],
        ["model.kind=trees", f"task={OPEN}", "task.loss={kind: cross_entropy, class_weights: {some: 2.0}}"],
        *(["model.kind=trees", f"task={NUMBER}", f"task.loss={{kind: {loss}}}"]
          for loss in ("mse", "mae", "huber", "quantile")),
    ],
)  # fmt: skip
def test_settings_that_go_together_are_accepted(overrides: list[str]) -> None:
    loading.load([CENSUS], overrides)


def test_a_wrong_item_of_a_list_is_the_one_complaint() -> None:
    with pytest.raises(ConfigError) as refused:
        loading.load([CENSUS], ["features.inputs=[{kind: number}]"])
    assert str(refused.value).endswith(": features.inputs.0: give either columns or expression")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\n", "key 'name' given twice"),
        ("[1, 2]", "expected sections with keys, got list"),
        ("name: [", "not valid YAML"),
        ("", "expected sections with keys, got NoneType"),
        ("!!python/object/apply:os.system [ls]", "not valid YAML"),
        ("name: x\ncontract: c.json\nsources: {learn: {path: p}}\n", "features: missing"),
        ("name: 2020-01-01\n", "name: is a date to YAML; put quotes around it"),
    ],
)
def test_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"some\.yaml") as refused:
        loading.load([str(file)])
    assert message in str(refused.value)


def test_absent_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no/such.yaml: cannot be read \(No such file or directory\)"):
        loading.load(["no/such.yaml"])


def test_later_files_and_overrides_win_key_by_key(tmp_path: Path) -> None:
    overlay = tmp_path / "fast.yaml"
    overlay.write_text("training: {epochs: 2, seed: 5}\nmodel: {hidden: [8]}\n")
    settings = loading.load([CENSUS, str(overlay)], ["training.seed=7"])
    assert (settings.training.epochs, settings.training.seed, settings.model.hidden) == (2, 7, (8,))
    assert settings.sources.learn.path == "adult/adult.data"  # untouched by the overlay


def test_source_of_another_kind_takes_over_no_setting() -> None:
    settings = loading.load([CENSUS], ["sources.learn.kind=parquet", "sources.learn.path=some.parquet"])
    assert settings.sources.learn.model_dump() == {
        "kind": "parquet", "path": "some.parquet", "has_label": True, "filter": "",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"sources\.learn: kind: must be one of 'csv', 'json'"):
        loading.load([CENSUS], ["sources.learn.kind=xls"])
    with pytest.raises(
        ConfigError, match=r"sources\.learn\.sheet: unknown key, known here: kind, has_label, filter, path"
    ):
        loading.load([CENSUS], ["sources.learn.kind=orc", "sources.learn.path=x", "sources.learn.sheet=1"])


def test_saved_form_gives_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSPARK_HOME", "/some/home")
    settings = loading.load([CENSUS])
    monkeypatch.setenv("MLSPARK_HOME", "/another")
    saved = tmp_path / "saved.yaml"
    saved.write_text(settings.to_yaml())
    assert loading.load([str(saved)]) == settings
    assert settings.root == "/some/home"


def test_values_laid_over_settings_are_checked_like_a_file() -> None:
    settings = loading.load([CENSUS])
    changed = loading.override(settings, {"training.epochs": 3, "model.hidden": [8]}, source="some.yaml")
    assert (changed.training.epochs, changed.model.hidden, changed.training.seed) == (3, (8,), settings.training.seed)
    assert loading.override(settings, {}, source="some.yaml") == settings
    with pytest.raises(ConfigError, match=r"some\.yaml: training\.epoch: unknown key, did you mean epochs\?"):
        loading.override(settings, {"training.epoch": 3}, source="some.yaml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        loading.load([CENSUS]).training.epochs = 3  # type: ignore[misc]
