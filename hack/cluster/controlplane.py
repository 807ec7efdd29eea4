"""Runs etcd, the API server, the controller manager and the scheduler as processes of this machine."""

import dataclasses
import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.client import Client
from cluster.pki import Authority
from cluster.processes import Processes
from cluster.shell import say, wait_until, write_atomically

PORTS = ("etcd", "etcd-peer", "apiserver", "controller-manager", "scheduler")
PROCESSES = ("etcd", "apiserver", "controller-manager", "scheduler")
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclasses.dataclass(frozen=True)
class Address:
    """Where the API server is reached.

    Attributes:
        services: Address range of the cluster's services.
        gateway: Address that pods and the kubelet reach it at; None for a control plane without a node.
    """

    services: str
    gateway: ipaddress.IPv4Address | None

    @property
    def host(self) -> str:
        """Address the API server listens on: never one that other machines reach."""
        return str(self.gateway or "127.0.0.1")

    @property
    def service(self) -> ipaddress.IPv4Address:
        """The API server's own service address: the first of the range."""
        return ipaddress.IPv4Network(self.services)[1]

    @property
    def names(self) -> list[str]:
        """Subject alternative names of the server's certificate."""
        parts = ["kubernetes", "default", "svc", "cluster", "local"]
        dns = [".".join(parts[:count]) for count in (1, 2, 3, 5)]
        hosts = ["127.0.0.1", str(self.service), *([str(self.gateway)] if self.gateway else [])]
        return [*(f"DNS:{name}" for name in [*dns, "localhost"]), *(f"IP:{host}" for host in hosts)]


