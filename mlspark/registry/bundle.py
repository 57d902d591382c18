"""A model with all that it needs to score raw rows: weights, architecture, encoder, contract, provenance. Runs anywhere."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from mlspark.config import ModelSettings
from mlspark.contracts import arrow as conforming
from mlspark.contracts.contract import Contract
from mlspark.errors import RegistryError
from mlspark.features.arrow import ArrowEncoder
from mlspark.features.encoder import Encoder
from mlspark.features.layout import Layout
from mlspark.models import weights as weights_file
from mlspark.models.build import build
from mlspark.training import metrics

_FORMAT = 1
_FILES = ("model.json", "weights.safetensors", "encoder.json", "contract.json", "provenance.json")


@dataclass(frozen=True)
class Bundle:
    """A model version's content, as files of a folder or as bytes to broadcast."""

    files: Mapping[str, bytes]

    @classmethod
    def pack(
        cls,
        *,
        model: ModelSettings,
        layout: Layout,
        weights: Mapping[str, torch.Tensor],
        encoder: Encoder,
        contract: Contract,
        provenance: Mapping[str, Any],
    ) -> "Bundle":
        """Return the bundle of a trained model.

        Args:
            model: the architecture.
            layout: the order of its inputs.
            weights: the module's state_dict.
            encoder: how a raw row becomes its inputs.
            contract: what a raw row to be scored must be; without the label.
            provenance: JSON values: where the model comes from.
        """
        description = {"format": _FORMAT, "model": json.loads(model.model_dump_json()), "layout": layout.to_json()}
        return cls(
            {
                "model.json": _to_bytes(description),
                "weights.safetensors": weights_file.to_bytes(weights),
                "encoder.json": _to_bytes(encoder.to_json()),
                "contract.json": contract.model_dump_json(indent=1).encode(),
                "provenance.json": _to_bytes(dict(provenance)),
            }
        )

    def save(self, folder: Path) -> None:
        """Write the files into a local folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Return the bundle in a local folder.

        Raises:
            RegistryError: a file is missing, or it was written by another version of mlspark.
        """
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise RegistryError(f"{folder}: no complete model, {', '.join(missing)} missing; register the model anew")
        bundle = cls({name: (folder / name).read_bytes() for name in _FILES})
        found = bundle._json("model.json").get("format")
        if found != _FORMAT:
            raise RegistryError(f"{folder}: model of format {found}, expected {_FORMAT}; train it anew")
        return bundle

    @property
    def encoder(self) -> Encoder:
        return Encoder.from_json(self._json("encoder.json"))

    @property
    def contract(self) -> Contract:
        return Contract.model_validate_json(self.files["contract.json"])

    @property
    def provenance(self) -> dict[str, Any]:
        return self._json("provenance.json")

    def _json(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.files[name]))


class Predictor:
    """A bundle ready to score: the network is built once."""

    def __init__(self, bundle: Bundle) -> None:
        self.encoder = bundle.encoder
        self._encoder = ArrowEncoder(self.encoder)
        # Columns that joins gave in training: whoever sends single rows knows them.
        self._rows = bundle.contract.with_columns(self.encoder.inputs)
        description = bundle._json("model.json")
        settings = ModelSettings.model_validate_json(json.dumps(description["model"]))
        self._network: nn.Module = build(settings, Layout.from_json(description["layout"]))
        self._network.load_state_dict(weights_file.from_bytes(bundle.files["weights.safetensors"]))
        self._network.eval()

    def probabilities(self, dense: NDArray[np.float32], categorical: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of the positive class (n,) of encoded rows, dense (n, F) and categorical (n, K)."""
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(dense), torch.from_numpy(categorical))
        return metrics.probabilities(logits.numpy())

    def predict(self, rows: pa.Table) -> NDArray[np.float64]:
        """Return the probability of the positive class (n,) of raw rows.

        Raises:
            ContractError: a row breaks the contract; names column, rule, row and value.
        """
        return self.probabilities(*self._encoder.transform(conforming.conform(rows, self._rows)))


def _to_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
