"""What a job costs: its seconds at the price of the machines that it runs on. Driver."""

from typing import Any

from mlspark.cost import Price
from mlspark.settings import machines
from mlspark.settings.pipeline import Settings


def price(settings: Settings) -> Price | None:
    """Return the price of the machines; None where `cost.tier` is not set.

    Raises:
        ConfigError: the file of machines cannot be read or is wrong, or there is no such tier.
    """
    return machines.price(settings.cost)


def of(settings: Settings, seconds: float) -> dict[str, Any] | None:
    """Return the cost of so many seconds as JSON; None where `cost.tier` is not set. Raises as `price` does."""
    known = price(settings)
    return None if known is None else known.to_json(seconds)
