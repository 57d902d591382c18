"""Each benchmark runs to its end on little data, gives the figures that it documents, and those that are exact are right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

KEYS = {
    "census_models.py": {"mlspark network", "HistGradientBoosting"},
    "ensembles.py": {"seeds", "above", "runs"},
    "engine_families.py": {"networks"},
    "engines.py": {
        "int8_over_eager", "bf16_over_eager", "float32_over_eager", "trees_over_baseline", "trees_over_baseline_cpu",
    },
    "features.py": {
        "transform_over_scan", "over_pyspark_ml", "over_map_in_arrow", "passes", "wide_planning_s", "one_row_us",
        "batch_row_us", "scale_10x", "driver_rss_ratio", "wide_passes", "many_limit", "many_collected",
    },
    "gpu_steps.py": {"device", "ours_eager_256", "bare_eager_256", "ours_eager_1024", "bare_eager_1024"},
    "long_run.py": {"launches", "launches_threads_growth", "launches_rss_mb_growth", "streaming_threads_growth"},
    "monitoring.py": {"over_limit_100", "false_alarms_100", "older_300", "unseen_300", "missing_300"},
    "pictures.py": {
        "over_decode_only", "over_decode_only_small", "over_decode_only_cpu", "pixels_over_read_table", "first_batch_s",
        "rss_mb", "imports_mb", "processes_mb", "growth_10x", "best_workers",
    },
    "prepare_kills.py": {"kills", "lost", "duplicated", "visible_halves"},
    "prepare_scale.py": {"rules_ratio", "scale_10x", "driver_rss_ratio", "source_reads"},
    "promotion_kills.py": {"kills", "none_in_use", "several_in_use", "wrong_in_use", "wrong_audit", "left_undone"},
    "pytabkit_census.py": {"XGB_TD"},
    "queue_kills.py": {
        "jobs", "worker_kills", "crashes", "lost", "several_ends", "wrong_ends", "done_twice", "begun_twice", "ran_together",
        "left_processes", "submit_median_s",
    },
    "scaling.py": {"rows_per_second", "parameters", "error_2", "error_4", "fitted_error_4"},
    "scoring.py": {
        "over_predict_batch_udf", "over_spark_udf", "over_bare", "optimised_over_ours", "growth_10x", "most_different",
    },
    "score_kills.py": {"kills", "lost", "duplicated", "visible_halves", "seconds"},
    "serving.py": {
        "mlspark_1_p50_ms", "mlspark_32_p99_ms", "mlflow_32_per_second", "requests_ratio_1", "requests_ratio_32",
        "p99_ratio_32", "rows_ratio", "switches", "switch_failed", "drain_requests", "drain_failed", "drain_exit",
    },
    "small_jobs.py": {"csv_infer_processor_seconds"},
    "streaming.py": {
        "over_read_table", "vector_over_read_table", "memory_over_numpy", "over_pyarrow_hand", "first_batch_s",
        "resume_ratio", "plan_seconds", "plan_mb", "rss_slope_mb_per_epoch", "rss_20m_over_1m", "reads_short",
        "consumer_cpu_share", "layout_cpu_share", "peak_over_window",
    },
    "tasks.py": {"wine"},
    "training.py": {"step_ratio", "launch_seconds", "data_wait", "rows_per_second"},
    "transfer.py": {"as_published", "rows", "epochs", "seeds", "table"},
    "training_faults.py": {"faults", "noticed_max_s", "equal_parameters", "rows_exact", "left_processes"},
    "wide_rows.py": {"outputs", "first_rows_seconds", "first_rows_cpu_seconds", "fit_seconds"},
}  # fmt: skip


OF_A_USER = {name: value for name, value in os.environ.items() if name not in ("SPARK_CONF_DIR", "PYTHONPATH")}
"""The environment in which the README's commands are typed."""


SLOW = pytest.mark.slow
"""Mark of those that import the same again."""


