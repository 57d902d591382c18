"""What is wrong with settings, said with file, key and remedy. Runs anywhere."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlspark import credentials
from mlspark.settings.pipeline import Settings

_FEW = 3
"""Most settings that a message proposes."""


def explain(problem: Any, origin: Mapping[tuple[str, ...], str], files: Sequence[str]) -> str:
    """Return "file: section.key: what is wrong" for one pydantic error."""
    tagged = tuple(str(part) for part in problem["loc"])
    location = _without_tags(tagged)
    source = next((origin[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origin), None)
    prefix = f"{source or ', '.join(files)}: " + (".".join(location) + ": " if location else "")
    if problem["type"] == "extra_forbidden":
        known = _known_keys(tagged[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        elsewhere = [] if close else _elsewhere(location)
        meant = " or ".join(elsewhere or close)
        hint = f"did you mean {meant}?" if meant else f"known here: {', '.join(known)}"
        if credentials.is_secret_name(location[-1]):
            hint = f"and settings hold no secrets; {credentials.ENVIRONMENT}"
        return f"{prefix}unknown key, {hint}"
    if problem["type"] == "missing":
        return f"{prefix}missing"
    if "discriminator" in _nodes(tagged)[-1]:
        if not isinstance(problem["input"], Mapping):
            return f"{prefix}must be a section with kind, one of {', '.join(map(repr, _kinds(tagged)))}"
        return f"{prefix}kind: must be one of {', '.join(map(repr, _kinds(tagged)))}"
    if problem["type"] == "value_error":
        return f"{prefix}{problem['ctx']['error']}"
    shown = credentials.shown(location[-1] if location else "", problem["input"])
    return f"{prefix}{problem['msg'][0].lower()}{problem['msg'][1:]}, got {shown}"


def _without_tags(path: Sequence[str]) -> tuple[str, ...]:
    """Return a path as the file has it: which part of a union was tried stands in pydantic's path, but not in the file."""
    return tuple(part for part, node in zip(path, _nodes(path), strict=False) if not _is_tag(part, node))


def _is_tag(part: str, node: Mapping[str, Any]) -> bool:
    """Return whether a part of a path names one of the choices of the union at `node`: a kind, or a type."""
    return "discriminator" in node or ("anyOf" in node and not part.isdigit())


def _kinds(union: Sequence[str]) -> list[str]:
    """Return the tags of the union at the end of `union`, in its order."""
    node = _nodes(union)[-1]
    tag_of = {place: tag for tag, place in node["discriminator"]["mapping"].items()}
    return [tag_of[choice["$ref"]] for choice in node["oneOf"]]


def _known_keys(section: Sequence[str]) -> list[str]:
    """Return the keys of the settings class at the end of `section`."""
    return list(_nodes(section)[-1].get("properties", {}))


def _elsewhere(location: Sequence[str]) -> list[str]:
    """Return the settings called like the last part of `location`: those of its section, if any, else all; few or none."""
    paths = list(dict.fromkeys(_paths_to(location[-1], Settings.model_json_schema())))
    paths = [path for path in paths if path.startswith(f"{location[0]}.")] or paths
    return paths if len(paths) <= _FEW else []


def _paths_to(key: str, schema: dict[str, Any], node: dict[str, Any] | None = None, at: str = "") -> Iterator[str]:
    """Yield section.key of each setting that is called `key`; those within lists are left out."""
    node = _resolve(schema if node is None else node, schema)
    for choice in node.get("discriminator", {}).get("mapping", {}).values():
        yield from _paths_to(key, schema, {"$ref": choice}, at)
    for name, child in node.get("properties", {}).items():
        if name == key:
            yield at + name
        yield from _paths_to(key, schema, child, f"{at}{name}.")


def _nodes(path: Sequence[str]) -> list[dict[str, Any]]:
    """Return the schemas on the way along `path` from the top, both ends included: one more than its parts."""
    schema = Settings.model_json_schema()
    nodes = [schema]
    for part in path:
        node = nodes[-1]
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"].get(part, "")}
        elif part.isdigit():
            node = node.get("items", {})
        elif _is_tag(part, node):  # which of the types was tried, its name does not say in the schema's words
            node = {key: value for choice in node["anyOf"] for key, value in choice.items()}
        else:
            values = node.get("additionalProperties")  # of a mapping
            node = node.get("properties", {}).get(part) or (values if isinstance(values, dict) else {})
        nodes.append(_resolve(node, schema))
    return nodes


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:  # optional
        return _resolve(choices[0], schema)
    for choice in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
        if "discriminator" in choice:
            return dict(choice)
        if "$ref" in choice:
            return dict(schema["$defs"].get(choice["$ref"].rsplit("/", 1)[-1], {}))
    return node
