"""What was decided of a version, with reasons, as it is kept: before it is carried out, with the version, in the audit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["promoted", "kept_out", "rolled_back", "superseded"]

_MOST_CHARACTERS = 5_000
"""Length of a tag that every MLflow takes."""


@dataclass(frozen=True)
class Decision:
    """A decision. JSON values only."""

    id: str
    """32 hex digits; the same version, champion and gate have the same, until an alias has moved."""
    decided_at: str
    """UTC, ISO 8601."""
    model_name: str
    mode: str
    """dry_run: nothing but the audit says so. Else enabled."""
    verdict: Verdict
    version: int
    """That was decided on; of a rollback, the one that is in use again."""
    run_id: str
    """MLflow run of the version: numbers begin anew where a model is deleted and registered again."""
    alias: str
    """Of the version in use."""
    champion_before: int | None
    champion_after: int | None
    reasons: tuple[str, ...]
    checks: tuple[dict[str, Any], ...]
    """Each condition of the gate: rule, is_met, reason, figures."""
    settings: Mapping[str, Any]
    """The gate."""
    user: str
    """Who ran the command, by the name that the system has."""

    @property
    def moves_alias(self) -> bool:
        return self.verdict in ("promoted", "rolled_back") and self.mode == "enabled"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the version."""
        return {
            "mlspark.promotion": self.verdict,
            "mlspark.promotion_id": self.id,
            "mlspark.promotion_at": self.decided_at,
            "mlspark.promotion_reasons": "; ".join(self.reasons)[:_MOST_CHARACTERS],
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Decision":
        """Return what `to_json` wrote."""
        return cls(**{**value, "reasons": tuple(value["reasons"]), "checks": tuple(value["checks"])})
