"""Write tests/data/adult: 2,000 rows of the Adult files, in the files' own format.

Usage: python scripts/sample_adult.py FOLDER    (FOLDER holds adult.data and adult.test; mlspark fetch adult gets them)

Rows keep the order of the file. Every row that occurs twice in its file is taken with its copy, up to `PAIRS` pairs:
a random sample of this size would hold none.
"""

import random
import sys
from collections import Counter
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "adult"
ROWS = {"adult.data": 1_400, "adult.test": 600}
PAIRS = 4
SEED = 1994


def sampled(rows: list[str], count: int, generator: random.Random) -> list[str]:
    """Return `count` of the rows, the first `PAIRS` duplicated ones with their copies among them."""
    repeated = [row for row, times in Counter(rows).items() if times > 1][:PAIRS]
    kept = {number for number, row in enumerate(rows) if row in repeated}
    others = [number for number in range(len(rows)) if number not in kept]
    kept.update(generator.sample(others, count - len(kept)))
    return [rows[number] for number in sorted(kept)]


def main(folder: Path) -> None:
    generator = random.Random(SEED)  # noqa: S311 - a sample, no secret
    SAMPLE.mkdir(parents=True, exist_ok=True)
    for name, count in ROWS.items():
        lines = (folder / name).read_text().splitlines()
        comments = [line for line in lines if line.startswith("|")]
        rows = sampled([line for line in lines if line and not line.startswith("|")], count, generator)
        (SAMPLE / name).write_text("\n".join([*comments, *rows]) + "\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
