"""`mlspark stream-bench`: figures and advice for a person's own table."""

import json

import deltalake
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from mlspark.commands.main import app
from mlspark.errors import DatasetError
from mlspark.streaming import bench


def test_any_table_is_measured_and_advised(tmp_path):
    rows = {
        "id": range(2000),
        "word": ["a", None] * 1000,
        "list": pa.array([[1.0], None] * 1000, pa.list_(pa.float32())),
        "texts": [["x"]] * 2000,
    }
    properties = deltalake.WriterProperties(compression="ZSTD", max_row_group_size=100, write_batch_size=100)
    deltalake.write_deltalake(str(tmp_path / "table"), pa.table(rows), writer_properties=properties)
    command = ["stream-bench", str(tmp_path / "table"), "--seconds", "0.2", "--json", str(tmp_path / "bench.json")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert (found["rows"], found["row_groups"], found["rows_per_group"]) == (2000, 20, 100)
    assert found["rows_read"] > 0
    assert found["rows_per_second"] == pytest.approx(found["rows_read"] / found["seconds"])
    assert found["columns"] == ["id", "word", "list"]
    assert found["left_out"] == ["texts"]
    assert 0 < found["first_batch_seconds"] <= found["seconds"]
    for advice in ("row groups are small (100 rows", "the files are ZSTD", "keeps it in memory"):
        assert advice in " ".join(found["advice"])
        assert advice in done.output
    assert "left out, of types that cannot be streamed: texts" in done.output


def test_empty_table_is_refused(tmp_path):
    deltalake.write_deltalake(str(tmp_path), pa.table({"id": pa.array([], pa.int64())}))
    with pytest.raises(DatasetError, match="version 0 has no rows"):
        bench.measure(str(tmp_path))
