"""From sources to good rows: read, held against the contract, accounted for, refused as a whole. Driver."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import accounting, check_spark, schema_differences
from mlspark.contracts.accounting import Account
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import RAW, SOURCE
from mlspark.contracts.schema_differences import SchemaDifferences
from mlspark.intake import pictures
from mlspark.intake.pictures import PictureFeature
from mlspark.sources import catalog, typed_rows
from mlspark.sources.source import Source, reading

logger = logging.getLogger(__name__)

_FEW_BYTES = 64 * 2**20
"""Bytes of sources, as stored, up to which rows are kept as they are."""


@dataclass(frozen=True)
class TakenIn:
    """Rows of sources as they were read: typed, each with what is wrong with it, and the account of them."""

    rows: DataFrame
    """The contract's columns, `SOURCE`, `REASONS`, `RAW` of bad rows, `SOURCE_FILE`, and what `extended` added."""
    account: Account
    differences: Mapping[str, dict[str, Any]]
    """Source -> how its columns differ from the contract's; {} where they do not."""

    @property
    def good(self) -> DataFrame:
        return self.rows.where(~check_spark.is_bad())

    @property
    def bad(self) -> DataFrame:
        return self.rows.where(check_spark.is_bad())


@contextmanager
def take_in(
    spark: SparkSession,
    sources: Mapping[str, Source],
    contract: Contract,
    *,
    columns: Contract | None = None,
    ignored: Sequence[str] = (),
    extended: Callable[[DataFrame], DataFrame] = lambda rows: rows,
    good_rows_with: Mapping[str, Column] | None = None,
    picture_features: Sequence[PictureFeature] = (),
) -> Iterator[TakenIn]:
    """Yield the rows of `sources`, kept while the context lasts. One Spark job counts them.

    Args:
        spark: the session of the job.
        sources: name -> source; the rows get a column `SOURCE` with the name.
        contract: what the rows must be.
        columns: the contract that a source's columns are compared with, before a row is read; `contract` unless given.
        ignored: columns that a source may have besides those.
        extended: adds columns, or reasons, to the conformed rows before they are counted.
        good_rows_with: name -> condition: also count the good rows that satisfy it.
        picture_features: what features need of pictures; the rows get it in columns of `pictures.look`, and pictures that
            cannot be decoded for them make their rows bad.

    Raises:
        SourceError: a source cannot be read.
        ContractError: columns that the contract's policy refuses, or the data as a whole does not meet the contract.
    """
    differences = {
        name: difference.to_json()
        for name, difference in compare_columns(
            spark, sources, columns or contract, ignored=ignored, refuses=True
        ).items()
    }
    for name, difference in differences.items():
        if difference:
            logger.warning("%s: columns differ from contract %s: %s", name, contract.name, difference)
    sizes = [sum(part.size_bytes for part in source.parts) for source in sources.values()]
    num_bytes = sum(sizes) if all(sizes) else 0
    with kept(extended(conform(spark, sources, contract, picture_features)), num_bytes) as rows:
        with reading(", ".join(source.uri for source in sources.values())):
            account = accounting.account(rows, contract, sources=list(sources), good_rows_with=good_rows_with)
        for name, counts in account.sources.items():
            logger.info("%s: read %s rows, kept %s, rejected %s", name, *(f"{counts[key]:,}" for key in account.totals))
        accounting.check_account(account, contract)
        yield TakenIn(rows, account, differences)


@contextmanager
def kept(conformed: DataFrame, num_bytes: int = 0) -> Iterator[DataFrame]:
    """Yield conformed rows, kept while the context lasts: what is wrong with each is planned and computed once.

    Args:
        conformed: the rows.
        num_bytes: bytes of their sources as stored; 0 where that is not known.
    """
    rows = check_spark.without_raw(conformed)
    let_go: Callable[[], Any]
    if 0 < num_bytes <= _FEW_BYTES and _is_local(rows.sparkSession):
        # As rows, not by columns: a third of the processor time of a small job went into packing what is soon let go.
        rows = rows.localCheckpoint(eager=False)
        let_go = partial(rows._jdf.queryExecution().analyzed().rdd().unpersist, False)
    else:
        rows = rows.persist(StorageLevel.MEMORY_AND_DISK)
        let_go = rows.unpersist
    try:
        yield rows
    finally:
        let_go()


def _is_local(spark: SparkSession) -> bool:
    """Return whether there is no executor that could be lost, and with it rows of which nothing else is known."""
    return str(spark.sparkContext.master).startswith("local")


def conform(
    spark: SparkSession,
    sources: Mapping[str, Source],
    contract: Contract,
    picture_features: Sequence[PictureFeature] = (),
) -> DataFrame:
    """Return every row of every source, typed and with what is wrong with it, and its `SOURCE`. Lazy."""
    frames = []
    for name, source in sources.items():
        raw, looked = pictures.look(catalog.read(spark, source, contract), contract, picture_features)
        frames.append(check_spark.conform(raw, contract, looked=looked).withColumn(SOURCE, F.lit(name)))
    if any(frame.schema[RAW].dataType != frames[0].schema[RAW].dataType for frame in frames):
        frames = [frame.withColumn(RAW, check_spark.raw_text(frame)) for frame in frames]
    return reduce(DataFrame.unionByName, frames)


def compare_columns(
    spark: SparkSession,
    sources: Mapping[str, Source],
    contract: Contract,
    *,
    ignored: Sequence[str] = (),
    refuses: bool = False,
) -> dict[str, SchemaDifferences]:
    """Return how each source's columns differ from the contract's; none where rows have no names. Looks at no row.

    Args:
        spark: the session of the job.
        sources: name -> source.
        contract: what is expected.
        ignored: columns that may be there besides.
        refuses: raise what the contract's policy refuses.

    Raises:
        SourceError: a column of the contract cannot be read; says why.
        ContractError: with `refuses`; names each column.
    """
    differences = {}
    for name, source in sources.items():
        columns = catalog.columns(spark, source)
        if columns is None:
            differences[name] = SchemaDifferences()
            continue
        typed_rows.refuse_unreadable(columns, source, contract)
        differences[name] = check_spark.differences(
            columns, contract, has_types=catalog.has_types(source), ignored=ignored
        )
        if refuses:
            schema_differences.check(differences[name], contract)
    return differences
