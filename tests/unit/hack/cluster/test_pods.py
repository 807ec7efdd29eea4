"""Processes, networks and cgroups of the node's pods."""

import json
from pathlib import Path

from cluster import pods

NOTE = {
    "kind": "cniCacheV1",
    "containerId": "1f",
    "result": {
        "interfaces": [
            {"name": "tyard0", "mac": "00"},
            {"name": "veth1", "mac": "00"},
            {"name": "eth0", "mac": "00", "sandbox": "/var/run/netns/cni-1"},
        ]
    },
}


def test_network_namespace_is_read_from_the_result() -> None:
    assert pods.namespaces_in(json.dumps(NOTE)) == ["cni-1"]


def test_damaged_note_has_no_namespaces() -> None:
    assert pods.namespaces_in("{") == []
    assert pods.namespaces_in("{}") == []


def test_all_notes_of_our_containers_are_removed(tmp_path: Path) -> None:
    for name in ("tyard0-1f-eth0", "cni-loopback-1f-lo", "podman-2f-eth0", "cni-loopback-2f-lo"):
        (tmp_path / name).write_text("{}")
    pods.remove_networks(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cni-loopback-2f-lo", "podman-2f-eth0"]


def test_containers_without_a_shim_are_found_by_network(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot")
    (tmp_path / "netns").mkdir()
    for name in ("cni-1", "cni-2"):
        (tmp_path / "netns" / name).touch()
    for pid, name in ((10, "cni-1"), (11, "cni-2")):
        (tmp_path / str(pid) / "ns").mkdir(parents=True)
        (tmp_path / str(pid) / "ns" / "net").hardlink_to(tmp_path / "netns" / name)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S 1 " + "7 " * 40)
    found = pods.find_in_networks(["cni-1", "gone"], tmp_path / "netns", tmp_path)
    assert [process.pid for process in found] == [10]


def test_shims_are_found_by_their_socket(tmp_path: Path) -> None:
    boot = tmp_path / "sys" / "kernel" / "random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("boot")
    lines = {
        10: ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", "/run/ours.sock"],
        11: ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", "/run/other.sock"],
        12: ["less", "/run/ours.sock"],
    }
    for pid, words in lines.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join(words).encode())
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S 1 " + "7 " * 40)
    assert [shim.pid for shim in pods.find_shims(Path("/run/ours.sock"), tmp_path)] == [10]


def test_empty_cgroups_are_removed_bottom_up(tmp_path: Path) -> None:
    for name in ("cpu/kubepods/burstable/pod1", "memory/kubepods", "cpu/system"):
        (tmp_path / name).mkdir(parents=True)
    pods.remove_cgroups(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["cpu", "cpu/system", "memory"]
