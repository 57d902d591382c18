"""How the ranks' models become one: alone, by DDP (each rank holds the whole model) or by FSDP (each holds a part).

torch's modules for FSDP take seconds to import, so they are imported when a run asks for it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mlspark.training.checkpoint import copied

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import StateDictOptions


class Alone:
    """The model of the only rank."""

    needs_all_ranks = False
    """Whether weights and state are whole only when every rank takes part in reading them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward: nn.Module = model
        """Module that a training step calls."""

    def regroup(self, *, has_unused: bool) -> None:
        """Bring together the gradients of those parameters that are trained from now on. Called on every rank."""

    @contextlib.contextmanager
    def syncing(self, *, is_last: bool) -> Iterator[None]:
        """Bring the ranks' gradients together in the backward pass of the last part of a batch only."""
        yield

    def weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return a copy of a model's whole weights in memory."""
        return {name: copied(value) for name, value in model.state_dict().items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return a copy of the optimizer's whole state in memory."""
        return dict(copied(optimizer.state_dict()))

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put whole weights into the model."""
        self.model.load_state_dict(weights)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put a whole state into the optimizer."""
        optimizer.load_state_dict(dict(state))


class DataParallel(Alone):
    """The model of a rank of several, by DDP."""

    def __init__(self, model: nn.Module, *, has_unused: bool) -> None:
        super().__init__(model)
        self.regroup(has_unused=has_unused)

    def regroup(self, *, has_unused: bool) -> None:
        # DDP takes the parameters that require gradients when it is made, and no others later.
        self._ddp = DistributedDataParallel(self.model, gradient_as_bucket_view=True, find_unused_parameters=has_unused)
        self.forward = self._ddp

    @contextlib.contextmanager
    def syncing(self, *, is_last: bool) -> Iterator[None]:
        with contextlib.nullcontext() if is_last else self._ddp.no_sync():
            yield


class Sharded(Alone):
    """A rank's part of the model, by FSDP; every method is called on every rank."""

    needs_all_ranks = True

    def __init__(self, model: nn.Module) -> None:
        from torch.distributed.fsdp import fully_shard

        fully_shard(model)
        super().__init__(model)

    @contextlib.contextmanager
    def syncing(self, *, is_last: bool) -> Iterator[None]:
        self.model.set_requires_gradient_sync(is_last)  # type: ignore[operator]
        yield

    def weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the whole weights in memory: on rank 0; empty on the others."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        self._reshard()
        return self._apart(get_model_state_dict(model, options=_whole()))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the whole state in memory: on rank 0; empty on the others."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        self._reshard()
        return self._apart(get_optimizer_state_dict(self.model, optimizer, options=_whole()))

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Spread whole weights, as rank 0 has them."""
        from torch.distributed.checkpoint.state_dict import set_model_state_dict

        self._reshard()
        set_model_state_dict(self.model, dict(weights), options=_from_rank_0())

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Spread a whole state, as rank 0 has it."""
        from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

        if not state["state"]:  # of SGD without momentum; torch's function asks for a tensor
            return super().load_optimizer(optimizer, state)
        self._reshard()
        set_optimizer_state_dict(self.model, optimizer, dict(state), options=_from_rank_0())
        return None

    def _apart(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state that training does not change while it is written: on CPUs torch hands out the memory itself.

        Buffers and AdamW's counts of steps, and everything where there is one rank.
        """
        is_on_cpu = all(parameter.device.type == "cpu" for parameter in self.model.parameters())
        return dict(copied(state) if is_on_cpu else state)

    def _reshard(self) -> None:
        """Have each rank hold its part again: an evaluation leaves the whole parameters, which no optimizer knows."""
        self.model.reshard()  # type: ignore[operator]


def over_ranks(model: nn.Module, *, world_size: int, shard: bool, has_unused: bool) -> Alone:
    """Return the model as part of a run of `world_size` ranks. Called on every rank.

    Args:
        model: of this rank.
        world_size: number of ranks.
        shard: whether each holds a part of it.
        has_unused: whether a step may leave parameters without a gradient, for which the ranks would wait for ever.
    """
    if shard:
        return Sharded(model)
    return Alone(model) if world_size == 1 else DataParallel(model, has_unused=has_unused)


def share_buffers(model: nn.Module, world_size: int) -> None:
    """Give every rank the buffers of rank 0, such as the running statistics of batch norm: those that are kept.

    Called on every rank. DDP does so before each forward pass of training, not after the last one.
    """
    if world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def _whole() -> "StateDictOptions":
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _from_rank_0() -> "StateDictOptions":
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
