"""Arguments of a stream of pictures that are none: refused by field and value, with what to give, before reading."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlspark.streaming
from mlspark.errors import MlsparkError
from mlspark.pictures.augment import Flip
from mlspark.streaming.pictures import Picture

from ..pictures.corpus import file_of, scene


def picture(**said: Any) -> dict[str, Any]:
    return {"images": {"photo": Picture(**{"size": 8, **said})}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (
                picture(size=size),
                r"pictures of photo have size .*; give a whole number of pixels, 1 to 8,192, or \(height",
            )
            for size in (0, 8.0, "8", True, (8,), (8, 8, 3), (0, 8), 8193)
        ),
        (picture(augment=Flip()), r"augment of photo is Flip.*; give a list of mlspark\.pictures\.augment's"),
        (picture(augment=[Flip]), "augment of photo has <class .*; give a list"),
        (picture(augment=["flip"]), "augment of photo has 'flip'; give a list"),
        (picture(augment=[{"kind": "flip"}]), "augment of photo has {'kind': 'flip'}; give a list"),
        ({"images": ["photo"]}, r"images is \['photo'\]; give \{field: Picture\(size=...\)\}"),
        ({"images": {"photo": {"size": 8}}}, r"images has \{'size': 8\} for photo; give Picture"),
        (picture() | {"mix": {"mixup": 0.2}}, r"mix is \{'mixup': 0.2\}; give mlspark\.pictures\.mixing\.Mix"),
    ],
)
def test_what_is_no_picture_size_augmentation_or_mix_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    table = pa.table({"photo": pa.array([file_of(scene(9, 7), "PNG")] * 16, pa.binary())})
    pq.write_table(table, tmp_path / "photos.parquet")
    with pytest.raises(MlsparkError, match=message):
        mlspark.streaming.open(str(tmp_path / "photos.parquet"), batch_size=16, **options)
