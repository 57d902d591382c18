"""One model of pytabkit; benchmarks/pytabkit_census.py starts it, in the environment that has pytabkit.

python _pytabkit.py FOLDER MODEL SEED THREADS
FOLDER has SPLIT.npz with numbers (n, F), ids (n, K) and labels (n,). Writes chances.npy, the probability of class 1 of each
test row, and prints {"seconds": of the fit}.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

sys.path.pop(0)  # this folder, whose modules are not those that pytabkit means
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytabkit  # noqa: E402

folder, name, seed, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever else prints


def rows(split):
    arrays = np.load(folder / f"{split}.npz")
    frame = pd.DataFrame(arrays["numbers"], columns=[f"number_{place}" for place in range(arrays["numbers"].shape[1])])
    for place, ids in enumerate(arrays["ids"].T):
        frame[f"id_{place}"] = pd.Categorical(ids.astype(str))
    return frame, arrays["labels"]


(x, y), (x_validation, y_validation), (x_test, _) = map(rows, ("train", "validation", "test"))
model = getattr(pytabkit, f"{name}_Classifier")(random_state=seed, n_threads=threads, device="cpu")
started = time.perf_counter()
model.fit(x, y, X_val=x_validation, y_val=y_validation)
seconds = time.perf_counter() - started
np.save(folder / "chances.npy", model.predict_proba(x_test)[:, 1])
print(json.dumps({"seconds": round(seconds, 1)}), file=answers, flush=True)
