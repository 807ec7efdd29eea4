"""The programs of serving run from the operator's image: it has no library that only the trainer needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.unit.serving.reader_process import ROOT, environment

LOADED = """
import importlib, json, sys
before = set(sys.modules)  # what the interpreter of a virtual environment loads
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
OURS = {"trainyard_crds", "trainyard_serving", "trainyard_trainer"}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> set[str]:
    """Return the distributions of the operator's image."""
    lines = Path(ROOT / "requirements/operator.txt").read_text().splitlines()
    return {normalised(line.partition("==")[0]) for line in lines if re.match(r"[A-Za-z0-9]", line)}


@pytest.mark.parametrize("program", ["artifacts", "fetch", "proxy"])
def test_program_imports_only_what_the_operator_image_has(program: str) -> None:
    command = [sys.executable, "-c", LOADED, f"trainyard_serving.{program}.main"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    known, loaded = packages_distributions(), json.loads(done.stdout)
    assert "trainyard_serving" in loaded
    third_party = {name for name in loaded if name in known and name not in OURS}
    missing = {name for name in third_party if not {normalised(one) for one in known[name]} & locked()}
    assert third_party
    assert missing == set()
