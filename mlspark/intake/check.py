"""Data held against a contract, as prepare would find it, without writing. Driver."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import SparkSession

from mlspark.contracts import findings, schema_differences
from mlspark.contracts.contract import Contract
from mlspark.contracts.findings import Findings
from mlspark.contracts.schema_differences import SchemaDifferences
from mlspark.intake import rows
from mlspark.session import computed_in_utc
from mlspark.sources import catalog
from mlspark.sources.settings import SourceSettings
from mlspark.sources.source import Source, reading


@computed_in_utc
def check(
    spark: SparkSession, contract: Contract, sources: Mapping[str, SourceSettings], *, root: str
) -> dict[str, Any]:
    """Return what is wrong with the rows of sources, as prepare would find it. Writes nothing.

    Args:
        spark: the session.
        contract: what the rows must be.
        sources: name -> settings.
        root: what relative paths are taken from.

    Raises:
        SourceError: a source is absent, empty or unreadable.
        ContractError: a row rule cannot be evaluated.
    """
    located_sources = {name: catalog.find(spark, settings, root=root) for name, settings in sources.items()}
    with reading(", ".join(source.uri for source in located_sources.values())):
        differences = rows.compare_columns(spark, located_sources, contract)
        with rows.kept(rows.conform(spark, located_sources, contract)) as conformed:
            result = findings.find(conformed, contract, sources=list(located_sources))
    refused = (
        f"{name}: {refusal}"
        for name, difference in differences.items()
        if (refusal := schema_differences.refusal(difference, contract))
    )
    return _report(contract, located_sources, differences, result, [*refused, *result.problems])


def _report(
    contract: Contract,
    located_sources: Mapping[str, Source],
    differences: Mapping[str, SchemaDifferences],
    result: Findings,
    problems: Sequence[str],
) -> dict[str, Any]:
    sources = {}
    for name, source in located_sources.items():
        counts = result.account.sources[name]
        sources[name] = {
            "uri": source.uri,
            "kind": source.settings.kind,
            "rows_read": counts["rows_read"],
            "rows_good": counts["rows_good"],
            "rows_bad": counts["rows_quarantined"],
            "missing": {
                key.removeprefix("missing_"): n for key, n in counts.items() if key.startswith("missing_") and n
            },
            "schema_differences": differences[name].to_json(),
        }
    rules = {
        reason: {"rows": rows, "examples": [vars(example) for example in result.examples.get(reason, ())]}
        for reason, rows in result.account.reasons.items()
    }
    return {
        "contract": contract.name,
        "is_met": not problems,
        "problems": list(problems),
        "sources": sources,
        "rules": rules,
    }
