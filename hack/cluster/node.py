"""The bare node: a kubelet with containerd, network, DNS, registry and volumes on this machine, as root."""

import contextlib
import datetime as dt
import ipaddress
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from cluster import (
    api,
    binaries,
    controlplane,
    kwok,
    network,
    node_daemon,
    nodeconfig,
    packages,
    pods,
    ports,
    settings,
    storage,
)
from cluster.api import Cluster
from cluster.controlplane import ControlPlane
from cluster.errors import ClusterError, StartError
from cluster.nodeconfig import NODE_NAME, NodeFacts
from cluster.paths import ROOT, cluster_dir
from cluster.processes import Processes
from cluster.registry import Registry
from cluster.settings import Settings
from cluster.shell import run, say, wait_until, write_atomically

_TOO_EARLY = "server is not initialized yet"
"""Error of containerd to the kubelet until its plugins are loaded."""
PROCESSES = ("registry", "containerd", "kubelet", "kube-proxy", "coredns", "node-daemon")
"""In the order in which they start."""
_NODE = f"/api/v1/nodes/{NODE_NAME}"
_PROXY_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "local-kube-proxy"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
}


class Node:
    """The node's processes beside a control plane.

    Args:
        plane: The control plane.
        folder: Folder of the programs.
        facts: What the configuration depends on.
    """

    def __init__(self, plane: ControlPlane, folder: Path, facts: NodeFacts) -> None:
        self.facts = facts
        self.plane = plane
        self._processes = plane.processes
        self._folder = folder

    def start(self) -> None:
        """Start what does not run yet and wait until the node is ready.

        Raises:
            StartError: a part did not start; the text has its last lines.
        """
        client = self.plane.client()
        self._configure()
        begun = None if self._processes.pid("kubelet") else dt.datetime.now(dt.UTC).replace(microsecond=0)
        for name, command in self._commands().items():
            self._processes.start(name, command, self._environment())
            if name == "registry":
                wait_until(self._registry_listens, 120, "the registry listening")
                self._publish_pause()
            elif name == "containerd":
                wait_until(self._containerd_listens, 120, "containerd listening")  # the kubelet exits without it
            elif name == "kubelet":
                wait_until(partial(self._kubelet_listens, command), 300, "the kubelet listening", self._hint)
        client.apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/local-kube-proxy", _PROXY_BINDING)
        storage.offer(client, self.facts.state / "volumes")
        wait_until(lambda: self._is_ready(begun), 300, f"node '{NODE_NAME}' becoming ready", self._hint)

    def kill(self, names: Iterable[str] = PROCESSES) -> None:
        """Kill processes of the node as a crash would; their pods run on. `start` brings them back."""
        for name in names:
            self._processes.stop(name, sig=signal.SIGKILL)

    def restart(self) -> None:
        """Kill all processes of the node and start them again."""
        self.kill()
        self.start()

    def forget_images(self, references: Iterable[str]) -> None:
        """Remove other builds of images from the node; a pod that uses one pulls it again.

        Only worth it when the dependencies changed: builds that share them share nearly all of their disk, too.

        Args:
            references: The builds to keep.
        """
        keep = list(references)
        ctr = ["ctr", f"--address={self.facts.containerd_socket}", "--namespace=k8s.io", "images"]
        listed = [line.split()[:3] for line in run([*ctr, "list"]).splitlines()[1:]]
        old = stale_images({row[0]: row[2] for row in listed}, keep)
        if old:
            run([*ctr, "remove", *old])

    def stop(self, grace_seconds: float = 10) -> None:
        """Stop the node as a shutdown of the machine would: its pods get SIGTERM, then SIGKILL, and nothing is left.

        Args:
            grace_seconds: Time that the pods get.
        """
        for name in ("node-daemon", "kubelet", "kube-proxy", "coredns"):
            self._processes.stop(name)
        pods.stop_all(self.facts.containerd_socket, grace_seconds)
        for name in ("containerd", "registry"):
            self._processes.stop(name)
        self._forget()

    def reboot(self) -> None:
        """Cut the machine's power and switch it on again: this node is the whole cluster, its control plane included.

        Every process is killed at once, those in the pods too, so that no process sees another one end. In-memory state
        is dropped: sockets, mounts (memory-backed volumes, tokens), network namespaces, addresses, firewall rules.
        Files stay, also those that were written but not synced: a loss of the disk's cache is not part of it.

        Raises:
            StartError: a part did not start again; the text has its last lines.
        """
        self._processes.crash((*PROCESSES, *controlplane.PROCESSES))
        self.clear_remains()
        network.add_bridge(self.facts.gateway, self.facts.pods.prefixlen)
        self.plane.start()
        self.start()

    def clear_remains(self) -> None:
        """Drop what a node left behind that ended without `stop`: processes killed, or a power-off.

        Does nothing while any part of it runs.
        """
        if not any(self._processes.pid(name) for name in (*PROCESSES, *controlplane.PROCESSES)):
            pods.kill_all(self.facts.containerd_socket)
            self._forget()
            network.remove_bridge()
            network.remove_rules()

    def _forget(self) -> None:
        """Drop the state that a power-off loses."""
        pods.remove_networks()
        pods.unmount_under([self.facts.state, self.facts.runtime])
        pods.remove_cgroups()
        shutil.rmtree(self.facts.runtime, ignore_errors=True)

    def _configure(self) -> None:
        facts, conf = self.facts, self.facts.state / "conf"
        facts.runtime.mkdir(parents=True, exist_ok=True, mode=0o711)
        serving = self.plane.authority.issue(
            "node", f"/O=system:nodes/CN=system:node:{NODE_NAME}", [f"DNS:{NODE_NAME}", f"IP:{facts.gateway}"]
        )
        self.plane.user("kubelet", f"/O=system:nodes/CN=system:node:{NODE_NAME}")
        proxy = self.plane.user("kube-proxy", "/CN=system:kube-proxy")
        files = {
            facts.state / "cni" / f"10-{nodeconfig.BRIDGE}.conflist": nodeconfig.cni(facts),
            conf / "registries" / facts.registry / "hosts.toml": nodeconfig.registry_hosts(facts),
            conf / "containerd.toml": nodeconfig.containerd(facts),
            conf / "registry.json": nodeconfig.registry(facts),
            conf / "Corefile": nodeconfig.corefile(facts, self.plane.kubeconfig),
            conf / "kubelet.json": nodeconfig.kubelet(facts, self.plane.authority.certificate, serving),
            conf / "kube-proxy.json": nodeconfig.kube_proxy(facts, proxy),
        }
        for path, text in files.items():
            write_atomically(path, text)

    def _commands(self) -> dict[str, list[str]]:
        conf = self.facts.state / "conf"
        kubelet = self.facts.state / "kubelet"
        commands: dict[str, list[str | Path]] = {
            "registry": [self._folder / "registry", "serve", conf / "registry.json"],
            "containerd": ["containerd", "--config", conf / "containerd.toml", "--log-level=warn"],
            "kubelet": [
                self._folder / "kubelet",
                f"--config={conf / 'kubelet.json'}",
                f"--kubeconfig={conf / 'kubelet.kubeconfig'}",
                f"--hostname-override={NODE_NAME}",
                f"--root-dir={kubelet}",
                f"--cert-dir={kubelet / 'pki'}",
                f"--node-ip={self.facts.gateway}",
            ],
            "kube-proxy": [self._folder / "kube-proxy", f"--config={conf / 'kube-proxy.json'}"],
            "coredns": [self._folder / "coredns", "-conf", conf / "Corefile"],
            "node-daemon": [sys.executable, "-m", "cluster.node_daemon", self.facts.state.name],
        }
        return {name: [str(part) for part in command] for name, command in commands.items()}

    def _registry_listens(self) -> bool:
        self._processes.require("registry")
        return not ports.is_free(self.facts.ports["registry"])

    def _containerd_listens(self) -> bool:
        self._processes.require("containerd")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.facts.containerd_socket))
            return True
        return False

    def _kubelet_listens(self, command: list[str]) -> bool:
        # On a busy machine containerd listens some time before it serves requests; the kubelet exits then, too.
        # The pid is read once: a kubelet that exits between two reads would count as failed for another reason.
        if self._processes.pid("kubelet") is None:
            if _TOO_EARLY not in self._processes.last_lines("kubelet"):
                self._processes.require("kubelet")
            self._processes.start("kubelet", command, self._environment())
            return False
        return not ports.is_free(self.facts.ports["kubelet"])

    def _publish_pause(self) -> None:
        registry = Registry(self.facts.registry)
        if not registry.has("pause", "1"):
            registry.publish_program(self._folder / "pause", "pause", "1")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "PYTHONPATH": f"{ROOT / 'hack'}:{ROOT / 'kube'}",
        }

    def _is_ready(self, since: dt.datetime | None) -> bool:
        for name in PROCESSES:
            self._processes.require(name)
        client = self.plane.client()
        if not client.exists(_NODE):
            return False
        node = client.get(_NODE)
        found = settings.load(self.facts.state)
        gpus = node["status"].get("allocatable", {}).get(node_daemon.GPU, "0")
        return kwok.ready(node, since) and gpus == str(found.fake_gpus if found else 0)

    def _hint(self) -> str:
        return f"Last lines of the kubelet:\n{self._processes.last_lines('kubelet')}"


