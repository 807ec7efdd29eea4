"""Small processes instead of trainers, for tests of launchers."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.unit.timeouts import TIMEOUT, wait_until
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.launcher import bind_to_launcher
from trainyard_trainer.group.membership import Membership, membership
from trainyard_trainer.stop import StopFlag

Body = Callable[[Membership, StopFlag], int]


def fork_start(body: Body, directory: Path) -> Callable[[Mapping[str, str]], int]:
    """Return a function that forks a process which writes its PID, runs `body` and writes a termination message.

    If the body returns a negative signal number, the process reports success and then receives that signal.
    """

    def start(environ: Mapping[str, str]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            bind_to_launcher(environ)
            member = membership(environ)
            assert member is not None
            write_atomically(directory / str(member.rank), str(os.getpid()))
            time.sleep(0.1)  # a signal may arrive before the handler is installed
            stop = StopFlag()
            stop.install()
            code = body(member, stop)
            reported = max(0, code)
            outcome = {0: Outcome.FINISHED, 75: Outcome.INTERRUPTED}.get(reported, Outcome.FAILED)
            termination = Termination(outcome=outcome, exit_code=reported, reason="Reason", message=f"of {member.rank}")
            Path(environ[TERMINATION_LOG_ENV]).write_text(termination.to_message())
            if code < 0:
                signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
        finally:
            os._exit(code)

    return start


def write_atomically(path: Path, text: str) -> None:
    """Write a file by renaming a complete one into place."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.rename(path)


def wait_for_stop(stop: StopFlag, seconds: float = TIMEOUT) -> int:
    deadline = time.monotonic() + seconds
    while not stop.requested and time.monotonic() < deadline:
        time.sleep(0.01)
    return 75 if stop.requested else 98


def wait_for_exit(path: Path) -> int:
    """Wait until the process whose PID is in a file has exited."""
    wait_until(lambda: path.exists() and not is_running(int(path.read_text())))
    return 0


def is_running(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a loopback port; a server with SO_REUSEADDR can listen at it."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]
