"""The price of the machines that `cost` names, from their file. Runs anywhere, at once."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mlspark import cost
from mlspark.cost import CostSettings, Machines, Price, Tier
from mlspark.errors import ConfigError
from mlspark.section import Section
from mlspark.settings import merging

SectionType = TypeVar("SectionType", bound=Section)


def price(settings: CostSettings) -> Price | None:
    """Return the price of the machines; None where `cost.tier` is not set.

    Raises:
        ConfigError: the file of machines cannot be read or is wrong, or there is no such tier.
    """
    return cost.price(settings, _machines(settings)) if settings.tier else None


def tier(settings: CostSettings) -> Tier | None:
    """Return the machine that `cost.tier` names; None where it is not set. Raises as `price` does."""
    known = price(settings)
    return None if known is None else _machines(settings).tiers[known.tier]


def price_of(section: Mapping[str, Any]) -> Price | None:
    """Return the price for a section `cost` as a file has it, before the settings are validated as a whole.

    Raises:
        ConfigError: as `price`, or the section is wrong.
    """
    return price(_validated(CostSettings, section, "cost"))


def _machines(settings: CostSettings) -> Machines:
    content = merging.read(settings.machines, option="cost.machines")
    return _validated(Machines, content, settings.machines)


def _validated(kind: type[SectionType], content: Mapping[str, Any], name: str) -> SectionType:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
            for problem in error.errors()
        )
        raise ConfigError(f"{name}: {'; '.join(problems)}") from None
