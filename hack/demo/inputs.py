"""The demo's model and rows, built once on this machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from cluster.paths import cache_dir

ROOT = Path(__file__).resolve().parents[2]


def ensure() -> Path:
    """Return the directory with `model/`, `train.jsonl` and `heldout.jsonl`; built if missing."""
    target = cache_dir() / "tiny-model" / _key()
    if not (target / ".complete").exists():
        target.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, str(ROOT / "hack" / "tiny_model"), "--out", str(target)], check=True, env=environment
        )
        (target / ".complete").touch()
    return target


def _key() -> str:
    """Return a hash of the program that builds the model and of the libraries it uses."""
    total = hashlib.sha256()
    for path in [*sorted((ROOT / "hack" / "tiny_model").glob("*.py")), ROOT / "requirements" / "dev.txt"]:
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
