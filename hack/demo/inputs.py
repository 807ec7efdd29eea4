"""The demo's model and rows: made once on this machine, then reused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from cluster.paths import cache_dir

ROOT = Path(__file__).resolve().parents[2]


def ensure() -> Path:
    """Directory with `model/`, `train.jsonl` and `heldout.jsonl`, made by hack/tiny_model when it is not there yet."""
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
    """Changes with the program that makes the model and with the libraries it uses."""
    total = hashlib.sha256()
    for path in [*sorted((ROOT / "hack" / "tiny_model").glob("*.py")), ROOT / "requirements" / "dev.txt"]:
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
