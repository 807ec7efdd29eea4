"""Starts, finds and stops background processes across runs of the command.

A process is recorded by its pid, its start time and the boot id, so that a pid that was reused after an exit or a
reboot is not mistaken for ours.
"""

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import StartError
from cluster.shell import tail, write_atomically

_STATE, _STARTED = 0, 19


@dataclasses.dataclass(frozen=True)
class Identity:
    """Unique identity of a process on this machine.

    Attributes:
        pid: Process id.
        started: Start time in clock ticks since boot.
        boot: The boot id.
    """

    pid: int
    started: int
    boot: str


def stat_fields(text: str) -> list[str]:
    """Split the text of /proc/PID/stat into the fields after the command, which may hold blanks and brackets."""
    return text[text.rindex(")") + 2 :].split()


def identify(pid: int, proc: Path = Path("/proc")) -> Identity | None:
    """Return the identity of a living process, or None when there is none or only its zombie."""
    with contextlib.suppress(OSError, ValueError):
        fields = stat_fields((proc / str(pid) / "stat").read_text())
        if fields[_STATE] not in "ZX":
            boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
            return Identity(pid, int(fields[_STARTED]), boot)
    return None


class Processes:
    """The background processes of one cluster, remembered in its state folder.

    Args:
        state: The cluster's state folder; records go to `run/`, output to `logs/`.
    """

    def __init__(self, state: Path) -> None:
        self._run = state / "run"
        self._logs = state / "logs"

    def names(self) -> list[str]:
        """Return the names on record, dead ones included."""
        return sorted(path.stem for path in self._run.glob("*.json"))

    def log(self, name: str) -> Path:
        """Return the file with the process's output."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Return the pid of a running process, or None when it does not run."""
        identity = self._recorded(name)
        if identity is None:
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(identity.pid, os.WNOHANG)
        return identity.pid if identify(identity.pid) == identity else None

    def start(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Start a process in a new session unless it runs already, and return its pid.

        The previous log is renamed to `NAME.before.log`.

        Raises:
            StartError: the program cannot be executed.
        """
        running = self.pid(name)
        if running is not None:
            return running
        self._run.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        if self.log(name).exists():
            self.log(name).replace(self.log(name).with_suffix(".before.log"))
        command = [str(part) for part in argv]
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), append, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        try:
            pid = os.posix_spawnp(
                command[0], command, {**os.environ, **(env or {})}, file_actions=actions, setsid=True, setsigmask=()
            )
        except OSError as failure:
            raise StartError(f"{name} could not be started from '{command[0]}': {failure.strerror}.") from failure
        identity = identify(pid)
        if identity is None:
            raise StartError(f"{name} ended as soon as it was started:\n{self.last_lines(name)}")
        write_atomically(self._run / f"{name}.json", json.dumps(dataclasses.asdict(identity)))
        return pid

    def stop(self, name: str, seconds: float = 15, sig: signal.Signals = signal.SIGTERM) -> None:
        """End a process and wait until it is gone; after `seconds` it is killed. Does nothing when it does not run."""
        self.signal(name, sig)
        if not self._gone_within(name, seconds):
            self.signal(name, signal.SIGKILL)
            self._gone_within(name, 5)
        (self._run / f"{name}.json").unlink(missing_ok=True)

    def crash(self, names: Sequence[str]) -> None:
        """Kill processes, all at once, and leave their records, as a power loss would."""
        for name in names:
            self.signal(name, signal.SIGKILL)
        for name in names:
            self._gone_within(name, 5)

    def signal(self, name: str, sig: signal.Signals) -> None:
        """Send a signal to a process if it runs."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def require(self, name: str) -> None:
        """Check that a process runs.

        Raises:
            StartError: it does not; the text has its last lines.
        """
        if self.pid(name) is None:
            raise StartError(f"{name} ended. Its last lines ({self.log(name)}):\n{self.last_lines(name)}")

    def forget_dead(self) -> None:
        """Drop the records of processes that do not run."""
        for name in self.names():
            if self.pid(name) is None:
                (self._run / f"{name}.json").unlink(missing_ok=True)

    def last_lines(self, name: str, lines: int = 12) -> str:
        """Return the end of the process's output."""
        with contextlib.suppress(OSError), self.log(name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return tail(file.read().decode(errors="replace"), lines)
        return "  (no output)"

    def _recorded(self, name: str) -> Identity | None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Identity(**json.loads((self._run / f"{name}.json").read_text()))
        return None

    def _gone_within(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid(name) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True
