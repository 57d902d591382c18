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


def row_ids(text: str, *, option: str) -> list[int]:
    """Return the ids of rows in a text with commas between them.

    Raises:
        ConfigError: one is no id; names the option.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not re.fullmatch(r"-?\d{1,19}", part)]
    if wrong:
        raise ConfigError(f"{option} {text}: {wrong[0]!r} is no row_id; give whole numbers with commas between them")
    return [int(part) for part in parts]
