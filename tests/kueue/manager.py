"""Kueue's own manager, built from its module, beside a real control plane.

Everything is as Kueue ships it (config/default, made by kustomize): CRDs with conversion, permissions, all webhooks,
certificates it makes itself, the visibility API behind an APIService. Two things differ, since it runs as a process and
not in a pod: its Services lead to this machine by name, and the test mounts the Secret with its certificate.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cluster import binaries
from cluster.pki import kubeconfig
from tests.api.gateway_support import Kubernetes, fetch, free_port, until

Object = dict[str, Any]
SYSTEM = "kueue-system"
USER = f"system:serviceaccount:{SYSTEM}:kueue-controller-manager"
_SECRET = f"/api/v1/namespaces/{SYSTEM}/secrets/kueue-webhook-server-cert"
_VISIBILITY = "/apis/visibility.kueue.x-k8s.io/v1beta2"
_NOT_RUN = ("Deployment", "kueue-controller-manager-metrics-service", "kueue-manager-config")


class Kueue:
    """Kueue: installed by `install`, running between `start` and `kill`.

    Args:
        kubernetes: The control plane.
        folder: Where its configuration, certificates and log go.
    """

    def __init__(self, kubernetes: Kubernetes, folder: Path) -> None:
        self._kubernetes, self._client, self._folder = kubernetes, kubernetes.client, folder
        self._source = binaries.source("sigs.k8s.io/kueue", binaries.KUEUE)
        self._program = binaries.ensure([*binaries.API, "kueue"]) / "kueue"
        self._webhook, self._visibility, self._health = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[str] | None = None
        self._configuration: Object = {}

    def install(self) -> None:
        """Apply Kueue's manifests without its Deployment."""
        text = self._kubernetes.kubectl("kustomize", str(self._source / "config/default"))
        documents = [entry for entry in yaml.safe_load_all(text) if entry]
        wanted = [entry for entry in documents if not {entry["kind"], entry["metadata"]["name"]} & {*_NOT_RUN}]
        shipped = next(entry for entry in documents if entry["metadata"]["name"] == "kueue-manager-config")
        self._configuration = self._configured(yaml.safe_load(shipped["data"]["controller_manager_config.yaml"]))
        self._kubernetes.apply(*(entry for entry in wanted if entry["kind"] == "Namespace"))
        self._kubernetes.apply(*(self._leading_here(entry) for entry in wanted))

    def start(self, *gates: str, **configuration: Any) -> None:
        """Start it with feature gates and more configuration, and wait until it is ready."""
        (self._folder / "config.yaml").write_text(yaml.safe_dump(self._configuration | configuration))
        log = (self._folder / "kueue.log").open("a")
        arguments = ["--config=config.yaml", f"--kubeconfig={self._kubeconfig()}", "--zap-log-level=2"]
        arguments += [f"--feature-gates={gate}=true" for gate in gates]
        command = ["env", f"--chdir={self._folder}", str(self._program), *arguments]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
        self._mount()
        until(self._is_ready)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def restart_if_dead(self) -> None:
        """Start it if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def log(self) -> str:
        """Return its log."""
        return (self._folder / "kueue.log").read_text()

    def _configured(self, shipped: Object) -> Object:
        """Return the shipped configuration with one integration and loopback ports."""
        ours = {
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": "127.0.0.1", "port": self._webhook, "certDir": str(self._folder / "serving")},
            "visibilityServer": {"bindAddress": "127.0.0.1", "bindPort": self._visibility},
            "leaderElection": {"leaderElect": False},  # otherwise a restart waits for the lease of the killed process
            "integrations": {"frameworks": ["batch/job"]},
        }
        return shipped | ours

    def _leading_here(self, entry: Object) -> Object:
        """Return an object whose Services refer to ports of this machine."""
        spec = entry.get("spec", {})
        if entry["kind"] == "Service":
            return entry | {"spec": {"type": "ExternalName", "externalName": "localhost"}}
        if entry["kind"] == "APIService":
            spec["service"]["port"] = self._visibility
        if entry["kind"] == "CustomResourceDefinition" and "conversion" in spec:
            spec["conversion"]["webhook"]["clientConfig"]["service"]["port"] = self._webhook
        for webhook in entry.get("webhooks", []):
            webhook["clientConfig"]["service"]["port"] = self._webhook
        return entry

    def _kubeconfig(self) -> Path:
        """Write the kubeconfig of the service account of its Deployment."""
        account = USER.rsplit(":", 1)[1]
        token = self._kubernetes.kubectl("create", "token", account, "-n", SYSTEM, "--duration", "8h")
        document = json.loads(kubeconfig(self._kubernetes.cluster.server, account, "", "", ""))
        server, ca = self._kubernetes.cluster.server, str(self._kubernetes.cluster.ca)
        document["clusters"][0]["cluster"] = {"server": server, "certificate-authority": ca}
        document["users"][0]["user"] = {"token": token}
        document["contexts"][0]["context"]["namespace"] = SYSTEM
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def _mount(self) -> None:
        """Write the Secret to the certificate directory, as the kubelet mounts it."""
        data = until(lambda: self._client.get(_SECRET).get("data"))
        folder = self._folder / "serving"
        folder.mkdir(exist_ok=True)
        for name, value in data.items():
            (folder / name).write_bytes(base64.b64decode(value))

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()[-4000:]
        if fetch(self._health, "/readyz")[0] != 200:
            return False
        with contextlib.suppress(Exception):
            return self._client.exists(_VISIBILITY)
        return False
