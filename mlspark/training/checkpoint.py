"""Checkpoints that are complete or absent, on storage of any scheme.

A checkpoint is a folder: weights (safetensors), optional training state (torch's own format, without code), and
manifest.json, which names both files with their SHA-256 and is written last. Files are named after their content, so a
newer checkpoint never touches the files of the one it replaces; those go once the new manifest stands.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mlspark import storage
from mlspark.errors import MlsparkError
from mlspark.models import weights as weights_file

_FORMAT = 1


class CheckpointError(MlsparkError):
    """A checkpoint is absent, incomplete or not what its manifest says."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved, on the CPU."""

    weights: Mapping[str, torch.Tensor]
    """For the model's `load_state_dict`."""
    state: Mapping[str, Any]
    """Optimizer, schedule and the like; empty when none was saved."""
    about: Mapping[str, Any]
    """Epoch, step, metrics: whatever the writer noted."""


def save(
    uri: str,
    *,
    weights: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint to folder `uri`, in place of the one there. One writer at a time; runs in rank 0.

    Args:
        uri: folder, of this checkpoint alone.
        weights: tensors by name, on any device.
        about: JSON values.
        state: nested dicts, lists, numbers, strings and tensors; None: not saved.
    """
    contents = {"weights": (".safetensors", weights_file.to_bytes(weights))}
    if state is not None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        contents["state"] = (".pt", buffer.getvalue())
    files: dict[str, dict[str, Any]] = {}
    for role, (suffix, content) in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        name = f"{role}-{digest[:16]}{suffix}"
        storage.write_bytes(storage.join(uri, name), content)
        files[role] = {"name": name, "bytes": len(content), "sha256": digest}
    storage.write_json(_manifest(uri), {"format": _FORMAT, "about": dict(about), "files": files})
    _delete_others(uri, {file["name"] for file in files.values()})


def exists(uri: str) -> bool:
    """Return whether a whole checkpoint was written to folder `uri`; does not read it."""
    return storage.exists(_manifest(uri))


def load(uri: str) -> Checkpoint:
    """Return the checkpoint in folder `uri`, verified. Runs anywhere; runs no code found in the files.

    Raises:
        CheckpointError: no checkpoint there, or a file of it is missing or damaged; names the file.
    """
    try:
        manifest = storage.read_json(_manifest(uri))
        found, files = manifest["format"], manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"{uri}: no complete checkpoint here (no manifest.json); train first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{_manifest(uri)}: damaged ({error!r}); delete the folder and train again") from error
    if found != _FORMAT:
        raise CheckpointError(f"{uri}: checkpoint format {found}, expected {_FORMAT}; use the mlspark that wrote it")
    weights = weights_file.from_bytes(_read_verified(uri, files["weights"]))
    state: Mapping[str, Any] = {}
    if "state" in files:
        content = io.BytesIO(_read_verified(uri, files["state"]))
        state = torch.load(content, map_location="cpu", weights_only=True)
    return Checkpoint(weights, state, manifest["about"])


def _manifest(uri: str) -> str:
    return storage.join(uri, "manifest.json")


def _read_verified(uri: str, file: Mapping[str, Any]) -> bytes:
    path = storage.join(uri, file["name"])
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though the checkpoint's manifest names it; train again") from None
    if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise CheckpointError(
            f"{path}: damaged: {len(content)} bytes that do not have the manifest's SHA-256 "
            f"(of {file['bytes']} bytes); delete the folder and train again"
        )
    return content


def _delete_others(uri: str, kept: set[str]) -> None:
    """Delete the files of earlier checkpoints in the folder."""
    for path in storage.list_files(uri):
        name = path.rsplit("/", 1)[-1]
        if name not in kept and name.startswith(("weights-", "state-")):
            filesystem, location = storage.filesystem(path)
            filesystem.delete_file(location)
