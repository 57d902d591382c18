"""A model spread over the ranks by FSDP, and its state as if it were whole. Each function is called on every rank.

torch's modules for it take seconds to import, so they are imported when a run asks for it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import StateDictOptions


def shard(model: nn.Module) -> None:
    """Spread weights, and with them gradients and the optimizer's state."""
    from torch.distributed.fsdp import fully_shard

    fully_shard(model)


def sync(model: nn.Module, *, is_wanted: bool) -> None:
    """Say whether the next backward pass brings the ranks' gradients together."""
    model.set_requires_gradient_sync(is_wanted)  # type: ignore[operator]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole weights in memory: on rank 0; empty on the others."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return dict(get_model_state_dict(model, options=_whole()))  # type: ignore[arg-type]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's whole state in memory: on rank 0; empty on the others."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return dict(get_optimizer_state_dict(model, optimizer, options=_whole()))


def load(
    model: nn.Module,
    whole: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Put whole weights, and an optimizer's whole state, as rank 0 has them, into the spread model."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, dict(whole), options=options)
    if optimizer is not None:
        set_optimizer_state_dict(model, optimizer, dict(state or {}), options=options)


def _whole() -> "StateDictOptions":
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
