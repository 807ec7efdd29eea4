"""The local cluster, through its command line."""

from __future__ import annotations

import subprocess
import sys

from demo.install import ROOT

COMMAND = [sys.executable, str(ROOT / "hack" / "cluster")]


def cluster(*arguments: str) -> list[str]:
    """Run hack/cluster and return the lines of its output; its progress goes to the terminal.

    Raises:
        CalledProcessError: it failed and has printed why.
    """
    return subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def load_images(*names: str) -> dict[str, str]:
    """Build the images that changed, push them, and return each reference by its name.

    Args:
        names: The images; without any, all.
    """
    lines = [line for name in names or ("all",) for line in cluster("load", name)]
    pairs = (line.split("=", 1) for line in lines if "_IMAGE=" in line)
    return {name.removesuffix("_IMAGE").lower(): reference for name, reference in pairs}
