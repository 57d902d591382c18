"""What machines cost: tiers with a price by the hour, and the cost of so many seconds. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from mlspark.errors import ConfigError
from mlspark.section import Section


class Tier(Section):
    """A kind of machine."""

    cores: Annotated[int, Field(ge=1)]
    gpus: Annotated[int, Field(ge=0)] = 0
    price_per_hour: Annotated[float, Field(ge=0.0)]
    """Price of one machine, in `currency`."""
    source: Annotated[str, Field(min_length=1)]
    """Where the price was read."""
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """When it held, like 2026-11-28."""


class Machines(Section):
    """A file of tiers."""

    currency: Annotated[str, Field(min_length=1)]
    tiers: Mapping[str, Tier]


class CostSettings(Section):
    machines: str = "conf/machines.yaml"
    """File of the tiers, relative to the working directory; read where `tier` is set."""
    tier: str = ""
    """Tier that jobs run on; empty: it is not known, and no cost is reported."""
    count: Annotated[int, Field(ge=1)] = 1
    """Machines of the tier that a job holds, the driver's included."""
    budget: Annotated[float, Field(gt=0.0)] | None = None
    """Most that a training of networks may cost, in the file's currency, all its drivers together: it ends at the checkpoint
    after which the next would be beyond, and goes on with a larger budget. Null: as much as it takes."""

    @model_validator(mode="after")
    def _budget_has_a_price(self) -> "CostSettings":
        if self.budget is not None and not self.tier:
            raise ValueError("budget needs tier, the machines whose price counts")
        return self


@dataclass(frozen=True)
class Price:
    """What the machines of a job cost."""

    tier: str
    count: int
    per_hour: float
    """Of one machine."""
    currency: str
    source: str
    date: str

    def of(self, seconds: float) -> float:
        """Return what all machines cost for so many seconds."""
        return self.count * self.per_hour * seconds / 3600

    def words(self, seconds: float) -> str:
        """Return the cost of so many seconds in words."""
        return f"{self.of(seconds):.4f} {self.currency} for {seconds:.0f} s of {self.count} x {self.tier}"

    def to_json(self, seconds: float) -> dict[str, Any]:
        """Return the cost of so many seconds as JSON, with what it rests on."""
        return {
            "amount": round(self.of(seconds), 6),
            "currency": self.currency,
            "seconds": round(seconds, 3),
            "tier": self.tier,
            "count": self.count,
            "price_per_hour": self.per_hour,
            "source": self.source,
            "date": self.date,
        }


def price(settings: CostSettings, machines: Machines) -> Price:
    """Return the price of the tier that is set.

    Raises:
        ConfigError: there is no such tier; names those that there are.
    """
    tier = machines.tiers.get(settings.tier)
    if tier is None:
        raise ConfigError(
            f"cost.tier={settings.tier}: not in {settings.machines} (there are: {', '.join(machines.tiers) or 'none'}); "
            f"add it there, with its price and where that was read"
        )
    return Price(settings.tier, settings.count, tier.price_per_hour, machines.currency, tier.source, tier.date)
