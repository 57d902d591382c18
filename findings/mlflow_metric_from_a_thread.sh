#!/usr/bin/env bash
# A metric logged from another thread lands in a new run, and that run is never closed.
#
# Packages: mlflow-skinny 3.17.2 (the tracking client of mlflow 3.17.2, which behaves the same).
# Expected: inside `with mlflow.start_run()`, mlflow.log_metric called by a worker thread goes to
#           the open run, or raises because that thread has no run.
# Seen:     the active run belongs to one thread. In the worker the call opens a second run with a
#           made-up name, logs there without a warning, and leaves it RUNNING. The run the user
#           opened ends FINISHED with no metric at all.
# So:       give threads the run's id: mlflow.log_metric(..., run_id=run.info.run_id).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q mlflow-skinny==3.17.2

cat > probe.py <<'PY'
import sys
import threading

import mlflow

print("mlflow-skinny", mlflow.__version__)
mlflow.set_tracking_uri("file:./store")
mlflow.set_experiment("threads")


def in_a_thread(**arguments):
    thread = threading.Thread(target=mlflow.log_metric, kwargs=arguments)
    thread.start()
    thread.join()


with mlflow.start_run(run_name="opened-by-user") as run:
    in_a_thread(key="loss", value=0.5)
    in_a_thread(key="with_id", value=0.5, run_id=run.info.run_id)

runs = mlflow.MlflowClient().search_runs([run.info.experiment_id])
mine = [r for r in runs if r.info.run_id == run.info.run_id]
others = [r for r in runs if r.info.run_id != run.info.run_id]
print("expected: one run, opened-by-user, FINISHED, with loss and with_id")
for r in mine + others:
    print(f"seen:     {r.info.run_name} {r.info.status} {r.data.metrics}")
same = (
    mine[0].info.status == "FINISHED"
    and mine[0].data.metrics == {"with_id": 0.5}
    and [(r.info.status, r.data.metrics) for r in others] == [("RUNNING", {"loss": 0.5})]
)
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
# The plain file store needs no database packages; mlflow asks for this switch to use it.
env -u MLFLOW_RUN_ID MLFLOW_ALLOW_FILE_STORE=true venv/bin/python probe.py
