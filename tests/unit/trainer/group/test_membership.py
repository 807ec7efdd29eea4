"""A process's place in its group, from the variables every launcher sets."""

import pytest

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.group.membership import local_members, membership


def test_a_process_that_was_started_alone_has_no_place() -> None:
    assert membership({"WORLD_SIZE": "2", "PATH": "/bin"}) is None


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_a_launcher_tells_each_process_its_place(processes: int) -> None:
    members = local_members(processes, {}, free_port=29500)
    assert [member.rank for member in members] == list(range(processes))
    assert [membership(member.environ()) for member in members] == members
    assert all(member.environ()["GLOO_SOCKET_IFNAME"] == "lo" for member in members)


def test_nodes_meet_where_the_environment_says() -> None:
    environ = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "job-0.job", "MASTER_PORT": "29400"}
    first, second = local_members(2, environ, free_port=1)
    assert ((first.rank, first.local_rank), (second.rank, second.local_rank)) == ((2, 0), (3, 1))
    assert (second.world_size, second.local_world_size) == (4, 2)
    assert (second.master_address, second.master_port) == ("job-0.job", 29400)
    assert "GLOO_SOCKET_IFNAME" not in second.environ()


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"RANK": "one"}, "LOCAL_RANK, WORLD_SIZE and MASTER_PORT together"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_PORT is None"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "WORLD_SIZE is ''"),
    ],
)
def test_half_a_place_is_a_mistake(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        membership(environ)
    assert sentence in f"{caught.value.message} {caught.value.advice}"
