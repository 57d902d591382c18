"""Made-up census rows in the exact file format of UCI's Adult data, for trying things without the real files.

`write` makes `adult/adult.data` and `adult/adult.test` with the same 15 columns, the same values (adult.names lists
them) and the same traps: comma and blank between fields, no header, `|1x3 Cross validator` as first line and a full
stop after each label of adult.test, `?` for a missing value, a few exact duplicates, an empty last line.

Every number is drawn from the tables of census_shares.py, shaped after the published shares; no row describes a person.
Columns depend on each other (marital status on age, occupation on education and sex, ...). The label follows from a logistic
score with a hump over age, an effect of education that is larger for the married, and spikes of capital gain, so that
a linear model does well, a better one does better, and none is perfect: the best possible ROC AUC is near 0.92.

Some rows are broken on purpose, in the ways of `BAD_KINDS`. The same arguments yield the same bytes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlspark.datasets import census_shares as census
from mlspark.datasets.made_up import Written, bad_of_train

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BLOCK_ROWS = 250_000
"""Rows made at a time: bounds memory, and is part of what a seed means."""
DUPLICATE_SHARE = 0.0007
MISSING_COUNTRY_SHARE = 0.018

Fields = list[str]


def _replaced(index: int, *values: str) -> Callable[[Fields, int], Fields]:
    def breaker(fields: Fields, turn: int) -> Fields:
        return [*fields[:index], values[turn % len(values)], *fields[index + 1 :]]

    return breaker


BAD_KINDS: Mapping[str, Callable[[Fields, int], Fields]] = {
    "text in a number column": _replaced(0, "forty", "n/a", "3O"),
    "fraction in a whole-number column": _replaced(12, "38.5", "1e1000"),
    "age below 0": _replaced(0, "-1", "-38"),
    "number out of range": _replaced(0, "999", "99999999999999999999"),
    "unknown label": _replaced(14, "50K", "maybe", "<=50k"),
    "missing label": _replaced(14, "?", ""),
    "too few fields": lambda fields, turn: fields[: (1, 7, 14)[turn % 3]],
    "too many fields": lambda fields, turn: [*fields, "extra"],
}
"""Ways in which a row is broken: (its fields, a counter) -> what is written instead."""


def write(
    folder: Path, *, num_train: int = 12_000, num_test: int = 6_000, seed: int = 0, bad_rows: int = 300
) -> Written:
    """Return the counts of what was written to `folder`/adult/adult.data and adult.test, about 110 bytes a row.

    A file appears under its name when it is complete. Takes about 1.5 s for a million rows; memory does not grow.

    Args:
        folder: what MLSPARK_DATA names.
        num_train: rows of adult.data, broken ones included.
        num_test: rows of adult.test, broken ones included.
        seed: another seed, other rows.
        bad_rows: broken rows over both files, in proportion, as many of one kind as of the next.

    Raises:
        ConfigError: more broken rows than rows, or a number below 0.
    """
    bad_train = bad_of_train(num_train, num_test, bad_rows, seed, what="rows")
    adult = folder / "adult"
    adult.mkdir(parents=True, exist_ok=True)
    _write_file(adult / "adult.data", "", num_train, bad_train, (seed, 0), "")
    _write_file(adult / "adult.test", "|1x3 Cross validator\n", num_test, bad_rows - bad_train, (seed, 1), ".")
    return Written(num_train, num_test, bad_rows)


def _write_file(path: Path, first_line: str, num_rows: int, num_bad: int, seed: Sequence[int], stop: str) -> None:
    rng = np.random.default_rng([*seed, 2])
    bad_positions = np.sort(rng.permutation(num_rows)[:num_bad])
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as out:
        out.write(first_line.encode())
        for start in range(0, num_rows, BLOCK_ROWS):
            size = min(BLOCK_ROWS, num_rows - start)
            lines = _lines(np.random.default_rng([*seed, 3, start]), size, stop)
            first, last = np.searchsorted(bad_positions, (start, start + size))
            out.writelines(_with_bad_rows(lines, bad_positions[first:last] - start, int(first)))
        out.write(b"\n")
    os.replace(part, path)


def _lines(rng: np.random.Generator, size: int, stop: str) -> pa.StringArray:
    """Return `size` good rows as text, each with its line end."""
    columns = _columns(rng, size)
    labels = pa.array([f"{label}{stop}\n" for label in census.LABEL])
    texts = [
        *(
            column if isinstance(column, pa.Array) else pc.cast(pa.array(column), pa.string())
            for column in columns[:-1]
        ),
        labels.take(pa.array(columns[-1])),
    ]
    return pc.binary_join_element_wise(*texts, ", ")


def _with_bad_rows(lines: pa.StringArray, positions: Ints, turn: int) -> Iterator[bytes]:
    """Yield the text of `lines` with those at `positions` broken, each in the next of the BAD_KINDS."""
    kinds = list(BAD_KINDS.values())
    start = 0
    for position in positions.tolist():
        yield _text(lines, start, position)
        fields = lines[position].as_py().rstrip("\n").split(", ")
        yield (", ".join(kinds[turn % len(kinds)](fields, turn // len(kinds))) + "\n").encode()
        start, turn = position + 1, turn + 1
    yield _text(lines, start, len(lines))


def _text(lines: pa.StringArray, start: int, stop: int) -> bytes:
    """Return lines[start:stop] joined: their characters stand one after another in one Arrow buffer."""
    _, offsets, characters = lines.buffers()
    ends = np.frombuffer(offsets, np.int32)
    return bytes(memoryview(characters)[ends[start] : ends[stop]])


def _columns(rng: np.random.Generator, size: int) -> list[pa.Array | Ints]:
    """Return the columns of `size` rows in file order; the label last, as 0 or 1."""
    age = _from_quantiles(rng, census.AGE, size)
    sex = _draw(rng, census.SEX, size)
    is_female = sex == 0
    education = _draw(rng, census.EDUCATION, size)
    education = np.where((age < 22) & (education > 9), 9, education)  # no degrees yet
    marital = _draw(rng, census.MARITAL_BY_AGE, size, np.digitize(age, [25, 35, 55]))
    relationship = _draw(rng, census.RELATIONSHIP_BY_MARITAL, size, marital)
    relationship = np.where((relationship == 0) & is_female, 1, relationship)
    occupation = _draw(
        rng, _occupations_by_education_and_sex(), size, np.digitize(education, [8, 10, 12]) + 4 * is_female
    )
    workclass = _draw(rng, census.WORKCLASS, size)
    occupation = np.where(
        _is(workclass, census.WORKCLASS, "?", "Never-worked"), len(census.OCCUPATION_BY_EDUCATION) - 1, occupation
    )
    hours = np.where(rng.random(size) < 0.467, 40, _from_quantiles(rng, census.HOURS_NOT_40, size))
    gain = np.array(list(census.CAPITAL_GAIN))[_draw(rng, census.CAPITAL_GAIN, size)]
    loss = np.where(gain > 0, 0, np.array(list(census.CAPITAL_LOSS))[_draw(rng, census.CAPITAL_LOSS, size)])

    is_married = _is(marital, census.MARITAL_BY_AGE, "Married-civ-spouse", "Married-AF-spouse")
    score = (
        census.BIAS
        + census.MARRIED * is_married
        + (0.22 + 0.12 * is_married) * (education - 9.0)  # from ten years on
        - ((age - 50) / 20.0) ** 2
        + 0.035 * np.clip(hours - 40, -25, 20)
        + _scores(census.OCCUPATION_SCORE, census.OCCUPATION_BY_EDUCATION)[occupation]
        + _scores(census.WORKCLASS_SCORE, census.WORKCLASS)[workclass]
        + np.where(gain >= 5100, 5.0, np.where(gain > 0, -1.0, 0.0))
        + np.where(loss > 1850, 2.0, 0.0)
        - 0.3 * is_female
    )
    label = (rng.random(size) < 1.0 / (1.0 + np.exp(-census.SLOPE * score))).astype(np.int64)

    country = _draw(rng, census.COUNTRY, size)
    country = np.where(rng.random(size) < MISSING_COUNTRY_SHARE, len(census.COUNTRY), country)
    rows: list[pa.Array | Ints] = [
        age,
        _words(workclass, census.WORKCLASS),
        _from_quantiles(rng, census.WEIGHT, size),
        _words(education, census.EDUCATION),
        education + 1,
        _words(marital, census.MARITAL_BY_AGE),
        _words(occupation, census.OCCUPATION_BY_EDUCATION),
        _words(relationship, census.RELATIONSHIP_BY_MARITAL),
        _words(_draw(rng, census.RACE, size), census.RACE),
        _words(sex, census.SEX),
        gain,
        loss,
        hours,
        _words(country, [*census.COUNTRY, "?"]),
        label,
    ]
    # Some rows repeat an earlier one of the block.
    source = np.arange(size)
    copies = np.flatnonzero(rng.random(size) < DUPLICATE_SHARE)
    source[copies] = (rng.random(len(copies)) * copies).astype(np.int64)
    return [column.take(pa.array(source)) if isinstance(column, pa.Array) else column[source] for column in rows]


def _draw(
    rng: np.random.Generator,
    weights: Mapping[str, float] | Mapping[int, float] | Mapping[str, tuple[float, ...]],
    size: int,
    group: Ints | None = None,
) -> Ints:
    """Return `size` positions in `weights`, drawn by weight; if there are several each, by those of the row's group."""
    # Uniform numbers and tables only: numpy promises their bits for a seed, not those of its other distributions.
    table = np.atleast_2d(np.array(list(weights.values()), np.float64).T)  # (groups, values)
    cumulative = np.cumsum(table, axis=1) / table.sum(axis=1, keepdims=True)
    uniform = rng.random(size)
    if group is None:
        return np.searchsorted(cumulative[0, :-1], uniform, side="right")
    drawn = np.empty(size, np.int64)
    for number, bounds in enumerate(cumulative):
        rows = group == number
        drawn[rows] = np.searchsorted(bounds[:-1], uniform[rows], side="right")
    return drawn


def _from_quantiles(rng: np.random.Generator, table: tuple[Sequence[float], Sequence[float]], size: int) -> Ints:
    """Return `size` whole numbers whose distribution goes through (share, value) points, the last value excluded."""
    return np.interp(rng.random(size), *table).astype(np.int64)


def _occupations_by_education_and_sex() -> dict[str, tuple[float, ...]]:
    """Return census.OCCUPATION_BY_EDUCATION with four more groups: women."""
    return {
        name: (*shares, *(share * census.OCCUPATION_FEMALE_FACTOR.get(name, 100) / 100 for share in shares))
        for name, shares in census.OCCUPATION_BY_EDUCATION.items()
    }


def _is(codes: Ints, names: Mapping[str, object], *wanted: str) -> npt.NDArray[np.bool_]:
    return np.isin(codes, [list(names).index(name) for name in wanted])


def _scores(scores: Mapping[str, float], names: Mapping[str, object]) -> Floats:
    return np.array([scores.get(name, 0.0) for name in names])


def _words(codes: Ints, names: Mapping[str, object] | Sequence[str]) -> pa.Array:
    return pa.array(list(names)).take(pa.array(codes))
