"""Columns of bytes and pictures: both dialects say the same of them, and no reason holds a byte."""

import base64
import hashlib
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import check_arrow, check_spark, contract
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, RAW, REASONS, SOURCE, SOURCE_FILE
from mlspark.errors import ContractError
from mlspark.features import split
from mlspark.features.split import SplitSettings
from mlspark.pictures import decoder
from mlspark.pictures.headers import FORMATS

from ..pictures.corpus import CORPUS, file_of, jpeg, scene

PICTURES = tuple(odd.make() for odd in CORPUS if "20,000" not in odd.kind and "megapixels" not in odd.kind)


def of_pictures(media: dict[str, Any] | None, *, rules: tuple[str, ...] = (), **column: Any) -> Contract:
    image = {"name": "image", "type": "binary", **column} | ({} if media is None else {"media": media})
    named = [{"name": f"rule_{number}", "expression": rule} for number, rule in enumerate(rules)]
    return contract.from_json({"name": "c", "columns": [{"name": "id", "type": "int"}, image], "rules": named})


def raw(spark: SparkSession, values: list[Any], kind: str = "binary") -> Any:
    frame = spark.createDataFrame([*enumerate(values)], f"id int, image {kind}").coalesce(1)
    missing = F.lit(None).cast("string")
    return frame.select("id", "image", missing.alias(MALFORMED), F.lit("{}").alias(RAW), missing.alias(SOURCE_FILE))


def on_spark(spark: SparkSession, values: list[Any], rules: Contract, kind: str = "binary") -> list[list[str]]:
    rows = check_spark.conform(raw(spark, values, kind), rules).orderBy("id").collect()
    return [[f"{'.'.join(filter(None, reason[:2]))}: {reason['value']}" for reason in row[REASONS]] for row in rows]


def on_arrow(values: list[Any], rules: Contract, kind: pa.DataType | None = None) -> list[list[str]]:
    table = pa.table({"id": pa.array(range(len(values)), pa.int32()), "image": pa.array(values, kind or pa.binary())})
    reasons: list[list[str]] = [[] for _ in values]
    for broken in check_arrow.conform(table, rules).broken:
        what = f": {broken.what}" if broken.rule.startswith("media.") else ""
        reasons[broken.row].append(f"{broken.reason}: {broken.value}{what}")
    return reasons


def medias() -> st.SearchStrategy[dict[str, Any]]:
    modes = st.lists(st.sampled_from(decoder.MODES), min_size=1, unique=True)
    return st.fixed_dictionaries(
        {},
        optional={
            "formats": st.lists(st.sampled_from(FORMATS), min_size=1, unique=True),
            "modes": st.just(list(decoder.MODES)) | modes,
            "min_pixels": st.sampled_from([1, 2, 1536]),
            "max_pixels": st.sampled_from([1536, 100_000_000]),
            "max_bytes": st.sampled_from([1, 1000, 100_000]),
            "max_frames": st.integers(1, 3),
            "decodes": st.booleans(),
        },
    )


@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(media=medias(), chosen=st.lists(st.integers(-3, len(PICTURES) - 1), min_size=40, max_size=80))
def test_both_dialects_give_the_same_verdict_and_words(
    spark: SparkSession, media: dict[str, Any], chosen: list[int]
) -> None:
    rules = of_pictures(media, nullable=False)
    pictures = [None if place < 0 else PICTURES[place] for place in chosen]
    assert on_spark(spark, pictures, rules) == on_arrow(pictures, rules)


def test_the_whole_corpus_has_one_verdict_in_both_dialects(spark: SparkSession) -> None:
    rules = of_pictures({})
    told = on_spark(spark, list(PICTURES), rules)
    assert told == on_arrow(list(PICTURES), rules)
    assert sum(not reasons for reasons in told) >= 30
    assert sum(bool(reasons) for reasons in told) >= 40


def test_a_reason_names_a_picture_by_its_hash_and_holds_none_of_its_bytes(spark: SparkSession) -> None:
    half = jpeg()[:900]
    told = on_spark(spark, [half, None], of_pictures({}, nullable=False))
    digest = f"sha256:{hashlib.sha256(half).hexdigest()}, 900 bytes"
    assert told[0][0].startswith(f"image.media.decodes: {digest}: jpeg: cannot be decoded: ")
    assert told[1] == ["image.null: None"]
    with pytest.raises(ContractError, match=r"image.media.decodes: jpeg: cannot be .*: row 0 has 'sha256:"):
        check_arrow.check(pa.table({"id": pa.array([1], pa.int32()), "image": [half]}), of_pictures({}))


def test_bytes_without_media_are_taken_as_they_are(spark: SparkSession) -> None:
    rules = of_pictures(None, rules=("image is not missing or id < 2",))
    values = [b"", b"\x00\xff", b"text", None]
    assert (
        on_spark(spark, values, rules)
        == on_arrow(values, rules)
        == [[], [], [], ["rule_0: image is not missing or id < 2"]]
    )
    assert [row.image for row in check_spark.conform(raw(spark, values), rules).orderBy("id").collect()] == values
    for kind in (pa.large_binary(), pa.binary_view()):
        conformed = check_arrow.conform(
            pa.table({"id": pa.array(range(4), pa.int32()), "image": pa.array(values, kind)}), rules
        )
        assert conformed.rows.column("image").to_pylist() == values
        assert conformed.rows.schema.field("image").type == pa.binary()