@pytest.mark.parametrize(
    "script",
    ["streaming.py", pytest.param("prepare_kills.py", marks=SLOW), pytest.param("training_faults.py", marks=SLOW)],
)
def test_benchmark_that_needs_servers_of_the_checkout_finds_them(script: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--help"]
    done = subprocess.run(command, env=OF_A_USER, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, "--quick" in done.stdout) == (0, True), done.stderr


def figures(script: str, json_file: Path, *options: str) -> dict[str, Any]:
    """Return what a benchmark writes as JSON."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--json", str(json_file), *options]
    done = subprocess.run(
        command, cwd=ROOT, env=OF_A_USER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout
    found: dict[str, Any] = json.loads(json_file.read_text())
    assert KEYS[script] <= set(found), f"{script} lacks {sorted(KEYS[script] - set(found))}"
    return found


def test_every_benchmark_is_run_here() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py") if not path.name.startswith("_")}
    quick = {name for name in scripts if '"--quick"' in (ROOT / "benchmarks" / name).read_text()}
    assert quick == {*KEYS, "all.py"}


def test_table_of_all_ratios_names_aims_that_are_missed_and_what_got_slower(tmp_path: Path) -> None:
    kept = {"figures": {"scoring": {"over_bare": 2.0, "growth_10x": 6.0, "over_spark_udf": 3.0}}}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    found = {"over_bare": 1.5, "growth_10x": 8.0, "over_spark_udf": 2.9, "over_predict_batch_udf": 2.5}
    (tmp_path / "scoring.json").write_text(json.dumps(found | {"ranges": {"growth_10x": [6.5, 9.0]}}))
    command = [sys.executable, str(ROOT / "benchmarks" / "all.py"), "--only", "scoring", "--folder", str(tmp_path)]
    command += ["--kept", str(tmp_path / "kept.json"), "--write"]
    done = subprocess.run(command, env=OF_A_USER, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "failed: none; slower than kept: scoring.over_bare"
    rows = {cells[1]: cells[3:] for line in done.stdout.splitlines() if len(cells := line.split(" | ")) > 4}
    assert rows["bare mapInArrow / ours"] == ["1.35-1.65", "at least 1", "yes", "2, **slower** |"]
    assert rows["ten times the rows"] == ["6.5-9", "at most 10.5", "yes", "6 |"]
    assert rows["MLflow's spark_udf / ours"] == ["2.61-3.19", "at least 5", "**no**", "3 |"]
    assert json.loads((tmp_path / "kept.json").read_text())["figures"]["scoring"]["over_bare"] == 1.5
    assert "| scoring | bare mapInArrow / ours | 1.5 |" in (tmp_path / "kept.md").read_text()


@pytest.mark.slow
def test_scores_are_those_of_other_ways(tmp_path: Path) -> None:
    assert figures("scoring.py", tmp_path / "out.json")["most_different"] < 1e-6


@pytest.mark.slow
def test_engines_keep_the_accuracy_of_a_network_and_trees_that_of_the_baseline(tmp_path: Path) -> None:
    found = figures("engines.py", tmp_path / "engines.json")
    assert found["trees"]["accuracy"] > found["baseline"]["accuracy"] - 0.03
    if "accuracy" in found:
        assert abs(found["float32_loss"]) < 0.001
        assert found["int8_loss"] < 0.03


@pytest.mark.slow
def test_plans_of_a_prepared_table_are_held_against_runs_of_ranks(tmp_path: Path) -> None:
    found = figures("scaling.py", tmp_path / "scaling.json")
    assert found["parameters"] > 10_000
    assert {run["ranks"] for run in found["runs"]} == {1, 2, 4}


def test_steps_are_timed_where_there_is_no_gpu_too(tmp_path: Path) -> None:
    found = figures("gpu_steps.py", tmp_path / "steps.json")
    assert found.keys() == KEYS["gpu_steps.py"] | {"rows"} or found["device"] != "cpu"


@pytest.mark.slow
def test_features_are_fitted_in_two_passes(tmp_path: Path) -> None:
    found = figures("features.py", tmp_path / "features.json", "--rows", "20000")
    assert found["passes"] == 2
    assert found["wide_passes"] == 2
    # The values that it may hold, and one row for all the others.
    assert found["many_collected"] <= found["many_limit"] + 10


@pytest.mark.slow
def test_killed_preparations_lose_and_double_no_row(tmp_path: Path) -> None:
    found = figures("prepare_kills.py", tmp_path / "kills.json", "--kills", "1")
    assert found["kills"] == 2
    assert [found[name] for name in ("lost", "duplicated", "visible_halves")] == [0, 0, 0]


@pytest.mark.slow
def test_killed_scorings_lose_and_double_no_row(tmp_path: Path) -> None:
    found = figures("score_kills.py", tmp_path / "kills.json")
    assert found["kills"] == 3
    assert [found[name] for name in ("lost", "duplicated", "visible_halves", "unaccounted")] == [0, 0, 0, 0]


@pytest.mark.slow
def test_killed_promotions_leave_one_version_in_use(tmp_path: Path) -> None:
    found = figures("promotion_kills.py", tmp_path / "kills.json")
    assert found["kills"] == 3
    names = ("none_in_use", "several_in_use", "wrong_in_use", "wrong_audit", "left_undone")
    assert [found[name] for name in names] == [0] * 5


@pytest.mark.slow
def test_killed_workers_lose_no_job(tmp_path: Path) -> None:
    found = figures("queue_kills.py", tmp_path / "kills.json")
    assert (found["jobs"], found["worker_kills"], found["crashes"]) == (12, 2, 1)
    names = ("lost", "several_ends", "wrong_ends", "done_twice", "begun_twice", "ran_together", "left_processes")
    assert [found[name] for name in names] == [0] * 7


@pytest.mark.slow
def test_nothing_changed_is_no_alarm(tmp_path: Path) -> None:
    found = figures("monitoring.py", tmp_path / "monitoring.json", "--data", str(ROOT / "tests" / "data"))
    assert found["over_limit_100"] > found["false_alarms_100"] == 0
    assert found["older_300"] == 1


@pytest.mark.slow
def test_prepare_reads_its_source_once(tmp_path: Path) -> None:
    found = figures("prepare_scale.py", tmp_path / "scale.json", "--rows", "20000")
    # Little data, so the tables' logs, some kilobytes, weigh more than they would.
    assert found["source_reads"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
def test_small_jobs_end_well(tmp_path: Path) -> None:
    # Without the jobs of an earlier commit, which not every checkout has.
    found = figures("small_jobs.py", tmp_path / "small.json", "--base", "", "--only", "csv infer")
    assert found["csv_infer_processor_seconds"] > 0


@pytest.mark.slow
def test_first_rows_of_a_wide_encoder_are_had(tmp_path: Path) -> None:
    found = figures("wide_rows.py", tmp_path / "wide.json", "--base", "")
    assert found["first_rows_seconds"] > 0


@pytest.mark.slow
def test_streams_lose_no_row(tmp_path: Path) -> None:
    # Without stock Petastorm and torchdata's nodes, which need environments of their own.
    without = ("--no-nodes", "--no-stock")
    found = figures("streaming.py", tmp_path / "streaming.json", "--rows", "200000", "--rounds", "1", *without)
    assert found["reads_short"] == 0


@pytest.mark.slow
def test_pictures_need_the_same_memory_however_many_they_are(tmp_path: Path) -> None:
    # Without the loaders people use, which need an environment of their own.
    found = figures("pictures.py", tmp_path / "pictures.json", "--rounds", "1", "--no-peers")
    assert found["growth_10x"] < 1.3


@pytest.mark.slow
def test_served_requests_are_answered_while_versions_change_and_the_server_ends(tmp_path: Path) -> None:
    found = figures("serving.py", tmp_path / "serving.json")
    assert found["switches"] > 0
    assert found["drain_requests"] > 0
    assert [found[name] for name in ("switch_failed", "drain_failed", "drain_exit")] == [0, 0, 0]


@pytest.mark.slow
def test_hurt_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    found = figures("training_faults.py", tmp_path / "faults.json")
    assert found["faults"] == found["equal_parameters"] == found["rows_exact"] == 5
    assert found["left_processes"] == 0
    found = figures("training_faults.py", tmp_path / "pictures.json", "--pictures")
    assert found["faults"] == found["equal_parameters"] == found["rows_exact"] == 2
    assert found["left_processes"] == 0


@pytest.mark.slow
def test_long_runs_keep_no_thread_and_no_file(tmp_path: Path) -> None:
    found = figures("long_run.py", tmp_path / "long.json")
    assert found["launches_threads_growth"] <= 0
    assert found["launches_files_growth"] <= 0


@pytest.mark.slow
def test_training_is_measured_beside_torchrun(tmp_path: Path) -> None:
    found = figures("training.py", tmp_path / "training.json", "--rows", "40000")
    assert 0 <= found["data_wait"] < 1


@pytest.mark.slow
def test_network_comes_near_boosted_trees(tmp_path: Path) -> None:
    data = os.environ.get("MLSPARK_DATA")
    if not data or not (Path(data) / "adult" / "adult.data").exists():
        pytest.skip("needs the Adult files: MLSPARK_DATA")
    [found] = figures("census_models.py", tmp_path / "models.json")["mlspark network"]
    assert found["accuracy"] >= 0.866
    assert found["roc_auc"] >= 0.920


@pytest.mark.slow
def test_trees_of_another_package_are_as_good_as_known_on_the_same_rows(tmp_path: Path) -> None:
    data = os.environ.get("MLSPARK_DATA")
    if not data or not (Path(data) / "adult" / "adult.data").exists():
        pytest.skip("needs the Adult files: MLSPARK_DATA")
    if not (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlspark" / "pytabkit" / ".ready"
    ).exists():
        pytest.skip("needs the environment that benchmarks/pytabkit_census.py makes once")
    [found] = figures("pytabkit_census.py", tmp_path / "models.json")["XGB_TD"]
    assert found["accuracy"] >= 0.870
    assert found["roc_auc"] >= 0.926


@pytest.mark.slow
def test_models_of_several_tasks_are_compared(tmp_path: Path) -> None:
    measured = figures("tasks.py", tmp_path / "tasks.json")
    assert measured["wine"].keys() == {"network", "trees", "HistGradientBoosting"}
    assert all(each["value"] > 0.8 for each in measured["wine"].values())


@pytest.mark.slow
def test_published_weights_are_worth_what_they_are_known_to_be(tmp_path: Path) -> None:
    data = os.environ.get("MLSPARK_DATA")
    if not data or not (Path(data) / "pretrained-cifar10-resnet").is_dir():
        pytest.skip("needs the CIFAR JPEGs and the published ResNet-20: MLSPARK_DATA")
    measured = figures("transfer.py", tmp_path / "transfer.json")
    assert measured["as_published"] == pytest.approx(0.8060, abs=0.0005)
    accuracies = {model: of_model["accuracies"][0] for model, of_model in measured["table"].items()}
    assert min(accuracies["probe"], accuracies["fine-tuned"], accuracies["unfrozen"]) > accuracies["scratch"]


@pytest.mark.slow
def test_ensemble_is_above_its_members(tmp_path: Path) -> None:
    data = os.environ.get("MLSPARK_DATA")
    if not data or not (Path(data) / "cifar10-jpeg").is_dir():
        pytest.skip("needs the CIFAR JPEGs: MLSPARK_DATA")
    [run] = figures("ensembles.py", tmp_path / "ensembles.json")["runs"]
    assert len(run["members"]) == 4
    assert run["ensemble"] > sum(run["members"]) / 4
    assert run["only_ensemble"] - run["only_best"] == round(4000 * (run["ensemble"] - max(run["members"])))
