"""A process is ours only if pid, start time and boot agree."""

import json
import os
from pathlib import Path

import pytest

from cluster.errors import StartError
from cluster.processes import Processes, identify, stat_fields
from cluster.shell import wait_until

SLEEP = ["sleep", "60"]


def wait_for_end(pid: int) -> None:
    wait_until(lambda: identify(pid) is None, 5, "the end of the process")


def test_stat_of_a_program_with_brackets_and_blanks_in_its_name() -> None:
    assert stat_fields("12 (a) (b c) S 1 12 12") == ["S", "1", "12", "12"]


def test_identity_of_this_process_is_stable() -> None:
    assert identify(os.getpid()) == identify(os.getpid())


def test_a_zombie_and_a_missing_process_have_no_identity(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (gone) Z " + "0 " * 40)
    assert identify(7, tmp_path) is None
    assert identify(8, tmp_path) is None


def test_start_finds_stop(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    pid = processes.start("sleeper", SLEEP)
    assert processes.start("sleeper", SLEEP) == pid, "a second start finds the first"
    assert Processes(tmp_path).pid("sleeper") == pid, "another run of the command finds it"
    processes.stop("sleeper")
    assert identify(pid) is None
    assert processes.pid("sleeper") is None
    assert processes.names() == []


def test_a_foreign_process_with_the_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    pid = processes.start("sleeper", SLEEP)
    record = tmp_path / "run" / "sleeper.json"
    honest = record.read_text()
    for wrong in ({"started": 1}, {"boot": "another boot"}):
        record.write_text(json.dumps(json.loads(honest) | wrong))
        assert processes.pid("sleeper") is None
        processes.stop("sleeper")
        assert identify(pid) is not None
    record.write_text(honest)
    processes.stop("sleeper")


def test_a_damaged_record_counts_as_not_running(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.json").write_text('{"pid": ')
    assert Processes(tmp_path).pid("x") is None


def test_a_process_that_ended_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    pid = processes.start("fails", ["sh", "-c", "sleep 0.1; echo no such thing; exit 3"])
    wait_for_end(pid)
    with pytest.raises(StartError, match="no such thing"):
        processes.require("fails")


def test_a_crash_leaves_records_that_can_be_forgotten_and_a_running_process_keeps_its_own(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    pids = [processes.start(name, ["sleep", "60"]) for name in ("dies", "lives")]
    processes.crash(["dies"])
    assert processes.names() == ["dies", "lives"]
    processes.forget_dead()
    assert processes.names() == ["lives"]
    assert processes.pid("lives") == pids[1]
    processes.stop("lives")


def test_a_program_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="ghost could not be started from '/nowhere/ghost'"):
        Processes(tmp_path).start("ghost", ["/nowhere/ghost"])


def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    for word in ("first", "second"):
        pid = processes.start("says", ["sh", "-c", f"sleep 0.1; echo {word}"])
        wait_for_end(pid)
    assert "second" in processes.last_lines("says")
    assert "first" in (tmp_path / "logs" / "says.before.log").read_text()
