"""Membership of a process, from the variables that launchers set."""

import pytest

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.group.membership import Node, local_members, membership, this_node


def test_process_without_launcher_has_no_membership() -> None:
    assert membership({"WORLD_SIZE": "2", "PATH": "/bin"}) is None


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_environment_of_a_member_restores_its_membership(processes: int) -> None:
    members = local_members(processes, Node(port=29500))
    assert [member.rank for member in members] == list(range(processes))
    assert [membership(member.environ()) for member in members] == members
    assert all(member.environ()["GLOO_SOCKET_IFNAME"] == "lo" for member in members)


NODE_VARIABLES = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "job-0.job", "MASTER_PORT": "29400"}


def test_node_is_read_from_the_environment() -> None:
    node = this_node(2, NODE_VARIABLES)
    assert node == Node(index=1, count=2, address="job-0.job", port=29400, interface=None)
    assert this_node(1, {"PATH": "/bin"}) is None
    assert this_node(1, NODE_VARIABLES | {"NNODES": "1"}) is None
    first, second = local_members(2, node)
    assert ((first.rank, first.local_rank), (second.rank, second.local_rank)) == ((2, 0), (3, 1))
    assert (second.world_size, second.local_world_size) == (4, 2)
    assert (second.master_address, second.master_port) == ("job-0.job", 29400)
    assert "GLOO_SOCKET_IFNAME" not in second.environ()


def test_interface_of_the_environment_is_used() -> None:
    node = this_node(2, NODE_VARIABLES | {"GLOO_SOCKET_IFNAME": "ib0"})
    assert node is not None
    assert local_members(1, node)[0].environ()["GLOO_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("nodes", "change", "sentence"),
    [
        (3, {}, "NNODES is 2, but the run config's nodes is 3"),
        (2, {"NNODES": None}, "NNODES is not set, but the run config's nodes is 2"),
        (2, {"NODE_RANK": "2"}, "NODE_RANK is 2, but NNODES is 2"),
        (2, {"NODE_RANK": None}, "NODE_RANK is None, but must be a whole number"),
        (2, {"MASTER_PORT": "x"}, "MASTER_PORT is 'x', but must be a whole number"),
        (2, {"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
    ],
)
def test_invalid_node_variables_are_refused(nodes: int, change: dict[str, str | None], sentence: str) -> None:
    environ = {name: value for name, value in (NODE_VARIABLES | change).items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        this_node(nodes, environ)
    assert sentence in caught.value.message
    assert "NNODES" in caught.value.advice


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"RANK": "one"}, "LOCAL_RANK, WORLD_SIZE and MASTER_PORT together"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_PORT is None"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "WORLD_SIZE is ''"),
    ],
)
def test_incomplete_process_variables_are_refused(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        membership(environ)
    assert sentence in f"{caught.value.message} {caught.value.advice}"
