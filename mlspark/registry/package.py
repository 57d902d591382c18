"""A model version's files: all that it needs to score raw rows, whole and checked. Runs anywhere; needs no Spark."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from mlspark.contracts.contract import Contract
from mlspark.errors import RegistryError
from mlspark.features.encoder import Encoder
from mlspark.registry import requirements
from mlspark.tasks import kinds as tasks
from mlspark.tasks.task import Task

_FORMAT = 2
_MANIFEST = "manifest.json"
_ALWAYS = ("model.json", "encoder.json", "contract.json", "task.json", "provenance.json", "requirements.txt")


@dataclass(frozen=True)
class Package:
    """A model version's content, as bytes by name: files of a folder, or a broadcast.

    manifest.json      SHA-256 of every other file
    model.json         engine, model with every setting resolved, tensors, number of outputs, entry of a custom model's code
    ...                the engine's files: weights.safetensors, code/... of a custom model; model.ubj
    engine.json        of an optimised version: the engine that runs it in place of that of model.json, whose files stay
    encoder.json       how a raw row becomes tensors
    contract.json      what a raw row must be, the label and its place included
    task.json          what the outputs mean, threshold included
    provenance.json    where the model comes from, and how good it was
    requirements.txt   what scoring needs, pinned
    """

    files: Mapping[str, bytes]

    @classmethod
    def pack(
        cls,
        *,
        model: Mapping[str, bytes],
        encoder: Encoder,
        contract: Contract,
        task: Task,
        provenance: Mapping[str, Any],
    ) -> "Package":
        """Return the package of a trained model.

        Args:
            model: the engine's files, model.json among them (`engines.eager.pack`).
            encoder: how a raw row becomes the model's inputs.
            contract: what a raw row must be, whole: with its label.
            task: resolved.
            provenance: JSON values: where the model comes from.
        """
        files = {
            **model,
            "encoder.json": _to_bytes(encoder.to_json()),
            "contract.json": (contract.model_dump_json(indent=1) + "\n").encode(),
            "task.json": (task.to_json() + "\n").encode(),
        }
        return _packed(files, provenance)

    def with_engine(self, engine: Mapping[str, bytes], *, provenance: Mapping[str, Any]) -> "Package":
        """Return a package of the same model, byte for byte, that another engine runs.

        Args:
            engine: the engine's files, engine.json among them.
            provenance: what is different of where it comes from.
        """
        own = {_MANIFEST, "provenance.json", "requirements.txt"}
        same = {name: content for name, content in self.files.items() if name not in own}
        return _packed({**same, **engine}, {**self.provenance, **provenance})

    def save(self, folder: Path) -> None:
        """Write the files into a local folder."""
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    @classmethod
    def load(cls, folder: Path, *, digest: str = "") -> "Package":
        """Return the package in a local folder, every byte of it checked.

        Args:
            folder: that `save` wrote.
            digest: of the package, where it is known from elsewhere; "" checks the files against the manifest alone.

        Raises:
            RegistryError: a file is missing or changed, or it was written by another version of mlspark; names the file.
        """
        if not (folder / _MANIFEST).is_file():
            raise RegistryError(f"{folder}: no model, {_MANIFEST} is missing; register the model anew")
        content = (folder / _MANIFEST).read_bytes()
        if digest and hashlib.sha256(content).hexdigest() != digest:
            raise RegistryError(
                f"{folder / _MANIFEST}: changed since the version was registered (its SHA-256 is not the version's tag "
                f"{DIGEST_TAG}); restore the file or register the model anew"
            )
        manifest = _manifest(content, folder)
        files = {_MANIFEST: content}
        missing = sorted({*_ALWAYS, *manifest} - {name for name in manifest if (folder / name).is_file()})
        if missing:
            raise RegistryError(
                f"{folder}: no complete model, {', '.join(missing)} missing; restore it or register the model anew"
            )
        for name, expected in manifest.items():
            files[name] = (folder / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != expected:
                raise RegistryError(
                    f"{folder / name}: changed since the version was registered (its SHA-256 is not that of {_MANIFEST}); "
                    f"restore the file or register the model anew"
                )
        return cls(files)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of every byte."""
        return hashlib.sha256(self.files[_MANIFEST]).hexdigest()

    def is_same_model(self, other: "Package") -> bool:
        """Return whether both score the same rows the same: all but where they come from, and what was installed."""
        different = {name for name in {*self.files, *other.files} if self.files.get(name) != other.files.get(name)}
        return different <= {_MANIFEST, "provenance.json", "requirements.txt"}

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.from_json(self._json("encoder.json"))

    @cached_property
    def contract(self) -> Contract:
        """The contract of the rows that the model was trained on: with the label."""
        return Contract.model_validate_json(self.files["contract.json"])

    @cached_property
    def scoring_contract(self) -> Contract:
        """The contract of rows to be scored, of which the joins are still to come: neither label nor sample weight."""
        weight = self.task.weight
        return self.contract.scoring_view(without=[weight] if weight and weight not in self.encoder.inputs else [])

    @cached_property
    def ignored(self) -> tuple[str, ...]:
        """Columns that rows to be scored may have, and that are not looked at: label and weight, by all their names."""
        left_out = (column for column in self.contract.columns if column.name not in self.scoring_contract.names)
        return tuple(dict.fromkeys(name for column in left_out for name in (column.name, column.source_name)))

    @cached_property
    def input_contract(self) -> Contract:
        """The contract of rows to be scored one by one: with the columns that joins gave in training.

        The sender of single rows has to know these; jobs/score.py joins them as training did.
        """
        return self.scoring_contract.with_columns(self.encoder.inputs)

    @property
    def unserved_rules(self) -> tuple[str, ...]:
        """Row rules that Spark alone checks: single rows that break them are scored."""
        return self.scoring_contract.unserved_rules

    @cached_property
    def task(self) -> Task:
        return tasks.from_json(self.files["task.json"])

    @property
    def provenance(self) -> dict[str, Any]:
        return self._json("provenance.json")

    @property
    def requirements(self) -> list[str]:
        """Lines of requirements.txt."""
        return self.files["requirements.txt"].decode().split()

    def _json(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.files[name]))


DIGEST_TAG = "mlspark.manifest_sha256"
"""Tag of a registered version that holds its package's digest."""


def _packed(files: Mapping[str, bytes], provenance: Mapping[str, Any]) -> Package:
    """Return the package of these files, with what is made of them."""
    whole = {
        **files,
        "provenance.json": _to_bytes(provenance),
        "requirements.txt": "".join(f"{line}\n" for line in requirements.pinned(files)).encode(),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(whole.items())}
    return Package({**whole, _MANIFEST: _to_bytes({"format": _FORMAT, "files": digests})})


def _manifest(content: bytes, folder: Path) -> dict[str, str]:
    """Return file -> SHA-256.

    Raises:
        RegistryError: no manifest of this mlspark, or it names a file outside the folder.
    """
    try:
        manifest = json.loads(content)
        version, digests = manifest["format"], dict(manifest.get("files", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{folder / _MANIFEST}: no manifest ({error}); register the model anew") from None
    if version != _FORMAT:
        raise RegistryError(f"{folder}: model of format {version}, expected {_FORMAT}; train it anew")
    for name in digests:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise RegistryError(f"{folder / _MANIFEST}: names {name}, outside the model; register the model anew")
    return digests


def _to_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()
