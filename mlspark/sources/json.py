"""Lines that hold one JSON object each, columns by name. Driver, lazy."""

from typing import Annotated, Literal

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import PREFIX, SOURCE_FILE, is_own
from mlspark.sources import file_states, files, markers, text_lines
from mlspark.sources.long_lines import LINE
from mlspark.sources.markers import Markers
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import Source, absolute_uri


class JsonSettings(FilesSettings):
    """Lines that hold one JSON object each."""

    kind: Literal["json"]
    missing: Annotated[Markers, Field(default_factory=dict)]
    """Texts that stand for a missing value, as null and absent keys always do: a text, a list of texts, or either for each
    column, with "*" for all columns that have none of their own."""
    max_line_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """Most bytes of a line; a longer one is a bad row."""


Settings = JsonSettings
HAS_TYPES = False
PLACE = "path"
EXTENSIONS = (".json", ".jsonl", ".ndjson")

_OBJECT, _KEYS, _AROUND = f"{PREFIX}object", f"{PREFIX}keys", f"{PREFIX}around"
_MAYBE_INEXACT = r"\d[\d.]{17}|\d[eE][+-]?\d"
_TEXT = r'"(?:[^"\\]|\\.)*+"'
_INEXACT = r"(?:\d\.?){39}|(?:\d\.?){18,}[eE]|[eE]\+?0*(?:30[89]|3[1-9]\d|[4-9]\d\d|[1-9]\d{3})"
"""Numbers of more digits than a decimal has, or a double where there is an exponent, or beyond a double."""
_END = "\ufffd"
"""No line has it: one with it is not UTF-8."""
_HALF_A_CHARACTER = (
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def find(spark: SparkSession, settings: JsonSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: nothing there, or nothing in it.
    """
    uri = absolute_uri(settings.path, root)
    parts = files.existing_parts(spark, uri)
    return Source(uri, settings, parts, file_states.rests_on(parts))


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return None: each line names its own."""
    return None


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source, as strings: nested values as JSON text, null for null and for an absent key.

    Blank lines are no rows. A line is bad that is not one JSON object and nothing else, has a key twice, has a number with
    more digits than can be kept, says something else than its folder key=value, has a key that the contract does not name
    where its schema policy refuses extra columns, has half a character or a NUL as an escape, or is damaged like a line of
    any text. What a line leaves out, its folder says.

    Raises:
        SourceError: `filter` is not a boolean SQL condition over these columns.
    """
    settings = source.settings
    assert isinstance(settings, JsonSettings)
    line, keys = F.col(LINE), F.col(_KEYS)
    # Variant, not from_json: it keeps the digits of a number, and refuses what only looks like JSON.
    parsed = text_lines.lines(spark, source, settings.max_line_bytes).select(
        line,
        SOURCE_FILE,
        F.try_parse_json(line).alias(_OBJECT),
        F.json_object_keys(line).alias(_KEYS),
        # Spark's parsers stop at the end of the first value. Here it ends where the line does, or the keys differ.
        F.json_object_keys(F.concat(F.lit('{"row":'), line, F.lit(f',"{_END}":0}}'))).alias(_AROUND),
    )
    names = [column.source_name for column in contract.columns]
    repeated = F.array_distinct(F.filter(keys, lambda key: F.size(F.filter(keys, lambda other: other == key)) > 1))
    is_whole = keys.isNotNull() & F.col(_AROUND).eqNullSafe(F.array(F.lit("row"), F.lit(_END)))
    escapes = F.replace(line, F.lit("\\\\"), F.lit(""))  # an escaped backslash starts no escape
    flaws = [
        *text_lines.damage(line, settings.max_line_bytes),
        (~is_whole, F.lit("not one JSON object")),
        (F.size(keys) > F.size(F.array_distinct(keys)), F.concat(F.lit("key twice: "), F.array_join(repeated, ", "))),
        (line.contains("\\u") & escapes.rlike(_HALF_A_CHARACTER), F.lit("half a character")),
        (escapes.contains("\\u0000"), F.lit("control character")),
        (F.col(_OBJECT).isNull(), F.lit("not one JSON object")),
    ]
    # A number that no decimal holds comes as a double, and has lost digits or is infinite: as a column of floats reads it.
    is_inexact = line.rlike(_MAYBE_INEXACT) & F.regexp_replace(line, _TEXT, '""').rlike(_INEXACT)
    exact = [column.source_name for column in contract.columns if column.type not in ("float", "double")]
    lossy = [F.when(_is_double(name), F.lit(name)) for name in exact]
    lost = F.array_compact(F.array(*lossy))
    flaws.append(
        (is_inexact & (F.size(lost) > 0), F.concat(F.lit("number with too many digits: "), F.array_join(lost, ", ")))
    )
    if contract.schema_policy.extra == "refuse":
        extra = F.array_except(keys, F.array(*map(F.lit, names)))
        flaws.append((F.size(extra) > 0, F.concat(F.lit("extra key: "), F.array_join(extra, ", "))))
    named_here = dict(zip(names, contract.names, strict=True))
    texts = {
        name: text_lines.without(_text(name), markers.of(settings.missing, name, named_here[name])) for name in names
    }
    texts, differing = text_lines.with_folders(source, contract, texts)
    flaws += differing
    # What a key calls like a column of ours would be taken for it.
    fields = [text.alias(name) for name, text in texts.items() if name and not is_own(name)]
    values = {column.name: texts[column.source_name] for column in contract.columns}
    return text_lines.conformable(parsed.select("*", *fields), source, contract, values, flaws)


def _is_double(key: str) -> Column:
    """Return whether a key's value is a double, true where a key cannot be asked for."""
    if any(sign in key for sign in "'\\]"):
        return F.lit(True)
    value = F.try_variant_get(_OBJECT, f"$['{key}']", "variant")
    return F.coalesce(F.schema_of_variant(value) == "DOUBLE", F.lit(False))


def _text(key: str) -> Column:
    """Return the text of a key's value in `_OBJECT`, null where there is none."""
    if key.isidentifier() and key.isascii():
        return F.try_variant_get(_OBJECT, f"$.{key}", "string")
    return F.col(_OBJECT).cast("map<string,string>")[key]
