"""The made-up census files: format and traps of the real ones, a signal to learn, broken rows by kind."""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from mlspark.datasets import census_like
from mlspark.datasets.census_like import BAD_KINDS
from mlspark.datasets.known import DATA_SETS
from mlspark.errors import ConfigError

# What adult.names allows in each column: a whole number, or one of these.
NUMBER = re.compile(r"\d+")
WORDS = {
    1: "Private, Self-emp-not-inc, Self-emp-inc, Federal-gov, Local-gov, State-gov, Without-pay, Never-worked, ?",
    3: "Bachelors, Some-college, 11th, HS-grad, Prof-school, Assoc-acdm, Assoc-voc, 9th, 7th-8th, 12th, Masters, "
    "1st-4th, 10th, Doctorate, 5th-6th, Preschool",
    5: "Married-civ-spouse, Divorced, Never-married, Separated, Widowed, Married-spouse-absent, Married-AF-spouse",
    6: "Tech-support, Craft-repair, Other-service, Sales, Exec-managerial, Prof-specialty, Handlers-cleaners, "
    "Machine-op-inspct, Adm-clerical, Farming-fishing, Transport-moving, Priv-house-serv, Protective-serv, "
    "Armed-Forces, ?",
    7: "Wife, Own-child, Husband, Not-in-family, Other-relative, Unmarried",
    8: "White, Asian-Pac-Islander, Amer-Indian-Eskimo, Other, Black",
    9: "Female, Male",
    13: "United-States, Cambodia, England, Puerto-Rico, Canada, Germany, Outlying-US(Guam-USVI-etc), India, Japan, "
    "Greece, South, China, Cuba, Iran, Honduras, Philippines, Italy, Poland, Jamaica, Vietnam, Mexico, Portugal, "
    "Ireland, France, Dominican-Republic, Laos, Ecuador, Taiwan, Haiti, Columbia, Hungary, Guatemala, Nicaragua, "
    "Scotland, Thailand, Yugoslavia, El-Salvador, Trinadad&Tobago, Peru, Hong, Holand-Netherlands, ?",
}


def is_good(fields: list[str], stop: str) -> bool:
    """Return whether the fields are what adult.names describes, with the marks of the file they stand in."""
    if len(fields) != 15 or fields[14] not in (f"<=50K{stop}", f">50K{stop}"):
        return False
    return (
        all(fields[at] in WORDS[at].split(", ") if at in WORDS else NUMBER.fullmatch(fields[at]) for at in range(14))
        and int(fields[0]) <= 90
    )


def read(folder: Path, name: str) -> list[list[str]]:
    """Return the fields of the rows of one file, after checking first and last line."""
    text = (folder / "adult" / name).read_text()
    assert text.endswith("\n\n")
    lines = text.removesuffix("\n\n").split("\n")
    if name == "adult.test":
        assert lines.pop(0) == "|1x3 Cross validator"
    assert "" not in lines
    return [line.split(", ") for line in lines]


def test_all_rows_are_good_where_none_is_to_be_bad(tmp_path: Path) -> None:
    written = census_like.write(tmp_path, num_train=5_000, num_test=2_000, bad_rows=0)
    assert (written.num_train, written.num_test, written.num_bad) == (5_000, 2_000, 0)
    train, test = read(tmp_path, "adult.data"), read(tmp_path, "adult.test")
    assert (len(train), len(test)) == (5_000, 2_000)
    assert [fields for fields in train if not is_good(fields, "")] == []
    assert [fields for fields in test if not is_good(fields, ".")] == []


def test_traps_of_the_real_files_are_there(tmp_path: Path) -> None:
    census_like.write(tmp_path, num_train=40_000, num_test=0, bad_rows=0)
    rows = read(tmp_path, "adult.data")
    missing = {at: sum(fields[at] == "?" for fields in rows) / len(rows) for at in range(15)}
    assert {at for at, share in missing.items() if share > 0} == {1, 6, 13}
    assert missing[1] == pytest.approx(0.056, abs=0.01)
    assert missing[13] == pytest.approx(0.018, abs=0.005)
    assert all(fields[6] == "?" for fields in rows if fields[1] in ("?", "Never-worked"))
    duplicates = len(rows) - len(set(map(tuple, rows)))
    assert duplicates == pytest.approx(28, abs=20)
    assert {fields[13] for fields in rows} == set(WORDS[13].split(", "))
    assert len({(fields[3], fields[4]) for fields in rows}) == 16  # education-num is education, counted


