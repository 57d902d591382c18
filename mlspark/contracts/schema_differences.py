"""How the columns of a source differ from a contract's, and whether its schema policy takes them. Runs anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlspark.contracts.contract import Contract
from mlspark.errors import ContractError


@dataclass(frozen=True)
class SchemaDifferences:
    """How a source's columns differ from the contract's."""

    extra: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    """ "age: bigint, expected int"."""
    reordered: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the differences; {} when the columns are the contract's."""
        lists = {"extra": list(self.extra), "missing": list(self.missing), "retyped": list(self.retyped)}
        return {name: names for name, names in lists.items() if names} | ({"reordered": True} if self.reordered else {})


def differences(
    types: Mapping[str, str],
    contract: Contract,
    *,
    partly_absent: Mapping[str, str] | None = None,
    has_types: bool = True,
    ignored: Sequence[str] = (),
) -> SchemaDifferences:
    """Return how named columns differ from the contract's, in the names that they have in the source.

    Args:
        types: the source's columns, in order -> Spark types.
        contract: what is expected.
        partly_absent: column that only some files of the source have -> one that lacks it.
        has_types: False for text, where every column is a string until it is conformed.
        ignored: names, in the source, of columns that may be there and are not looked at: the label, in rows to be scored.
    """
    source_types = {name: kind for name, kind in types.items() if name not in ignored}
    wanted = {column.source_name: column.type for column in contract.columns}
    return SchemaDifferences(
        extra=tuple(name for name in source_types if name not in wanted),
        missing=(
            *(name for name in wanted if name not in source_types),
            *(f"{name}: not in {file}" for name, file in (partly_absent or {}).items() if name in wanted),
        ),
        retyped=tuple(
            f"{name}: {source_types[name]}, expected {kind}"
            for name, kind in wanted.items()
            if has_types and name in source_types and source_types[name] != kind
        ),
        reordered=[name for name in source_types if name in wanted]
        != [name for name in wanted if name in source_types],
    )


def refusal(differing: SchemaDifferences, contract: Contract) -> str:
    """Return in words which differences the contract's schema policy refuses, and the remedy; "" where it refuses none."""
    policy = contract.schema_policy
    refused = [
        f"{what} columns ({', '.join(names)})"
        for what, names, is_refused in (
            ("extra", differing.extra, policy.extra == "refuse"),
            ("missing", _with_likes(differing), policy.missing == "refuse"),
            ("re-typed", differing.retyped, policy.retyped == "refuse"),
            (
                "re-ordered",
                tuple(contract.names_by_header) if differing.reordered else (),
                policy.reordered == "refuse",
            ),
        )
        if names and is_refused
    ]
    if not refused:
        return ""
    return (
        f"the source has {'; '.join(refused)}; nothing was written. "
        f"Correct the source, or the contract's columns or its schema_policy"
    )


def _with_likes(differing: SchemaDifferences) -> tuple[str, ...]:
    """Return the missing columns, each with the one that the source has in its place but for case."""
    extra = {name.lower(): name for name in differing.extra}
    return tuple(
        f"{name}: there is {extra[name.lower()]}, and case counts" if name.lower() in extra else name
        for name in differing.missing
    )


def check(differing: SchemaDifferences, contract: Contract) -> None:
    """Refuse differences that the contract's schema policy does not take.

    Raises:
        ContractError: names each column.
    """
    if message := refusal(differing, contract):
        raise ContractError(f"contract {contract.name}: {message}")
