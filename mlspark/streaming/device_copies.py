"""Batches on a GPU, each copied while the one before it is used."""

from collections.abc import Iterable, Iterator

import torch

from mlspark.streaming.batches import TensorDict


def to_device(batches: Iterable[TensorDict], device: torch.device | str) -> Iterator[TensorDict]:
    """Yield the batches on `device`, each copied while the one before it is used: open the stream with pin_memory=True.

    On a CPU they are yielded as they are.
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[TensorDict, TensorDict, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            is_copied = copying.record_event()
        if before is not None:
            yield _ready(before, device)
        before = copied, batch, is_copied
    if before is not None:
        yield _ready(before, device)


def _ready(copy: tuple[TensorDict, TensorDict, torch.cuda.Event], device: torch.device) -> TensorDict:
    """Return the tensors of a copy that was begun, for use on the current stream."""
    copied, _, is_copied = copy
    # Begun a batch ago. The page-locked tensors are views, of which torch does not know that a copy reads them: they
    # must live until it is over.
    is_copied.synchronize()
    for tensor in copied.values():  # made on one stream and used on another: keep the memory until both are done
        tensor.record_stream(torch.cuda.current_stream(device))
    return copied
