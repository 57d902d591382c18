"""The source of a person's own model, copied into a version and run from there alone. Runs anywhere; needs no Spark."""

import ast
import builtins
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import math
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from mlspark.errors import RegistryError

_FOLDER = "code/"
_NOTEBOOK_MODULE = "own_model"
"""Module that the definitions of a notebook become."""
_REMEDY = "put the model into a module file and give package.module:function"
_NOTHING = object()
_LITERALS = (bool, int, float, str, bytes, type(None))
_lock = threading.RLock()


@dataclass(frozen=True)
class SourceCode:
    """Modules that a model needs and no package index has."""

    entry: str
    """module:function that makes the network."""
    files: Mapping[str, bytes]
    """"code/package/module.py" -> its source."""
    distributions: tuple[str, ...] = ()
    """Installed distributions that the modules import."""

    def to_json(self) -> dict[str, Any]:
        """Return entry, distributions and the SHA-256 of each file."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}
        return {"entry": self.entry, "distributions": list(self.distributions), "files": digests}

    def saved(self) -> dict[str, Any]:
        """Return all of it, for `of_saved`."""
        sources = {name: content.decode() for name, content in self.files.items()}
        return {"entry": self.entry, "sources": sources, "distributions": list(self.distributions)}

    @classmethod
    def of_saved(cls, value: Mapping[str, Any]) -> "SourceCode":
        sources = {name: source.encode() for name, source in value["sources"].items()}
        return cls(value["entry"], sources, tuple(value["distributions"]))


def capture(factory: Callable[..., Any] | str) -> SourceCode:
    """Return the source of the module that defines `factory`, and of the modules that it imports and that are not installed.

    A function of a notebook or script is taken with the functions, classes, imports and constants of the same notebook
    that it refers to, by name.

    Args:
        factory: function that makes the network, or package.module:function.

    Raises:
        RegistryError: the source cannot be read, or a name of a notebook's function stands for something that is no source.
    """
    if isinstance(factory, str):
        module_name, _, name = factory.partition(":")
        if module_name == "__main__":
            raise RegistryError(f"{factory}: the function itself is needed to copy its source; or {_REMEDY}")
        try:
            importlib.import_module(module_name)
        except ImportError as error:
            raise RegistryError(f"model.factory={factory} cannot be imported ({error}); {_REMEDY}") from error
    else:
        module_name, name = getattr(factory, "__module__", ""), getattr(factory, "__qualname__", "")
        if module_name == "__main__" or "<" in name or not module_name:
            return _of_notebook(factory)
    files, imported = _modules(module_name)
    if not files:
        raise RegistryError(f"{module_name}: its source is no .py file, so that no version can keep it; {_REMEDY}")
    return SourceCode(f"{module_name}:{name}", files, _distributions(imported))


def make(files: Mapping[str, bytes], code: Mapping[str, Any], *arguments: Any) -> Any:
    """Return what the function `code["entry"]` of the version's own modules returns for `arguments`.

    The modules are compiled from `files` whatever is installed under their names, and only this call sees them.

    Args:
        files: of the version, with the "code/..." that `code` names.
        code: `SourceCode.to_json()`.
        arguments: of the function.

    Raises:
        RegistryError: a source is absent or is not the one that the model was trained with, or the function is not in it.
    """
    for name, digest in code["files"].items():
        if name not in files:
            raise RegistryError(f"{name}: missing in the model version; register the model anew")
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise RegistryError(
                f"{name}: is not the source that the model was trained with (SHA-256 differs); register the model anew"
            )
    module_name, _, path = code["entry"].partition(":")
    own = {_module_name(name): (name, files[name]) for name in code["files"]}
    if module_name not in own:
        raise RegistryError(
            f"model.json: {code['entry']} is not in the version's own code ({', '.join(sorted(own)) or 'none'}), and "
            f"nothing else is called; register the model anew"
        )
    with _OwnModules(own).alone():
        try:
            factory: Any = importlib.import_module(module_name)
            for part in path.split("."):
                factory = getattr(factory, part)
            return factory(*arguments)
        except Exception as error:
            raise RegistryError(
                f"{code['entry']}: cannot be made from the version's own code ({type(error).__name__}: {error}); install "
                f"what requirements.txt of the version names, or train a model whose modules need nothing beside them"
            ) from error


class _OwnModules(MetaPathFinder, Loader):
    """Finds the version's modules before all others of their names, now and for imports inside of their functions."""

    def __init__(self, own: Mapping[str, tuple[str, bytes]]) -> None:
        self._own = own
        self._tops = {name.split(".")[0] for name in own}
        self._loaded: dict[str, ModuleType] = {}
        self._packages = {".".join(name.split(".")[:size]) for name in own for size in range(1, name.count(".") + 1)}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._own and fullname not in self._packages:
            return None
        is_package = fullname in self._packages or self._own[fullname][0].endswith("__init__.py")
        return ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ not in self._own:
            return  # a folder without __init__.py
        name, content = self._own[module.__name__]
        file = f"<model {hashlib.sha256(content).hexdigest()[:12]}>/{name}"
        source = content.decode()
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # for tracebacks
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        # The version's own code, by its SHA-256: running it is what a custom model asks for.
        exec(compile(source, file, "exec"), module.__dict__)  # noqa: S102

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Import from the version's modules while the context lasts; leave `sys.modules` as it was."""
        with _lock:
            before = _take_out(self._tops)
            sys.modules.update(self._loaded)
            sys.meta_path.insert(0, self)
            try:
                yield
            finally:
                sys.meta_path.remove(self)
                self._loaded = _take_out(self._tops)
                sys.modules.update(before)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` does in the version's modules, where it may stand in a function that is called much later."""
        if not level and name.split(".")[0] not in self._tops:
            return __import__(name, globals, locals, fromlist or (), level)
        with self.alone():
            return __import__(name, globals, locals, fromlist or (), level)


def _take_out(tops: set[str]) -> dict[str, ModuleType]:
    """Take the modules of these packages out of `sys.modules`, and return them."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in tops}


def _module_name(file: str) -> str:
    return file.removeprefix(_FOLDER).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _modules(entry: str) -> tuple[dict[str, bytes], set[str]]:
    """Return (file -> source) of `entry` and the modules that it needs, and the names of the other modules they import."""
    files: dict[str, bytes] = {}
    others: set[str] = set()
    waiting, seen = [entry], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _own_file(name, of=entry)
        if file is None:
            others.add(name)
            continue
        is_package = file.name == "__init__.py"
        stem = _FOLDER + name.replace(".", "/")
        files[f"{stem}/__init__.py" if is_package else f"{stem}.py"] = file.read_bytes()
        parents = [".".join(name.split(".")[:size]) for size in range(1, name.count(".") + 1)]
        waiting += parents
        waiting += _imports(file.read_text(encoding="utf-8"), name if is_package else name.rpartition(".")[0])
    return dict(sorted(files.items())), others


def _own_file(name: str, *, of: str) -> Path | None:
    """Return the source of a module that is not installed, or that is of the package of module `of`; None for others."""
    top = name.split(".")[0]
    if top in sys.stdlib_module_names or top == "mlspark":
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    is_installed = bool({"site-packages", "dist-packages"} & set(file.parts))
    if not is_installed and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        raise RegistryError(
            f"{of} needs {name}, which is {file} and no source; install it, so that a version can name it"
        )
    if file.suffix != ".py":
        return None
    return file if not is_installed or top == of.split(".")[0] else None


def _imports(source: str, package: str) -> list[str]:
    """Return the modules that a source may import: `from a import b` may mean a.b, too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def _distributions(modules: set[str]) -> tuple[str, ...]:
    """Return the distributions that hold these modules."""
    known = metadata.packages_distributions()
    tops = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"mlspark"}
    return tuple(sorted({known[top][0] for top in tops if top in known}))


def _of_notebook(factory: Callable[..., Any]) -> SourceCode:
    """Return the definition of a notebook's function with those that it refers to, as one module."""
    name = getattr(factory, "__name__", "")
    if not isinstance(factory, FunctionType | type) or not name.isidentifier():
        raise RegistryError(f"{name or factory!r}: no function or class with a name, so it has no source; {_REMEDY}")
    imports: dict[str, str] = {}
    definitions: dict[str, str] = {}
    _define(name, factory, imports, definitions, needed_by=name)
    source = "\n".join([*imports.values(), "", "", "\n\n\n".join(definitions.values())]) + "\n"
    files = {f"{_FOLDER}{_NOTEBOOK_MODULE}.py": source.encode()}
    others: set[str] = set()
    for module in _imports(source, ""):
        if _own_file(module, of="") is None:
            others.add(module)
        else:
            sources, imported = _modules(module)
            files |= sources
            others |= imported
    return SourceCode(f"{_NOTEBOOK_MODULE}:{name}", files, _distributions(others))


def _define(name: str, value: Any, imports: dict[str, str], definitions: dict[str, str], *, needed_by: str) -> None:
    """Add to `imports` and `definitions` what makes `name` stand for `value`, what that refers to first."""
    if name in imports or name in definitions:
        return
    if isinstance(value, ModuleType):
        imports[name] = f"import {value.__name__} as {name}"
    elif isinstance(value, FunctionType | type) and (value.__module__ == "__main__" or "<" in value.__qualname__):
        if (defined := value.__name__) != name:
            if _globals(value).get(defined) is not value:
                raise RegistryError(f"{needed_by} refers to {name}, which was defined as {defined}; {_REMEDY}")
            _define(defined, value, imports, definitions, needed_by=name)
            definitions[name] = f"{name} = {defined}"
            return
        source = _source(value)
        definitions[name] = ""  # it may refer to itself
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        known = _globals(value)
        for used in sorted(names - {name}):
            if used in known and known[used] is not getattr(builtins, used, _NOTHING):
                _define(used, known[used], imports, definitions, needed_by=name)
        del definitions[name]
        definitions[name] = source
    elif isinstance(getattr(value, "__module__", None), str) and hasattr(value, "__qualname__"):
        imports[name] = f"from {_module_of(value, name)} import {value.__name__} as {name}"
    elif _is_literal(value):
        definitions[name] = f"{name} = {_written(value)}"
    else:
        raise RegistryError(
            f"{needed_by} refers to {name}, a {type(value).__name__} of the notebook that cannot be written as source; "
            f"make it inside the function, or {_REMEDY}"
        )


def _is_literal(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_literal(item) for item in value)
    if isinstance(value, dict):
        return all(_is_literal(item) for pair in value.items() for item in pair)
    return isinstance(value, _LITERALS)


def _written(value: Any) -> str:
    """Return a literal as source; numbers that are not finite have none of their own."""
    if isinstance(value, tuple | list):
        items = ", ".join(map(_written, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(item)}" for key, item in value.items()) + "}"
    return repr(value) if not isinstance(value, float) or math.isfinite(value) else f"float('{value}')"


def _module_of(value: Any, name: str) -> str:
    """Return a module that has `value` under its own name: torch.tanh says it is of torch._C._VariableFunctions."""
    own = value.__module__
    for module in (own, own.split(".")[0]):
        if getattr(sys.modules.get(module), value.__name__, None) is value:
            return str(module)
    raise RegistryError(f"{name} stands for {own}.{value.__qualname__}, which cannot be imported by name; {_REMEDY}")


def _functions(value: Any) -> list[FunctionType]:
    if isinstance(value, FunctionType):
        return [value]
    members = [getattr(member, "__func__", getattr(member, "fget", member)) for member in vars(value).values()]
    return [member for member in members if isinstance(member, FunctionType) and member.__module__ == value.__module__]


def _globals(value: Any) -> dict[str, Any]:
    """Return what the names that a function or class of a notebook uses stand for."""
    functions = _functions(value)
    known = dict(functions[0].__globals__) if functions else dict(vars(sys.modules["__main__"]))
    for function in functions:
        variables = inspect.getclosurevars(function).nonlocals
        known |= {name: held for name, held in variables.items() if name != "__class__"}
    return known


def _source(value: Any) -> str:
    """Return the source of a function or class; a class of a notebook is looked up in the cell of its methods."""
    try:
        return textwrap.dedent(inspect.getsource(value)).strip("\n")
    except (OSError, TypeError):
        for function in _functions(value) if isinstance(value, type) else []:
            lines = linecache.getlines(function.__code__.co_filename)
            cell = "".join(lines)
            for node in ast.walk(ast.parse(cell)) if cell else ():
                if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                    return ast.get_source_segment(cell, node) or ""
    raise RegistryError(
        f"{value.__name__}: its source cannot be read (it was typed into a prompt, or made by exec); {_REMEDY}"
    )
