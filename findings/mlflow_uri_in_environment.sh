#!/usr/bin/env bash
# mlflow.set_tracking_uri also writes MLFLOW_TRACKING_URI into the environment of the process.
#
# Packages: mlflow-skinny 3.17.2 (the tracking client of mlflow 3.17.2, which behaves the same).
# Expected: set_tracking_uri sets a default inside the mlflow module; os.environ stays as it was,
#           and a child process chooses its own store.
# Seen:     os.environ["MLFLOW_TRACKING_URI"] is set. A child process inherits the store, and
#           set_tracking_uri(None) removes the variable even when the user had exported it.
# So:       code that treats the variable as "what the user asked for" reads back the last call.
#           Save and restore it around a call, and pass children an explicit env.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q mlflow-skinny==3.17.2

cat > probe.py <<'PY'
import os
import subprocess
import sys

import mlflow

print("mlflow-skinny", mlflow.__version__)
os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///of_the_user.db"
mlflow.set_tracking_uri("sqlite:///first.db")
variable = os.environ.get("MLFLOW_TRACKING_URI")
child = subprocess.run(
    [sys.executable, "-c", "import mlflow; print(mlflow.get_tracking_uri())"],
    capture_output=True, text=True, check=True,
).stdout.strip()
mlflow.set_tracking_uri(None)
afterwards = os.environ.get("MLFLOW_TRACKING_URI")

print("expected: the variable and the child keep sqlite:///of_the_user.db all along")
print(f"seen:     variable {variable}; child {child}; after set_tracking_uri(None): {afterwards}")
same = variable == child == "sqlite:///first.db" and afterwards is None
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
env -u MLFLOW_TRACKING_URI venv/bin/python probe.py