class ControlPlane:
    """The control plane of one cluster.

    Args:
        state: The cluster's state folder.
        binaries: Folder of the programs.
        ports: One port for every name in `PORTS`.
        address: Where the API server is reached.
    """

    def __init__(self, state: Path, binaries: Path, ports: dict[str, int], address: Address) -> None:
        self.state = state
        self.server = f"https://{address.host}:{ports['apiserver']}"
        self.kubeconfig = state / "kubeconfig"
        self.audit_log = state / "logs" / "audit.jsonl"
        self.authority = Authority(state / "pki")
        self.processes = Processes(state)
        self._binaries = binaries
        self._ports = ports
        self._address = address

    @staticmethod
    def is_running(state: Path) -> bool:
        """Return whether any part of the control plane in a state folder runs."""
        processes = Processes(state)
        return any(processes.pid(name) is not None for name in PROCESSES)

    def client(self) -> Client:
        """Return a client with every permission."""
        pair = self.authority.issue("admin", "/O=system:masters/CN=admin")
        return Client(self.server, self.authority.certificate, pair)

    def user(self, name: str, subject: str) -> Path:
        """Return the path of a kubeconfig for a component."""
        return self.authority.kubeconfig(self.state / "conf" / f"{name}.kubeconfig", self.server, name, subject)

    def start(self, more: Mapping[str, Sequence[str]] | None = None, first: Callable[[], None] = lambda: None) -> None:
        """Start what does not run yet and wait until the API server is ready.

        Args:
            more: Further words for the command lines of parts, by their names.
            first: Called when the API server answers, before the controllers start.

        Raises:
            StartError: it did not become ready; the text has the failing part's last lines.
        """
        self.authority.kubeconfig(self.kubeconfig, self.server, "admin", "/O=system:masters/CN=admin")
        write_atomically(self.state / "conf" / "audit.json", json.dumps(AUDIT_POLICY))
        self.processes.forget_dead()
        if not self.is_running(self.state):
            say(f"starting the control plane '{self.state.name}' (4 to 10 s)")
        more = more or {}
        self.processes.start("etcd", [*self.etcd(), *more.get("etcd", ())])
        self.processes.start("apiserver", [*self.apiserver(), *more.get("apiserver", ())])
        client = self.client()
        wait_until(lambda: self._alive() and client.ready(), 300, "the API server becoming ready", self._hint)
        if self.processes.pid("controller-manager") is None:
            first()
        self.processes.start("controller-manager", [*self.controller_manager(), *more.get("controller-manager", ())])
        self.processes.start("scheduler", [*self.scheduler(), *more.get("scheduler", ())])
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: self._alive() and client.exists(path), 300, "the default service account", self._hint)

    def stop(self) -> None:
        """Stop all parts, clients before the servers they use."""
        for name in reversed(PROCESSES):
            self.processes.stop(name)

    @property
    def etcd_url(self) -> str:
        """URL of etcd on this machine, without TLS and authentication."""
        return f"http://127.0.0.1:{self._ports['etcd']}"

    def etcd(self) -> list[str]:
        """Return etcd's command line.

        fsync is off: on a busy disk it takes seconds, and requests and Leases time out. A killed etcd loses nothing;
        a power loss of the machine may lose writes.
        """
        client, peer = self.etcd_url, f"http://127.0.0.1:{self._ports['etcd-peer']}"
        return [
            str(self._binaries / "etcd"),
            f"--data-dir={self.state / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
            "--unsafe-no-fsync",
        ]

    def apiserver(self) -> list[str]:
        """Return the API server's command line."""
        certificate, key = self.authority.issue("apiserver", "/CN=kube-apiserver", self._address.names)
        private, public = self.authority.signing_pair("service-accounts")
        return [
            str(self._binaries / "kube-apiserver"),
            f"--etcd-servers={self.etcd_url}",
            f"--secure-port={self._ports['apiserver']}",
            *self._listen(),
            f"--service-cluster-ip-range={self._address.services}",
            f"--client-ca-file={self.authority.certificate}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            *self._aggregation(),
            f"--audit-policy-file={self.state / 'conf' / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=2",
        ]

    def _aggregation(self) -> list[str]:
        """Return the options of request header authentication to aggregated API servers, with a separate authority."""
        front = Authority(self.state / "pki" / "front-proxy")
        certificate, key = front.issue("client", "/CN=front-proxy-client")
        return [
            f"--requestheader-client-ca-file={front.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={certificate}",
            f"--proxy-client-key-file={key}",
        ]

    def controller_manager(self) -> list[str]:
        """Return the controller manager's command line."""
        private, _ = self.authority.signing_pair("service-accounts")
        return [
            *self._component("controller-manager", "system:kube-controller-manager"),
            f"--service-account-private-key-file={private}",
            f"--root-ca-file={self.authority.certificate}",
            "--use-service-account-credentials=true",
            f"--cluster-signing-cert-file={self.authority.certificate}",
            f"--cluster-signing-key-file={self.authority.key}",
        ]

    def scheduler(self) -> list[str]:
        """Return the scheduler's command line.

        With a real node, the backoff of unschedulable pods is at most a second instead of ten. One node is often full,
        and pods that waited long would otherwise lose their turn to newer ones.
        """
        command = self._component("scheduler", "system:kube-scheduler")
        if self._address.gateway is None:
            return command
        document = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(self.user("scheduler", "/CN=system:kube-scheduler"))},
            "podMaxBackoffSeconds": 1,
        }
        path = self.state / "conf" / "scheduler.json"
        write_atomically(path, json.dumps(document, indent=1))
        return [*command, f"--config={path}"]

    def _component(self, name: str, user: str) -> list[str]:
        kubeconfig = self.user(name, f"/CN={user}")
        return [
            str(self._binaries / f"kube-{name}"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--secure-port={self._ports[name]}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ]

    def _listen(self) -> list[str]:
        listen = [f"--bind-address={self._address.host}", f"--advertise-address={self._address.host}"]
        if self._address.gateway is None:
            return [*listen, "--endpoint-reconciler-type=none"]
        certificate, key = self.authority.issue("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        return [
            *listen,
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
        ]

    def _alive(self) -> bool:
        for name in PROCESSES:
            if name in self.processes.names():
                self.processes.require(name)
        return True

    def _hint(self) -> str:
        return f"Last lines of the API server:\n{self.processes.last_lines('apiserver')}"
