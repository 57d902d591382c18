"""YAML that people write, that goes wrong, and that is meant to: limits, `<<`, special values, what can be kept."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlspark.errors import ConfigError
from mlspark.settings import loading, yaml_file
from mlspark.settings.yaml_file import YamlProblem

from ..conftest import ROOT

CENSUS = str(ROOT / "conf" / "census.yaml")

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
HOSTILE = {
    "aliases that multiply": (LAUGHS, "more than 100,000 keys and values, aliases counted as what they stand for"),
    "aliases that multiply in sections": (
        "a0: &a0 {k: x, l: x}\n" + "".join(f"a{n}: &a{n} {{k: *a{n - 1}, l: *a{n - 1}}}\n" for n in range(1, 40)),
        "more than 100,000 keys and values",
    ),
    "merged sections that multiply": (
        "a0: &a0 {k: x, l: x}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, m{n}: *a{n - 1}}}\n" for n in range(1, 40)),
        "more than 100,000 keys and values",
    ),
    "60,000 keys": ("".join(f"key{n}: {n}\n" for n in range(60_000)), "more than 100,000 keys and values"),
    "110,000 items": ("a: [" + "1, " * 110_000 + "]", "more than 100,000 keys and values"),
    "deep lists": ("a: " + "[" * 5_000 + "]" * 5_000, "nested more than 50 levels deep"),
    "deep sections": ("".join("  " * n + "a:\n" for n in range(400)), "nested more than 50 levels deep"),
    "deep --set": ("a: " + "{a: " * 5_000, "nested more than 50 levels deep"),
    "alias of itself": ("a: &a [*a]", "line 1, column 8: alias *a stands inside of what it repeats"),
    "alias of nothing": ("a: *b", "alias *b repeats nothing"),
    "20 MB": ("a: " + "x" * 20_000_000, "longer than 4,000,000 characters"),
    "key twice": ("name: x\nother: 1\nname: y\n", "line 3, column 1: key 'name' given twice"),
    "key twice in two spellings": ("true: x\nyes: y\n", "line 2, column 1: key 'True' given twice"),
    "merge twice": ("a: &a {k: 1}\nb: {<<: *a, <<: *a}", "key '<<' given twice"),
    "merge of a text": ("a: {<<: x}", "expected a mapping or list of mappings for merging"),
    "no key": ("? [a, b]\n: 1", "found unhashable key"),
    "date": ("a: {b: [2024-01-31]}", "a.b.0: is a date to YAML; put quotes around it"),
    "date as a key": ("a: {2024-01-31: 1}", "a.2024-01-31: a key is a text, not a date; put quotes around it"),
    "no date": ("a: 2024-02-31", "line 1, column 4: this is no timestamp; put quotes around a text"),
    "no number": ("a: !!int abc", "line 1, column 4: this is no int"),
    "no bytes": ("a: !!binary '\u00e9'", "line 1, column 4"),
    "bytes": ("a: !!binary aGVsbG8=", "a: is a bytes to YAML"),
    "set": ("a: !!set {x}", "a: is a set to YAML"),
    "a number of 5,000 digits": ("a: " + "9" * 5_000, "line 1, column 4: this is no int"),
    "object": ("!!python/object/apply:os.system [ls]", "could not determine a constructor for the tag"),
    "NUL": ('a: "x\\0"', "a: character 2 is a NUL or half a character; remove it"),
    "control character": ("a: \x01", "characters are not allowed"),
    "two documents": ("a: 1\n---\na: 2\n", "expected a single document"),
    "text after a quote": ('a: "x" y', "line 1, column"),
    "secret": ('password: "hunter2', "line 1, column"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_text_is_refused_with_its_place_and_at_once(case: str) -> None:
    text, message = HOSTILE[case]
    started = time.monotonic()
    with pytest.raises(YamlProblem) as refused:
        yaml_file.parse(text)
    # In milliseconds where libyaml is there; a loaded machine is given a thousand times that.
    assert time.monotonic() - started < 60
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, x: 3}\nd: {<<: [*b, {z: 0, x: 9}]}",
         {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}, "d": {"x": 1, "y": 2, "z": 0}}),
        ("a: &a [1, 2]\nb: *a\nc: *a", {"a": [1, 2], "b": [1, 2], "c": [1, 2]}),
        ("a: =\nb: '='", {"a": "=", "b": "="}),
        ("\ufeffa: 1", {"a": 1}),
        ("", None),
        ("a: {2: x, 1.5: y, true: z, null: n}", {"a": {2: "x", 1.5: "y", True: "z", None: "n"}}),
        ('a: "\\U0001F600 \\x01"', {"a": "\U0001f600 \x01"}),
    ],
)  # fmt: skip
def test_what_yaml_offers_works(text: str, value: Any) -> None:
    assert yaml_file.parse(text) == value


def test_a_wide_table_is_within_the_limits() -> None:
    columns = [f"column_{n}" for n in range(10_000)]
    text = yaml.safe_dump({"features": {"inputs": [{"kind": "number", "columns": columns}]}})
    assert yaml_file.parse(text)["features"]["inputs"][0]["columns"] == columns


@pytest.mark.parametrize(("value", "shown"), [(".inf", "inf"), ("-.inf", "-inf"), (".nan", "nan"), ("1.0e+999", "inf")])
@pytest.mark.parametrize("key", ["training.optimizer.learning_rate", "training.recovery.silent_seconds"])
def test_numbers_that_are_not_finite_are_refused(key: str, value: str, shown: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--set: {key}: .*got {shown}$"):
        loading.load([CENSUS], [f"{key}={value}"])


@pytest.mark.parametrize(
    "text",
    ["1e3", "yes", "=", "2024-01-31", "\x85", " x ", "\u2028", "\U0001f600", "a: b", "#", "0x10", "1:30", "~", "*a",
     "x" * 300, "'\"\\", "\t", "\x01", "\ufeff", "null", ""],
)  # fmt: skip
def test_what_is_kept_is_read_again_as_the_same(tmp_path: Path, text: str) -> None:
    settings = loading.load(
        [CENSUS],
        [
            f"sources.learn.missing={json.dumps(text, ensure_ascii=False)}"
            if text.isprintable()
            else f"sources.learn.missing={json.dumps(text)}"
        ],
    )
    kept = tmp_path / "config.yaml"
    kept.write_bytes(settings.to_yaml().encode())
    again = loading.load([str(kept)])
    assert again == settings
    assert again.sources.learn.missing == ({"*": (text,)} if text else {})  # type: ignore[attr-defined]


def test_a_file_is_not_read_beyond_the_limit() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: not valid YAML: longer than 4,000,000 characters"):
        loading.load(["/dev/zero"])


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not valid YAML: byte 10 is no UTF-8; save the file as UTF-8$"):
        loading.load([str(file)])
