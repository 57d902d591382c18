"""Files that a command writes because its user asked for one: tried before the work, named when they cannot be written."""

import os
from pathlib import Path

from mlspark.errors import ConfigError, one_line


def check(option: str, file: str | None) -> None:
    """Return when `file`, if any, can be written, as far as can be seen beforehand.

    Raises:
        ConfigError: names the option and what is wrong.
    """
    if not file:
        return
    path = Path(file)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {file}: the folder does not exist")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{option} {file}: cannot be written; give a file in a folder that is yours")


def write(option: str, file: str, content: str, *, what_stands: str) -> None:
    """Write the file as UTF-8; `what_stands` says what is done although it cannot be written.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        Path(file).write_text(content, encoding="utf-8")
    except OSError as error:
        raise refused(option, file, error, what_stands=what_stands) from error


def refused(option: str, file: str, error: OSError, *, what_stands: str) -> ConfigError:
    return ConfigError(f"{option} {file}: cannot be written ({error.strerror or one_line(str(error))}); {what_stands}")
