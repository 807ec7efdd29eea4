"""Small processes in the place of trainers, for tests of launchers."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.unit.timeouts import PATIENCE, wait_until
from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.group.launcher import bind_to_launcher
from trainyard_trainer.group.membership import Membership, membership
from trainyard_trainer.stop import StopFlag

Body = Callable[[Membership, StopFlag], int]


def forked(body: Body, directory: Path) -> Callable[[Mapping[str, str]], int]:
    """Start processes that leave their number, run `body`, and leave their last word.

    One whose body returns the negative number of a signal has finished, and gets that signal on its way out.
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
            appear(directory / str(member.rank), str(os.getpid()))
            time.sleep(0.1)  # a signal may come before there is a handler
            stop = StopFlag()
            stop.install()
            code = body(member, stop)
            said = max(0, code)
            outcome = {0: Outcome.FINISHED, 75: Outcome.INTERRUPTED}.get(said, Outcome.FAILED)
            word = Termination(outcome=outcome, exit_code=said, reason="Reason", message=f"of {member.rank}")
            Path(environ[TERMINATION_LOG_ENV]).write_text(word.to_message())
            if code < 0:
                signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
        finally:
            os._exit(code)

    return start


def appear(path: Path, text: str) -> None:
    """Write a file that is never seen without its content."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.rename(path)


def until_asked(stop: StopFlag, seconds: float = PATIENCE) -> int:
    deadline = time.monotonic() + seconds
    while not stop.requested and time.monotonic() < deadline:
        time.sleep(0.01)
    return 75 if stop.requested else 98


def until_gone(path: Path) -> int:
    """Wait for the end of the process whose number is in a file."""
    wait_until(lambda: path.exists() and not is_there(int(path.read_text())))
    return 0


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of loopback that is nobody else's meanwhile; who reuses addresses, as servers do, can listen at it."""
    with socket.socket() as keeping:
        keeping.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeping.bind(("127.0.0.1", 0))
        yield keeping.getsockname()[1]
