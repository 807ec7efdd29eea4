"""A sample of the trainer campaign (`make campaign-trainer`) with a random seed."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PARTS = (".", "crds", "trainer_image")


def test_sample_of_the_campaign() -> None:
    # In a separate process, because this one has threads and cannot be forked safely.
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in PARTS)}
    seed = str(secrets.randbelow(10**6))
    command = [sys.executable, "-m", "tests.campaign", "--seed", seed, "--count", "12", "--seconds", "60"]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-6000:]}"
    assert "all runs ended with the bits of the uninterrupted one" in done.stdout
