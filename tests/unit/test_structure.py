"""Rules of structure that import-linter cannot express."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules, and of the names, that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def imports_a_test_module(source: str) -> bool:
    ours = (name.split(".") for name in imported_modules(ast.parse(source)) if name.startswith("tests."))
    return any(part.startswith("test_") for parts in ours for part in parts)


def test_import_of_a_test_module_is_detected() -> None:
    assert imports_a_test_module("from tests.unit.test_a import helper")
    assert imports_a_test_module("def f():\n    from tests.unit import test_a")
    assert imports_a_test_module("import tests.unit.test_a")
    assert not imports_a_test_module("from tests.unit.support import helper, contest_test")
    assert not imports_a_test_module("from aiohttp.test_utils import TestServer")


def test_no_module_imports_a_test_module() -> None:
    """Helpers that several tests share live in modules of their own."""
    paths = [path for folder in ("tests", "benchmarks", "hack") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [str(path.relative_to(ROOT)) for path in paths if imports_a_test_module(path.read_text())]

    assert found == []
