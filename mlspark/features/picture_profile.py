"""What a profile says of columns of pictures: figures for its record, and thumbnails for its page. Driver.

Each picture is looked at once, in one pass for each column, and decoded there once more than the preparation itself does.
Sums are of integers and pictures are chosen by their SHA-256, so the same rows yield the same figures and thumbnails in
whatever order and partitions they are.
"""

import base64
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from mlspark.contracts import check_spark
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE_FILE
from mlspark.features import picture_looks, profile
from mlspark.features.picture_looks import MEASURES, NUM_SAMPLES, Asked
from mlspark.pictures import figures
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.losses import key_text
from mlspark.tasks.task import Task

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the thumbnails' file; raised when an older reader would misread it."""
MAX_CLASSES = 20
"""Most classes of which samples are kept, the commonest."""
MAX_DECODED = 100_000
"""Pictures above which brightness and values are those of about as many, chosen by content."""
MAX_REFUSED = 20
"""Most refused pictures that are shown."""
_TASK_PICTURES = 4000
"""Pictures that a task looks at at least, unless there are fewer than that for each slot."""
_MALFORMED = "malformed"
_MAX_WORDS = 300


@dataclass(frozen=True)
class PictureProfile:
    """A profile's record with what is known of pictures, and their thumbnails."""

    record: dict[str, Any]
    """The record of `profile.profile`; that of a column of pictures has "pictures" besides, see `of_pictures`, and is
    followed by those of its measures, each with "of": the column. "image.format", "image.mode", "image.bits",
    "image.orientation" (of EXIF, a text), "image.width", "image.height" (as seen, turned as EXIF says), "image.size" (both,
    a text), "image.bytes" (of the file), "image.brightness" (mean of the pixels, 0 to 255)."""
    thumbnails: dict[str, Any]
    """{"format", "thumbnails" {SHA-256: {"media_type", "data" (base64), "width", "height" (of the picture itself)}}}; {}
    where no column has pictures."""


def of_pictures(
    record: Mapping[str, Any],
    good: DataFrame,
    bad: DataFrame,
    contract: Contract,
    task: Task,
    *,
    reasons: Mapping[str, int],
    duplicates: Mapping[str, Any],
) -> PictureProfile:
    """Return a profile with what is known of the pictures of all good rows, whatever side of the split they are on.

    What a column's "pictures" are: "decoded" (pictures whose pixels were counted: all, or about 100,000 of more, without
    those over 50 megapixels), "unreadable" (those that could not be decoded, where the contract does not ask that they can),
    "values" {"grey", "red", "green", "blue": pixels of each value, 256 numbers}, "samples" {class: SHA-256 of up to 8, of
    the 20 commonest classes; of one class "" where the task has none}, "duplicates" (as in the report; those of the same
    bytes and, on request, those that look alike), "refused" {"rows" {rule: rows}, "examples": up to 20 of {"rule", "what",
    "sha256", "bytes", "rows", "file" (the first by name)}, of each rule the first by SHA-256}.

    No Spark job where no column has pictures. Otherwise five for each column, of which one looks at the pictures, and two
    for bad rows if there are any.

    Args:
        record: of the same rows by `profile.profile`.
        good: good rows with the contract's columns.
        bad: bad rows with `REASONS`, `RAW` and `SOURCE_FILE`.
        contract: says which columns have pictures.
        task: resolved; says which class each row has.
        reasons: reason -> bad rows.
        duplicates: by `duplicates.duplicates`.
    """
    if all(column.media is None for column in contract.columns):
        return PictureProfile(dict(record), {})
    columns: dict[str, Any] = {}
    thumbnails: dict[str, Any] = {}
    for column in contract.columns:
        started, of_column = time.monotonic(), dict(record["columns"][column.name])
        columns[column.name] = of_column
        if column.media is None:
            continue
        repeated = duplicates.get(column.name, {})
        found = _looked_at(good, column.name, task, contract, record, repeated)
        examples, of_refused = _refused(bad, column.name) if any(_of_column(reasons, column.name)) else ([], {})
        refused = {"rows": _of_column(reasons, column.name), "examples": examples}
        of_column["pictures"] = {**found.figures, "duplicates": repeated, "refused": refused}
        for name, measure in found.measures.items():
            columns[f"{column.name}.{name}"] = measure | {"nulls": of_column["nulls"], "of": column.name}
        thumbnails |= found.thumbnails | of_refused
        seconds = time.monotonic() - started
        logger.info("pictures: profiled %s of %s in %.1f s", f"{of_column['count']:,}", column.name, seconds)
    return PictureProfile({**record, "columns": columns}, {"format": FORMAT, "thumbnails": thumbnails})


@dataclass(frozen=True)
class _LookedAt:
    figures: dict[str, Any]
    measures: dict[str, dict[str, Any]]
    thumbnails: dict[str, Any]


