"""Address ranges and the removal of firewall rules."""

import pytest

from cluster import network
from cluster.errors import StartError

SAVED = r"""*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-aaa - [0:0]
:CNI-foreign - [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j DOCKER
-A POSTROUTING -s 10.214.1.1/32 -m comment --comment "name: \"tyard0\" id: \"1f\"" -j CNI-aaa
-A POSTROUTING -s 10.1.1.1/32 -m comment --comment "name: \"podman\" id: \"2f\"" -j CNI-foreign
-A CNI-aaa -d 10.214.0.0/16 -m comment --comment "name: \"tyard0\" id: \"1f\"" -j ACCEPT
-A CNI-aaa ! -d 224.0.0.0/4 -m comment --comment "name: \"tyard0\" id: \"1f\"" -j MASQUERADE
-A KUBE-SERVICES -j KUBE-SVC-X
COMMIT
"""


def test_removal_deletes_only_our_chains_and_jumps_to_them() -> None:
    script = network.removal(SAVED, "nat").splitlines()
    assert script[0] == "*nat"
    assert script[-1] == "COMMIT"
    assert [line for line in script if line.startswith("-X")] == ["-X CNI-aaa", "-X KUBE-SERVICES", "-X KUBE-SVC-X"]
    deleted = [line for line in script if line.startswith("-D")]
    assert len(deleted) == 2
    assert deleted[0].endswith("-j KUBE-SERVICES")
    assert deleted[1].endswith("-j CNI-aaa")
    assert not any("foreign" in line or "DOCKER" in line for line in script)


def test_chains_are_flushed_before_deletion() -> None:
    script = network.removal(SAVED, "nat").splitlines()
    assert script.index(":KUBE-SVC-X - [0:0]") < script.index("-X KUBE-SVC-X")


def test_removal_is_empty_without_our_chains() -> None:
    assert network.removal("*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n", "nat") == ""


def test_ranges_avoid_existing_routes() -> None:
    pods, services = network.choose_ranges(["10.214.3.0/24", "10.205.0.1", "192.168.0.0/16"])
    assert (str(pods), str(services)) == ("10.194.0.0/16", "10.195.0.0/16")


def test_no_free_range_raises_start_error() -> None:
    with pytest.raises(StartError, match="all address ranges"):
        network.choose_ranges(["10.0.0.0/8"])
