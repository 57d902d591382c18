"""What a version takes and answers, as an OpenAPI 3.1 document."""

import re
from typing import Any

from mlspark import __version__
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.scoring.rest import arrow_body, form
from mlspark.scoring.rest.answers import Served
from mlspark.scoring.rest.limits import Limits

_WHOLE = {"smallint": 16, "int": 32, "bigint": 64}


def description(served: Served, limits: Limits) -> dict[str, Any]:
    """Return the document of the version that answers now."""
    task = served.predictor.task
    predictions = {name: _prediction(kind) for name, kind in task.prediction_types.items()}
    head = {"model": {"type": "string"}, "version": {"type": "integer"}}
    schemas = {
        "Row": row(served.predictor.contract, served.example),
        "Predictions": {"type": "object", "properties": predictions, "required": list(predictions)},
        "Answer": _object({**head, "predictions": _ref("Predictions")}),
        "Answers": _object(
            {**head, "predictions": {"type": "array", "items": {"anyOf": [_ref("Predictions"), {"type": "null"}]}}}
        ),
        "Rows": _object({"rows": {"type": "array", "items": _ref("Row"), "maxItems": limits.rows}}),
        "Broken": _object(
            {
                "row": {"type": "integer", "description": "Position of the row, from 0."},
                "column": {"type": "string", "description": "Empty for a rule about the row as a whole."},
                "rule": {"type": "string"},
                "value": {"description": "As it came; cut where it is long. Of a rule about the row, its condition."},
                "message": {"type": "string"},
            }
        ),
        "Error": {
            **_object({"error": {"type": "string"}, "broken": {"type": "array", "items": _ref("Broken")}}),
            "required": ["error"],
        },
    }
    example = None if served.example is None else dict(served.example)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": served.name,
            "version": str(served.number),
            "description": f"Version {served.number} of model {served.name} ({task.kind}), served by mlspark {__version__}. "
            f"A body has at most {limits.body_bytes:,} bytes; an answer takes at most {limits.seconds:g} s.",
        },
        "paths": {
            "/predict": {"post": _operation("Predict one row.", "Row", example, "Answer", _form(served.predictor.contract))},
            "/predict/rows": {
                "post": _operation(
                    "Predict several rows, answers in order. A row that breaks the contract refuses all of them; with "
                    "on_error=report the others are predicted, and `broken` lists what is wrong with it.",
                    "Rows", None if example is None else {"rows": [example]}, "Answers", {arrow_body.MEDIA_TYPE: {}},
                )
                | {"parameters": [_ON_ERROR]}
            },
            "/health": {"get": _plain("Whether the process lives.")},
            "/ready": {"get": _plain("Whether requests are taken, and which version answers; 503 when the server ends.")},
            "/metrics": {"get": _plain("Counters for Prometheus.")},
        },
        "components": {"schemas": schemas},
    }  # fmt: skip


_ON_ERROR = {
    "name": "on_error", "in": "query", "schema": {"type": "string", "enum": ["refuse", "report"], "default": "refuse"},
}  # fmt: skip


def row(contract: Contract, example: Any) -> dict[str, Any]:
    """Return the schema of a row: the columns by their names in the sources, with what each value must satisfy."""
    names = [column.source_name for column in contract.columns]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {column.source_name: _column(column) for column in contract.columns},
        "required": names if contract.schema_policy.missing == "refuse" else [],
        "additionalProperties": contract.schema_policy.extra == "ignore",
    }
    if contract.conditions:
        rules = "; ".join(f"{name}: {condition.text}" for name, condition in contract.conditions.items())
        schema["description"] = f"Rules of the row: {rules}"
    if example is not None:
        schema["examples"] = [dict(example)]
    return schema


def _column(column: ColumnRule) -> dict[str, Any]:
    schema = _typed(column)
    if column.allowed is not None:
        schema["enum"] = [*column.allowed, *([None] if column.nullable else [])]
    if column.pattern is not None:
        schema["pattern"] = f"^(?:{column.pattern})$"
    of_length = ("minItems", "maxItems") if column.is_array else ("minLength", "maxLength")
    for key, length in zip(of_length, (column.min_length, column.max_length), strict=True):
        if length is not None:
            schema[key] = length
    if column.nullable:
        schema["type"] = [*([schema["type"]] if isinstance(schema["type"], str) else schema["type"]), "null"]
    words = [column.type, *_bounds_in_words(column)]
    schema["description"] = ", ".join(words)
    return schema


def _typed(column: ColumnRule) -> dict[str, Any]:
    kind = column.type
    limits = {
        key: limit
        for key, limit in (("minimum", column.min), ("maximum", column.max))
        if limit is not None and not isinstance(limit, str)
    }
    if kind in _WHOLE:
        least = 2 ** (_WHOLE[kind] - 1)
        return {"type": "integer", "minimum": -least, "maximum": least - 1} | limits
    if kind in ("float", "double"):
        return {"type": "number"} | limits
    if kind.startswith("decimal"):
        return {"type": ["number", "string"]} | limits
    if column.is_array:
        return {"type": "array", "items": {"type": "number"}}
    if kind == "boolean":
        return {"type": "boolean"}
    formats = {
        "date": {"format": "date"},
        "timestamp": {"format": "date-time"},
        "binary": {"contentEncoding": "base64"},
    }
    return {"type": "string"} | formats.get(kind, {})


def _bounds_in_words(column: ColumnRule) -> list[str]:
    """Return what JSON Schema has no word for: bounds of dates and times, and what a picture must be."""
    words = [f"{word} {limit}" for word, limit in (("from", column.min), ("to", column.max)) if isinstance(limit, str)]
    if column.media is not None:
        words.append(f"a picture ({', '.join(column.media.formats)}) as base64")
    return words


def _prediction(kind: str) -> dict[str, Any]:
    array = re.fullmatch(r"array<(\w+)>", kind)
    if array:
        return {"type": "array", "items": _prediction(array[1])}
    if kind in _WHOLE:
        return {"type": "integer"}
    if kind in ("float", "double"):
        return {"type": "number"}
    return {"type": "boolean"} if kind == "boolean" else {"type": "string"}


def _form(contract: Contract) -> dict[str, Any]:
    """Return the form by which a row comes whose binary columns are files; nothing where it has none."""
    files = {
        column.source_name: {"type": "string", "contentMediaType": "application/octet-stream"}
        for column in contract.columns
        if column.is_binary
    }
    return {form.MEDIA_TYPE: {"schema": {"type": "object", "properties": {form.FIELD: {}, **files}}}} if files else {}


def _operation(summary: str, body: str, example: Any, answer: str, others: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _ref(body)}
    if example is not None:
        content["example"] = example
    errors = {
        "400": "The body is no JSON.",
        "413": "The body or the number of rows is too large.",
        "415": "The body is of a type that is not taken.",
        "422": "A row breaks the contract.",
        "503": "Too many rows wait.",
        "504": "The answer took too long.",
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": content, **others}},
        "responses": {
            "200": {"description": "Predictions.", "content": {"application/json": {"schema": _ref(answer)}}},
            **{
                status: {"description": words, "content": {"application/json": {"schema": _ref("Error")}}}
                for status, words in errors.items()
            },
        },
    }


def _plain(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
