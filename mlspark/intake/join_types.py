"""What joins add to a row, from settings and contracts alone, before Spark starts. Runs anywhere."""

from collections.abc import Mapping, Sequence

from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.errors import FeatureError
from mlspark.features.windows import Function, aggregate_name
from mlspark.intake.joins import AggregateSettings, JoinSettings

_WHOLE = ("smallint", "int", "bigint")
_TIMES = ("date", "timestamp")


def declared(joins: Sequence[JoinSettings], contract: Contract) -> dict[str, str]:
    """Return each new column -> its type, of rows that satisfy `contract`: those of the frames that `joins.attach` returns.

    Raises:
        ContractError: a contract file is wrong.
        FeatureError: names join, setting and what is wrong with it.
    """
    types: dict[str, str] = {}
    problems = []
    for join in joins:
        of_join = contracts.load(join.contract)
        theirs = of_join.types
        problems += [f"joins: {join.name}: {problem}" for problem in _problems(join, contract, types, of_join)]
        added = {f"{join.name}_{name}": theirs[name] for name in join.columns if name in theirs}
        for wanted in join.aggregates:
            added[_output(join, wanted)] = _type(wanted.function, theirs.get(wanted.column or "", ""))
        problems += [
            f"joins: {join.name}: {name}: is already a column; choose another name for the join"
            for name in added
            if name.lower() in {known.lower() for known in (*contract.types, *types)}
        ]
        types |= added
    if problems:
        raise FeatureError("; ".join(problems))
    return types


def _problems(join: JoinSettings, ours: Contract, added: Mapping[str, str], theirs: Contract) -> list[str]:
    """Return what is wrong with the names and times of a join.

    Args:
        join: its settings.
        ours: contract of the pipeline's rows.
        added: columns that the joins before it add -> their types.
        theirs: contract of the joined rows.
    """
    asked = [
        *(("keys", name, False) for name in join.keys),
        *(("keys", name, True) for name in join.keys.values()),
        *(("columns", name, True) for name in join.columns),
        *(("aggregates", wanted.column, True) for wanted in join.aggregates if wanted.column),
        ("label_time", join.label_time, False),
        ("event_time", join.event_time, True),
    ]
    problems = []
    for setting, name, is_theirs in asked:
        known = theirs.types if is_theirs else {**ours.types, **added}
        if name not in known:
            lacks = theirs.no_column(name) if is_theirs else ours.no_column(name, more=[*added])
            problems.append(f"{setting}: {name}: {lacks}")
        elif setting.endswith("_time") and known[name] not in _TIMES:
            problems.append(f"{setting}: {name} is {known[name]}, expected date or timestamp")
    return problems


def _output(join: JoinSettings, wanted: AggregateSettings) -> str:
    named = "_".join([join.name, *([wanted.column] if wanted.column else [])])
    return aggregate_name(wanted.function, named, wanted.window_seconds)


def _type(function: Function, column_type: str) -> str:
    if function in ("count", "distinct"):
        return "bigint"
    if function == "sum":
        return "bigint" if column_type in _WHOLE else "double"
    return "double" if function == "mean" else column_type
