"""A source as it is named on a command line: SOURCE, --kind, --option. Driver; needs no Spark."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlspark import credentials, storage
from mlspark.errors import ConfigError
from mlspark.sources import markers
from mlspark.sources.catalog import READERS, AnySource
from mlspark.sources.settings import SourceSettings

_COMPRESSED = re.compile(r"\.(gz|bz2|zst|zstd|lz4|snappy|deflate)$")
_EXTENSIONS = {extension: kind for kind, reader in READERS.items() for extension in reader.EXTENSIONS}
_SETTINGS: TypeAdapter[SourceSettings] = TypeAdapter(AnySource)


def settings(source: str, kind: str, options: Sequence[str]) -> SourceSettings:
    """Return the settings of a source, as a configuration file would have them.

    Args:
        source: path or URI of files or a Delta table, database.table of a metastore, or jdbc: URL.
        kind: one of READERS.
        options: "key=value" each, keys as in `sources.learn` of a configuration file; "\\t" is a tab. `missing` may be
            given several times, and as missing.COLUMN=TEXT; columns.image=FILE is `image` within `columns`.

    Raises:
        ConfigError: one line that names every wrong option, or an argument holds what looks like a secret.
    """
    credentials.refuse(source, at="SOURCE")
    if kind not in READERS:
        raise ConfigError(f"--kind {kind}: must be one of {', '.join(READERS)}")
    place = READERS[kind].PLACE
    values: dict[str, Any] = {"kind": kind, place: source}
    missing: dict[str, list[str]] = {}
    if source.lower().endswith(".tsv") and kind == "csv":
        values["separator"] = "\t"
    given: set[str] = set()
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key in ("kind", place):
            raise ConfigError(f"--option {key}: expected KEY=VALUE, and KEY other than kind and {place}")
        credentials.refuse(value, at=f"--option {key}")
        value = value.replace("\\t", "\t")
        if key == "missing" or key.startswith("missing."):
            missing.setdefault(key[len("missing.") :] or markers.OTHERS, []).append(value)
        elif key in given or isinstance(values.get(key), dict) or key.partition(".")[0] in given:
            raise ConfigError(f"--option {option}: {key} is given twice; only missing may be")
        else:
            given.add(key)
            section, dot, name = key.partition(".")
            if dot:
                values.setdefault(section, {})[name] = value
            else:
                values[key] = value
    if missing:
        values["missing"] = missing
    try:
        # Not strict: on a command line everything is text.
        return _SETTINGS.validate_python(values, strict=False)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem, kind) for problem in error.errors())) from None


def guess_kind(source: str) -> tuple[str, str]:
    """Return (kind, why) of a source by its name, or by the files in the folder.

    Raises:
        ConfigError: the kind cannot be inferred from the name, or it holds what looks like a secret.
    """
    credentials.refuse(source, at="SOURCE")
    if source.startswith("jdbc:"):
        return "jdbc", "it is a jdbc: URL"
    if kind := _by_extension(source):
        return kind, f"its name ends in {_extension(source)}"
    names = []
    if not re.search(r"[*?\[{]", source):
        try:
            if storage.exists(storage.join(storage.absolute(source), "_delta_log")):
                return "delta", "it has a _delta_log"
            if storage.exists(storage.absolute(source)):
                names = _file_names(storage.absolute(source))
        except OSError:
            names = []
    kinds = {name: kind for name in names if not name.startswith(("_", ".")) and (kind := _by_extension(name))}
    if len(set(kinds.values())) == 1:
        first = min(kinds)
        return kinds[first], f"it holds {first}"
    raise ConfigError(f"{source}: its kind cannot be inferred from its name; give --kind, one of {', '.join(READERS)}")


def _file_names(folder: str) -> list[str]:
    """Return the names of the files in a folder; where there are none those in its first folder, as of a class."""
    files = storage.list_files(folder)
    if not files:
        folders = [uri for uri in storage.list_folders(folder) if not uri.rsplit("/", 1)[-1].startswith(("_", "."))]
        files = storage.list_files(folders[0]) if folders else []
    return [uri.rsplit("/", 1)[-1] for uri in files]


def default_name(source: str) -> str:
    """Return a contract's name: the last part of a path, table or URL, up to the first dot of a file's name."""
    last = source.rstrip("/").rsplit("/", 1)[-1]
    is_file = "/" in source or _by_extension(source)
    words = last.split(".")[0] if is_file else last.rsplit(".", 1)[-1]
    return re.sub(r"\W+", "_", words).strip("_").lower() or "draft"


def _extension(source: str) -> str:
    name = _COMPRESSED.sub("", source.rstrip("/").lower())
    return name[name.rfind(".") :] if "." in name.rsplit("/", 1)[-1] else ""


def _by_extension(source: str) -> str | None:
    return _EXTENSIONS.get(_extension(source))


def _explain(problem: Any, kind: str) -> str:
    key = str(problem["loc"][-1])
    if problem["type"] == "extra_forbidden":
        known = [option for option in _options(kind) if option != "kind"]
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return f"--option {key}: unknown, " + (f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"--option {key}=...: missing, --kind {kind} needs it"
    return f"--option {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {credentials.shown(key, problem['input'])}"


def _options(kind: str) -> list[str]:
    schema = _SETTINGS.json_schema()
    reference = schema["discriminator"]["mapping"][kind].rsplit("/", 1)[-1]
    return list(schema["$defs"][reference]["properties"])
