"""Tables with every type and feature that Delta in Spark has, each with what a stream makes of it: `docs/tables.md`."""
# ruff: noqa: E501 (statements of SQL stand in one line)

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

SAME = "as Spark reads it"


@dataclass(frozen=True)
class Feature:
    """A type or table feature, and what becomes of it."""

    name: str
    columns: tuple[str, ...] = ()
    """Columns to compare, beside id; none: all."""
    refused: str = ""
    """Part of the message with which it is refused; empty: its values are those of Spark."""
    becomes: str = ""
    """What the column becomes in a batch, where that is not what Spark has."""

    @property
    def outcome(self) -> str:
        """What the documentation says of it."""
        return f'refused: "{self.refused}"' if self.refused else self.becomes or SAME


Step: TypeAlias = str | dict[str, str] | Feature | Callable[[SparkSession, str], None]
"""A statement of SQL ({t} the table, {p} its path), settings of Spark for all later steps, a function, or what to compare."""


@dataclass(frozen=True)
class Table:
    """A table with some features, all of whose rows have another `id`."""

    name: str
    writer: str
    steps: tuple[Step, ...]
    needs: str = ""
    """Package of the writer that the environment may lack."""
    is_slow: bool = False
    """Whether it takes more than 20 seconds."""

    @property
    def features(self) -> tuple[Feature, ...]:
        return tuple(step for step in self.steps if isinstance(step, Feature))


DAYS, MICROSECONDS = "int32, days since 1970-01-01", "int64, microseconds since 1970-01-01"
NEAREST = "float64, the nearest"

TYPES = Table("types", "Spark", (
    "CREATE TABLE {t} (id BIGINT, tiny TINYINT, small SMALLINT, whole INT, big BIGINT, single FLOAT, exact DOUBLE, "
    "money DECIMAL(9,2), wide DECIMAL(18,4), wider DECIMAL(26,10), ok BOOLEAN, day DATE, at TIMESTAMP, local TIMESTAMP_NTZ, "
    "word STRING, blob BINARY, fixed CHAR(5), most VARCHAR(5), wholes ARRAY<INT>, "
    "numbers ARRAY<DOUBLE>, days ARRAY<DATE>, moneys ARRAY<DECIMAL(9,2)>, oks ARRAY<BOOLEAN>, times ARRAY<TIMESTAMP>, "
    "gaps ARRAY<INT>, pair STRUCT<a: INT>, counts MAP<STRING, INT>, words ARRAY<STRING>, nested ARRAY<ARRAY<INT>>, "
    "anything VARIANT) USING delta",
    """INSERT INTO {t} VALUES
    (1, -128Y, -32768S, -2147483648, -9223372036854775808L, float('-0.0'), double('4.9E-324'), 6111780.02BD, -99999999999999.9999BD,
     9007199254740993.1234567891BD, true, date'0001-01-01', timestamp'1582-10-14 12:00:00', timestamp_ntz'9999-12-31 23:59:59.999999',
     '', X'', 'ab', 'ab ', array(1, -2), array(double('NaN'), 0.1D), array(date'1969-12-31'), array(0.07BD, 6111780.02BD),
     array(true, false), array(timestamp'1969-12-31 23:59:59.999999'), array(1, null), named_struct('a', 1), map('a', 1), array('a'),
     array(array(1)), parse_json('[1]')),
    (2, 127Y, 32767S, 2147483647, 9223372036854775807L, float('NaN'), double('-Infinity'), -0.07BD, 0.0001BD,
     -0.0000000001BD, false, date'9999-12-31', timestamp'2024-02-29 23:59:59.123456', timestamp_ntz'1582-10-14 00:00:00',
     'Zürich 😀', X'00FF', 'ü', 'abcde', array(), array(), array(), array(), array(), array(), array(), null, null, null, null, null),
    (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
     null, null, null, null, null, null, null, null)""",
    Feature("BYTE", ("tiny",)), Feature("SHORT", ("small",)), Feature("INT", ("whole",)), Feature("LONG", ("big",)),
    Feature("FLOAT with NaN, -0.0", ("single",)), Feature("DOUBLE with infinity, subnormal numbers", ("exact",)),
    Feature("DECIMAL(9,2)", ("money",), becomes=NEAREST), Feature("DECIMAL(18,4)", ("wide",), becomes=NEAREST),
    Feature("DECIMAL(26,10)", ("wider",), becomes=NEAREST), Feature("BOOLEAN", ("ok",)),
    Feature("DATE, years 1 to 9999", ("day",), becomes=DAYS), Feature("TIMESTAMP", ("at",), becomes=f"{MICROSECONDS} UTC"),
    Feature("TIMESTAMP_NTZ", ("local",), becomes=MICROSECONDS), Feature("STRING", ("word",), becomes="its bytes"),
    Feature("BINARY", ("blob",)), Feature("CHAR(5)", ("fixed",), becomes="its bytes, padded with spaces"),
    Feature("VARCHAR(5)", ("most",), becomes="its bytes"),
    Feature("ARRAY<INT>", ("wholes",)), Feature("ARRAY<DOUBLE>", ("numbers",)), Feature("ARRAY<DATE>", ("days",), becomes=DAYS),
    Feature("ARRAY<DECIMAL>", ("moneys",), becomes=NEAREST), Feature("ARRAY<BOOLEAN>", ("oks",)),
    Feature("ARRAY<TIMESTAMP>", ("times",), becomes=f"{MICROSECONDS} UTC"),
    Feature("ARRAY with a null among its elements", ("gaps",), "column gaps holds lists with 1 null elements"),
    Feature("STRUCT", ("pair",), "column pair of type struct cannot be streamed"),
    Feature("MAP", ("counts",), "column counts of type map cannot be streamed"),
    Feature("ARRAY<STRING>", ("words",), "column words of type array<string> cannot be streamed"),
    Feature("ARRAY<ARRAY>", ("nested",), "column nested of type array<array<integer>> cannot be streamed"),
    Feature("VARIANT", ("anything",), "column anything of type variant cannot be streamed"),
    Feature("STRUCT, MAP, ARRAY<STRING>, ARRAY<ARRAY>, VARIANT that nobody asks for", ("word",)),
))  # fmt: skip

