"""The launcher, with small processes instead of trainers."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.unit.timeouts import TIMEOUT, wait_until
from tests.unit.trainer.group.launching import Body, fork_start, is_running, wait_for_exit, wait_for_stop
from trainyard_crds.report import Termination
from trainyard_trainer.group import launcher
from trainyard_trainer.group.launcher import launch
from trainyard_trainer.group.membership import Membership
from trainyard_trainer.stop import StopFlag


def run(body: Body, directory: Path, *, processes: int = 2, stop: StopFlag | None = None) -> Termination:
    stop = stop or StopFlag()
    found = launch(processes, stop=stop, environ={}, start=fork_start(body, directory))
    for rank in range(processes):
        with pytest.raises(ProcessLookupError):
            os.kill(int((directory / str(rank)).read_text()), 0)
    return found


def test_launcher_waits_for_all_processes(tmp_path: Path) -> None:
    found = run(lambda member, _stop: 0 if member.rank == 0 else wait_for_exit(tmp_path / "0"), tmp_path, processes=3)
    assert (found.exit_code, found.message) == (0, "of 0")


def test_rendezvous_port_is_reserved_before_rank_0_listens(tmp_path: Path) -> None:
    def body(member: Membership, _stop: StopFlag) -> int:
        address = (member.master_address, member.master_port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
        with socket.create_server(address):
            return 0

    assert run(body, tmp_path, processes=1).exit_code == 0


@pytest.fixture
def handlers() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.3])
def test_sigterm_is_forwarded_at_any_instant(tmp_path: Path, seconds: float) -> None:
    stop = StopFlag()
    stop.install()
    signal.signal(signal.SIGALRM, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, seconds or 1e-6)
    found = run(lambda _member, own: wait_for_stop(own), tmp_path, stop=stop)
    assert found.exit_code == 75, "the processes were not stopped"


def test_process_stopped_alone_stops_the_others(tmp_path: Path) -> None:
    """A process that stops before its first collective operation."""
    found = run(lambda member, stop: 75 if member.rank == 1 else wait_for_stop(stop), tmp_path)
    assert found.exit_code == 75


def test_failure_kills_processes_that_do_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(member: Membership, _stop: StopFlag) -> int:
        if member.rank != 1:
            time.sleep(TIMEOUT)
            (tmp_path / "survived").touch()
        return 65

    monkeypatch.setattr(launcher, "EXIT_GRACE_SECONDS", 0.5)
    found = run(body, tmp_path, processes=3)
    assert (found.exit_code, found.message) == (65, "of 1")
    assert not (tmp_path / "survived").exists()


def test_killed_process_is_a_lost_peer(tmp_path: Path) -> None:
    def body(member: Membership, _stop: StopFlag) -> int:
        if member.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return wait_for_exit(tmp_path / "1") or 76

    found = run(body, tmp_path)
    assert (found.exit_code, found.reason) == (76, "PeerLost")
    assert "SIGKILL" in found.message


def test_sigterm_during_exit_does_not_change_the_result(tmp_path: Path) -> None:
    """Rank 0, which was stopped too, is still running."""
    found = run(
        lambda member, _stop: -signal.SIGTERM if member.rank == 1 else wait_for_exit(tmp_path / "1") or 75, tmp_path
    )
    assert (found.exit_code, found.message) == (75, "of 0")


def test_processes_exit_when_the_launcher_is_killed(tmp_path: Path) -> None:
    """With a real program that starts copies of itself, as the trainer does."""
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys, time, pathlib\n"
        "from trainyard_trainer.group.launcher import bind_to_launcher, launch\n"
        "from trainyard_trainer.stop import StopFlag\n"
        "if 'RANK' in os.environ:\n"
        "    bind_to_launcher(os.environ)\n"
        f"    (pathlib.Path({str(tmp_path)!r}) / os.environ['RANK']).write_text(str(os.getpid()))\n"
        f"    time.sleep({2 * TIMEOUT})\n"
        "launch(2, stop=StopFlag(), environ=os.environ)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pid = os.posix_spawn(sys.executable, [sys.executable, str(script)], environ)
    files = [tmp_path / str(rank) for rank in range(2)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: not any(is_running(int(file.read_text())) for file in files))
