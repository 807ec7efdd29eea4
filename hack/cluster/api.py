"""Start, find and stop control planes, for tests and for the command."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster import binaries, kwok, packages, ports, settings
from cluster.client import Client
from cluster.controlplane import PORTS, Address, ControlPlane
from cluster.errors import ClusterError
from cluster.paths import cluster_dir
from cluster.settings import Settings
from cluster.shell import locked


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A running control plane.

    Attributes:
        name: The cluster's name.
        state: Its state folder.
        server: URL of the API server.
        kubeconfig: Kubeconfig with every permission.
        ca: Certificate of the cluster's authority.
        audit_log: One JSON audit event (level Metadata) per line.
        binaries: Folder with `kubectl` and the other programs.
    """

    name: str
    state: Path
    server: str
    kubeconfig: Path
    ca: Path
    audit_log: Path
    binaries: Path
    plane: ControlPlane = dataclasses.field(repr=False, compare=False)

    @property
    def kubectl(self) -> Path:
        """The `kubectl` of the cluster's version."""
        return self.binaries / "kubectl"

    def client(self) -> Client:
        """Return an API client with every permission."""
        return self.plane.client()

    def stop(self, purge: bool = False) -> None:
        """Stop the control plane; with `purge` also forget everything it stored."""
        stop(self.name, purge)


def start(
    name: str = "api",
    *,
    kwok_nodes: int = 0,
    more: Mapping[str, Sequence[str]] | None = None,
    first: Callable[[Cluster], None] = lambda _: None,
) -> Cluster:
    """Start a control plane without a node, or find it running, and wait until it is ready.

    Several can run under different names. The first start on a machine builds the programs (minutes).

    Args:
        name: The cluster's name; its state is kept under it.
        kwok_nodes: Fake nodes with 8 fake GPUs each.
        more: Additional arguments of its parts (`controlplane.PROCESSES`), by name.
        first: Called when the API server is ready, before the controllers start. The garbage collector handles kinds
            that are installed here at once, and later ones after up to half a minute.

    Raises:
        ClusterError: a program could not be built or did not become ready.
    """
    packages.ensure(packages.CONTROL_PLANE)
    folder = binaries.ensure([*binaries.API, *(["kwok"] if kwok_nodes else [])])
    with working_on(name) as state:
        settings.require_tier(state, "api")
        plane = control_plane(state, folder, settings.save(state, Settings("api")))
        plane.start(more, lambda: first(describe(name, plane, folder)))
        if kwok_nodes:
            kwok.start(plane, folder, kwok_nodes)
    return describe(name, plane, folder)


def find(name: str) -> Cluster:
    """Return the cluster called `name`, running or not.

    Raises:
        ClusterError: there is none.
    """
    state = cluster_dir(name)
    found = settings.load(state)
    if found is None:
        raise ClusterError(f"there is no cluster '{name}'; 'up' starts one, 'status' lists all.")
    folder = binaries.bin_dir()
    return describe(name, control_plane(state, folder, found), folder)


def stop(name: str = "api", purge: bool = False) -> None:
    """Stop the control plane called `name`; nothing happens when it does not run.

    Args:
        name: The cluster's name.
        purge: Also delete its state.

    Raises:
        ClusterError: it is part of a whole node, which `node.stop` stops.
    """
    if settings.load(cluster_dir(name)) is None:
        return
    with working_on(name) as state:
        settings.require_tier(state, "api")
        plane = find(name).plane
        plane.processes.stop("kwok")
        plane.stop()
        if purge:
            shutil.rmtree(state)


@contextmanager
def working_on(name: str) -> Iterator[Path]:
    """Lock the cluster called `name` against other runs of the command, and return its state folder."""
    state = cluster_dir(name)
    lock = state.with_name(f".{name}.lock")
    with locked(lock, f"another run is working on cluster '{name}'; waiting for it"):
        yield state


def control_plane(state: Path, folder: Path, found: Settings) -> ControlPlane:
    """Return the control plane in a state folder with its ports chosen, running or not."""
    chosen = ports.reserve(state, PORTS, keep=ControlPlane.is_running(state))
    return ControlPlane(state, folder, chosen, Address(found.services, found.gateway))


def describe(name: str, plane: ControlPlane, folder: Path) -> Cluster:
    """Return the public description of a control plane."""
    return Cluster(
        name=name,
        state=plane.state,
        server=plane.server,
        kubeconfig=plane.kubeconfig,
        ca=plane.authority.certificate,
        audit_log=plane.audit_log,
        binaries=folder,
        plane=plane,
    )
