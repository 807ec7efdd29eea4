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
    modules = imported_modules(ast.parse(source))
    return any(part.startswith("test_") for name in modules for part in name.split("."))


def test_import_of_a_test_module_is_detected() -> None:
    assert imports_a_test_module("from tests.unit.test_a import helper")
    assert imports_a_test_module("def f():\n    from tests.unit import test_a")
    assert imports_a_test_module("import tests.unit.test_a")
    assert not imports_a_test_module("from tests.unit.support import helper, contest_test")


def test_no_module_imports_a_test_module() -> None:
    """Helpers that several tests share live in modules of their own."""
    paths = [path for folder in ("tests", "benchmarks", "hack") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)) for path in paths if imports_a_test_module(path.read_text())}

    assert not found - KNOWN


KNOWN = {
    "benchmarks/queue.py",
    "tests/e2e/test_nodes.py",
    "tests/gpu/test_group.py",
    "tests/gpu/test_llm.py",
    "tests/gpu/test_recompute.py",
    "tests/gpu/test_speed.py",
    "tests/unit/gateway/test_main.py",
    "tests/unit/operator/admission/test_kueue.py",
    "tests/unit/operator/trainingjob/test_kueue_properties.py",
    "tests/unit/trainer/checkpoint/test_two_trainers.py",
    "tests/unit/trainer/engine/test_async_checkpointer.py",
    "tests/unit/trainer/engine/test_throughput.py",
    "tests/unit/trainer/export/test_export_command.py",
    "tests/unit/trainer/sources/test_safetensors_headers.py",
    "tests/unit/trainer/tasks/llm/test_chunked_loss.py",
    "tests/unit/trainer/tasks/llm/test_evaluate.py",
    "tests/unit/trainer/tasks/llm/test_resume.py",
    "tests/unit/trainer/tasks/text/export/test_gguf.py",
    "tests/unit/trainer/tasks/text/export/test_merged.py",
    "tests/unit/trainer/tasks/text/export/trained.py",
    "tests/unit/trainer/tasks/text/memory/test_layers.py",
    "tests/unit/trainer/tasks/text/memory/test_plan.py",
    "tests/unit/trainer/tasks/text/memory/test_recompute_policy.py",
    "tests/unit/trainer/tasks/text/memory/test_resume.py",
    "tests/unit/trainer/tasks/text/test_packing_isolation.py",
    "tests/unit/trainer/tasks/text/test_token_check.py",
}
"""Modules from before the rule; to be emptied."""
