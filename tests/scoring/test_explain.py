"""What raw columns add to a prediction: the predictor's own answers, sums that are the output, other libraries' figures."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray

from mlspark.engines import eager, ensemble, trees
from mlspark.engines.combination import Combination
from mlspark.errors import ContractError
from mlspark.evaluation.attribution import AttributionError
from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.kinds.hash import Hashed
from mlspark.models import trees as tree_models
from mlspark.models.ensemble import EnsembleSettings, MemberSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.trees import Rows, TreesSettings
from mlspark.registry.package import Package
from mlspark.scoring.explain import Explainer, needs_reference, raw_columns
from mlspark.scoring.predictor import Predictor

from ..registry.example import BIG, ROW, encoder, package, rows
from . import test_pictures as photos

ALONE = ("small", "number", "big", "single", "real", "text", "flag", "day", "moment", "amount", "vector", "events_mean")
GOOD: tuple[dict[str, Any], ...] = (
    {}, {"small": 9, "text": None, "flag": False}, {"big": BIG - 1, "real": 999.5, "vector": [2.0, 1.0]},
)  # fmt: skip
BROKEN: tuple[dict[str, Any], ...] = (
    {"small": None}, {"text": "pink"}, {"real": float("inf")}, {"number": 5, "small": 105}, {"vector": [1.0]},
)  # fmt: skip
FEATURES = ("small", "number", "single", "real", "flag", "amount", "events_mean")
"""Of the example, each a number and whether it is missing: the first floats of a row."""
OF_DENSE = [*np.repeat(FEATURES, 2), *["day"] * 4, *["moment"] * 2, *["vector"] * 2]
"""The raw column of each float, by the example's features."""


def reference(of: Package, count: int = 50) -> dict[str, NDArray[Any]]:
    """Tensors of other rows."""
    random, tensors = np.random.default_rng(1), of.encoder.tensors(of.task)
    return {
        "dense": random.normal(size=(count, tensors.num_dense)).astype(np.float32),
        "ids": np.stack([random.integers(0, ids, count) for ids in tensors.cardinalities], axis=1),
    }


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_contributions_lead_from_the_baseline_to_the_prediction(kind: str) -> None:
    scale = {"standardise": True, "center": 100.0, "scale": 20.0} if kind == "regression" else {}
    made = package(kind, **scale)
    verdicts, explained = Explainer(made, reference(made)).explain(rows(*GOOD))
    predictions = Predictor(made).predict(rows(*GOOD))
    assert explained.columns == tuple((name,) for name in ALONE)
    assert explained.values.shape == (3, len(ALONE))
    assert {name: values.tolist() for name, values in verdicts.predictions.items()} == {
        name: values.tolist() for name, values in predictions.items()
    }
    if kind == "binary":
        chance = predictions["probability"]
        expected, numbers = np.log(chance / (1 - chance)), {"log odds of yes"}
    elif kind == "multiclass":
        chances = np.sort(np.stack([predictions[f"probability_{name}"] for name in "abc"], axis=1), axis=1)
        expected, numbers = np.log(chances[:, -1] / chances[:, -2]), set(explained.numbers)
        assert all(text.startswith(f"logit of {best} less") for text, best in zip(
            explained.numbers, predictions["prediction"], strict=True))  # fmt: skip
    else:
        expected, numbers = predictions["prediction"], {"label"}
    assert set(explained.numbers) == numbers
    np.testing.assert_allclose(explained.output, expected, rtol=1e-5)
    added = np.abs(explained.values).sum(axis=1)
    assert (added > 0.01).all()
    np.testing.assert_allclose(
        explained.start + explained.values.sum(axis=1), explained.output, atol=0.011 * added.max()
    )
    np.testing.assert_allclose(explained.error, explained.start + explained.values.sum(axis=1) - explained.output)
    assert set(explained.steps.tolist()) <= {64, 256, 1024}


