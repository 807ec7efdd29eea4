"""English text available offline: documentation strings and Python's help topics."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pydoc
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests and demos have no documentation; ntpath repeats posixpath.
EXCLUDED_MODULES = frozenset({"antigravity", "distutils", "idlelib", "lib2to3", "ntpath", "this", "turtledemo"})
EXCLUDED_FOLDERS = frozenset({"_vendor", "test", "tests", "testing"})
# C modules have no source to parse; their documentation is read from the imported objects.
C_MODULES = ("builtins", "cmath", "itertools", "math", "posix", "time", "unicodedata", "zlib")
# Locked packages whose docstrings are mostly sentences.
PACKAGES = ("aiohttp", "hypothesis", "networkx", "numpy", "pip")
PUBLIC_NAMES = {"genericpath": "os.path", "posixpath": "os.path", "posix": "os"}
MAX_SIGNATURE = 90  # characters; truncated to keep questions short
MAX_DOCUMENT = 250  # characters kept of one docstring


@dataclass(frozen=True)
class Entry:
    """One documented object.

    Attributes:
        module: Dotted module name as a user would import it.
        name: Qualified name within the module; empty for the module itself.
        kind: "module", "class", "function", "method" or "property".
        signature: Parameters in parentheses; empty for a class or a module.
        text: The docstring, unindented.
        standard: Whether it is in the standard library.
    """

    module: str
    name: str
    kind: str
    signature: str
    text: str
    standard: bool

    @property
    def full_name(self) -> str:
        """Dotted name with its module; a builtin has no module."""
        return self.name if self.module == "builtins" else f"{self.module}.{self.name}".rstrip(".")

    @property
    def document(self) -> str:
        """The entry as training text."""
        return f"{self.full_name}{self.signature}: {prose(self.text)[:MAX_DOCUMENT]}"


def prose(text: str) -> str:
    """Join the hard-wrapped lines of each paragraph and drop interactive examples and underlined tables."""
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if ">>>" not in p and "---" not in p]
    return "\n".join(" ".join(p.split()) for p in paragraphs)


def load_entries() -> list[Entry]:
    """Every documented object of the standard library and of `PACKAGES`, in a fixed order."""
    entries = [entry for name in C_MODULES for entry in _live_entries(name)]
    for module, path, standard in _sources():
        entries += _source_entries(module, path, standard)
    return entries


def load_prose() -> list[str]:
    """Longer pieces of English: the help topics of Python's language reference."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return [prose(topics[name]) for name in sorted(topics)]


def _sources() -> Iterator[tuple[str, Path, bool]]:
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(n for n in sys.stdlib_module_names if not n.startswith("_") and n not in EXCLUDED_MODULES)
    for name in names:
        yield from ((m, p, True) for m, p in _modules_under(stdlib, name))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SystemExit(f"tiny_model: package '{name}' is not installed; use the Python that hack/venv makes.")
        yield from ((m, p, False) for m, p in _modules_under(Path(spec.origin).parent.parent, name))


def _modules_under(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    paths = [root / f"{name}.py"] if (root / f"{name}.py").exists() else sorted((root / name).rglob("*.py"))
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        if not EXCLUDED_FOLDERS.intersection(parts):
            module = ".".join(part for part in parts if part != "__init__")
            yield PUBLIC_NAMES.get(module, module), path


def _source_entries(module: str, path: Path, standard: bool) -> Iterator[Entry]:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="ignore"))
    if text := ast.get_docstring(tree):
        yield Entry(module, "", "module", "", text, standard)
    yield from _members(tree, module, "", standard)


def _members(parent: ast.AST, module: str, prefix: str, standard: bool) -> Iterator[Entry]:
    for node in getattr(parent, "body", []):
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        if text := ast.get_docstring(node):
            yield Entry(module, prefix + node.name, *_kind_and_signature(node, bool(prefix)), text, standard)
        if isinstance(node, ast.ClassDef):
            yield from _members(node, module, f"{prefix}{node.name}.", standard)


def _kind_and_signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, inside: bool) -> tuple[str, str]:
    if isinstance(node, ast.ClassDef):
        return "class", ""
    if any("property" in ast.unparse(decorator) for decorator in node.decorator_list):
        return "property", ""
    return "method" if inside else "function", _short(re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args)))


def _live_entries(module_name: str) -> Iterator[Entry]:
    module = importlib.import_module(module_name)
    spoken = PUBLIC_NAMES.get(module_name, module_name)
    for name, value in _documented(module):
        kind = "class" if inspect.isclass(value) else "function"
        yield Entry(spoken, name, kind, _live_signature(value), pydoc.getdoc(value), True)
        for member, method in _documented(value) if inspect.isclass(value) else ():
            yield Entry(spoken, f"{name}.{member}", "method", _live_signature(method), pydoc.getdoc(method), True)


def _documented(owner: object) -> list[tuple[str, object]]:
    members = sorted(vars(owner).items())
    return [(k, v) for k, v in members if not k.startswith("_") and callable(v) and inspect.getdoc(v)]


def _live_signature(value: object) -> str:
    text = getattr(value, "__text_signature__", None)
    return "" if inspect.isclass(value) or not text else _short(re.sub(r"\$\w+(, /)?(, )?", "", str(text))[1:-1])


def _short(parameters: str) -> str:
    plain = " ".join(parameters.split())
    return f"({plain})" if len(plain) <= MAX_SIGNATURE else f"({plain[:MAX_SIGNATURE].rsplit(',', 1)[0]}, ...)"