PARTITIONS = (
    "tiny", "small", "whole", "big", "single", "exact", "money", "ok", "day", "at", "local", "word", "blob", "late", "fixed",
)  # fmt: skip
PARTITIONED = Table("partitions", "Spark", (
    "CREATE TABLE {t} (id BIGINT, value BIGINT, tiny TINYINT, small SMALLINT, whole INT, big BIGINT, single FLOAT, exact DOUBLE, "
    "money DECIMAL(9,2), ok BOOLEAN, day DATE, at TIMESTAMP, local TIMESTAMP_NTZ, word STRING, blob BINARY, late DATE, fixed CHAR(5)) "
    f"USING delta PARTITIONED BY ({', '.join(PARTITIONS)})",
    """INSERT INTO {t} SELECT id, id, cast(id - 2 AS TINYINT), cast(id AS SMALLINT), cast(id AS INT),
    id * 3000000000, if(id = 0, float('NaN'), float(id / 3)), if(id = 1, double('-Infinity'), id / 3D),
    cast(id / 7 AS DECIMAL(9,2)), id = 1, date_add(date'1582-10-14', cast(id AS INT)),
    timestamp_micros(id * 1000001 - 1), cast(timestamp_micros(id * 86400000001) AS TIMESTAMP_NTZ),
    elt(id + 1, concat('a b/ü%20#?=&', id), '', null, 'x'), X'6162', date_add(date'9999-12-31', cast(id AS INT)), elt(id + 1, 'ab', null, 'x', '')
    FROM range(4)""",
    *(Feature(f"partitioned by {kind}", (name,)) for name, kind in zip(PARTITIONS, (
        "BYTE", "SHORT", "INT", "LONG", "FLOAT with NaN", "DOUBLE with infinity", "DECIMAL", "BOOLEAN", "DATE", "TIMESTAMP",
        "TIMESTAMP_NTZ", "STRING with null, special characters", "BINARY that is text", "DATE beyond the year 9999", "CHAR",
    ), strict=True)),
))  # fmt: skip

