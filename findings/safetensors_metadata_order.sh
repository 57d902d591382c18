#!/usr/bin/env bash
# The same tensors with the same metadata are saved as other bytes each time.
#
# Packages: safetensors 0.8.0, numpy 2.4.6.
# Expected: a format of "names, shapes and numbers" has one file for one content, so that its SHA-256
#           can name a version, and a cache or a registry can tell that nothing changed.
# Seen:     with two or more entries of metadata, their order in the header differs from save to
#           save, in one process and between processes; tensors are sorted, metadata are not. With
#           one entry, or none, the bytes are always the same.
# So:       where files are compared by their bytes, keep metadata in one entry (as JSON), or elsewhere.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q safetensors==0.8.0 numpy==2.4.6

cat > probe.py <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

tensors = {"weight": np.arange(6, dtype=np.float32), "bias": np.zeros(2, np.float32)}
entries = {"format": "np", "model": "a", "step": "100", "seed": "7"}


def kinds(metadata):
    return len({save(tensors, metadata=metadata) for _ in range(100)})


counts = {len(metadata): kinds(metadata) for metadata in ({}, {"all": "{}"}, dict(list(entries.items())[:2]), entries)}
print("safetensors", safetensors.__version__)
print("expected: one form of 100 saves, whatever the number of entries")
print("seen:     " + ", ".join(f"{number} entries: {count} forms" for number, count in counts.items()))
equal = all((load(save(tensors, metadata=entries))[name] == value).all() for name, value in tensors.items())
same = equal and counts[0] == counts[1] == 1 and counts[2] > 1 and counts[4] > 2
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