def test_text_is_base64_or_no_bytes_at_all(spark: SparkSession) -> None:
    rules = of_pictures(None)
    good = [base64.b64encode(content).decode() for content in (b"", b"a", b"ab", b"abc", jpeg())]
    bad = ["a", "ab=c", "====", "QUJD\n", " QUJD", "QU-D", "QUI", "é==="]
    shown = [
        f"image.type: sha256:{hashlib.sha256(text.encode()).hexdigest()}, {len(text.encode())} bytes" for text in bad
    ]
    for told in (on_spark(spark, good + bad, rules, "string"), on_arrow(good + bad, rules, pa.string())):
        assert told == [[] for _ in good] + [[reason] for reason in shown]
    rows = check_spark.conform(raw(spark, good, "string"), rules).orderBy("id").collect()
    assert [bytes(row.image) for row in rows] == [b"", b"a", b"ab", b"abc", jpeg()]
    assert on_spark(spark, [1], rules, "int") == on_arrow([1], rules, pa.int32()) == [["image.type: 1"]]


def test_a_verdict_that_is_there_is_taken_and_kept(spark: SparkSession) -> None:
    looked = raw(spark, [jpeg(), jpeg()]).withColumn(
        "seen",
        F.struct(
            F.when(F.col("id") == 1, "media.decodes").alias("rule"),
            F.when(F.col("id") == 1, "said so").alias("what"),
            F.lit(7).alias("mean"),
        ),
    )
    rows = check_spark.conform(looked, of_pictures({}), looked={"image": "seen"}).orderBy("id").collect()
    assert [[(reason.rule, reason.value.split(": ")[-1]) for reason in row[REASONS]] for row in rows] == [
        [],
        [("media.decodes", "said so")],
    ]
    assert [row.seen.mean for row in rows] == [7, 7]


def test_rows_that_share_a_picture_under_a_unique_key_are_told_by_its_hash(spark: SparkSession) -> None:
    rules = contract.from_json(contract.to_json(of_pictures({})) | {"unique_key": ["image"]})
    same, other = jpeg(), file_of(scene(seed=1), "PNG")
    told = on_spark(spark, [same, other, same], rules)
    digest = f"image.unique: sha256:{hashlib.sha256(same).hexdigest()}, {len(same)} bytes"
    assert told == [[digest], [], [digest]]


def test_equal_pictures_are_on_one_side_whatever_else_differs(spark: SparkSession) -> None:
    pictures = [file_of(scene(8, 8, seed=number % 40), "PNG") for number in range(120)]
    rows = raw(spark, pictures).select("id", "image", F.lit("learn").alias(SOURCE))
    placed = split.place(rows, SplitSettings(validation_share=0.4), of_pictures({})).select("id", "image", "*")
    sides: dict[bytes, set[str]] = {}
    ids: dict[int, int] = {}
    for row in placed.collect():
        sides.setdefault(bytes(row.image), set()).add(row[split.SPLIT])
        ids[row.id] = row[split.ROW_ID]
    assert len(sides) == 40
    assert all(len(of_picture) == 1 for of_picture in sides.values())
    assert {side for of_picture in sides.values() for side in of_picture} == {"train", "validation"}
    assert len(set(ids.values())) == 120
    alike = rows.select(F.lit(1).alias("id"), "image", SOURCE)
    by_content = split.place(alike, SplitSettings(), of_pictures({})).select("image", split.ROW_ID).distinct().collect()
    assert len(by_content) == len({row[split.ROW_ID] for row in by_content}) == 40


def test_a_row_without_a_picture_stands_alone(spark: SparkSession) -> None:
    rows = raw(spark, [None, None, jpeg()]).select("id", "image", F.lit("learn").alias(SOURCE))
    placed = split.place(rows, SplitSettings(), of_pictures({})).collect()
    assert len({row[split.GROUP] for row in placed}) == 3


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"name": "x", "type": "int", "media": {}}, "x: media needs type binary, not int"),
        ({"name": "x", "type": "bytes"}, "'bytes' is not a type of a column, did you mean binary?"),
        ({"name": "x", "type": "image"}, "did you mean binary?"),
        ({"name": "x", "type": "binary", "min": 1}, "min needs a number, date or timestamp, not binary"),
        ({"name": "x", "type": "binary", "pattern": "a"}, "pattern needs type string, not binary"),
        ({"name": "x", "type": "binary", "media": {"max_pixel": 5}},
         "columns.0.media.max_pixel: unknown key, did you mean max_pixels?"),
        ({"name": "x", "type": "binary", "media": {"formats": ["jpg"]}},
         "columns.0.media.formats.0: input should be 'jpeg', 'png'"),
        ({"name": "x", "type": "binary", "media": {"max_pixels": 200000000}},
         "less than or equal to 100000000, got 200000000"),
    ],
)  # fmt: skip
def test_a_wrong_column_of_pictures_is_refused_in_words(tmp_path: Any, column: dict[str, Any], message: str) -> None:
    file = tmp_path / "contract.json"
    file.write_text(json.dumps({"name": "c", "columns": [column]}))
    with pytest.raises(ContractError) as refused:
        contract.load(str(file))
    assert message in str(refused.value)
    assert "line 1: " in str(refused.value)


def test_bytes_are_no_label() -> None:
    with pytest.raises(ValidationError, match="label 'image' is binary"):
        contract.from_json({"name": "c", "label": "image", "columns": [{"name": "image", "type": "binary"}]})


def test_a_contract_of_pictures_comes_back_from_its_file() -> None:
    rules = of_pictures({"formats": ["png"], "max_frames": 2})
    assert contract.from_json(contract.to_json(rules)) == rules
    assert contract.to_json(of_pictures({}))["columns"][1] == {"name": "image", "type": "binary", "media": {}}
    assert of_pictures({}).pictures == of_pictures({}).binary == ("image",)
    assert of_pictures(None).pictures == ()
    assert all(rule.media is None for rule in of_pictures(None).columns)
