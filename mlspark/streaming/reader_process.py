"""What runs in each process of a reader's process pool: python -m mlspark.streaming.reader_process FILE."""

import os
import sys

import dill

from mlspark.streaming import petastorm_pools  # noqa: F401  (before Petastorm, which by itself does not import)


def main(file: str) -> None:
    """Run the function that stands in `file` with its arguments, and remove the file."""
    with open(file, "rb") as content:
        function, args, kwargs = dill.load(content)  # noqa: S301 (written by the parent, in a file of its own)
    os.remove(file)
    function(*args, **kwargs)


if __name__ == "__main__":
    main(sys.argv[1])
