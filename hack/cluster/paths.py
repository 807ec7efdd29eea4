"""Folders of the local cluster: a disposable cache, and the state of named clusters."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def cache_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of what can be rebuilt: binaries, base images, downloads."""
    return _base(env, "TRAINYARD_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir(env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of persistent state: etcd, registry, volumes, kubeconfigs."""
    return _base(env, "TRAINYARD_STATE", "XDG_STATE_HOME", ".local/state")


def cluster_dir(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Return the state folder of the cluster called `name`.

    Raises:
        ClusterError: the name cannot be a folder and a Kubernetes name.
    """
    if not _NAME.fullmatch(name):
        raise ClusterError(
            f"--name {name!r} is not a cluster name: use 1 to 40 lower-case letters, digits and dashes, "
            "starting and ending with a letter or digit."
        )
    return state_dir(env) / "clusters" / name


def _base(env: Mapping[str, str], own: str, xdg: str, home: str) -> Path:
    if env.get(own):
        return Path(env[own]).expanduser().resolve()
    root = Path(env[xdg]) if env.get(xdg) else Path(env.get("HOME") or "~").expanduser() / home
    return (root / "trainyard").resolve()