_OLD_DAYS = "date_add(date'0001-01-01', cast(id % 300 * 2999 AS INT))"
_OLD_TIMES = "timestamp_micros(-62135596800000000 + id % 300 * 259200123456789)"
_ENCODED = "INSERT INTO {t} SELECT id, id / 3D, concat('word ', id % 7), array(cast(id AS INT), 7), cast(id AS DECIMAL(18,4)) FROM range"
STORED = (
    Table("times", "Spark", (
        "CREATE TABLE {t} (id BIGINT, day DATE, at TIMESTAMP, days ARRAY<DATE>) USING delta",
        "INSERT INTO {t} SELECT id, date_add(date'9999-12-31', cast(id * 1000000 AS INT)), "
        "timestamp_micros(253402300800000000 * (id + 1)), array() FROM range(3)",
        Feature("dates and times beyond the year 9999"),
        {"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MILLIS"},
        "INSERT INTO {t} SELECT id, null, timestamp_millis(id * 1234567890123 - 30000000000000), array() FROM range(100, 110)",
        Feature("timestamps in milliseconds"),
        {"spark.sql.parquet.outputTimestampType": "INT96"},
        f"INSERT INTO {{t}} SELECT id, null, {_OLD_TIMES}, array() FROM range(300, 600)",
        Feature("INT96 timestamps"),
        {"spark.sql.parquet.int96RebaseModeInWrite": "LEGACY"},
        f"INSERT INTO {{t}} SELECT id, null, {_OLD_TIMES}, array() FROM range(600, 900)",
        Feature("INT96 timestamps in the calendar of Spark 2"),
        {"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS", "spark.sql.parquet.datetimeRebaseModeInWrite": "LEGACY"},
        f"INSERT INTO {{t}} SELECT id, {_OLD_DAYS}, {_OLD_TIMES}, array(date'0900-02-28', date'1500-03-01') FROM range(900, 1200)",
        Feature("dates and times in the calendar of Spark 2"),
    )),
    Table("files", "Spark", (
        "CREATE TABLE {t} (id BIGINT, ratio DOUBLE, word STRING, lists ARRAY<INT>, money DECIMAL(18,4)) USING delta "
        "TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '0')",
        *(step for number, codec in enumerate(("none", "snappy", "gzip", "zstd", "lz4_raw")) for step in (
            {"spark.sql.parquet.compression.codec": codec}, f"{_ENCODED}({number * 100}, {number * 100 + 50})",
        )),
        *(Feature(f"files compressed with {codec}") for codec in ("none", "snappy", "gzip", "zstd", "lz4_raw")),
        {"spark.sql.parquet.writeLegacyFormat": "true"}, f"{_ENCODED}(500, 520)",
        Feature("lists and decimals in the form of Spark 1 (writeLegacyFormat)"),
        Feature("files without statistics in the log"),
    )),
)  # fmt: skip

VECTORS = "'delta.enableDeletionVectors' = 'true'"
CHANGED = (
    Table("changes with everything on", "Spark", (
        "CREATE TABLE {t} (id BIGINT NOT NULL, value BIGINT, key BIGINT GENERATED ALWAYS AS IDENTITY, twice BIGINT GENERATED ALWAYS AS "
        f"(value * 2)) USING delta CLUSTER BY (value) TBLPROPERTIES ({VECTORS}, 'delta.enableRowTracking' = 'true', "
        "'delta.enableInCommitTimestamps' = 'true', 'delta.enableChangeDataFeed' = 'true', 'delta.checkpointPolicy' = 'v2', "
        "'delta.checkpointInterval' = '2', 'delta.constraints.above' = 'value >= -1')",
        "INSERT INTO {t} (id, value) SELECT id, id * 2 FROM range(100)",
        Feature("generated columns", ("twice",)), Feature("identity columns", ("key",)), Feature("NOT NULL, CHECK", ("value",)),
        "DELETE FROM {t} WHERE id % 7 = 0",
        Feature("DELETE with deletion vectors"),
        "UPDATE {t} SET value = -1 WHERE id % 5 = 0",
        Feature("UPDATE with deletion vectors"), Feature("row tracking"), Feature("in-commit timestamps"), Feature("change data feed"),
        "MERGE INTO {t} AS t USING (SELECT id FROM range(90, 110)) AS s ON t.id = s.id WHEN MATCHED AND s.id < 95 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET value = 0 WHEN NOT MATCHED THEN INSERT (id, value) VALUES (s.id, 7)",
        Feature("MERGE with deletion vectors"), Feature("v2 checkpoints"),
        "OPTIMIZE {t}",
        Feature("OPTIMIZE, liquid clustering"),
        "DELETE FROM {t} WHERE id = 3", "REORG TABLE {t} APPLY (PURGE)",
        Feature("REORG TABLE APPLY (PURGE)"),
        "RESTORE TABLE {t} TO VERSION AS OF 3",
        Feature("RESTORE"),
    ), is_slow=True),
    Table("changes with nothing on", "Spark", (
        "CREATE TABLE {t} USING delta PARTITIONED BY (part) TBLPROPERTIES ('delta.enableDeletionVectors' = 'false', "
        "'delta.checkpointInterval' = '2') AS SELECT id, id * 2 AS value, id % 2 AS part FROM range(100)",
        Feature("CREATE TABLE AS SELECT"),
        "DELETE FROM {t} WHERE id % 7 = 0",
        Feature("DELETE without deletion vectors"),
        lambda spark, path: spark.sql("SELECT id + 100 AS id, -1L AS value, 1L AS part FROM range(5)").write.format("delta")
        .mode("overwrite").option("replaceWhere", "part = 1").save(path),
        Feature("overwriting with replaceWhere"), Feature("checkpoints"),
        "OPTIMIZE {t} ZORDER BY (value)",
        Feature("OPTIMIZE ZORDER BY"),
        lambda spark, path: spark.sql("SELECT id + 200 AS id, 0L AS part, id / 2D AS ratio FROM range(3)").write.format("delta")
        .mode("append").option("mergeSchema", "true").save(path),
        Feature("column added later (mergeSchema)", ("ratio",)),
        "ALTER TABLE {t} ADD COLUMN more INT",
        Feature("column added later (ALTER TABLE)", ("more",)),
        {"spark.databricks.delta.retentionDurationCheck.enabled": "false"}, "VACUUM {t} RETAIN 0 HOURS",
        Feature("VACUUM"),
        "ALTER TABLE {t} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')", "ALTER TABLE {t} RENAME COLUMN value TO `the value`",
        "INSERT INTO {t} (id, `the value`, part) VALUES (300, 5, 3)",
        Feature("column mapping switched on later, column renamed"),
    ), is_slow=True),
)  # fmt: skip


