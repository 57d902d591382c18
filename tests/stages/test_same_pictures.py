"""The same pictures are the same feature rows, whatever they are kept in."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.sources import same_pictures
from tests.sources.same_pictures import KINDS, Pictures

from ..conftest import REAL_DATA
from ..pictures.corpus import file_of, scene

CIFAR = REAL_DATA / "cifar10-jpeg" / "test.zip"
needs_cifar = pytest.mark.skipif(not CIFAR.is_file(), reason=f"no {CIFAR}: set MLSPARK_DATA")


def labels(pictures: Pictures) -> list[str]:
    return sorted({name.split("/")[0] for name, _ in pictures})


def test_folder_and_archives_give_the_same_feature_rows(spark: SparkSession, tmp_path: Path) -> None:
    """No path, member or key is in a row that the contract does not name: ids and split are those of the contents."""
    pictures = [(f"{'ab'[seed % 2]}/{seed}.jpg", file_of(scene(9, 7, seed), "JPEG")) for seed in range(10)]
    pictures.append(("b/again.jpg", pictures[1][1]))
    found = []
    for kind in ("folder", "webdataset"):
        same_pictures.write(tmp_path, kind, pictures)
        found.append(same_pictures.prepared(spark, kind, str(tmp_path), tmp_path / f"of {kind}", labels(pictures)))
    rows, encoder = found[0]
    assert len(rows) == 11
    assert len({row["row_id"] for row in rows}) == 10
    assert found[1] == (rows, encoder)


@needs_cifar
@pytest.mark.slow
def test_cifar_is_the_same_from_every_kind_of_source(spark: SparkSession, tmp_path: Path) -> None:
    pictures = same_pictures.real(CIFAR, per_class=100)
    assert len(pictures) == 1000
    same_pictures.write_manifest(tmp_path, pictures)
    found = {}
    for kind in KINDS:
        same_pictures.write(tmp_path, kind, pictures)
        found[kind] = same_pictures.prepared(spark, kind, str(tmp_path), tmp_path / f"of {kind}", labels(pictures))
    for kind in ("folder", "zip"):
        more = {"manifest": {"path": str(tmp_path / "manifest.csv")}}
        folder = tmp_path / f"named {kind}"
        found[folder.name] = same_pictures.prepared(spark, kind, str(tmp_path), folder, labels(pictures), **more)
    rows, encoder = found["folder"]
    assert len(rows) == 1000
    for kind, (other_rows, other_encoder) in found.items():
        assert other_encoder == encoder, kind
        assert other_rows == rows, kind