def start(name: str = "node", *, fake_gpus: int | None = None) -> tuple[Cluster, Node]:
    """Start a whole node, or find it running, and wait until it is ready.

    One per network namespace, because kube-proxy's firewall chains are global.

    Args:
        name: The cluster's name; its state is kept under it.
        fake_gpus: GPUs that the node pretends to have; None keeps what it had, 0 at first.

    Raises:
        ClusterError: this machine cannot run a node, or a part did not start.
    """
    if os.geteuid() != 0:
        raise StartError("a node needs root: run as root, or use 'up --api-only', which does not.")
    packages.ensure(packages.NODE | packages.IMAGES)
    folder = binaries.ensure([*binaries.NODE, "helm"])
    with api.working_on(name) as state:
        if not ControlPlane.is_running(state):
            Processes(state).crash(PROCESSES)  # surviving parts hold ports that are chosen again
        found = _settings(state, fake_gpus)
        gateway = found.gateway
        assert gateway is not None
        node = _node(state, folder, found)
        node.clear_remains()
        network.add_bridge(gateway, 16)
        node.plane.start()
        say(f"starting node '{NODE_NAME}' with Kubernetes {binaries.KUBERNETES} (10 to 20 s)")
        node.start()
    return api.describe(name, node.plane, folder), node