def test_a_row_is_refused_as_the_predictor_refuses_it_alone() -> None:
    made = package()
    mixed = [change for pair in zip(BROKEN, (*GOOD, {}, {}), strict=True) for change in pair]
    verdicts, explained = Explainer(made, reference(made)).explain(rows(*mixed))
    assert verdicts.good.tolist() == [1, 3, 5, 7, 9]
    assert len(explained.output) == 5
    said = {broken.row: str(broken) for broken in reversed(verdicts.broken)}
    for place in range(0, 10, 2):
        with pytest.raises(ContractError) as refusal:
            Predictor(made).predict(rows(mixed[place]))
        assert str(refusal.value) == f"contract example: {said[place]}".replace(f"row {place}", "row 0")
    only_broken, nothing = Explainer(made, reference(made)).explain(rows(*BROKEN))
    assert len(only_broken.good) == len(nothing.output) == len(nothing.values) == 0


def test_rows_of_json_are_explained_as_those_in_columns() -> None:
    made = package()
    row = ROW | {"day": "2024-02-29", "moment": "2024-02-29T18:30:01Z", "amount": "12.34"}
    of_version = Explainer(made, reference(made))
    _, in_columns = of_version.explain(rows({}, {"small": 9}))
    verdicts, as_json = of_version.explain([row, row | {"small": "many"}, row | {"small": 9}])
    assert verdicts.good.tolist() == [0, 2]
    np.testing.assert_array_equal(as_json.values, in_columns.values)


def test_a_network_has_the_integrated_gradients_of_captum_by_raw_column() -> None:
    made = package()
    others = reference(made)
    _, explained = Explainer(made, others).explain(rows(*GOOD))
    network = eager.load(made.files).network.requires_grad_(False)
    assert isinstance(network.embeddings, torch.nn.ModuleList)
    tensors = ArrowEncoder(made.encoder).transform(rows(*GOOD))

    def number(*vectors: torch.Tensor) -> torch.Tensor:
        return network.layers(torch.cat(vectors, dim=1))[:, 0]  # type: ignore[operator,no-any-return]

    def parts(of: dict[str, NDArray[Any]]) -> list[torch.Tensor]:
        dense, ids = torch.from_numpy(of["dense"]), torch.from_numpy(of["ids"])
        vectors = [each(ids[:, place]) for place, each in enumerate(network.embeddings)]  # type: ignore[arg-type]
        return [dense, network.dense_embedding(dense), *vectors]  # type: ignore[operator]

    assert len(set(explained.steps.tolist())) == 1, "captum takes as many for all"
    starts = tuple(part.mean(0, keepdim=True) for part in parts(others))
    dense, waves, text, big = IntegratedGradients(number).attribute(
        tuple(parts(tensors)), starts, n_steps=int(explained.steps[0]), method="gausslegendre"
    )
    by_name = dict.fromkeys(ALONE, 0.0) | {"text": text.sum(1).detach(), "big": big.sum(1).detach()}
    for place, name in enumerate(OF_DENSE):
        own = dense[:, place] + waves.unflatten(1, (len(OF_DENSE), -1))[:, place].sum(1)
        by_name[name] = by_name[name] + own.detach()
    expected = np.stack([np.asarray(by_name[name]) for name in ALONE], axis=1)
    np.testing.assert_allclose(explained.values, expected, rtol=1e-4, atol=1e-5)


def of_trees(*, joined: bool = True) -> Package:
    """The example with trees in place of its network."""
    made = package(joined=joined)
    random, some = np.random.default_rng(2), reference(made, 300)
    target = (some["dense"][:, 2] + (some["ids"][:, 0] == 1) + random.normal(size=300) > 0).astype(np.float32)
    settings, tensors = TreesSettings(num_rounds=8, early_stopping_rounds=0, threads=1), made.encoder.tensors(made.task)
    booster = tree_models.grow(settings, made.task, tensors, train=Rows(some, target), validation=None, seed=1)
    return Package.pack(
        model=trees.pack(settings, tensors, 1, booster), encoder=made.encoder, contract=made.contract, task=made.task,
        provenance=made.provenance,
    )  # fmt: skip


