"""A version that scores pictures: bytes and base64 give the same pixels, another decoder is refused unless allowed."""

import base64
import dataclasses
import io
import json
import urllib.error
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.engines import eager
from mlspark.errors import ContractError, RegistryError
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder
from mlspark.features.kinds import image as image_kind
from mlspark.features.kinds.as_is import AsIs
from mlspark.models.cnn import CnnSettings
from mlspark.pictures import decoder
from mlspark.pictures.media import Media
from mlspark.pictures.spec import PictureSpec
from mlspark.registry import versions
from mlspark.registry.input_example import typical_row
from mlspark.registry.package import Package
from mlspark.scoring import mlflow_model
from mlspark.scoring.predictor import Predictor
from mlspark.tasks import kinds as tasks

from ..registry.conftest import new_run
from .served import post, serving

CONTRACT = Contract(
    name="photos",
    label="label",
    columns=(
        ColumnRule(name="photo", type="binary", nullable=False, media=Media(max_pixels=10_000)),
        ColumnRule(name="age", type="float", nullable=False),
        ColumnRule(name="label", type="string"),
    ),
)
TASK = tasks.from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c"]})


def package(decoded_by: str = "") -> Package:
    spec = PictureSpec(
        "RGB", 8, 8, mean=(0.5,) * 3, std=(0.25,) * 3, decoder=decoded_by or decoder.version(), store="pixels"
    )
    encoder = Encoder(
        pipeline="photos",
        rows=1,
        inputs={"photo": "binary", "age": "float"},
        features=(
            image_kind.Image(name="photo", column="photo", spec=spec, file_bytes=300.0),
            AsIs(name="age", column="age", ids=0),
        ),
    )
    settings, tensors = CnnSettings(kind="cnn", widths=(4, 8)), encoder.tensors(TASK)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = settings.build(tensors, 3).state_dict()
    provenance: dict[str, Any] = {
        "run_id": "none", "table": "photos", "table_version": 0, "git_commit": "", "metrics": {}, "train_seconds": 1.0,
        "libraries": {},
    }  # fmt: skip
    model = eager.pack(settings, tensors, 3, weights)
    return Package.pack(model=model, encoder=encoder, contract=CONTRACT, task=TASK, provenance=provenance)


def photo(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (13, 9, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


FILES = [photo(seed, kind) for seed, kind in enumerate(("PNG", "JPEG", "BMP", "PNG", "JPEG"))]
AGES = [0.5, 1.0, -2.0, 0.0, 3.0]


def test_bytes_and_base64_give_the_same_pixels_and_predictions() -> None:
    predictor = Predictor(package())
    from_arrow = predictor.predict(pa.table({"photo": FILES, "age": pa.array(AGES, pa.float32())}))
    served = mlflow_model.ServedModel(predictor)
    frames = {
        "bytes": pd.DataFrame({"photo": FILES, "age": AGES}),
        "base64": pd.DataFrame({"photo": [base64.b64encode(file).decode() for file in FILES], "age": AGES}),
    }
    for frame in frames.values():
        predictions = served.predict(frame)
        for name, values in from_arrow.items():
            assert predictions[name].tolist() == values.tolist()
    one = predictor.predict(pa.table({"photo": FILES[2:3], "age": pa.array(AGES[2:3], pa.float32())}))
    assert all(one[name][0] == from_arrow[name][2] for name in one)
    # The very tensor, by the one function.
    tensors = ArrowEncoder(package().encoder).transform(pa.table({"photo": FILES, "age": pa.array(AGES, pa.float32())}))
    [image] = package().encoder.images
    for file, tensor in zip(FILES, tensors["photo"], strict=True):
        np.testing.assert_array_equal(tensor, decoder.encoded(file, image.spec))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (photo(0)[:60], "photo.media.decodes"),
        (b"", "photo.media.bytes"),
        (b"<html>404</html>", "photo.media.format"),
        ("not base64!", "photo.type: expected binary, or base64 without line ends: row 1"),
        ("data:image/png;base64,AAAA", "photo.type: expected binary, or base64 without line ends: row 1"),
        (None, "photo.null"),
    ],
)
def test_what_is_no_picture_gets_an_error_and_no_prediction(value: Any, message: str) -> None:
    served = mlflow_model.ServedModel(Predictor(package()))
    good = base64.b64encode(FILES[0]).decode() if isinstance(value, str) else FILES[0]
    with pytest.raises(ContractError, match=message) as caught:
        served.predict(pd.DataFrame({"photo": [good, value], "age": [1.0, 2.0]}))
    assert len(str(caught.value)) < 500  # no bytes of a picture in it


