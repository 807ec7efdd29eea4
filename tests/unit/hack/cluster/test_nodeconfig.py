"""The configuration files of the node's programs."""

import dataclasses
import datetime as dt
import ipaddress
import json
import tomllib
from pathlib import Path

from cluster import kwok, node, nodeconfig
from cluster.nodeconfig import NodeFacts

FACTS = NodeFacts(
    state=Path("/state"),
    runtime=Path("/run/x"),
    pods=ipaddress.IPv4Network("10.214.0.0/16"),
    ports={"registry": 20001, "kubelet": 20002, "proxy-health": 20003, "proxy-metrics": 20004},
    cni_plugins=Path("/usr/lib/cni"),
    cgroup_v1=True,
    upstream_dns=True,
)
PAIR = (Path("/pki/node.crt"), Path("/pki/node.key"))


def test_containerd_restricts_oom_score_adj() -> None:
    cri = tomllib.loads(nodeconfig.containerd(FACTS))["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == "127.0.0.1:20001/pause:1"
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_node_keeps_no_second_copy_of_layers() -> None:
    cri = tomllib.loads(nodeconfig.containerd(FACTS))["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["containerd"]["discard_unpacked_layers"] is True


def test_volatile_state_is_outside_the_state_folder() -> None:
    assert tomllib.loads(nodeconfig.containerd(FACTS))["state"].startswith("/run/x")
    bridge = json.loads(nodeconfig.cni(FACTS))["plugins"][0]
    assert bridge["ipam"]["dataDir"].startswith("/run/x")


def test_pod_addresses_start_after_the_gateway() -> None:
    bridge = json.loads(nodeconfig.cni(FACTS))["plugins"][0]
    assert str(FACTS.gateway) == "10.214.0.1"
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.214.0.0/16", "rangeStart": "10.214.1.1"}]]


def test_registry_is_used_without_tls() -> None:
    hosts = tomllib.loads(nodeconfig.registry_hosts(FACTS))
    assert hosts["host"]["http://127.0.0.1:20001"]["capabilities"] == ["pull", "resolve"]
    assert json.loads(nodeconfig.registry(FACTS))["http"]["addr"] == "127.0.0.1:20001"


def test_kubelet_enables_cgroup_v1_only_where_present() -> None:
    on_v1 = json.loads(nodeconfig.kubelet(FACTS, Path("/ca"), PAIR))
    on_v2 = json.loads(nodeconfig.kubelet(dataclasses.replace(FACTS, cgroup_v1=False), Path("/ca"), PAIR))
    assert on_v1["failCgroupV1"] is False
    assert "failCgroupV1" not in on_v2
    assert on_v1["authentication"]["anonymous"]["enabled"] is False


def test_dns_forwards_only_with_an_upstream_server() -> None:
    lonely = dataclasses.replace(FACTS, upstream_dns=False)
    assert "forward ." in nodeconfig.corefile(FACTS, Path("/kc"))
    assert "forward ." not in nodeconfig.corefile(lonely, Path("/kc"))
    assert nodeconfig.corefile(lonely, Path("/kc")).count("{") == nodeconfig.corefile(lonely, Path("/kc")).count("}")


def test_kube_proxy_has_the_node_name() -> None:
    proxy = json.loads(nodeconfig.kube_proxy(FACTS, Path("/kc")))
    assert proxy["hostnameOverride"] == nodeconfig.NODE_NAME
    assert proxy["clusterCIDR"] == "10.214.0.0/16"


def test_other_builds_of_an_image_are_stale_under_all_names() -> None:
    digests = {
        "host:1/trainyard/trainer:new": "sha256:a",
        "host:1/trainyard/trainer:old": "sha256:b",
        "host:1/trainyard/trainer@sha256:b": "sha256:b",
        "sha256:id-of-old": "sha256:b",
        "host:1/trainyard/trainer:same-as-new": "sha256:a",
        "host:1/pause:1": "sha256:c",
    }
    stale = node.stale_images(digests, ["host:1/trainyard/trainer:new"])
    assert stale == ["host:1/trainyard/trainer:old", "host:1/trainyard/trainer@sha256:b", "sha256:id-of-old"]


def test_heartbeats_of_an_exited_kubelet_do_not_count() -> None:
    said = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    machine = {"status": {"conditions": [said]}}
    moment = dt.datetime(2026, 1, 1, 0, 0, 0, tzinfo=dt.UTC)
    assert kwok.ready(machine)
    assert kwok.ready(machine, moment)
    assert not kwok.ready(machine, moment + dt.timedelta(seconds=1))
    assert not kwok.ready({"status": {}})
