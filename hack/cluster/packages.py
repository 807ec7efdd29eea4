"""Installs the Debian packages that the bare node and the image builds need."""

import os
import shutil
from pathlib import Path

from cluster.errors import ToolError
from cluster.shell import run, say

CNI_PLUGINS = Path("/usr/lib/cni")
CONTROL_PLANE = {"openssl": "openssl"}
NODE = {
    **CONTROL_PLANE,
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    str(CNI_PLUGINS / "bridge"): "containernetworking-plugins",
}
IMAGES = {"buildah": "buildah"}
BASE_IMAGE = {"debootstrap": "debootstrap", "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}


def ensure(wanted: dict[str, str]) -> None:
    """Install by apt-get the packages whose program or file is missing.

    Args:
        wanted: Package by program name or absolute path.

    Raises:
        ToolError: something is missing and cannot be installed.
    """
    missing = sorted({package for program, package in wanted.items() if not _present(program)})
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ToolError(
            f"{', '.join(missing)} must be installed. On Debian or Ubuntu, as root: {' '.join(command)}. "
            "'up --api-only' needs no root and only openssl."
        )
    say(f"installing {', '.join(missing)} by apt-get (about half a minute)")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "--quiet"], env=quiet)
    run(command, env=quiet)


def _present(program: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    # The PATH of a user may lack the sbin folders.
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
