"""A version takes the place of the one in use when it is better, with reasons, once; and back again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from mlspark import storage
from mlspark.commands import promote as command
from mlspark.errors import ConfigError, RegistryError
from mlspark.registry import gate, versions
from mlspark.stages import promotion_audit
from mlspark.stages.promote import promote, roll_back

from ..conftest import ROOT, census_settings
from ..registry.example import contract, package
from .conftest import EXAMPLE, NUM_ROWS, Registry


def audit(registry: Registry) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = DeltaTable(registry.settings.table("promotions")).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["number"])


def test_a_worse_challenger_is_refused_an_equal_one_kept_out_a_better_one_promoted(registry: Registry) -> None:
    """Accuracies 0.9, 0.8, 0.9, 0.975 of 400 rows; each with its reasons, in the report, on the version, in the audit."""
    gate = registry.set("promotion.metric=accuracy")
    verdicts = []
    for num_wrong in (40, 80, 40, 10):
        version = registry.add(num_wrong)
        assert registry.aliases["challenger"] == version
        report = promote(gate)
        assert report["version"] == version
        verdicts.append((report["verdict"], report["champion_before"], report["champion_after"], *report["reasons"]))
        tags = registry.tags(version)
        assert tags["mlspark.promotion"] == report["verdict"]
        assert tags["mlspark.promotion_reasons"] == "; ".join(report["reasons"])
        assert registry.aliases == {"challenger": version, "champion": report["champion_after"]}
    first, worse, equal, better = verdicts
    assert first == ("promoted", None, 1, "no version is alias champion yet")
    assert worse[:3] == ("kept_out", 1, 1)
    assert worse[3].startswith("accuracy: not better: 0.8000 against 0.9000, gain -0.1000 [-0.")
    assert equal == (
        "kept_out",
        1,
        1,
        "accuracy: not better: 0.9000 against 0.9000, gain +0.0000 [+0.0000, +0.0000] at 0.95",
    )
    assert better[:3] == ("promoted", 1, 4)
    assert better[-1].startswith("accuracy: better: 0.9750 against 0.9000, gain +0.0750 [+0.0")
    rows = audit(registry)
    assert [(row["verdict"], row["version"], row["champion_before"], row["champion_after"]) for row in rows] == [
        ("promoted", 1, None, 1), ("kept_out", 2, 1, 1), ("kept_out", 3, 1, 1), ("promoted", 4, 1, 4),
    ]  # fmt: skip
    assert [tuple(row["reasons"]) for row in rows] == [verdict[3:] for verdict in verdicts]
    assert json.loads(rows[1]["settings"])["metric"] == "accuracy"
    assert json.loads(rows[1]["checks"])[-1]["figures"]["champion"] == 0.9


def test_the_same_is_decided_once(registry: Registry) -> None:
    registry.add(40)
    promote(registry.settings)
    assert promote(registry.settings)["verdict"] == "in_use"
    registry.add(80)
    first = promote(registry.settings)
    again = promote(registry.settings)
    assert (again["already_done"], again["id"], again["reasons"]) == (True, first["id"], first["reasons"])
    assert len(audit(registry)) == 2
    loose = registry.set("promotion.min_gain=null", "promotion.max_loss={accuracy: 0.5}")
    assert promote(loose)["verdict"] == "promoted"  # another gate, another decision
    assert registry.aliases["champion"] == 2


def test_not_worse_is_enough_where_the_gate_says_so(registry: Registry) -> None:
    registry.add(40)
    promote(registry.settings)
    registry.add(44)  # 0.89 for 0.9
    gate = ("promotion.min_gain=null", "promotion.max_loss={accuracy: 0.005}")
    strict = promote(registry.set(*gate))
    assert strict["verdict"] == "kept_out"
    assert "accuracy: worse by more than 0.005, or may be: 0.8900 against 0.9000" in strict["reasons"][0]
    assert promote(registry.set(gate[0], "promotion.max_loss={accuracy: 0.05}"))["verdict"] == "promoted"


def test_limits_of_metrics_and_of_time_hold_for_the_first_version_too(registry: Registry) -> None:
    registry.add(40, example=EXAMPLE)
    report = promote(registry.set("promotion.limits={accuracy: {min: 0.95}}", "promotion.max_latency_ms=0.000001"))
    assert report["verdict"] == "kept_out"
    below, slow = report["reasons"]
    assert below == "accuracy of test rows is 0.9000, but must be at least 0.95"
    assert slow.endswith("ms, more than 1e-06")
    assert "champion" not in registry.aliases
    wide = registry.set("promotion.limits={accuracy: {min: 0.85, max: 0.99}}", "promotion.max_latency_ms=1000000")
    assert promote(wide)["verdict"] == "promoted"


def test_what_is_not_known_of_a_version_passes_no_limit(registry: Registry) -> None:
    registry.add(40)
    assert promote(registry.set("promotion.max_latency_ms=1000000", "promotion.max_cost=1000"))["reasons"] == [
        "its cost is not known; set cost.tier before it is trained",
        "no example of a row is kept with the version, so its time is not known",
    ]
    gate_settings = registry.set("promotion.max_cost=1").promotion
    cost = {"amount": 1.5, "currency": "EUR"}
    assert gate.of_cost(gate_settings, cost).reason == "it cost 1.5000 EUR, more than 1"
    assert gate.of_cost(gate_settings, cost | {"amount": 1.0}).is_met


def test_what_breaks_the_contract_is_kept_out_by_name(registry: Registry) -> None:
    registry.add(40)
    promote(registry.settings)
    narrower = contract()
    columns = tuple(
        rule.model_copy(update={"allowed": ("red", "green")}) if rule.name == "text" else rule
        for rule in narrower.columns
    )
    registry.add(10, contract=narrower.model_copy(update={"columns": columns}))
    report = promote(registry.set("promotion.metric=accuracy"))
    assert report["verdict"] == "kept_out"
    assert report["reasons"] == ["the contract is not compatible: column text: blue is not allowed now"]
    assert promote(registry.set("promotion.contract=any"))["verdict"] == "promoted"


def test_versions_for_another_target_are_not_compared(registry: Registry) -> None:
    registry.add(40)
    promote(registry.settings)
    registry.add(10, task=package(classes=["no", "maybe"]).task)
    report = promote(registry.set("promotion.contract=any"))
    assert report["verdict"] == "kept_out"
    assert "not versions for the same task (task.event yes and maybe)" in report["reasons"][0]


def test_rows_that_both_were_evaluated_on_are_compared(registry: Registry) -> None:
    """Another version of the table, with 100 rows of the earlier one."""
    registry.add(40)
    promote(registry.settings)
    registry.add(10, row_id=np.arange(NUM_ROWS) + 300)
    report = promote(registry.set("promotion.min_rows=101"))
    assert report["reasons"] == ["only 100 test rows are kept of both versions, at least 101 are wanted"]
    assert promote(registry.set("promotion.min_rows=100"))["verdict"] == "kept_out"


def test_the_same_model_anew_is_kept_out(registry: Registry) -> None:
    for _ in range(2):
        registry.add(40, same_weights=True)
        report = promote(registry.settings)
    assert report["reasons"] == ["its model is that of version 1, byte for byte"]


def test_a_dry_run_decides_and_moves_nothing_and_disabled_does_not_even_look(registry: Registry) -> None:
    registry.add(40)
    disabled = promote(registry.set("promotion.mode=disabled"))
    assert disabled["verdict"] == "disabled"
    dry = promote(registry.set("promotion.mode=dry_run"))
    assert (dry["verdict"], dry["mode"], dry["champion_after"]) == ("promoted", "dry_run", 1)
    assert registry.aliases == {"challenger": 1}
    assert "mlspark.promotion" not in registry.tags(1)
    assert [row["mode"] for row in audit(registry)] == ["dry_run"]
    assert promote(registry.settings)["verdict"] == "promoted"


def test_rollback_gives_the_alias_back_and_keeps_the_version_out(registry: Registry) -> None:
    for num_wrong in (80, 40, 10):
        registry.add(num_wrong)
        promote(registry.settings)
    assert registry.aliases["champion"] == 3
    back = roll_back(registry.settings, because="complaints")
    assert (back["verdict"], back["version"], back["champion_before"]) == ("rolled_back", 2, 3)
    assert registry.aliases["champion"] == 2
    kept_out = promote(registry.settings)
    assert kept_out["verdict"] == "kept_out"
    assert "it was rolled back on 2" in kept_out["reasons"][0]
    assert "(complaints); train another one, or name it: mlspark promote --rollback --to 3" in kept_out["reasons"][0]
    assert roll_back(registry.settings)["version"] == 1  # not to the one that was rolled back
    with pytest.raises(RegistryError, match=r"no version was in use before version 1, .*--to NUMBER"):
        roll_back(registry.settings)
    assert roll_back(registry.settings, to=3)["champion_after"] == 3
    assert registry.aliases["champion"] == 3
    assert roll_back(registry.settings, to=3)["verdict"] == "in_use"
    with pytest.raises(RegistryError, match="no version or alias 9"):
        roll_back(registry.settings, to=9)
    assert [row["verdict"] for row in audit(registry)][3:] == ["rolled_back", "kept_out", "rolled_back", "rolled_back"]
    assert [row["reasons"][0] for row in audit(registry) if row["verdict"] == "rolled_back"] == [
        "complaints", "back to version 1", "version 3 was named",
    ]  # fmt: skip


def test_a_champion_that_vanished_lets_nobody_pass_without_a_word(registry: Registry) -> None:
    """MLflow deletes the aliases of a version with it."""
    registry.add(40)
    promote(registry.settings)
    registry.client.delete_model_version(registry.name, "1")
    registry.add(10)
    report = promote(registry.settings)
    assert report["verdict"] == "kept_out"
    assert "alias champion names no version, though version 1 was given it on" in report["reasons"][0]
    assert roll_back(registry.settings, to=2)["champion_after"] == 2


def test_registering_again_moves_no_alias_back(registry: Registry) -> None:
    registry.add(40)
    registry.add(40)
    first = versions.find(registry.client, registry.name, 1)
    run_id = registry.made[1]
    assert versions.register(registry.client, first.package, run_id=run_id, name=registry.name, alias="challenger") == 1
    assert registry.aliases == {"challenger": 2}


def test_a_damaged_decision_and_predictions_that_are_gone_are_named(registry: Registry) -> None:
    registry.add(40)
    promote(registry.settings)
    registry.add(10)
    kept = registry.home / "runs" / registry.made[1] / "predictions" / "test.parquet"
    kept.unlink()
    with pytest.raises(
        RegistryError, match=rf"model {registry.name} version 1: no predictions of test rows at .*storage.root"
    ):
        promote(registry.settings)
    pending = registry.home / "promotions" / f"{registry.name}.pending.json"
    pending.write_text("{")
    with pytest.raises(ValueError, match=r"pending.json: damaged"):
        promote(registry.settings)


def test_a_decision_that_others_overtook_is_not_carried_out(registry: Registry) -> None:
    """Written down, then killed; then a person moved the alias."""
    for num_wrong in (80, 60, 10):
        registry.add(num_wrong)
    promote(registry.settings, 1)
    report = promote(registry.settings, 3)
    decision = promotion_audit.read(registry.settings.table("promotions"), registry.name)[-1]
    registry.client.set_registered_model_alias(registry.name, "champion", "2")
    changed = {**decision.to_json(), "id": "0" * 32}
    storage.write_sealed(
        str(registry.home / "promotions" / f"{registry.name}.pending.json"), json.loads(json.dumps(changed))
    )
    assert report["verdict"] == "promoted"
    assert promote(registry.settings, 2)["verdict"] == "in_use"
    [last] = [row for row in audit(registry) if row["id"] == "0" * 32]
    assert (last["verdict"], last["reasons"]) == (
        "superseded",
        ["not carried out: alias champion names version 2 by now"],
    )
    assert registry.aliases["champion"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["registry.alias=Champion"], "registry.alias: Champion is promotion.champion, so that every training would"),
        (["promotion.metric=rmse"], "promotion.metric=rmse: a binary task has no such metric"),
        (["promotion.limits={acuracy: {min: 1}}"], "promotion.limits=acuracy: a binary task has no such metric"),
        (["promotion.limits={accuracy: {}}"], "neither min nor max"),
        (["promotion.min_gain=null"], "any version would pass"),
        (["promotion.champion=v1"], "'v1' is no alias"),
        (["promotion.mode=dry"], "promotion.mode"),
    ],
)
def test_a_gate_that_says_nothing_is_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        census_settings(tmp_path, tmp_path, *overrides)
    census_settings(tmp_path, tmp_path, "registry.alias=champion", "promotion.mode=disabled")


def test_the_command_writes_a_report_and_refuses_what_contradicts(registry: Registry) -> None:
    registry.add(40)
    config, report = registry.home / "example.yaml", registry.home / "promotion.json"
    config.write_text(registry.settings.to_yaml())
    command.run([str(config)], report=str(report))
    assert json.loads(report.read_text())["verdict"] == "promoted"
    command.run([str(config)], version="@champion", report=str(report))
    assert json.loads(report.read_text())["verdict"] == "in_use"
    for arguments, message in (
        ({"version": "3", "is_rollback": True}, "3 with --rollback"),
        ({"to": 3}, "belong to --rollback"),
        ({"version": "three"}, "three names no version"),
        ({"report": "/no/where.json"}, "the folder does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            command.run([str(config)], **arguments)  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="no version or alias 9"):
        command.run([str(config)], version="9")


def test_the_job_ends_with_status_2_and_one_message_for_what_the_user_can_correct(tmp_path: Path) -> None:
    command = [sys.executable, "jobs/promote.py", "--config", "conf/census.yaml"]
    environment = os.environ | {"MLSPARK_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "promote: model census: not registered (registered: none); run jobs/train.py first or check registry.model_name\n"
    )
