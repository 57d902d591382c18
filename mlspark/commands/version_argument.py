"""The argument by which commands name a registered version. Runs anywhere."""

import re

from mlspark.errors import ConfigError


def parsed(text: str, name: str, alias: str) -> tuple[str, int | str]:
    """Return name, and number or alias, of a version.

    Args:
        text: NAME/3, NAME@alias, or NAME for its alias `alias`; empty: the model `name`.
        name: of the pipeline's own model.
        alias: registry.alias.

    Raises:
        ConfigError: it names no version.
    """
    match = re.fullmatch(r"([^/@]*)(?:/([1-9]\d*)|@([\w-]+))?", text)
    if match is None:
        raise ConfigError(f"{text}: names no version; give NAME/3, NAME@alias or NAME")
    given, number, of_alias = match.groups()
    wanted = int(number) if number else of_alias or alias
    if not wanted:
        raise ConfigError(f"{given or name}: which version? registry.alias is empty; give {given or name}/3")
    return given or name, wanted
