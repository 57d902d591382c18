#!/usr/bin/env bash
# A before-validator that changes nothing makes a strict pydantic model refuse its own JSON.
#
# Packages: pydantic 2.14.3.
# Expected: a before-validator that returns its argument has no effect. Strict mode takes a JSON
#           list for a tuple when validating JSON, as JSON has no tuples, with or without it.
# Seen:     with the validator the JSON value is turned into Python objects first, and everything
#           below it is then judged by the strict rules for Python input: the list is refused
#           ("tuple_type"), however deep it sits. What model_dump_json writes cannot be read back.
# So:       in strict models use after-validators, or relax the fields below a before-validator.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv venv
venv/bin/pip install -q pydantic==2.14.3

cat > probe.py <<'PY'
import sys

import pydantic


class Plain(pydantic.BaseModel, strict=True):
    sizes: tuple[int, ...]


class Checked(pydantic.BaseModel, strict=True):
    sizes: tuple[int, ...]

    @pydantic.model_validator(mode="before")
    @classmethod
    def unchanged(cls, value):
        return value


class Outer(pydantic.BaseModel, strict=True):
    inner: Plain

    @pydantic.field_validator("inner", mode="before")
    @classmethod
    def unchanged(cls, value):
        return value


def read_back(model):
    try:
        type(model).model_validate_json(model.model_dump_json())
        return "accepted"
    except pydantic.ValidationError as error:
        return ", ".join(e["type"] for e in error.errors())


print("pydantic", pydantic.VERSION)
plain = Plain(sizes=(1, 2))
seen = [read_back(m) for m in (plain, Checked(sizes=(1, 2)), Outer(inner=plain))]
print("expected: all three models read back the JSON that they wrote")
print(f"seen:     no validator: {seen[0]}; on the model: {seen[1]}; on a field above: {seen[2]}")
same = seen == ["accepted", "tuple_type", "tuple_type"]
print("reproduced" if same else "the behaviour has changed")
sys.exit(0 if same else 1)
PY
venv/bin/python probe.py
