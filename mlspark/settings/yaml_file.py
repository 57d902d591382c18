"""YAML as people write it, parsed within limits of size, depth and aliases. Runs anywhere."""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_BYTES = 4_000_000
"""Largest file, and longest --set."""
MOST_NODES = 100_000
"""Most keys and values, each counted as often as aliases repeat it."""
MOST_LEVELS = 50
"""Deepest nesting of lists and sections."""

# libyaml's where PyYAML was built with it: 100,000 keys and values are counted in 0.15 s, not in several seconds.
_Base: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_MERGE = "tag:yaml.org,2002:merge"


class YamlProblem(ValueError):
    """What is wrong with a text, and where; it repeats nothing of the text but keys."""


class _Loader(_Base):  # type: ignore[misc]
    """Safe YAML; a value that its tag does not fit is an error of YAML, whatever Python calls it."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except YamlProblem:
            raise
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError):
            kind = node.tag.rpartition(":")[2]
            raise YamlProblem(f"{_place(node.start_mark)}: this is no {kind}; put quotes around a text") from None


# "=" alone is a text; YAML 1.1 has a type of its own for it, which nothing can construct.
_Loader.add_constructor("tag:yaml.org,2002:value", yaml.constructor.SafeConstructor.construct_yaml_str)


def parse(text: str) -> Any:
    """Return what a YAML text holds: nested dicts, lists and scalars.

    Anchors, aliases and `<<` work; a key that stands twice in one section is refused, since the second would win unseen.

    Raises:
        YamlProblem: it is no YAML, or larger, deeper or more repetitive than settings are; says where.
    """
    if len(text) > MOST_BYTES:
        raise YamlProblem(
            f"longer than {MOST_BYTES:,} characters; settings are shorter: split the file, or check its path"
        )
    try:
        _check_size(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_keys_given_twice(node, loader)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # Not its text: that repeats the line, which may hold a secret.
        where = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise YamlProblem(f"{f'{_place(where)}: ' if where else ''}{what}") from None
    except yaml.YAMLError as error:
        raise YamlProblem(getattr(error, "reason", "") or type(error).__name__) from None
    _refuse_what_cannot_be_kept(value, "")
    return value


def write(value: dict[str, Any]) -> str:
    """Return `value` as YAML that `parse` reads as the same."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # U+0085, written as it is, would be read as the end of a line.
    return text if parse(text) == value else yaml.safe_dump(value, sort_keys=False)


def count(value: Any) -> int:
    """Return how many keys and values JSON `value` has as YAML."""
    if isinstance(value, dict):
        return 1 + sum(1 + count(child) for child in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@dataclass
class _Open:
    """A section or list whose end has not come yet."""

    anchor: str | None
    nodes: int = 1


@dataclass
class _Size:
    """How large a text is, with aliases counted as what they stand for."""

    open: list[_Open] = field(default_factory=list)
    nodes: int = 0
    anchors: dict[str, int] = field(default_factory=dict)

    def add(self, nodes: int, event: Any) -> None:
        self.nodes += nodes
        if self.open:
            self.open[-1].nodes += nodes
        if self.nodes > MOST_NODES:
            raise YamlProblem(
                f"{_place(event.start_mark)}: more than {MOST_NODES:,} keys and values, aliases counted as what they "
                f"stand for; settings are fewer: check the file"
            )


def _check_size(text: str) -> None:
    """Count a text's nodes without making any. Raises YamlProblem at the first that is too many or too deep."""
    size = _Size()
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in size.anchors:
                is_own = any(each.anchor == event.anchor for each in size.open)
                what = "stands inside of what it repeats" if is_own else "repeats nothing"
                raise YamlProblem(f"{_place(event.start_mark)}: alias *{event.anchor} {what}")
            size.add(size.anchors[event.anchor], event)
        elif isinstance(event, yaml.ScalarEvent):
            size.add(1, event)
            if event.anchor:
                size.anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            size.add(1, event)
            size.open.append(_Open(event.anchor))
            if event.anchor:
                size.anchors.pop(event.anchor, None)
            if len(size.open) > MOST_LEVELS:
                raise YamlProblem(f"{_place(event.start_mark)}: nested more than {MOST_LEVELS} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = size.open.pop()
            if closed.anchor:
                size.anchors[closed.anchor] = closed.nodes
            if size.open:
                size.open[-1].nodes += closed.nodes - 1  # its first node was counted when it began


def _refuse_keys_given_twice(root: yaml.Node, loader: Any) -> None:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            known: set[str] = set()
            for key, value in node.value:
                waiting += [key, value]
                if isinstance(key, yaml.ScalarNode):
                    name = key.value if key.tag == _MERGE else str(loader.construct_object(key))
                    if name in known:
                        raise YamlProblem(f"{_place(key.start_mark)}: key {name!r} given twice")
                    known.add(name)


def _refuse_what_cannot_be_kept(value: Any, at: str) -> None:
    """Refuse what JSON has no word for, and half a character or NUL, which are written as escapes."""
    match value:
        case dict():
            for key, child in value.items():
                place = f"{at}.{key}" if at else str(key)
                if not isinstance(key, str | int | float | bool | None):
                    raise YamlProblem(f"{place}: a key is a text, not a {type(key).__name__}; put quotes around it")
                _refuse_what_cannot_be_kept(key, f"key {place!r}")
                _refuse_what_cannot_be_kept(child, place)
        case list():
            for number, child in enumerate(value):
                _refuse_what_cannot_be_kept(child, f"{at}.{number}" if at else str(number))
        case str():
            if wrong := re.search("[\0\ud800-\udfff]", value):
                raise YamlProblem(f"{at}: character {wrong.start() + 1} is a NUL or half a character; remove it")
        case bool() | int() | float() | None:
            pass
        case _:
            raise YamlProblem(f"{at}: is a {type(value).__name__} to YAML; put quotes around it")


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