def test_another_decoder_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = package("simplejpeg 0.1, Pillow 1.0")
    with pytest.raises(
        RegistryError, match=r"photo: the pictures .* by simplejpeg 0.1, Pillow 1.0, here is simplejpeg"
    ):
        Predictor(old)
    Predictor(old, allow_decoder=True)
    folder = tmp_path / "data" / "package"
    old.save(folder)
    with pytest.raises(RegistryError, match="MLSPARK_ALLOW_DECODER=1"):
        mlflow_model._load_pyfunc(str(folder))
    monkeypatch.setenv("MLSPARK_ALLOW_DECODER", "1")
    mlflow_model._load_pyfunc(str(folder))


def test_a_version_names_what_decodes_its_pictures() -> None:
    names = [line.partition("==")[0].lower() for line in package().requirements]
    assert {"pillow", "simplejpeg"} <= set(names)
    spec = json.loads(package().files["model.json"])["tensors"]["specs"][1]["picture"]
    assert PictureSpec.from_json(spec) == dataclasses.replace(package().encoder.images[0].spec)


def test_mlflow_serves_pictures_from_frames_and_from_json(client: MlflowClient) -> None:
    example = typical_row(package().input_contract, {"columns": {}})
    example["age"] = 1.0
    version = versions.register(
        client, package(), run_id=new_run(client), name="photos", alias="champion", example=example
    )
    model = mlflow.pyfunc.load_model(f"models:/photos/{version}")
    frame = pd.DataFrame({"photo": FILES, "age": AGES})
    expected = Predictor(package()).predict(pa.table({"photo": FILES, "age": pa.array(AGES, pa.float32())}))
    served = model.predict(frame)
    assert served["prediction"].tolist() == expected["prediction"].tolist()
    # What the server makes of a request's JSON.
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    texts = [base64.b64encode(file).decode() for file in FILES]
    request = {
        "dataframe_split": {"columns": ["photo", "age"], "data": [list(row) for row in zip(texts, AGES, strict=True)]}
    }
    data = infer_and_parse_data(request, model.metadata.get_input_schema())
    by_json = model.predict(data)
    for name in expected:
        assert by_json[name].tolist() == expected[name].tolist()


@pytest.mark.slow
def test_rest_scores_pictures_as_rows_in_memory_and_refuses_with_the_contract_s_words(client: MlflowClient) -> None:
    example = typical_row(package().input_contract, {"columns": {}}) | {"age": 1.0}
    version = versions.register(
        client, package(), run_id=new_run(client), name="photos", alias="champion", example=example
    )
    expected = Predictor(package()).predict(pa.table({"photo": FILES, "age": pa.array(AGES, pa.float32())}))
    texts = [base64.b64encode(file).decode() for file in FILES]
    with serving(f"models:/photos/{version}") as url:
        rows = [{"photo": text, "age": age} for text, age in zip(texts, AGES, strict=True)]
        found = post(url, {"dataframe_records": rows})
        for name, values in expected.items():
            assert [row[name] for row in found] == values.tolist(), name
        half = base64.b64encode(FILES[0][:60]).decode()
        with pytest.raises(urllib.error.HTTPError) as error:
            post(url, {"dataframe_records": [{"photo": half, "age": 1.0}]})
        assert error.value.code == 400
        assert "photo.media.decodes" in error.value.read().decode()
