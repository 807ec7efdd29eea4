"""The cluster of this machine, by its command, as a user would."""

from __future__ import annotations

import subprocess
import sys

from demo.install import ROOT

COMMAND = [sys.executable, str(ROOT / "hack" / "cluster")]


def cluster(*words: str) -> list[str]:
    """Run hack/cluster and return the lines of its answer; what it says of its progress goes to our terminal.

    Raises:
        CalledProcessError: it failed, and has said why.
    """
    return subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def load_images() -> dict[str, str]:
    """Build the images that changed, give them to the node, and return each reference by its name."""
    pairs = (line.split("=", 1) for line in cluster("load", "all") if "_IMAGE=" in line)
    return {name.removesuffix("_IMAGE").lower(): reference for name, reference in pairs}
