"""The house rules that no single module can guard: layout, imports, public names, the error tree, sizes."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quire
from quire import errors
from quire.errors import QuireError

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for top in ("inference", "kernels", "integrations") for path in (ROOT / top).rglob("*.py")
)
MAX_LINES = 450

# Folders that must not be packages: a regular package called `kernels` (or `tests.kernels`) on the path
# makes transformers believe that its optional dependency of that name is installed.
NO_PACKAGES = ("inference", "kernels", "integrations")

# Faces that ask for the same model share one engine, and all engines share the machine's memory: only the
# process can know that they do.
OWNERS_OF_GLOBAL_STATE = ("inference/quire/engine/sharing.py", "inference/quire/memory.py")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in SOURCES:
        yield _name(path), ast.parse(path.read_text(encoding="utf-8"))


def _subclasses(cls: type[QuireError]) -> Iterator[type[QuireError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def test_folders_that_must_not_be_packages() -> None:
    found = [ROOT / top / "__init__.py" for top in NO_PACKAGES]
    found += (ROOT / "tests").rglob("__init__.py")
    assert [_name(path) for path in found if path.exists()] == []


@pytest.mark.parametrize("module", ["quire", "quire.core", "quire.config", "quire.sampling_params"])
def test_imports_without_torch(module: str) -> None:
    code = f"import {module}, sys; print({{'torch', 'numpy', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_public_names() -> None:
    assert set(quire.__all__) == set(quire._EXPORTS), "__all__ and the lazy exports differ"
    assert set(quire.__all__) <= set(dir(quire))
    for name in quire.__all__:
        module = importlib.import_module(quire._EXPORTS[name])
        assert getattr(quire, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        quire.Nothing  # noqa: B018


def test_public_names_are_typed() -> None:
    """What type checkers see under TYPE_CHECKING is what `__getattr__` gives."""
    tree = ast.parse(Path(quire.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == quire._EXPORTS


def test_error_tree() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []  # by depth
    for prefix, name in re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.M):
        depth = len(prefix) // 4
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    defined = {
        cls.__name__: cls.__bases__[0].__name__
        for cls in (QuireError, *_subclasses(QuireError))
        if cls.__module__ == errors.__name__
    }
    assert drawn == defined


def test_every_error_has_an_answer_for_http() -> None:
    for cls in (QuireError, *_subclasses(QuireError)):
        assert cls.__module__ == errors.__name__, f"{cls} is defined outside of errors.py"
        assert 400 <= cls.status < 600
        assert re.fullmatch(r"[a-z_]+", cls.code)
        types = {
            400: "invalid_request_error",
            404: "invalid_request_error",
            429: "rate_limit_error",
        }
        assert cls.type == types.get(cls.status, "server_error")
        error = cls("what to do", param="field")
        assert (str(error), error.message, error.param) == ("what to do", "what to do", "field")
        assert cls.__doc__


def test_files_stay_small() -> None:
    lines = {_name(path): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_every_module_says_what_it_owns() -> None:
    assert [name for name, tree in _trees() if not ast.get_docstring(tree)] == []
    assert [name for name, _ in _trees() if name.endswith("utils.py")] == []


def test_who_imports_whom() -> None:
    lint = shutil.which("lint-imports", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert lint, "import-linter is not installed"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_unsafe_is_called() -> None:
    """No eval or exec, nothing unpickled, and torch.load of weights alone."""
    found = []
    for name, tree in _trees():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" | "__import__")):
                    found.append(f"{name}:{node.lineno}")
                case ast.Attribute(
                    value=ast.Name(id="pickle" | "marshal" | "shelve" | "dill"),
                    attr="load" | "loads" | "Unpickler" | "open",
                ):
                    found.append(f"{name}:{node.lineno}")
                case ast.ImportFrom(module="pickle" | "marshal" | "shelve" | "dill"):
                    found.append(f"{name}:{node.lineno}")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                    safe = {"weights_only": True}
                    given = {
                        k.arg: k.value.value
                        for k in node.keywords
                        if isinstance(k.value, ast.Constant)
                    }
                    if not safe.items() <= given.items():
                        found.append(f"{name}:{node.lineno}")
    assert found == []


def test_nothing_mutable_is_module_global() -> None:
    """Containers that begin empty, and names rebound by `global`, hold state; written-out tables do not."""
    found = []
    for name, tree in _trees():
        if name in OWNERS_OF_GLOBAL_STATE:
            continue
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and _is_empty_container(node.value):
                found.append(f"{name}:{node.lineno}")
        found += [
            f"{name}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Global)
        ]
    assert found == []


def _is_empty_container(node: ast.expr | None) -> bool:
    match node:
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "defaultdict" | "deque")):
            return not any(isinstance(argument, ast.expr) for argument in node.args)
    return False


def test_changelog_has_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(quire.__version__)}\]", changelog, re.M)


def test_version_is_written_once() -> None:
    pyproject = _pyproject()
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["hatch"]["version"]["path"] == _name(Path(quire.__file__))


def _pyproject() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    parsed: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return parsed
