"""A recorded process is ours only if pid, start time and boot id match."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import StartError
from cluster.processes import Processes, identify, stat_fields
from tests.unit.timeouts import TIMEOUT, wait_until

SLEEP = ["sleep", str(2 * TIMEOUT)]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    for name in processes.names():
        processes.stop(name)


def let_end(processes: Processes, name: str, script: str, tmp_path: Path) -> None:
    """Start a process that exits after it is recorded, and wait for its exit."""
    known = tmp_path / "known"
    known.unlink(missing_ok=True)
    waiting = f"until test -e '{known}'; do sleep 0.02; done"
    pid = processes.start(name, ["sh", "-c", f"{waiting}; {script}"])
    known.touch()
    wait_until(lambda: identify(pid) is None)


def test_stat_fields_with_brackets_and_blanks_in_the_command() -> None:
    assert stat_fields("12 (a) (b c) S 1 12 12") == ["S", "1", "12", "12"]


def test_identity_of_this_process_is_stable() -> None:
    assert identify(os.getpid()) == identify(os.getpid())


def test_zombie_and_missing_process_have_no_identity(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (gone) Z " + "0 " * 40)
    assert identify(7, tmp_path) is None
    assert identify(8, tmp_path) is None


def test_start_find_and_stop(processes: Processes, tmp_path: Path) -> None:
    pid = processes.start("sleeper", SLEEP)
    assert processes.start("sleeper", SLEEP) == pid, "a second start finds the first"
    assert Processes(tmp_path).pid("sleeper") == pid, "another run of the command finds it"
    processes.stop("sleeper")
    assert identify(pid) is None
    assert processes.pid("sleeper") is None
    assert processes.names() == []


def test_process_with_a_reused_pid_is_not_stopped(processes: Processes, tmp_path: Path) -> None:
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


def test_damaged_record_counts_as_not_running(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.json").write_text('{"pid": ')
    assert Processes(tmp_path).pid("x") is None


def test_exited_process_is_reported_with_its_last_lines(processes: Processes, tmp_path: Path) -> None:
    let_end(processes, "fails", "echo no such thing; exit 3", tmp_path)
    with pytest.raises(StartError, match="no such thing"):
        processes.require("fails")


def test_crash_leaves_records_and_forget_dead_keeps_running_ones(processes: Processes) -> None:
    pids = [processes.start(name, SLEEP) for name in ("dies", "lives")]
    processes.crash(["dies"])
    assert processes.names() == ["dies", "lives"]
    processes.forget_dead()
    assert processes.names() == ["lives"]
    assert processes.pid("lives") == pids[1]
    processes.stop("lives")


def test_missing_program_raises_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="ghost could not be started from '/nowhere/ghost'"):
        Processes(tmp_path).start("ghost", ["/nowhere/ghost"])


def test_previous_log_is_kept(processes: Processes, tmp_path: Path) -> None:
    for word in ("first", "second"):
        let_end(processes, "says", f"echo {word}", tmp_path)
    assert "second" in processes.last_lines("says")
    assert "first" in (tmp_path / "logs" / "says.before.log").read_text()