def test_bad_rows_are_as_many_as_asked_and_of_every_kind(tmp_path: Path) -> None:
    census_like.write(tmp_path, num_train=2_000, num_test=1_000, bad_rows=240)
    bad_train = [fields for fields in read(tmp_path, "adult.data") if not is_good(fields, "")]
    bad_test = [fields for fields in read(tmp_path, "adult.test") if not is_good(fields, ".")]
    assert (len(bad_train), len(bad_test)) == (160, 80)
    kinds = Counter(
        "length" if len(fields) != 15
        else "label" if fields[14] in ("50K", "maybe", "<=50k", "?", "")
        else "age" if not NUMBER.fullmatch(fields[0]) or int(fields[0]) > 90
        else "hours" if not NUMBER.fullmatch(fields[12])
        else "?"
        for fields in bad_train
    )  # fmt: skip
    assert kinds == {"length": 40, "label": 40, "age": 60, "hours": 20}
    assert len(BAD_KINDS) == 8


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        census_like.write(tmp_path / name, num_train=500, num_test=300, seed=seed, bad_rows=10)
    contents = {
        name: [(tmp_path / name / "adult" / file).read_bytes() for file in ("adult.data", "adult.test")]
        for name in ("one", "again", "two")
    }
    assert contents["one"] == contents["again"]
    assert contents["one"][0] != contents["two"][0]
    assert set(contents["one"][0].splitlines()) & set(contents["one"][1].splitlines()) == {b""}


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_like, "BLOCK_ROWS", 100)
    census_like.write(tmp_path, num_train=1_050, num_test=1, bad_rows=80)
    assert len(read(tmp_path, "adult.data")) == 1_050
    assert sum(not is_good(fields, "") for fields in read(tmp_path, "adult.data")) == 80
    census_like.write(tmp_path, num_train=0, num_test=0, bad_rows=0)
    assert (tmp_path / "adult" / "adult.data").read_bytes() == b"\n"
    assert sorted(os.listdir(tmp_path / "adult")) == ["adult.data", "adult.test"]


def test_label_can_be_learnt_but_not_perfectly(tmp_path: Path) -> None:
    census_like.write(tmp_path, bad_rows=0)
    codes: dict[str, int] = {}

    def features(fields: list[str]) -> list[int]:
        return [int(text) if NUMBER.fullmatch(text) else codes.setdefault(text, len(codes)) for text in fields[:14]]

    train, test = read(tmp_path, "adult.data"), read(tmp_path, "adult.test")
    model = HistGradientBoostingClassifier(max_iter=40, learning_rate=0.2, random_state=0)
    model.fit([features(fields) for fields in train], [fields[14] == ">50K" for fields in train])
    is_positive = [fields[14] == ">50K." for fields in test]
    auc = roc_auc_score(is_positive, model.predict_proba([features(fields) for fields in test])[:, 1])
    assert 0.88 < auc < 0.94
    assert 0.2 < sum(is_positive) / len(test) < 0.3


@pytest.mark.parametrize("wrong", [{"num_train": -1}, {"bad_rows": 20_000}, {"seed": -1}])
def test_impossible_wishes_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"expected no number below 0 and no more bad rows than rows"):
        census_like.write(tmp_path, **wrong)


def test_published_checksums_fit_the_real_files() -> None:
    folder = Path(os.environ.get("MLSPARK_DATA", "data")) / "adult"
    if not (folder / "adult.names").exists():
        pytest.skip(f"no real census files in {folder}; mlspark fetch adult gets them")
    for file in DATA_SETS["adult"].files:
        content = (folder / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.num_bytes, file.sha256)
