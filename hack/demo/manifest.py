"""Read manifests as kubectl does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from demo.kubectl import Object


class _Loader(yaml.SafeLoader):
    """Parses 1e-4 as a number, like YAML 1.2 and kubectl; PyYAML parses it as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_all(path: Path) -> list[Object]:
    """Return the objects of a file."""
    return list(yaml.load_all(path.read_text(), Loader=_Loader))


def load(path: Path) -> Object:
    """Return the only object of a file."""
    (document,) = load_all(path)
    return document
