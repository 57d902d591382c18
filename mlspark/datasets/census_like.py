"""Made-up census rows in the exact file format of UCI's Adult data, for trying things without the real files.

`write` makes `adult/adult.data` and `adult/adult.test` with the same 15 columns, the same values (adult.names lists
them) and the same traps: comma and blank between fields, no header, `|1x3 Cross validator` as first line and a full
stop after each label of adult.test, `?` for a missing value, a few exact duplicates, an empty last line.

Every number is drawn from tables in this file, shaped after the published shares; no row describes a person. Columns
depend on each other (marital status on age, occupation on education and sex, ...). The label follows from a logistic
score with a hump over age, an effect of education that is larger for the married, and spikes of capital gain, so that
a linear model does well, a better one does better, and none is perfect: the best possible ROC AUC is near 0.92.

Some rows are broken on purpose, in the ways of `BAD_KINDS`. The same arguments give the same bytes.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlspark.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BLOCK_ROWS = 250_000
"""Rows made at a time: bounds memory, and is part of what a seed means."""
DUPLICATE_SHARE = 0.0007
MISSING_COUNTRY_SHARE = 0.018

# Per-mille weights unless said otherwise; each table is scaled to sum 1.
AGE = ([0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], [17, 19, 22, 28, 37, 48, 58, 63, 74, 91])
WEIGHT = ([0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1], [12285, 39460, 117827, 178356, 237051, 379682, 510072, 1484706])
HOURS_NOT_40 = ([0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], [1, 12, 20, 30, 45, 50, 60, 65, 84, 100])
SEX = {"Female": 331, "Male": 669}
WORKCLASS = {
    "Private": 697,
    "Self-emp-not-inc": 78,
    "Local-gov": 64,
    "State-gov": 40,
    "Self-emp-inc": 34,
    "Federal-gov": 30,
    "Without-pay": 1,
    "Never-worked": 1,
    "?": 56,
}
EDUCATION = {  # in the order of education-num, 1 to 16
    "Preschool": 2,
    "1st-4th": 5,
    "5th-6th": 10,
    "7th-8th": 20,
    "9th": 16,
    "10th": 29,
    "11th": 36,
    "12th": 13,
    "HS-grad": 322,
    "Some-college": 224,
    "Assoc-voc": 42,
    "Assoc-acdm": 33,
    "Bachelors": 165,
    "Masters": 53,
    "Prof-school": 18,
    "Doctorate": 13,
}
MARITAL_BY_AGE = {  # ages below 25, 35, 55, and above
    "Married-civ-spouse": (110, 450, 590, 640),
    "Never-married": (846, 385, 140, 55),
    "Divorced": (16, 104, 200, 145),
    "Separated": (13, 35, 40, 22),
    "Widowed": (1, 3, 20, 130),
    "Married-spouse-absent": (11, 15, 12, 12),
    "Married-AF-spouse": (1, 1, 1, 1),
}
RELATIONSHIP_BY_MARITAL = {  # in the order of MARITAL_BY_AGE; Husband and Wife are told apart by sex
    "Husband": (985, 0, 0, 0, 0, 0, 900),
    "Wife": (0,) * 7,
    "Not-in-family": (2, 440, 540, 410, 550, 505, 0),
    "Own-child": (5, 430, 75, 95, 15, 105, 50),
    "Unmarried": (0, 82, 360, 440, 386, 311, 0),
    "Other-relative": (8, 48, 25, 55, 49, 79, 50),
}
OCCUPATION_BY_EDUCATION = {  # up to 12th, some college, associate degrees, bachelor and above
    "Adm-clerical": (41, 149, 147, 73),
    "Armed-Forces": (1, 1, 1, 1),
    "Craft-repair": (161, 157, 150, 32),
    "Exec-managerial": (25, 95, 120, 245),
    "Farming-fishing": (61, 32, 27, 11),
    "Handlers-cleaners": (91, 49, 21, 7),
    "Machine-op-inspct": (116, 75, 39, 10),
    "Other-service": (196, 116, 79, 25),
    "Priv-house-serv": (16, 4, 2, 1),
    "Prof-specialty": (13, 37, 126, 386),
    "Protective-serv": (8, 23, 33, 14),
    "Sales": (83, 117, 102, 120),
    "Tech-support": (5, 24, 81, 34),
    "Transport-moving": (81, 62, 27, 9),
    "?": (0, 0, 0, 0),
}
OCCUPATION_FEMALE_FACTOR = {  # how much more likely among women, in per cent
    "Adm-clerical": 300,
    "Craft-repair": 15,
    "Handlers-cleaners": 35,
    "Other-service": 220,
    "Priv-house-serv": 900,
    "Protective-serv": 35,
    "Transport-moving": 15,
    "Farming-fishing": 20,
}
RACE = {"White": 854, "Black": 96, "Asian-Pac-Islander": 32, "Amer-Indian-Eskimo": 10, "Other": 8}
COUNTRY = {
    "United-States": 9126,
    "Mexico": 201,
    "Philippines": 62,
    "Germany": 43,
    "Canada": 38,
    "Puerto-Rico": 36,
    "El-Salvador": 34,
    "India": 32,
    "Cuba": 30,
    "England": 29,
    "Jamaica": 25,
    "South": 25,
    "China": 23,
    "Italy": 22,
    "Dominican-Republic": 21,
    "Vietnam": 21,
    "Guatemala": 20,
    "Japan": 19,
    "Poland": 18,
    "Columbia": 18,
    "Taiwan": 16,
    "Haiti": 14,
    "Iran": 13,
    "Portugal": 11,
    "Nicaragua": 10,
    "Peru": 10,
    "France": 9,
    "Greece": 9,
    "Ecuador": 9,
    "Ireland": 7,
    "Hong": 6,
    "Trinadad&Tobago": 6,
    "Cambodia": 6,
    "Thailand": 6,
    "Laos": 6,
    "Yugoslavia": 5,
    "Outlying-US(Guam-USVI-etc)": 4,
    "Honduras": 4,
    "Hungary": 4,
    "Scotland": 4,
    "Holand-Netherlands": 1,
}
CAPITAL_GAIN = {
    0: 9167,
    15024: 150,
    7688: 120,
    7298: 105,
    99999: 65,
    3103: 42,
    5178: 42,
    4386: 60,
    5013: 60,
    8614: 24,
    3325: 45,
    2174: 42,
    594: 40,
    2829: 38,
}
CAPITAL_LOSS = {0: 9533, 1902: 120, 1977: 95, 1887: 85, 1485: 40, 1602: 40, 1669: 45, 1740: 42}
LABEL = ("<=50K", ">50K")

# What the label depends on: added to the log odds.
BIAS = -1.95
SLOPE = 1.2
MARRIED = 2.0
OCCUPATION_SCORE = {
    "Exec-managerial": 0.8,
    "Prof-specialty": 0.5,
    "Tech-support": 0.5,
    "Protective-serv": 0.5,
    "Sales": 0.25,
    "Farming-fishing": -1.0,
    "Handlers-cleaners": -0.8,
    "Other-service": -0.9,
    "Machine-op-inspct": -0.4,
    "Priv-house-serv": -1.5,
}
WORKCLASS_SCORE = {"Federal-gov": 0.4, "Self-emp-inc": 0.3, "Self-emp-not-inc": -0.4, "?": -0.5, "Without-pay": -3.0}

Fields = list[str]


def _replaced(index: int, *values: str) -> Callable[[Fields, int], Fields]:
    def breaker(fields: Fields, turn: int) -> Fields:
        return [*fields[:index], values[turn % len(values)], *fields[index + 1 :]]

    return breaker


BAD_KINDS: Mapping[str, Callable[[Fields, int], Fields]] = {
    "text in a number column": _replaced(0, "forty", "n/a", "3O"),
    "fraction in a whole-number column": _replaced(12, "38.5", "1e1000"),
    "negative age": _replaced(0, "-1", "-38"),
    "number out of range": _replaced(0, "999", "99999999999999999999"),
    "unknown label": _replaced(14, "50K", "maybe", "<=50k"),
    "missing label": _replaced(14, "?", ""),
    "too few fields": lambda fields, turn: fields[: (1, 7, 14)[turn % 3]],
    "too many fields": lambda fields, turn: [*fields, "extra"],
}
"""Ways in which a row is broken: (its fields, a counter) -> what is written instead."""


@dataclass(frozen=True)
class Written:
    """What `write` wrote, in lines that stand for rows."""

    num_train: int
    num_test: int
    num_bad: int


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
        ConfigError: more broken rows than rows, or a negative number.
    """
    if min(num_train, num_test, bad_rows, seed) < 0 or bad_rows > num_train + num_test:
        raise ConfigError(
            f"num_train={num_train}, num_test={num_test}, bad_rows={bad_rows}, seed={seed}: "
            f"expected no negative number and no more bad rows than rows"
        )
    bad_train = round(bad_rows * num_train / max(num_train + num_test, 1))
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
    labels = pa.array([f"{label}{stop}\n" for label in LABEL])
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
    age = _from_quantiles(rng, AGE, size)
    sex = _draw(rng, SEX, size)
    is_female = sex == 0
    education = _draw(rng, EDUCATION, size)
    education = np.where((age < 22) & (education > 9), 9, education)  # no degrees yet
    marital = _draw(rng, MARITAL_BY_AGE, size, np.digitize(age, [25, 35, 55]))
    relationship = _draw(rng, RELATIONSHIP_BY_MARITAL, size, marital)
    relationship = np.where((relationship == 0) & is_female, 1, relationship)
    occupation = _draw(
        rng, _occupations_by_education_and_sex(), size, np.digitize(education, [8, 10, 12]) + 4 * is_female
    )
    workclass = _draw(rng, WORKCLASS, size)
    occupation = np.where(_is(workclass, WORKCLASS, "?", "Never-worked"), len(OCCUPATION_BY_EDUCATION) - 1, occupation)
    hours = np.where(rng.random(size) < 0.467, 40, _from_quantiles(rng, HOURS_NOT_40, size))
    gain = np.array(list(CAPITAL_GAIN))[_draw(rng, CAPITAL_GAIN, size)]
    loss = np.where(gain > 0, 0, np.array(list(CAPITAL_LOSS))[_draw(rng, CAPITAL_LOSS, size)])

    is_married = _is(marital, MARITAL_BY_AGE, "Married-civ-spouse", "Married-AF-spouse")
    years = education + 1.0
    score = (
        BIAS
        + MARRIED * is_married
        + (0.22 + 0.12 * is_married) * (years - 10)
        - ((age - 50) / 20.0) ** 2
        + 0.035 * np.clip(hours - 40, -25, 20)
        + _scores(OCCUPATION_SCORE, OCCUPATION_BY_EDUCATION)[occupation]
        + _scores(WORKCLASS_SCORE, WORKCLASS)[workclass]
        + np.where(gain >= 5100, 5.0, np.where(gain > 0, -1.0, 0.0))
        + np.where(loss > 1850, 2.0, 0.0)
        - 0.3 * is_female
    )
    label = (rng.random(size) < 1.0 / (1.0 + np.exp(-SLOPE * score))).astype(np.int64)

    country = _draw(rng, COUNTRY, size)
    country = np.where(rng.random(size) < MISSING_COUNTRY_SHARE, len(COUNTRY), country)
    rows: list[pa.Array | Ints] = [
        age,
        _words(workclass, WORKCLASS),
        _from_quantiles(rng, WEIGHT, size),
        _words(education, EDUCATION),
        education + 1,
        _words(marital, MARITAL_BY_AGE),
        _words(occupation, OCCUPATION_BY_EDUCATION),
        _words(relationship, RELATIONSHIP_BY_MARITAL),
        _words(_draw(rng, RACE, size), RACE),
        _words(sex, SEX),
        gain,
        loss,
        hours,
        _words(country, [*COUNTRY, "?"]),
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
    """Return OCCUPATION_BY_EDUCATION with four more groups: women."""
    return {
        name: (*shares, *(share * OCCUPATION_FEMALE_FACTOR.get(name, 100) / 100 for share in shares))
        for name, shares in OCCUPATION_BY_EDUCATION.items()
    }


def _is(codes: Ints, names: Mapping[str, object], *wanted: str) -> npt.NDArray[np.bool_]:
    return np.isin(codes, [list(names).index(name) for name in wanted])


def _scores(scores: Mapping[str, float], names: Mapping[str, object]) -> Floats:
    return np.array([scores.get(name, 0.0) for name in names])


def _words(codes: Ints, names: Mapping[str, object] | Sequence[str]) -> pa.Array:
    return pa.array(list(names)).take(pa.array(codes))
