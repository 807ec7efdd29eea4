"""Configuration files of the node's programs, as text."""

import dataclasses
import ipaddress
import json
from pathlib import Path

NODE_NAME = "trainyard"
BRIDGE = "tyard0"
PORTS = ("registry", "kubelet", "proxy-health", "proxy-metrics")


@dataclasses.dataclass(frozen=True)
class NodeFacts:
    """What the configuration files depend on.

    Attributes:
        state: The cluster's state folder.
        runtime: Folder for sockets and other state that a reboot must drop.
        pods: Address range of the pods; the bridge has its first address.
        ports: One port for every name in `PORTS`.
        cni_plugins: Folder of the CNI plugins.
        cgroup_v1: The machine has cgroup v1.
        upstream_dns: The machine has a name server for names outside the cluster.
    """

    state: Path
    runtime: Path
    pods: ipaddress.IPv4Network
    ports: dict[str, int]
    cni_plugins: Path
    cgroup_v1: bool
    upstream_dns: bool

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        """The machine's address on the pods' bridge."""
        return self.pods[1]

    @property
    def registry(self) -> str:
        """Host and port of the local registry."""
        return f"127.0.0.1:{self.ports['registry']}"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens; short, because a socket's path has at most 107 characters."""
        return self.runtime / "containerd.sock"


def cni(facts: NodeFacts) -> str:
    """Return the CNI network list."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(facts.runtime / "ipam"),
            "ranges": [[{"subnet": str(facts.pods), "rangeStart": str(facts.pods[257])}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return json.dumps({"cniVersion": "0.4.0", "name": BRIDGE, "plugins": [bridge]}, indent=1)


def containerd(facts: NodeFacts) -> str:
    """Return containerd's configuration.

    `restrict_oom_score_adj`: without it runc dies where root lacks CAP_SYS_RESOURCE, as in many shared machines.
    `discard_unpacked_layers`: the registry beside it has the layers; a second copy would cost gigabytes.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{facts.state}/containerd"
state = "{facts.runtime}/containerd"
[grpc]
  address = "{facts.containerd_socket}"
[{cri}]
  sandbox_image = "{facts.registry}/pause:1"
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "{facts.cni_plugins}"
  conf_dir = "{facts.state}/cni"
[{cri}.containerd]
  discard_unpacked_layers = true
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false
[{cri}.registry]
  config_path = "{facts.state}/conf/registries"
"""


def registry_hosts(facts: NodeFacts) -> str:
    """Return the file that lets containerd pull from the local registry without TLS."""
    url = f"http://{facts.registry}"
    return f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'


def registry(facts: NodeFacts) -> str:
    """Return the local registry's configuration."""
    document = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{facts.state}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": facts.registry},
    }
    return json.dumps(document, indent=1)


def corefile(facts: NodeFacts, kubeconfig: Path) -> str:
    """Return CoreDNS's configuration."""
    forward = "  forward . /etc/resolv.conf\n" if facts.upstream_dns else ""
    return f""".:53 {{
  bind {facts.gateway}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig} local
    pods verified
  }}
{forward}  cache 30
}}
"""


def kubelet(facts: NodeFacts, ca: Path, pair: tuple[Path, Path]) -> str:
    """Return the kubelet's configuration."""
    certificate, key = map(str, pair)
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(facts.gateway),
        "port": facts.ports["kubelet"],
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{facts.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "clusterDNS": [str(facts.gateway)],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "syncFrequency": "10s",  # running pods get changed Secrets and ConfigMaps sooner than within a minute
        "evictionHard": {"memory.available": "100Mi"},
        "imageMinimumGCAge": "24h",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    if facts.cgroup_v1:
        document["failCgroupV1"] = False
    return json.dumps(document, indent=1)


def kube_proxy(facts: NodeFacts, kubeconfig: Path) -> str:
    """Return kube-proxy's configuration."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": str(facts.pods),
        "hostnameOverride": NODE_NAME,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0},
        "healthzBindAddress": f"127.0.0.1:{facts.ports['proxy-health']}",
        "metricsBindAddress": f"127.0.0.1:{facts.ports['proxy-metrics']}",
    }
    return json.dumps(document, indent=1)