def test_trees_have_the_shap_values_of_xgboost_by_raw_column_and_need_no_other_rows() -> None:
    import xgboost

    made = of_trees()
    assert not needs_reference(made)
    assert needs_reference(package())
    _, explained = Explainer(made, {}).explain(rows(*GOOD))
    booster = xgboost.Booster(model_file=bytearray(made.files["model.ubj"]))
    encoded, tensors = ArrowEncoder(made.encoder).transform(rows(*GOOD)), made.encoder.tensors(made.task)
    data = xgboost.DMatrix(
        tree_models.features(encoded), feature_types=tree_models.feature_types(tensors), enable_categorical=True
    )
    shap = booster.predict(data, pred_contribs=True)
    owners = [*OF_DENSE, "text", "big"]
    expected = np.stack(
        [shap[:, [place for place, owner in enumerate(owners) if owner == name]].sum(axis=1) for name in ALONE], axis=1
    )
    np.testing.assert_allclose(explained.values, expected, atol=1e-6)
    np.testing.assert_allclose(explained.start, shap[:, -1], atol=1e-6)
    np.testing.assert_allclose(explained.output, booster.predict(data, output_margin=True), atol=1e-6)
    assert np.abs(explained.error).max() < 1e-5
    assert set(explained.steps.tolist()) == {0}


def of_both(combination: Combination) -> Package:
    """The example's network and trees as an ensemble."""
    made, grown = package(), of_trees()
    files = {
        "net": {name: made.files[name] for name in ("model.json", "weights.safetensors")},
        "trees": {name: grown.files[name] for name in ("model.json", "model.ubj")},
    }
    settings = EnsembleSettings(
        members=(MemberSettings(model=TabularSettings()), MemberSettings(model=TreesSettings()))
    )
    packed = ensemble.pack(settings, made.encoder.tensors(made.task), 1, combination, files)
    return Package.pack(
        model=packed, encoder=made.encoder, contract=made.contract, task=made.task, provenance=made.provenance
    )


def test_an_ensemble_is_explained_where_its_outputs_do_not_jump() -> None:
    made = of_both(Combination("mean", "logistic", weights=(0.5, 0.5)))
    assert needs_reference(made)
    verdicts, explained = Explainer(made, reference(made)).explain(rows(*GOOD))
    assert explained.method == "integrated gradients and SHAP values"
    chance = verdicts.predictions["probability"]
    np.testing.assert_allclose(explained.output, np.log(chance / (1 - chance)), rtol=1e-5)
    np.testing.assert_allclose(explained.error, 0, atol=1e-3)
    assert explained.columns == tuple((name,) for name in ALONE)
    votes = of_both(Combination("vote", "logistic"))
    with pytest.raises(AttributionError, match=r"model.combine=vote: shares of votes change in jumps"):
        Explainer(votes, reference(votes)).explain(rows(*GOOD))


def test_a_feature_of_several_columns_belongs_to_them_together() -> None:
    crossed = Hashed(name="both", columns=("text", "flag"), cross=True, buckets=4, into="id", signed=False)
    fitted = encoder()
    fitted = fitted.model_copy(update={"features": (*fitted.features, crossed)})
    columns, sums = raw_columns(fitted, fitted.tensors(package().task))
    assert columns == (*((name,) for name in ALONE), ("text", "flag"))
    assert sums.shape == (len(OF_DENSE) + 3, len(ALONE) + 1)
    assert (sums.sum(axis=1) == 1).all()
    assert sums[-1].tolist() == [0.0] * len(ALONE) + [1.0]
    assert sums[:, ALONE.index("day")].sum() == 4
    only_ids, _ = raw_columns(fitted, fitted.tensors(package().task).only(["ids"]))
    assert only_ids == (("big",), ("text",), ("text", "flag"))


def test_a_picture_has_its_share_and_its_map() -> None:
    made = photos.package()
    random = np.random.default_rng(0)
    others = {
        "dense": random.normal(size=(20, 1)).astype(np.float32),
        "photo": random.integers(0, 256, (20, 3, 8, 8), np.uint8),
    }
    some = [{"photo": photos.photo(seed), "age": age} for seed, age in ((1, 0.5), (2, -3.0), (3, None), (4, 1.0))]
    verdicts, explained = Explainer(made, others).explain(some, num_maps=2)
    assert [(broken.row, broken.reason) for broken in verdicts.broken] == [(2, "age.null")]
    assert explained.columns == (("photo",), ("age",))
    assert explained.values.shape == (3, 2)
    assert (explained.values != 0).all()
    np.testing.assert_allclose(explained.error, 0, atol=0.02)
    assert explained.pictures["photo"].shape == (2, 3, 8, 8)
    assert explained.maps["photo"].values.shape == (2, 8, 8)
    assert json.loads(made.files["model.json"])["engine"] == "eager"
