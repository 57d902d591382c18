"""Write docs/reference from the code: settings from their docstrings, commands from their --help. Starts no Spark.

    python -m tools.docs_reference

`tests/project/test_site.py` compares what is committed with what this would write.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mlspark.commands import main as commands
from mlspark.commands import options
from mlspark.settings.pipeline import Settings

ROOT = Path(__file__).parents[1]
HELP_COLUMNS = 90

Schema = dict[str, Any]

SETTINGS_HEAD = """# Settings

Every key that a pipeline's YAML may have, made from the code by `make docs-reference`. Unknown keys are refused with a
suggestion. `--set SECTION.KEY=VALUE` overrides one key, a later `--config FILE` those that it has. `mlspark check` holds a
file against all of this without data and without Spark.
"""

COMMANDS_HEAD = """# Commands

The `--help` of every command and job, made by `make docs-reference`. Exit status 0: done. 2: something that you can correct,
said in one message on standard error. 3: an alarm of `monitor`. Any other: a fault of the program, with its traceback.
"""


def settings_page() -> str:
    """Return docs/reference/settings.md: one part for each section or kind of section, one entry for each key."""
    schema = Settings.model_json_schema()
    definitions: dict[str, Schema] = schema["$defs"]
    titles = dict(_titles(schema, definitions))
    parts = [SETTINGS_HEAD, *_entries(schema, titles)]
    for name, title in titles.items():
        section = definitions[name]
        parts += [f"## {title}\n", *([section["description"].strip() + "\n"] if section.get("description") else [])]
        parts += _entries(section, titles) or ["No further keys.\n"]
    return "\n".join(parts)


def _titles(section: Schema, definitions: dict[str, Schema], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (definition, title) of all sections below `section` in the order of the file, each where it comes first."""
    seen: set[str] = set()

    def walk(section: Schema, path: str) -> Iterator[tuple[str, str]]:
        for key, field in section.get("properties", {}).items():
            place = f"{path}.{key}" if path else key
            for name, suffix, is_kind in _references(field):
                if name in seen:
                    continue
                seen.add(name)
                kind = definitions[name].get("properties", {}).get("kind", {}).get("const") if is_kind else None
                yield name, f"`{place}{suffix}`" + (f" with `kind: {kind}`" if kind else "")
                yield from walk(definitions[name], f"{place}{suffix}")

    yield from walk(section, path)


def _references(field: Schema) -> Iterator[tuple[str, str, bool]]:
    """Yield (definition, what follows the key, is one of several kinds) of what a field's value may be."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], "", False
    several = field.get("oneOf", field.get("anyOf", []))
    for entry in several:
        for name, suffix, _ in _references(entry):
            yield name, suffix, True
    if isinstance(field.get("items"), dict):
        for name, suffix, is_kind in _references(field["items"]):
            yield name, f"[]{suffix}", is_kind
    if isinstance(field.get("additionalProperties"), dict):
        for name, suffix, is_kind in _references(field["additionalProperties"]):
            yield name, f".NAME{suffix}", is_kind


def _entries(section: Schema, titles: dict[str, str]) -> list[str]:
    """Return one list item for each key of a section: its type, its default, what its docstring says."""
    entries = []
    for key, field in section.get("properties", {}).items():
        words = [f"* **`{key}`**", _type(field, titles)]
        if key in section.get("required", ()):
            words.append("required")
        elif "default" not in field:
            words.append("default: empty")  # a factory: dict
        elif not isinstance(field["default"], dict) or not field["default"]:
            words.append(f"default `{json.dumps(field['default'])}`")
        meaning = " ".join(field.get("description", "").split())
        entries.append(" · ".join(words) + (f"  \n  {meaning}" if meaning else "") + "\n")
    return entries


def _type(field: Schema, titles: dict[str, str]) -> str:
    """Return in words what a field's value may be."""
    if "$ref" in field:
        return _link(field["$ref"], titles)
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    several = field.get("oneOf", field.get("anyOf"))
    if several:
        return " or ".join(dict.fromkeys(_type(entry, titles) for entry in several))
    if field.get("type") == "array":
        items = field.get("items")
        if "prefixItems" in field:
            return "list of " + ", ".join(_type(entry, titles) for entry in field["prefixItems"])
        return f"list of {_type(items, titles)}" if items else "list"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"by name: {_type(values, titles)}" if isinstance(values, dict) else "mapping"
    return _scalar(field)


def _link(reference: str, titles: dict[str, str]) -> str:
    title = titles[reference.rpartition("/")[2]]
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return f"[{title}](#{kept.replace(' ', '-')})"


def _scalar(field: Schema) -> str:
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "null": "null",
    }
    text = words.get(field.get("type", ""), "any value")
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    pattern = f", `{field['pattern']}`" if "pattern" in field else ""
    return " ".join([text, *limits]) + pattern


def command_lines() -> Iterator[tuple[str, Any]]:
    """Yield (command line without options, click command) of every `mlspark` command and every job."""
    group = typer.main.get_command(commands.app)
    assert isinstance(group, typer.core.TyperGroup)
    for name in commands.COMMANDS:
        command = group.get_command(None, name)  # type: ignore[arg-type]
        yield f"mlspark {name}", command
        for child, subcommand in sorted(getattr(command, "commands", {}).items()):
            yield f"mlspark {name} {child}", subcommand
    for file in sorted((ROOT / "jobs").glob("*.py")):
        yield f"jobs/{file.name}", _job(file)


def _job(file: Path) -> Any:
    specification = importlib.util.spec_from_file_location(f"job_{file.stem}", file)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    app = options.app()
    app.command()(getattr(module, "main", None) or getattr(module, file.stem))  # as its __main__ does
    return typer.main.get_command(app)


def commands_page() -> str:
    """Return docs/reference/commands.md: the --help of each command."""
    parts = [COMMANDS_HEAD]
    for line, command in command_lines():
        context = command.make_context(line, [], resilient_parsing=True, terminal_width=HELP_COLUMNS)
        parts.append(f"## {line}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


PAGES = {"settings.md": settings_page, "commands.md": commands_page}


def main() -> None:
    """Write the pages."""
    folder = ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    main()
