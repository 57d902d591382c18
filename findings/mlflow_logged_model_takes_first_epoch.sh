#!/usr/bin/env bash
# A model logged after a training gets the metrics of its first epoch.
#
# Packages: mlflow 3.17.2.
# Expected: log_metric("loss", value, step=epoch) for each epoch, then log_model: the logged model has
#           the last loss, as the run's page shows it, or every epoch's.
# Seen:     it has the loss of step 0 alone. log_model has a parameter `step`, by default 0, and copies
#           the run's metrics of just that step to the model: the figures of the untrained end of the
#           curve, by which search_logged_models then ranks. step=2 copies the third epoch's; a step
#           that the run never used copies nothing.
# So:       give log_model a step that no metric has, and log the model's own figures with
#           log_metric(..., model_id=...).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q mlflow==3.17.2

cat > probe.py <<'PY'
import sys

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


mlflow.set_tracking_uri("sqlite:///mlflow.db")
seen = {}
with mlflow.start_run() as run:
    for epoch, loss in enumerate([0.9, 0.5, 0.3]):
        mlflow.log_metric("loss", loss, step=epoch)
    for name, arguments in {"default": {}, "last": {"step": 2}, "none": {"step": -1}}.items():
        logged = mlflow.pyfunc.log_model(name=name, python_model=Echo(), **arguments)
        metrics = mlflow.get_logged_model(logged.model_id).metrics or []
        seen[name] = [(metric.value, metric.step) for metric in metrics]
latest = mlflow.get_run(run.info.run_id).data.metrics["loss"]

print("mlflow", mlflow.__version__)
print(f"expected: the logged model has loss {latest}, as the run")
print(f"seen:     {seen}")
same = seen == {"default": [(0.9, 0)], "last": [(0.3, 2)], "none": []} and latest == 0.3
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py 2>/dev/null
