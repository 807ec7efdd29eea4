"""Starts the processes of a group, hands SIGTERM on to them, and ends them together. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from trainyard_crds.constants import TERMINATION_LOG_ENV
from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.errors import PeerLostError, StopRequested
from trainyard_trainer.group.exit_aggregation import ProcessExit, aggregate_exits, is_failure, lost_pod
from trainyard_trainer.group.interfaces import free_port, reserve_port
from trainyard_trainer.group.membership import LAUNCHER_ENV, Membership, Node, local_members
from trainyard_trainer.group.pod_peers import PodPeers
from trainyard_trainer.report.termination import termination_of
from trainyard_trainer.stop import StopFlag

EXIT_GRACE_SECONDS = 20.0
"""What a process has to end by itself once one of its group has failed: it may be publishing a checkpoint."""
_PR_SET_PDEATHSIG = 1

Start = Callable[[Mapping[str, str]], int]
"""Starts this program once more in an environment; the number of the process."""


def launch(
    processes: int,
    *,
    stop: StopFlag,
    environ: Mapping[str, str],
    pods: PodPeers | None = None,
    start: Start | None = None,
) -> Termination:
    """Run this pod's processes of a group until the last of them has ended.

    SIGTERM and SIGINT are handed on at once, to the other pods too. When one fails, or a pod is lost, the others end by
    themselves as soon as they miss it, or are killed: none is left.

    Args:
        processes: How many in each pod.
        stop: Set by this process's signals.
        environ: What the processes find in theirs, beside their place.
        pods: The pods of the group. Default: this one alone.
        start: How a process is started. Default: by this process's own command line.
    """
    pods = pods or PodPeers(Node(port=free_port()))
    members = local_members(processes, pods.node)
    with (
        tempfile.TemporaryDirectory(prefix="trainyard-group-") as words,
        reserve_port(pods.node.port) if pods.node.index == 0 else nullcontext(),
        _Wakeup() as wakeup,
    ):
        group = _Processes(Path(words), wakeup, pods)
        try:
            for member in members:
                group.start(member, environ, start or _start_again)
            ends = group.wait(stop)
        finally:
            group.kill()
        word = aggregate_exits(ends, members[0].world_size, lost=pods.lost)
        if word.exit_code == ExitCode.FINISHED and pods.node.index > 0:
            word = _result(stop, pods, wakeup)
        pods.leave(word)
        return word


def _result(stop: StopFlag, pods: PodPeers, wakeup: _Wakeup) -> Termination:
    """In a pod whose processes have done their part: how the run ends. The first pod still saves and exports."""
    pods.trained()
    while pods.is_waiting:
        if stop.requested:
            return termination_of(StopRequested("Stopped on request."))
        select.select([wakeup.file, *(link.fileno() for link in pods.files())], [], [], pods.seconds)
        wakeup.drain()
        pods.attend()
    if pods.result is not None and pods.result.outcome is not Outcome.FAILED:
        return pods.result
    return termination_of(lost_pod(pods.lost or ""))


def bind_to_launcher(environ: Mapping[str, str]) -> None:
    """Let this process end with its launcher, even where that is killed.

    Raises:
        PeerLostError: It is gone already.
    """
    launcher = environ.get(LAUNCHER_ENV)
    if launcher is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        raise PeerLostError("The launcher of this group has ended.")


def exit_if_failed_member(code: int) -> int:
    """Let a process of a group that failed end here and now; the code of any other one.

    The libraries that join GPUs may wait, when they are closed, for processes that are gone or wait themselves.
    """
    if LAUNCHER_ENV in os.environ and is_failure(code):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Wakeup:
    """A file that becomes readable when a signal arrives."""

    def __enter__(self) -> Self:
        self.file, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self.file)
        os.close(self._writer)

    def drain(self) -> None:
        """Be not readable any more."""
        with suppress(BlockingIOError):
            os.read(self.file, 4096)


class _Processes:
    """The processes that are still there, and how the others ended."""

    def __init__(self, words: Path, wakeup: _Wakeup, pods: PodPeers) -> None:
        self._words = words
        self._wakeup = wakeup
        self._pods = pods
        self._running: dict[int, tuple[int, int]] = {}
        """By the file that becomes readable with the end of a process: its rank and number."""
        self._ends: list[ProcessExit] = []
        self._asked_to_stop = False

    def start(self, member: Membership, environ: Mapping[str, str], start: Start) -> None:
        """Start a member."""
        own = {LAUNCHER_ENV: str(os.getpid()), TERMINATION_LOG_ENV: str(self._words / str(member.rank))}
        # Blocked until the process has its handler: the default of the signal would be its end.
        with _blocked():
            pid = start({**environ, **member.environ(), **own})
        self._running[os.pidfd_open(pid)] = (member.rank, pid)

    def wait(self, stop: StopFlag) -> list[ProcessExit]:
        """Wait until all have ended; how, in the order in which they did."""
        deadline: float | None = None
        while self._running:
            if self._is_to_stop(stop):
                self._pods.ask_to_stop()
                self._ask_to_stop()
            if self._pods.lost is not None:
                self._ask_to_stop()  # who does something alone would not notice
            if deadline is None and self._is_broken:
                deadline = time.monotonic() + EXIT_GRACE_SECONDS
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            files = [self._wakeup.file, *self._running, *(link.fileno() for link in self._pods.files())]
            ready, _, _ = select.select(files, [], [], _shorter(left, self._pods.seconds))
            ended = [file for file in ready if file in self._running]
            if left == 0.0 and not ended:
                self.kill()
                break
            self._wakeup.drain()
            for file in ended:
                self._reap(file)
            self._pods.attend()
        return self._ends

    def _is_to_stop(self, stop: StopFlag) -> bool:
        asked_alone = any(end.code == ExitCode.INTERRUPTED for end in self._ends)
        return stop.requested or self._pods.stop_asked or (asked_alone and self._pods.lost is None)

    @property
    def _is_broken(self) -> bool:
        return self._pods.lost is not None or any(is_failure(end.code) for end in self._ends)

    def kill(self) -> None:
        """ProcessExit whoever is left."""
        for file, (_rank, pid) in list(self._running.items()):
            os.kill(pid, signal.SIGKILL)
            self._reap(file, code=ExitCode.PEER_LOST)

    def _ask_to_stop(self) -> None:
        if not self._asked_to_stop:
            self._asked_to_stop = True
            for _rank, pid in self._running.values():
                os.kill(pid, signal.SIGTERM)

    def _reap(self, file: int, code: int | None = None) -> None:
        """Take note of the end of a process.

        Args:
            file: The one that tells of it.
            code: What it ended with; default: what the system says.
        """
        rank, pid = self._running.pop(file)
        os.close(file)
        _pid, status = os.waitpid(pid, 0)
        code, word = os.waitstatus_to_exitcode(status) if code is None else code, _read_word(self._words / str(rank))
        if code < 0 and word is not None:
            code = word.exit_code  # the signal met one that had nothing more to do but to end
        self._ends.append(ProcessExit(rank=rank, code=code, message=word))


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_again(environ: Mapping[str, str]) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def _read_word(path: Path) -> Termination | None:
    try:
        return Termination.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _shorter(first: float | None, second: float | None) -> float | None:
    return min((seconds for seconds in (first, second) if seconds is not None), default=None)
