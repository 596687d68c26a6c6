"""Every private symbol of another library lies in distrib/compat, is described there and has a test that names it."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import distrib
from distrib import compat

PACKAGE = Path(distrib.__path__[0])
MODULES = [module.name for module in pkgutil.walk_packages(compat.__path__, "distrib.compat.") if not module.ispkg]
NOT_MEANT_TO_BE_PRIVATE = {"_exit", "_getframe", "_asdict", "_fields", "_make", "_replace"}
"""Documented: `os._exit`, `sys._getframe`, and what named tuples have, whose fields could lack the underscore."""


def symbols():
    return [symbol for name in MODULES for symbol in getattr(importlib.import_module(name), "SYMBOLS", ())]


def named_in_tests():
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_mark = isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.relies_on"
            found |= {ast.literal_eval(argument) for argument in node.args} if is_mark else set()
    return found


def test_each_symbol_has_a_test_that_names_it():
    names = [symbol.name for symbol in symbols()]
    assert len(names) == len(set(names))
    assert set(names) == named_in_tests()


def test_each_symbol_is_described():
    for symbol in symbols():
        assert symbol.reason, symbol.name
        assert symbol.versions, symbol.name
        assert symbol.fallback, symbol.name


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith((".symbols", ".__init__"))])
def test_each_module_lists_its_symbols(name):
    assert importlib.import_module(name).SYMBOLS


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in NOT_MEANT_TO_BE_PRIVATE


def private_uses(tree):
    """Lines of imports, attributes and keyword arguments that are private to something else than the file itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}
    own |= {node.target.id for node in ast.walk(tree) if is_field(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            names += ["_internal"] if "internal_kv" in names else []
        elif isinstance(node, ast.Attribute) and node.attr not in own:
            names = [node.attr]
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        else:
            continue
        if any(is_private(name) for name in names):
            yield node.lineno if hasattr(node, "lineno") else node.value.lineno


def is_own(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_field(node):
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def test_nothing_private_is_used_outside_of_compat():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "compat" not in path.parents:
            lines = path.read_text().splitlines()
            uses = sorted(set(private_uses(ast.parse("\n".join(lines)))))
            found += [f"{path.relative_to(PACKAGE)}:{line}: {lines[line - 1].strip()}" for line in uses]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "torch._foreach_mul_([], 1)",
        "from ray._private import state",
        "from ray.experimental import internal_kv",
        "import torch._dynamo",
        "dist._compute_bucket_assignment_by_size()",
        "metric._reductions",
        "ray.init(_temp_dir='x')",
        "from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING",
    ],
)
def test_the_search_finds(line):
    assert list(private_uses(ast.parse(line))) == [1]


def test_compat_imports_nothing_of_distrib_but_errors():
    for path in (PACKAGE / "compat").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("distrib"):
                assert module.startswith(("distrib.compat", "distrib.errors")), f"{path.name}: {module}"
