"""What other engines give: a picture network by OpenVINO beside torch, trees by XGBoost beside scikit-learn's. No Spark.

    python benchmarks/engines.py [--quick] [--json FILE] [--data FOLDER]

ResNet-20 on pictures of 32 pixels: with --data (or MLSPARK_DATA) the published weights on CIFAR JPEGs, else random ones on
random pixels. Batches of 64, one thread; the engines take turns, every other round backwards; medians of pictures per second
of processor time. int8 is calibrated by 512 training pictures.

    int8_over_eager      OpenVINO int8 / the network called by hand on the batch. Aim: at least 3.7, with AVX512-VNNI 7
    bf16_over_eager      the same of bfloat16; null on a processor without it
    float32_over_eager   the same of float32
    int8_loss, ...       accuracy of eager less that of the engine; with --data. Aim: at most 0.005

Trees on census rows (Adult with --data, else made-up ones; a fifth held out for accuracy): scikit-learn's
GradientBoostingClassifier as it is, and `model.kind: trees` with learning_rate 0.3, early_stopping_rounds 10, two threads.

    trees_over_baseline  seconds of scikit-learn's fit / of ours. Aim: at least 15, at equal or better accuracy
    ..._cpu              the same in processor time, of both threads: what is left of it on a busy machine
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import _engine_speeds
import numpy as np
import pyarrow as pa
import typer
from _figures import tell
from numpy.typing import NDArray
from pyarrow import csv

from mlspark.datasets import census_like

_NUMBERS, _LABEL = (0, 2, 4, 10, 11, 12), 14
"""Places of the columns of numbers, and of the label."""


def census(data: Path | None, num_rows: int) -> tuple[NDArray[Any], NDArray[Any], tuple[int, ...], NDArray[Any]]:
    """Return numbers (n, 6) float32, ids (n, 8), how many ids each column has, and the label (n,) of census rows."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None or not (data / "adult" / "adult.data").is_file():
            data = Path(folder)
            census_like.write(data, num_train=num_rows, num_test=0, bad_rows=0)
        options = csv.ReadOptions(autogenerate_column_names=True)
        table = csv.read_csv(data / "adult" / "adult.data", read_options=options).slice(0, num_rows)
    columns = [column.cast(pa.string()).to_numpy(zero_copy_only=False) for column in table.columns]
    dense = np.column_stack([columns[place].astype(np.float32) for place in _NUMBERS])
    texts = [columns[place] for place in range(_LABEL) if place not in _NUMBERS]
    found = [np.unique(column.astype(str), return_inverse=True) for column in texts]
    ids = np.column_stack([2 + inverse for _, inverse in found])  # 0 and 1 are missing and unseen
    label = np.char.find(columns[_LABEL].astype(str), ">50K") >= 0
    return dense, ids, tuple(2 + len(values) for values, _ in found), label.astype(np.float32)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="200 pictures, 3,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(envvar="MLSPARK_DATA", help="Folder with Adult, CIFAR JPEGs and the published network."),
    ] = None,
) -> None:
    """Measure what engines give."""
    has_pictures = data is not None and (data / _engine_speeds.PUBLISHED).is_file()
    figures = _engine_speeds.of_pictures(
        data if has_pictures else None, rounds=1 if quick else 7, most_pictures=200 if quick else 4000
    )
    figures |= _engine_speeds.of_trees(*census(data, 3000 if quick else 100_000))
    tell(figures, json_file)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
