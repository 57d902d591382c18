#!/usr/bin/env bash
# Categories given to XGBoost as numbers are not checked when predicting; pandas categories are.
#
# Packages: xgboost-cpu 3.2.0 (the same library without GPU code), numpy 2.4.6, pandas 2.3.3.
# Expected: an id that training never saw is refused, as an unseen pandas category is.
# Seen:     with feature_types=["c"] the ids 4, 99 and -1 are taken silently and get the prediction
#           of some known category (here that of id 3), while the same mistake in a pandas category
#           column raises "Found a category not in the training set". (XGBoost's tutorial does
#           say, at its very end, that ids are validated in training but not in prediction.)
# So:       check ids against the ones trained on before handing numbers over.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q xgboost-cpu==3.2.0 numpy==2.4.6 pandas==2.3.3

cat > probe.py <<'PY'
import sys

import numpy as np
import pandas as pd
import xgboost as xgb

print("xgboost-cpu", xgb.__version__, "numpy", np.__version__, "pandas", pd.__version__)
settings = {"eta": 1.0, "lambda": 0, "base_score": 0, "max_depth": 3, "nthread": 1}
ids = np.arange(400) % 4
target = ids * 10.0


def numbers(values, label=None):
    column = np.array(values, dtype=float).reshape(-1, 1)
    return xgb.DMatrix(column, label, feature_types=["c"], enable_categorical=True)


def frame(values, label=None):
    column = pd.DataFrame({"x": pd.Categorical(values)})
    return xgb.DMatrix(column, label, enable_categorical=True)


model = xgb.train(settings, numbers(ids, target), 2)
known = [round(float(p)) for p in model.predict(numbers([0, 1, 2, 3]))]
unseen = [round(float(p)) for p in model.predict(numbers([4, 99, -1]))]

names = np.array(["a", "b", "c", "d"])
model = xgb.train(settings, frame(names[ids], target), 2)
try:
    model.predict(frame(["a", "zz"]))
    raised = None
except ValueError as error:
    raised = str(error).splitlines()[0].split("Found", 1)[-1].strip()

print("expected: ids 4, 99 and -1 refused, as pandas category 'zz' is")
print(f"seen:     known ids 0-3 give {known}; ids 4, 99, -1 give {unseen}, no error or warning")
print(f"seen:     pandas category 'zz': {'accepted' if raised is None else 'Found ' + raised}")
same = known == [0, 10, 20, 30] and unseen == [30, 30, 30] and raised is not None
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