def _other_names(spark: SparkSession, path: str) -> None:
    """The table beside it with files whose columns have names of their own; only their ids are those of the table."""
    shutil.copytree(f"{path} base", path)
    (file,) = Path(path).glob("**/*.parquet")
    rows = pq.read_table(file, partitioning=None)
    fields = [pa.field(f"of the file {n}", field.type, metadata=field.metadata) for n, field in enumerate(rows.schema)]
    pq.write_table(pa.Table.from_arrays(rows.columns, schema=pa.schema(fields)), file)
    (log,) = Path(path, "_delta_log").glob("*1.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["size"] = file.stat().st_size
    log.write_text("\n".join(map(json.dumps, actions)))
    for checksum in (*Path(path).glob("**/.*.crc"), *Path(path).glob("_delta_log/*.crc")):
        checksum.unlink(missing_ok=True)


def _mapped(mode: str) -> Table:
    """Columns by other names than those of the files, which stay as they are."""
    return Table(f"mapping by {mode}", "Spark", (
        "CREATE TABLE {t} (id BIGINT, `old name` INT, gone INT, a STRUCT<b: INT, c: INT>, `A c` INT, lists ARRAY<INT>, day DATE) USING delta "
        f"PARTITIONED BY (day) TBLPROPERTIES ('delta.columnMapping.mode' = '{mode}')",
        "INSERT INTO {t} VALUES (1, 10, 5, named_struct('b', 1, 'c', 2), 4, array(7), date'2024-01-01'), (2, 20, 5, null, 4, array(), null)",
        "ALTER TABLE {t} RENAME COLUMN `old name` TO `a.b`", "ALTER TABLE {t} RENAME COLUMN day TO `the day`",
        "ALTER TABLE {t} DROP COLUMN gone", "ALTER TABLE {t} ADD COLUMN gone INT",
        "INSERT INTO {t} (id, `a.b`, `the day`, gone) VALUES (3, 30, date'2024-01-02', 7)",
        *(Feature(f"columns mapped by {mode}, {what}", names) for what, names in (
            ("renamed", ("a.b",)), ("dropped and added again", ("gone",)), ("renamed partition column", ("the day",)), ("ARRAY", ("lists",)),
            ("names with dots beside fields of a STRUCT", ("a.b", "A c")),
        )),
    ))  # fmt: skip


NAMED = (
    _mapped("name"),
    _mapped("id"),
    Table("names of the files", "Spark", (
        "CREATE TABLE delta.`{p} base` (id BIGINT, value INT) USING delta TBLPROPERTIES ('delta.columnMapping.mode' = 'id')",
        "INSERT INTO delta.`{p} base` VALUES (1, 10)",
        _other_names,
        Feature("columns mapped by id, names in the files unlike those in the log"),
    )),
    Table("names with dots", "Spark", (
        "CREATE TABLE {t} (id BIGINT, `a.b` INT, a STRUCT<b: INT>, `ü` INT) USING delta",
        "INSERT INTO {t} VALUES (1, 3, named_struct('b', 1), 5)",
        Feature("names with dots and letters beyond ASCII, not mapped", ("a.b", "ü")),
    )),
)  # fmt: skip

WIDENED = Table("type widening", "Spark", (
    "CREATE TABLE {t} (id BIGINT, a TINYINT, b SMALLINT, c INT, d FLOAT, e INT, f INT, g DECIMAL(6,2), h DATE, i BIGINT, "
    "j ARRAY<INT>, part INT) USING delta PARTITIONED BY (part) TBLPROPERTIES "
    f"({VECTORS}, 'delta.enableTypeWidening' = 'true', 'delta.feature.timestampNtz' = 'supported')",
    "INSERT INTO {t} VALUES (1, -128, -32768, -7, 0.1, 2147483647, 12, 9999.99, date'1582-10-15', -5, array(1, -2), 7), "
    "(2, null, null, null, null, null, null, null, null, null, null, null)",
    *(f"ALTER TABLE {{t}} ALTER COLUMN {change}" for change in (
        "a TYPE INT", "b TYPE BIGINT", "c TYPE BIGINT", "d TYPE DOUBLE", "e TYPE DOUBLE", "f TYPE DECIMAL(12,2)", "g TYPE DECIMAL(10,4)",
        "h TYPE TIMESTAMP_NTZ", "i TYPE DECIMAL(22,2)", "j.element TYPE BIGINT", "part TYPE BIGINT",
    )),
    "INSERT INTO {t} VALUES (3, 2147483647, 1, 1, 1e300, 0.5, 0.25, 0.1234, timestamp_ntz'2024-01-01 01:00:00', 0.5, "
    "array(9223372036854775807), 3000000000)",
    Feature("BYTE and SHORT widened", ("a", "b")), Feature("INT widened to LONG", ("c",)),
    Feature("FLOAT widened to DOUBLE", ("d",)), Feature("INT widened to DOUBLE", ("e",)),
    Feature("INT and LONG widened to DECIMAL", ("f", "i"), becomes=NEAREST), Feature("DECIMAL widened", ("g",), becomes=NEAREST),
    Feature("DATE widened to TIMESTAMP_NTZ", ("h",), becomes=MICROSECONDS), Feature("elements of an ARRAY widened", ("j",)),
    Feature("partition column widened from INT to LONG", ("part",)),
    Feature("type widening, deletion vectors on and none written"),
    "INSERT INTO {t} SELECT id + 10, 1, 1, 1, 1, 1, 1, 1, null, 1, array(), 1 FROM range(10)", "DELETE FROM {t} WHERE id = 13",
    Feature("type widening and deletion vectors", refused="deleted by vectors that deltalake does not read"),
    "REORG TABLE {t} APPLY (PURGE)",
    Feature("type widening and deletion vectors, after REORG TABLE APPLY (PURGE)"),
))  # fmt: skip

WIDENED_PARTITIONS = Table("type widening of a partition", "Spark", (
    "CREATE TABLE {t} (id BIGINT, day DATE) USING delta PARTITIONED BY (day) TBLPROPERTIES "
    "('delta.enableTypeWidening' = 'true', 'delta.feature.timestampNtz' = 'supported')",
    "INSERT INTO {t} VALUES (1, date'2024-01-01'), (2, null)", "ALTER TABLE {t} ALTER COLUMN day TYPE TIMESTAMP_NTZ",
    "INSERT INTO {t} VALUES (3, timestamp_ntz'2024-01-01 01:00:00.000001')",
    Feature("partition column widened from DATE to TIMESTAMP_NTZ", ("day",), "partition column day was widened from date to timestamp_ntz, and deltalake does not read the values of before"),
    "INSERT OVERWRITE {t} TABLE {t}",
    Feature("partition column widened from DATE to TIMESTAMP_NTZ, after INSERT OVERWRITE", ("day",), becomes=MICROSECONDS),
))  # fmt: skip

ROOTS = (
    Table("clones", "Spark", (
        f"CREATE TABLE delta.`{{p}} base%41` USING delta PARTITIONED BY (part) TBLPROPERTIES ({VECTORS}) AS "
        "SELECT id, id * 2 AS value, concat('a b%', id % 3) AS part FROM range(100)",
        "DELETE FROM delta.`{p} base%41` WHERE id = 3",
        "CREATE TABLE {t} SHALLOW CLONE delta.`{p} base%41`",
        Feature("SHALLOW CLONE, files of another table"),
        "DELETE FROM {t} WHERE id % 7 = 1",
        Feature("SHALLOW CLONE with deletion vectors of both tables"),
    )),
    Table("converted", "Spark", (
        lambda spark, path: spark.sql("SELECT id, id * 2 AS value, id % 2 AS part FROM range(10)").write.partitionBy("part").parquet(path),
        "CONVERT TO DELTA parquet.`{p}` PARTITIONED BY (part BIGINT)",
        Feature("CONVERT TO DELTA"),
    )),
)  # fmt: skip

SPARK_TABLES = (TYPES, PARTITIONED, *STORED, *CHANGED, *NAMED, WIDENED, WIDENED_PARTITIONS, *ROOTS)
