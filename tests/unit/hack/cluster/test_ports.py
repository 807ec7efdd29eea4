"""Choice and record of a cluster's ports."""

import json
import socket
from pathlib import Path

import pytest

from cluster import ports
from cluster.errors import StartError


def _everything_is_free(_: int) -> bool:
    return True


def test_recorded_ports_are_kept_while_free() -> None:
    assert ports.choose(["a"], {"a": 25}, [], _everything_is_free, [1]) == {"a": 25}


def test_recorded_port_in_use_is_replaced() -> None:
    assert ports.choose(["a"], {"a": 25}, [], lambda port: port != 25, [25, 26]) == {"a": 26}


def test_ports_are_distinct_and_unused_by_other_clusters() -> None:
    chosen = ports.choose(["a", "b"], {}, [1, 2], _everything_is_free, [1, 2, 3, 4])
    assert chosen == {"a": 3, "b": 4}


def test_duplicate_recorded_ports_are_separated() -> None:
    assert ports.choose(["a", "b"], {"a": 5, "b": 5}, [], _everything_is_free, [6]) == {"a": 5, "b": 6}


def test_no_free_port_raises_start_error() -> None:
    with pytest.raises(StartError, match="no free TCP port"):
        ports.choose(["a"], {}, [], _everything_is_free, [])


def test_a_listening_port_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not ports.is_free(listener.getsockname()[1])


def test_reserve_records_ports_and_avoids_other_clusters(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ports.json").write_text(json.dumps({"a": 20001}))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "ports.json").write_text(json.dumps({"a": 20001}))
    first = ports.reserve(mine, ["a", "b"], keep=False)
    assert first["a"] != 20001
    assert ports.reserve(mine, ["c"], keep=False).keys() == {"a", "b", "c"}
    assert ports.reserve(mine, ["a", "b"], keep=False)["a"] == first["a"]


def test_damaged_record_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[1, 2")
    assert ports.load(tmp_path / "ports.json") == {}