def _looked_at(
    good: DataFrame, name: str, task: Task, contract: Contract, record: Mapping[str, Any], repeated: Mapping[str, Any]
) -> _LookedAt:
    """Return what is known of the pictures of a column."""
    target_type = contract.column(task.target).type
    classes, label = {"0": ""}, "'0'"
    if isinstance(task, ClassTask):
        classes = _commonest({str(place): key_text(value) for place, value in enumerate(task.known_classes)}, record)
        label = f"CAST(CAST(({task.label_sql(target_type)}) AS INT) AS STRING)"
    event = task.event_sql(target_type)
    asked = Asked(
        classes=frozenset(classes),
        wanted=frozenset(_shown_duplicates(repeated)),
        share=min(1.0, MAX_DECODED / max(record["columns"][name]["count"], 1)),
    )
    rows = good.select(F.col(name), F.expr(label), F.expr("false" if event is None else f"coalesce({event}, false)"))
    # Each task counts for itself and keeps samples of its own, of which most are then left out.
    num_tasks = max(
        good.sparkSession.sparkContext.defaultParallelism, record["columns"][name]["count"] // _TASK_PICTURES
    )
    found = rows.coalesce(num_tasks).mapInArrow(picture_looks.looking(asked), picture_looks.SCHEMA)
    found = found.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        pictures = found.where(F.col("what") == picture_looks.PICTURE)
        measures = profile.columns(pictures, MEASURES, event=None if event is None else "is_event")
        counted = found.where(F.col("what") == picture_looks.COUNT).groupBy("name", "value").agg(F.sum("number"))
        values = {(row[0], row[1]): row[2] for row in counted.collect()}
        kept = _kept(found)
    finally:
        found.unpersist()
    samples = {
        text: sorted(row["sha256"] for row in kept if row["what"] == picture_looks.SAMPLE and row["name"] == place)
        for place, text in classes.items()
    }
    channels = {
        channel: [values.get((channel, value), 0) for value in range(figures.NUM_VALUES)]
        for channel in figures.CHANNELS
    }
    return _LookedAt(
        {
            "decoded": measures["brightness"]["count"],
            "unreadable": values.get((picture_looks.UNREADABLE, 0), 0),
            "values": channels,
            "samples": {text: digests for text, digests in samples.items() if digests},
        },
        measures,
        _thumbnails(kept),
    )


def _commonest(classes: Mapping[str, str], record: Mapping[str, Any]) -> dict[str, str]:
    """Return the commonest classes {label: class}, in the task's order."""
    rows = record["target"].get("classes", {})
    chosen = sorted(classes, key=lambda label: (-rows.get(classes[label], 0), int(label)))[:MAX_CLASSES]
    return {label: text for label, text in classes.items() if label in chosen}


def _shown_duplicates(repeated: Mapping[str, Any]) -> list[str]:
    """Return the SHA-256 of the pictures that stand for those that are there more than once."""
    return [digest for counts in repeated.values() for example in counts["examples"] for digest in example["contents"]]


def _kept(found: DataFrame) -> Sequence[Any]:
    """Return the thumbnails that are kept of those that the tasks found: of each class those of the least SHA-256."""
    columns = ("media_type", "data", "full_width", "full_height")
    made = found.where(F.col("what").isin(picture_looks.SAMPLE, picture_looks.WANTED))
    once = made.groupBy("what", "name", "sha256").agg(*(F.first(column).alias(column) for column in columns))
    place = F.row_number().over(Window.partitionBy("what", "name").orderBy("sha256"))
    is_kept = (F.col("place") <= NUM_SAMPLES) | (F.col("what") == picture_looks.WANTED)
    return once.withColumn("place", place).where(is_kept).collect()


def _thumbnails(rows: Sequence[Any]) -> dict[str, Any]:
    return {
        row["sha256"]: {
            "media_type": row["media_type"],
            "data": base64.b64encode(row["data"]).decode(),
            "width": row["full_width"],
            "height": row["full_height"],
        }
        for row in sorted(rows, key=lambda row: row["sha256"])
    }


def _of_column(reasons: Mapping[str, int], name: str) -> dict[str, int]:
    """Return {rule: bad rows} of a column, and of rows that could not be read as such."""
    rules = {reason.removeprefix(f"{name}."): rows for reason, rows in reasons.items() if reason.startswith(f"{name}.")}
    return rules | ({_MALFORMED: reasons[_MALFORMED]} if reasons.get(_MALFORMED) else {})


def _refused(bad: DataFrame, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return some refused pictures of a column, and the thumbnails of those that can be decoded nevertheless."""
    picture, digest = F.col(name), F.sha2(F.col(name), 256)
    of_column = F.filter(
        REASONS,
        lambda reason: (reason["column"] == name) | ((reason["column"] == "") & (reason["rule"] == _MALFORMED)),
    )
    member = F.when(F.get_json_object(RAW, "$.uri").isNotNull(), F.get_json_object(RAW, "$.member"))  # of an archive
    first = bad.select(
        F.get(of_column, F.lit(0)).alias("reason"),
        digest.alias("sha256"),
        F.octet_length(picture).alias("bytes"),
        F.concat_ws(": ", SOURCE_FILE, member).alias("file"),
    ).where(F.col("reason").isNotNull())
    # What a reason shows of the picture stands beside it.
    what = F.regexp_replace(F.col("reason")["value"], r"^sha256:[0-9a-f]{64}, \d+ bytes(: )?", "")
    told = first.select(
        check_spark.reason_name(F.col("reason")).alias("rule"),
        F.substring(F.coalesce(what, F.lit("")), 1, _MAX_WORDS).alias("what"),
        "file",
        "sha256",
        "bytes",
    )
    alike = told.groupBy("rule", "what", "sha256", "bytes").agg(F.count("*").alias("rows"), F.min("file").alias("file"))
    place = F.row_number().over(Window.partitionBy("rule").orderBy("sha256", "what"))
    chosen = alike.withColumn("place", place).orderBy("place", "rule").limit(MAX_REFUSED).drop("place").collect()
    examples = [{**row.asDict(), "rule": row["rule"].removeprefix(f"{name}.")} for row in chosen]
    digests = {example["sha256"] for example in examples if example["sha256"] and example["bytes"]}
    if not digests:
        return examples, {}
    wanted = Asked(classes=frozenset(), wanted=frozenset(digests))
    rows = bad.where(digest.isin(*digests)).select(picture)
    made = rows.mapInArrow(picture_looks.thumbnails_alone(wanted), picture_looks.SCHEMA)
    return sorted(examples, key=lambda example: example["rule"]), _thumbnails(made.collect())
