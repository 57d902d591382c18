#!/usr/bin/env bash
# The GPUs of this pod as Spark asks for them (spark.worker.resource.gpu.discoveryScript).
set -euo pipefail
printf '{"name": "gpu", "addresses": [%s]}\n' "$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/.*/"&"/' | paste -sd,)"
