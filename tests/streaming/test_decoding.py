"""From table columns to fields: every type, nulls, and what is refused."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlspark.errors import DatasetError
from mlspark.streaming.decoding import Decoder, specify
from mlspark.streaming.rows import Ragged, Rows
from mlspark.streaming.schema import table_columns

UTC = datetime.UTC
SCHEMA = {
    "fields": [
        {"name": name, "type": kind}
        for name, kind in {
            "tiny": "byte",
            "small": "short",
            "count": "integer",
            "big": "long",
            "ratio": "float",
            "exact": "double",
            "ok": "boolean",
            "price": "decimal(10,2)",
            "day": "date",
            "at": "timestamp",
            "local": "timestamp_ntz",
            "word": "string",
            "blob": "binary",
            "list": {"type": "array", "elementType": "float", "containsNull": True},
            "texts": {"type": "array", "elementType": "string", "containsNull": True},
            "inner": {"type": "struct", "fields": []},
            "pairs": {"type": "map", "keyType": "string", "valueType": "string"},
        }.items()
    ]
}
COLUMNS = table_columns(SCHEMA)
READABLE = [name for name, column in COLUMNS.items() if name not in ("texts", "inner", "pairs")]
ROWS = pa.table(
    {
        "tiny": pa.array([-128, 127], pa.int8()),
        "small": pa.array([-(2**15), 2**15 - 1], pa.int16()),
        "count": pa.array([-(2**31), 2**31 - 1], pa.int32()),
        "big": pa.array([-(2**63), 2**63 - 1], pa.int64()),
        "ratio": pa.array([float("nan"), -0.0], pa.float32()),
        "exact": pa.array([1e308, float("-inf")], pa.float64()),
        "ok": pa.array([True, False]),
        "price": pa.array([Decimal("-12345678.91"), Decimal("0.05")], pa.decimal128(10, 2)),
        "day": pa.array([datetime.date(1969, 12, 31), datetime.date(2024, 2, 29)]),
        "at": pa.array([datetime.datetime(1969, 12, 31, 23, tzinfo=UTC), None], pa.timestamp("us", "UTC")).fill_null(7),
        "local": pa.array([datetime.datetime(1970, 1, 1, 0, 0, 1), datetime.datetime(9999, 1, 1)], pa.timestamp("us")),
        "word": pa.array(["Zürich", ""]),
        "blob": pa.array([b"\x00\xff", b"\x01\x02"]),
        "list": pa.array([[1.5, 2.5], []], pa.list_(pa.float32())),
    }
)


def decode(rows: pa.Table, columns=None, fill=None, **options) -> Rows:
    return Decoder(specify(columns or rows.column_names, COLUMNS, **options), fill or {})(rows)


def words(field: Ragged) -> list[bytes]:
    return [bytes(field.values[a:b]) for a, b in zip(field.offsets, field.offsets[1:], strict=False)]


def test_every_type_keeps_its_values():
    rows = dict(zip(READABLE, decode(ROWS, READABLE).fields, strict=True))
    expected = {
        "tiny": np.array([-128, 127], np.int8),
        "small": np.array([-(2**15), 2**15 - 1], np.int16),
        "count": np.array([-(2**31), 2**31 - 1], np.int32),
        "big": np.array([-(2**63), 2**63 - 1], np.int64),
        "ratio": np.array([np.nan, -0.0], np.float32),
        "exact": np.array([1e308, -np.inf]),
        "ok": np.array([True, False]),
        "price": np.array([-12345678.91, 0.05]),
        "day": np.array([-1, 19782], np.int32),
        "at": np.array([-3_600_000_000, 7]),
        "local": np.array([1_000_000, 253370764800_000_000]),
    }
    for name, values in expected.items():
        assert rows[name].dtype == values.dtype, name
        assert rows[name].tobytes() == values.tobytes(), name
    assert words(rows["word"]) == ["Zürich".encode(), b""]
    assert words(rows["blob"]) == [b"\x00\xff", b"\x01\x02"]
    assert rows["list"].values.tolist() == [1.5, 2.5]
    assert rows["list"].offsets.tolist() == [0, 2, 2]


def test_columns_become_matrices_lengths_fixed_arrays_vocabularies_ids():
    rows = decode(
        ROWS,
        {"x": ["tiny", "ratio", "price"], "blob": "blob", "id": "word", "y": "ok"},
        lengths={"blob": 2},
        vocabularies={"word": ["Bern", "Zürich"]},
        dtypes={"x": "float32", "y": "int64"},
    )
    x, blob, ids, y = rows.fields
    np.testing.assert_array_equal(x, np.array([[-128, np.nan, -12345678.91], [127, -0.0, 0.05]], np.float32))
    assert blob.tolist() == [[0, 255], [1, 2]]
    assert (ids.tolist(), ids.dtype) == ([3, 1], np.int64)  # 2 is Bern, 1 a word that is not among them
    assert (y.tolist(), y.dtype) == ([1, 0], np.int64)


@pytest.mark.parametrize("name", READABLE)
def test_null_without_a_fill_value_is_an_error_that_names_the_column(name):
    rows = pa.table({name: pa.nulls(3, ROWS.schema.field(name).type)})
    with pytest.raises(DatasetError, match=f"column {name} holds 3 nulls; give a fill value for it"):
        decode(rows)


@pytest.mark.parametrize(
    ("name", "filling", "value"),
    [
        ("tiny", 3, 3),
        ("ratio", -1.5, -1.5),
        ("ok", True, True),
        ("price", Decimal("1.50"), 1.5),
        ("day", datetime.date(1970, 1, 3), 2),
        ("at", datetime.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 10**6),
    ],
)
def test_null_becomes_the_fill_value(name, filling, value):
    kind = ROWS.schema.field(name).type
    rows = pa.table({name: pa.concat_arrays([pa.nulls(1, kind), ROWS.column(name).combine_chunks()[:1]])})
    (field,) = decode(rows, fill={name: filling}).fields
    assert field[0] == value
    assert field[1:].tobytes() == decode(ROWS.select([name])).fields[0][:1].tobytes()


def test_null_texts_and_lists_become_what_is_given():
    rows = pa.table({"word": ["a", None], "list": pa.array([None, [1.0]], pa.list_(pa.float32()))})
    word, numbers = decode(rows, fill={"word": "ä", "list": []}).fields
    assert words(word) == [b"a", "ä".encode()]
    assert (numbers.values.tolist(), numbers.offsets.tolist()) == ([1.0], [0, 0, 1])
    (ids,) = decode(rows, ["word"], vocabularies={"word": ["a"]}).fields
    assert ids.tolist() == [2, 0]
    for filling, place in (("a", 2), ("b", 3), ("unknown", 1)):
        (ids,) = decode(rows, ["word"], vocabularies={"word": ["a", "b"]}, fill={"word": filling}).fields
        assert ids.tolist() == [2, place]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"columns": ["nope"]}, "people: no column nope; there are tiny, small"),
        ({"columns": ["inner"]}, "people: column inner of type struct cannot be streamed"),
        ({"columns": ["pairs"]}, "people: column pairs of type map cannot be streamed"),
        ({"columns": ["texts"]}, "people: column texts of type array<string> cannot be streamed"),
        ({"columns": ["tiny", "tiny"]}, "people: a column is asked for twice"),
        ({"columns": {"x": ["tiny", "word"]}}, "column word of type string cannot stand in matrix x"),
        ({"columns": ["tiny"], "lengths": {"tiny": 2}}, "column tiny of type byte has no length"),
        ({"columns": ["tiny"], "lengths": {"blob": 2}}, "lengths names blob, which is not among the columns"),
        ({"columns": ["blob"], "vocabularies": {"blob": ["a"]}}, "column blob of type binary has a vocabulary"),
        ({"columns": ["word"], "dtypes": {"word": "int64"}}, "field word: a dtype is for numbers, word is string"),
        ({"columns": ["tiny"], "dtypes": {"x": "int64"}}, "dtypes names x, which is no field; there are tiny"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(ask, message):
    with pytest.raises(DatasetError, match=message):
        specify(table=COLUMNS, source="people", **ask)


def test_wrong_length_wrong_fill_and_null_elements_are_named():
    with pytest.raises(
        DatasetError, match="column list: row 1 of the row group has 0 values, but its length was given as 2; leave"
    ):
        decode(ROWS, ["list"], lengths={"list": 2})
    with pytest.raises(DatasetError, match="column tiny: fill value 'x' is no int8"):
        decode(pa.table({"tiny": pa.nulls(1, pa.int8())}), fill={"tiny": "x"})
    with pytest.raises(DatasetError, match="column list holds lists with 1 null elements"):
        decode(pa.table({"list": pa.array([[1.0, None]], pa.list_(pa.float32()))}))


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_strings_of_any_arrow_kind_are_the_same_bytes(kind):
    values = pa.chunked_array([pa.array(["x", "skip", "bb", ""]).cast(kind).slice(2), pa.array(["c"]).cast(kind)])
    (field,) = decode(pa.table({"word": values})).fields
    assert words(field) == [b"bb", b"", b"c"]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), max_size=5), min_size=1, max_size=20), st.data())
def test_ragged_rows_are_cut_taken_and_joined_like_lists(lists, data):
    ragged = Ragged(np.array(sum(lists, []), np.uint8), np.cumsum([0, *map(len, lists)], dtype=np.int64))
    cut = data.draw(st.integers(0, len(lists)))
    places = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=30)), np.int64)
    joined = Ragged.concatenate([ragged.slice(cut, len(lists)), ragged.slice(0, cut), ragged.take(places)])
    expected = lists[cut:] + lists[:cut] + [lists[place] for place in places]
    assert [list(word) for word in words(joined)] == expected


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 100, 16_384, 16_385, 40_000]), st.integers(1, 12), st.sampled_from(["float32", None]))
def test_matrix_has_its_columns_in_order_whatever_their_number_and_that_of_rows(num_rows, num_columns, dtype):
    names = [READABLE[index % 5] for index in range(num_columns)]
    arrays = {name: (np.arange(num_rows) + 7 * index) % 100 for index, name in enumerate(READABLE[:5])}
    table = pa.table({name: pa.array(array).cast(ROWS.schema.field(name).type) for name, array in arrays.items()})
    (matrix,) = decode(table, {"x": names}, dtypes={} if dtype is None else {"x": dtype}).fields
    np.testing.assert_array_equal(matrix, np.stack([arrays[name] for name in names], axis=1))
    assert dtype is None or matrix.dtype == dtype
