#!/usr/bin/env bash
# torch.use_deterministic_algorithms(True) imports torch's compiler, which takes longer than importing torch does; so do
# DDP and each optimizer.
#
# Packages: torch 2.12.1 (CPU or CUDA build, Linux; any Python from 3.11), numpy 2.4.6.
# Expected: the call sets a flag: its own documentation speaks of operations alone, and a process that compiles nothing has no use
#           for torch._inductor, torch._dynamo and sympy.
# Seen:     the call imports torch._inductor.config, and with it torch._dynamo and sympy: 1,000 modules and more, 3.5 s on a machine
#           that imports torch in 2.8 s. torch.set_deterministic_debug_mode("error"), which the documentation calls another
#           interface of the same, imports nothing: but then a compiler that is imported later does not know of it, as
#           torch._inductor.config.deterministic stays False. With TORCHINDUCTOR_DETERMINISTIC=1 in the environment it does.
#           DistributedDataParallel and optimizers import all of it when they are made, whatever was asked for: what trains does
#           so in any case.
# So:       what only predicts sets the debug mode and the variable; count the import where a time limit of a launch is set.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q torch==2.12.1 numpy==2.4.6

cat > probe.py <<'PY'
import os
import sys

import torch

how = sys.argv[1]
if how == "algorithms":
    torch.use_deterministic_algorithms(True)
elif how == "debug mode":
    torch.set_deterministic_debug_mode("error")
elif how == "debug mode and variable":
    torch.set_deterministic_debug_mode("error")
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
elif how == "DDP":
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
elif how == "optimizer":
    torch.optim.SGD(torch.nn.Linear(1, 1).parameters())
is_on = torch.are_deterministic_algorithms_enabled()
modules = [name for name in ("torch._inductor", "torch._dynamo", "sympy") if name in sys.modules]
import torch._inductor.config  # noqa: E402

print(f"{how}: {is_on}, imported {modules}, compiler {torch._inductor.config.deterministic}")
PY

seen=$(for how in nothing algorithms "debug mode" "debug mode and variable" DDP optimizer; do venv/bin/python probe.py "$how" 2>/dev/null; done)
echo "$seen"
[ "$seen" = "nothing: False, imported [], compiler False
algorithms: True, imported ['torch._inductor', 'torch._dynamo', 'sympy'], compiler True
debug mode: True, imported [], compiler False
debug mode and variable: True, imported [], compiler True
DDP: False, imported ['torch._inductor', 'torch._dynamo', 'sympy'], compiler False
optimizer: False, imported ['torch._inductor', 'torch._dynamo', 'sympy'], compiler False" ] || { echo "changed"; exit 1; }
