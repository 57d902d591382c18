"""Weights that others wrote: safetensors, or what torch.save wrote, read without running what is in it. Runs anywhere."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError

from mlspark.errors import ConfigError
from mlspark.models import weights as safetensors_file

_WITHIN = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys of a checkpoint below which the weights may stand, in the order in which they are looked for."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_FEW = 6


def read(content: bytes, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        content: bytes of the file.
        name: of the file, for errors.

    Raises:
        ConfigError: it is neither kind of file, is damaged, or holds other things than tensors; says which.
    """
    if content.startswith(_POINTER):
        raise ConfigError(f"{name}: a pointer of Git LFS, not the file itself; fetch it by `git lfs pull`")
    if content.startswith((b"PK\x03\x04", b"\x80")):
        return _tensors(_loaded(content, name), name)
    try:
        return safetensors_file.from_bytes(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{name}: {len(content):,} bytes that are neither a safetensors file ({error}) nor one of torch.save; give "
            f"another file"
        ) from None


def _loaded(content: bytes, name: str) -> Any:
    try:
        _check_sizes(content, name)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except pickle.UnpicklingError as error:
        # torch proposes to run the code.
        why = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        raise ConfigError(
            f"{name}: holds code or Python objects beside tensors, which are not read{f' ({why[:200]})' if why else ''}; "
            f"keep the model's state_dict() alone in a file, best as safetensors"
        ) from None
    except Exception as error:  # whatever a damaged file brings torch to raise
        raise ConfigError(
            f"{name}: a damaged file of torch.save ({' '.join(str(error).split())[:200]}); fetch it again"
        ) from None


def _check_sizes(content: bytes, name: str) -> None:
    """Refuse members that are said to be larger than the file: torch.save packs nothing."""
    if not content.startswith(b"PK"):
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > len(content):
        raise ConfigError(
            f"{name}: {len(content):,} bytes that unpack to {num_bytes:,}, which torch.save does not do; give another file"
        )


def _tensors(loaded: Any, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of what was loaded, below a key that checkpoints use or at the top."""
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{name}: holds {type(loaded).__name__}, not tensors by name; keep a state_dict() in it")
    places = (*(loaded.get(key) for key in _WITHIN), loaded)
    entries = next((place for place in places if isinstance(place, Mapping) and _has_tensors(place)), None)
    if entries is None:
        there = ", ".join(str(key) for key in list(loaded)[:_FEW]) or "nothing"
        raise ConfigError(
            f"{name}: no tensors by name, neither below {', '.join(_WITHIN)} nor at its top, which has {there}; keep a "
            f"state_dict() in it"
        )
    others = [str(key) for key, value in entries.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConfigError(
            f"{name}: {', '.join(others[:_FEW])} of {len(entries)} entries are no tensors; leave them out of it"
        )
    odd = [str(key) for key, value in entries.items() if not _is_dense(value)]
    if odd:
        raise ConfigError(f"{name}: {', '.join(odd[:_FEW])}: sparse, quantized or without numbers; give dense tensors")
    return {str(key): value.detach() for key, value in entries.items()}


def _has_tensors(place: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in place.values())


def _is_dense(value: torch.Tensor) -> bool:
    return value.layout == torch.strided and not value.is_meta and not value.is_quantized