def find(name: str = "node") -> tuple[Cluster, Node]:
    """Return the bare node called `name`, running or not.

    Raises:
        ClusterError: there is none.
    """
    cluster = api.find(name)
    found = settings.load(cluster.state)
    if found is None or found.tier != "node":
        raise ClusterError(f"cluster '{name}' has no bare node.")
    return cluster, _node(cluster.state, cluster.binaries, found)


def reboot(name: str = "node") -> None:
    """Cut a whole node's power and switch it on again.

    Args:
        name: The cluster's name.

    Raises:
        ClusterError: there is no such node, it does not run, or a part did not start again.
    """
    with api.working_on(name) as state:
        cluster, node = find(name)
        if not ControlPlane.is_running(state):
            raise StartError(f"node '{name}' does not run; start it by 'up --name {name}'.")
        say(f"rebooting the node '{cluster.name}' (15 to 40 s)")
        node.reboot()


def stop(name: str = "node", purge: bool = False) -> None:
    """Stop a whole node and leave no process, mount, bridge, network namespace or firewall rule.

    Args:
        name: The cluster's name; nothing happens when there is none.
        purge: Also delete its state: objects, volumes, images.
    """
    if settings.load(cluster_dir(name)) is None:
        return
    with api.working_on(name) as state:
        cluster, node = find(name)
        say("stopping the node (5 to 20 s)")
        node.stop()
        cluster.plane.stop()
        network.remove_bridge()
        network.remove_rules()
        if purge:
            shutil.rmtree(state)


def stale_images(digests: dict[str, str], keep: Sequence[str]) -> list[str]:
    """Return the names of a node's images that are other builds of the ones to keep.

    Args:
        digests: Manifest digest by name; containerd lists an image by tag, by digest and by its id.
        keep: References with a tag.
    """
    kept = {digests[name] for name in keep if name in digests}
    repositories = tuple(f"{name.rpartition(':')[0]}:" for name in keep)
    old = {digest for name, digest in digests.items() if name.startswith(repositories)} - kept
    return sorted(name for name, digest in digests.items() if digest in old)


def _settings(state: Path, fake_gpus: int | None) -> Settings:
    settings.require_tier(state, "node")
    found = settings.load(state)
    if ControlPlane.is_running(state) and found:
        return settings.save(state, _with_gpus(found, fake_gpus))
    _require_alone(state)
    if found is None:
        pod_range, services = network.choose_ranges(network.routes())
        found = Settings("node", pods=str(pod_range), services=str(services))
    return settings.save(state, _with_gpus(found, fake_gpus))


def _with_gpus(found: Settings, fake_gpus: int | None) -> Settings:
    count = found.fake_gpus if fake_gpus is None else fake_gpus
    return Settings(found.tier, found.pods, found.services, count)


def _require_alone(state: Path) -> None:
    for other in state.parent.glob("*/cluster.json"):
        found = settings.load(other.parent)
        if other.parent != state and found and found.tier == "node" and ControlPlane.is_running(other.parent):
            raise StartError(
                f"node '{other.parent.name}' runs on this machine already, and there is room for one: "
                f"use it, or take it down by 'down --name {other.parent.name}'."
            )
    if network.has_foreign_rules() and not (state / "run").exists():
        raise StartError("another Kubernetes has its firewall chains on this machine; a second node would break it.")


def _node(state: Path, folder: Path, found: Settings) -> Node:
    resolv = Path("/etc/resolv.conf")
    facts = NodeFacts(
        state=state,
        runtime=Path("/run/trainyard") / state.name,
        pods=ipaddress.IPv4Network(found.pods),
        ports=ports.reserve(state, nodeconfig.PORTS, keep=ControlPlane.is_running(state)),
        cni_plugins=packages.CNI_PLUGINS,
        cgroup_v1=not Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        upstream_dns=resolv.exists() and "nameserver" in resolv.read_text(),
    )
    return Node(api.control_plane(state, folder, found), folder, facts)
