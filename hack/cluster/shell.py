"""Runs programs of the machine and converts their failures to readable errors."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterError, StartError, ToolError


def say(text: str) -> None:
    """Tell the person at the terminal what is happening; standard output stays for results."""
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
    error: type[ClusterError] = ToolError,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: Program and arguments; no shell is involved.
        env: Added to this process's environment.
        cwd: Folder to run in.
        stdin: Text for its standard input.
        timeout: Seconds until it is ended.
        error: Class of the error raised.

    Raises:
        ClusterError: the program is missing, failed or took too long; the text has its last lines.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except FileNotFoundError as missing:
        raise error(f"'{missing.filename}' was not found on this machine.") from missing
    except subprocess.TimeoutExpired as late:
        raise error(f"'{brief(command)}' did not end within {timeout:.0f} s.") from late
    if done.returncode:
        raise error(f"'{brief(command)}' failed with status {done.returncode}:\n{tail(done.stderr or done.stdout)}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], timeout: float | None = 30) -> bool:
    """Return whether a program exists and ends with status 0."""
    try:
        run(argv, timeout=timeout)
    except ToolError:
        return False
    return True


def brief(command: Sequence[str]) -> str:
    """Return a command in at most 160 characters."""
    text = " ".join(command)
    return text if len(text) <= 160 else text[:157] + "..."


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a program's output, indented."""
    return "\n".join("  " + line for line in text.strip().splitlines()[-lines:])


def wait_until(check: Callable[[], bool], seconds: float, what: str, hint: Callable[[], str] = str) -> None:
    """Poll `check` until it is true.

    Raises:
        StartError: it was not true within `seconds`; the text names `what` and adds the hint.
    """
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise StartError(f"{what} did not happen within {seconds:.0f} s.\n{hint()}".rstrip())
        time.sleep(0.1)


@contextlib.contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive file lock; print `waiting` while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old or the new content, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)
