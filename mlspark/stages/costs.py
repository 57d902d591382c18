"""What a job costs: its seconds at the price of the machines that it runs on. Driver."""

from typing import Any

from pydantic import ValidationError

from mlspark import cost
from mlspark.cost import Machines, Price
from mlspark.errors import ConfigError
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings


def price(settings: Settings) -> Price | None:
    """Return the price of the machines; None where `cost.tier` is not set.

    Raises:
        ConfigError: the file of machines cannot be read or is wrong, or there is no such tier.
    """
    of = settings.cost
    if not of.tier:
        return None
    content = loading.read(of.machines, option="cost.machines")
    try:
        machines = Machines.model_validate(content)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
            for problem in error.errors()
        )
        raise ConfigError(f"{of.machines}: {'; '.join(problems)}") from None
    return cost.price(of, machines)


def of(settings: Settings, seconds: float) -> dict[str, Any] | None:
    """Return the cost of so many seconds as JSON; None where `cost.tier` is not set. Raises as `price` does."""
    known = price(settings)
    return None if known is None else known.to_json(seconds)
