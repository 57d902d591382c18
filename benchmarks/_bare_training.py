"""The census network on tensors in memory, by torchrun and nothing else: what `training.py` compares with.

python -m torch.distributed.run --standalone --nproc-per-node=2 benchmarks/_bare_training.py TABLE BATCH EPOCHS
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from pyarrow import parquet
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mlspark.features.tensors import Tensors
from mlspark.models import build
from mlspark.models.tabular import TabularSettings


def main(table: Path, batch_size: int, epochs: int) -> None:
    """Print when the first step began and the seconds of each epoch, as JSON, on rank 0."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    tensors = Tensors.from_json(json.loads((table / "tensors.json").read_text()))
    columns = {spec.name: spec.columns for spec in tensors.specs}
    rows = parquet.read_table(table / "split=train")
    mine = slice(rank, None, world_size)
    dense = torch.stack([torch.from_numpy(rows[name].to_numpy()[mine].copy()) for name in columns["dense"]], dim=1)
    ids = torch.stack([torch.from_numpy(rows[name].to_numpy()[mine].astype("i8")) for name in columns["ids"]], dim=1)
    label = torch.from_numpy(rows["label"].to_numpy()[mine].copy())
    torch.manual_seed(0)
    model = DistributedDataParallel(build(TabularSettings(), tensors, 1), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    steps = len(label) // (batch_size // world_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps)
    began, seconds = time.time(), []
    for _ in range(epochs):
        started = time.perf_counter()
        order = torch.randperm(len(label))
        for step in range(steps):
            chosen = order[step * batch_size // world_size : (step + 1) * batch_size // world_size]
            logits = model(dense=dense[chosen], ids=ids[chosen])[:, 0]
            functional.binary_cross_entropy_with_logits(logits, label[chosen]).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        print(json.dumps({"began": began, "steps": steps, "seconds": seconds}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
