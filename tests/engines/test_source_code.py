"""The source of a custom model travels with the version, and nothing but it is run."""

import hashlib
import json
import linecache
import subprocess
import sys
import textwrap
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from mlspark.engines import source_code
from mlspark.errors import RegistryError

PROJECT = {
    "own_project/__init__.py": "",
    "own_project/layers.py": "WIDTH = 3\n",
    "own_project/models.py": """
        import numpy
        from torch import nn

        from .layers import WIDTH

        def make(width):
            return width * WIDTH

        class Maker:
            @staticmethod
            def make(width):
                return -width * WIDTH
        """,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_project")]:
        del sys.modules[name]


def test_modules_that_nobody_installed_are_copied_and_run_from_the_copy(project: Path) -> None:
    code = source_code.capture("own_project.models:make")
    assert sorted(code.files) == [f"code/{name}" for name in sorted(PROJECT)]
    assert code.distributions == ("numpy", "torch")
    assert code.to_json()["files"]["code/own_project/layers.py"] == hashlib.sha256(b"WIDTH = 3\n").hexdigest()
    import own_project.layers

    own_project.layers.WIDTH = 1000  # what is loaded under the same name is neither used nor changed
    (project / "own_project" / "layers.py").unlink()
    assert source_code.make(code.files, code.to_json(), 2) == 6
    assert sys.modules["own_project.layers"].WIDTH == 1000


def test_function_object_of_a_module_is_captured_as_its_module(project: Path) -> None:
    from own_project.models import Maker, make

    assert source_code.capture(make).entry == "own_project.models:make"
    code = source_code.capture(Maker.make)
    assert source_code.make(code.files, code.to_json(), 2) == -6


def test_changed_or_missing_source_is_refused(project: Path) -> None:
    code = source_code.capture("own_project.models:make")
    changed = {**code.files, "code/own_project/layers.py": b"WIDTH = 4\n"}
    with pytest.raises(
        RegistryError, match=r"code/own_project/layers.py: is not the source .* register the model anew"
    ):
        source_code.make(changed, code.to_json(), 2)
    changed.pop("code/own_project/layers.py")
    with pytest.raises(RegistryError, match=r"code/own_project/layers.py: missing"):
        source_code.make(changed, code.to_json(), 2)


@pytest.mark.parametrize("entry", ["os:getcwd", "subprocess:run", "mlspark.storage:delete", "own_project.models.os:x"])
def test_function_outside_the_version_is_never_called(project: Path, entry: str) -> None:
    code = source_code.capture("own_project.models:make")
    with pytest.raises(RegistryError, match="is not in the version's own code"):
        source_code.make(code.files, {**code.to_json(), "entry": entry})


def notebook(*cells: str) -> dict[str, Any]:
    """Run cells as a notebook does: module __main__, sources known to linecache alone."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        source, file = textwrap.dedent(cell), f"<cell {id(names)}-{number}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), names)
    return names


IMPORTS = """
    import numpy as np
    from torch import nn
    from pathlib import Path as P
    SIZES = (4, 2)
    """
MODEL = """
    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(width, SIZES[1])

        def forward(self, dense):
            return scaled(self.layer(dense))

    def scaled(values):
        return values * float(np.float64(2.0))

    def model(width):
        return Net(width)
    """


def test_function_of_a_notebook_is_captured_with_what_it_refers_to() -> None:
    names = notebook(IMPORTS, MODEL)
    code = source_code.capture(names["model"])
    assert code.entry == "own_model:model"
    [(name, source)] = code.files.items()
    assert name == "code/own_model.py"
    assert "pathlib" not in source.decode()  # not used
    assert code.distributions == ("numpy", "torch")
    # In a process that knows nothing of the notebook.
    program = (
        "import json, sys; from mlspark.engines import source_code\n"
        "files, code = json.load(sys.stdin)\n"
        "net = source_code.make({k: v.encode() for k, v in files.items()}, code, 5)\n"
        "import torch; print(tuple(net(torch.zeros(3, 5)).shape))"
    )
    sent = json.dumps([{name: source.decode()}, code.to_json()])
    done = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 2)", done.stderr


def test_function_made_in_a_function_is_captured_with_its_variables() -> None:
    width = 7

    def model(times: int) -> int:
        return width * times

    code = source_code.capture(model)
    assert source_code.make(code.files, code.to_json(), 2) == 14


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ("data = object()\ndef model(width):\n    return data",),
            r"model refers to data, a object .* package\.module:function",
        ),
        (("model = lambda width: 1",), "no function or class with a name"),
    ],
)
def test_what_has_no_source_is_refused_with_a_remedy(cells: tuple[str, ...], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        source_code.capture(notebook(*cells)["model"])


def test_function_typed_into_a_prompt_is_refused_with_a_remedy() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def model(width):\n    return width", names)
    assert isinstance(names["model"], FunctionType)
    with pytest.raises(RegistryError, match=r"its source cannot be read .* put the model into a module file"):
        source_code.capture(names["model"])


def test_import_in_a_function_that_is_called_later_is_of_the_copy(project: Path) -> None:
    lazy = "class Net:\n    def __call__(self):\n        from .layers import WIDTH\n        return WIDTH\n"
    (project / "own_project" / "lazy.py").write_text(lazy)
    code = source_code.capture("own_project.lazy:Net")
    net = source_code.make(code.files, code.to_json())
    import own_project.layers

    own_project.layers.WIDTH = 1000
    assert net() == 3
    assert sys.modules["own_project.layers"].WIDTH == 1000


def test_module_that_is_no_source_is_refused(project: Path) -> None:
    (project / f"own_fast{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    (project / "own_project" / "fast.py").write_text("import own_fast\n")
    code = source_code.capture("own_project.models:make")
    assert "code/own_project/fast.py" not in code.files
    (project / "own_project" / "layers.py").write_text("WIDTH = 3\nfrom . import fast\n")
    with pytest.raises(RegistryError, match=r"own_project.models needs own_fast, which is .* no source; install it"):
        source_code.capture("own_project.models:make")


def test_error_of_the_version_s_own_code_is_told_with_its_cause(project: Path) -> None:
    (project / "own_project" / "broken.py").write_text("from pathlib import Path\nHERE = Path(__file__)\nmake = int\n")
    code = source_code.capture("own_project.broken:make")
    with pytest.raises(RegistryError, match=r"own_project.broken:make: cannot be made .*NameError: .*__file__"):
        source_code.make(code.files, code.to_json(), 2)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("def model(width):\n    from own_project.layers import WIDTH\n    return width * WIDTH", 6),
        ("from torch import tanh\ndef model(width):\n    return tanh.__name__", "tanh"),
        ("top = (float('inf'), 1)\ndef model(width):\n    return min(top)", 1),
        ("sum = 7\ndef model(width):\n    return sum * width", 14),
        ("def old(width):\n    return width\nother = old\ndef model(width):\n    return other(width)", 2),
    ],
)
def test_what_a_notebook_s_function_uses_is_captured_as_it_is(project: Path, cell: str, expected: object) -> None:
    code = source_code.capture(notebook(cell)["model"])
    for file in (project / "own_project").glob("*.py"):
        file.unlink()
    assert source_code.make(code.files, code.to_json(), 2) == expected
