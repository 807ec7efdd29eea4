"""Launcher of a group: starts its processes, forwards SIGTERM and stops all of them together. Imports nothing heavy."""

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
from trainyard_trainer.group.exit_aggregation import ProcessExit, aggregate_exits, is_failure, lost_pod_error
from trainyard_trainer.group.interfaces import free_port, reserve_port
from trainyard_trainer.group.membership import LAUNCHER_ENV, Membership, Node, local_members
from trainyard_trainer.group.pod_peers import PodPeers
from trainyard_trainer.report.termination import termination_of
from trainyard_trainer.stop import StopFlag

EXIT_GRACE_SECONDS = 20.0
"""Time for the other processes to exit after a failure before they are killed; one may be publishing a checkpoint."""
_PR_SET_PDEATHSIG = 1

Start = Callable[[Mapping[str, str]], int]
"""Starts a copy of this program with an environment and returns its process ID."""


def launch(
    processes: int,
    *,
    stop: StopFlag,
    environ: Mapping[str, str],
    peers: PodPeers | None = None,
    start: Start | None = None,
) -> Termination:
    """Run this pod's processes of a group until all have exited.

    SIGTERM and SIGINT are forwarded at once, also to the other pods. When a process fails or a pod is lost, the other
    processes exit when they detect it, or are killed after a grace period.

    Args:
        processes: Processes per pod.
        stop: Set by this process's signals.
        environ: Environment of the processes; their membership is added.
        peers: The other pods of the group. Default: a single pod.
        start: Starts a process. Default: this process's own command line.
    """
    peers = peers or PodPeers(Node(port=free_port()))
    members = local_members(processes, peers.node)
    is_pod_0 = peers.node.index == 0
    with (
        tempfile.TemporaryDirectory(prefix="trainyard-group-") as termination_dir,
        reserve_port(peers.node.port) if is_pod_0 else nullcontext(),
        _Wakeup() as wakeup,
    ):
        group = _Processes(Path(termination_dir), wakeup, peers)
        try:
            for member in members:
                group.start(member, environ, start or _start_own_program)
            exits = group.wait(stop)
        finally:
            group.kill()
        termination = aggregate_exits(exits, members[0].world_size, lost=peers.lost)
        if termination.exit_code == ExitCode.FINISHED and not is_pod_0:
            termination = _await_result(stop, peers, wakeup)
        peers.announce_exit(termination)
        return termination


def _await_result(stop: StopFlag, peers: PodPeers, wakeup: _Wakeup) -> Termination:
    """Return the result of the run once pod 0 has saved and exported."""
    peers.announce_trained()
    while peers.awaits_result:
        if stop.requested:
            return termination_of(StopRequested("Stopped on request."))
        select.select([wakeup.file, *(channel.fileno() for channel in peers.channels())], [], [], peers.poll_seconds)
        wakeup.drain()
        peers.poll()
    if peers.result is not None and peers.result.outcome is not Outcome.FAILED:
        return peers.result
    return termination_of(lost_pod_error(peers.lost or ""))


def bind_to_launcher(environ: Mapping[str, str]) -> None:
    """Request SIGKILL for this process when its launcher exits, even if the launcher is killed.

    Raises:
        PeerLostError: The launcher has already exited.
    """
    launcher = environ.get(LAUNCHER_ENV)
    if launcher is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        raise PeerLostError("The launcher of this group has ended.")


def exit_if_failed_member(code: int) -> int:
    """Exit at once if this process failed as a member of a group; return the exit code otherwise.

    Communication libraries may block at interpreter shutdown on processes that are gone.
    """
    if LAUNCHER_ENV in os.environ and is_failure(code):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Wakeup:
    """A file descriptor that becomes readable when a signal arrives."""

    def __enter__(self) -> Self:
        self.file, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self.file)
        os.close(self._writer)

    def drain(self) -> None:
        """Read all pending bytes."""
        with suppress(BlockingIOError):
            os.read(self.file, 4096)


class _Processes:
    """The running processes of this pod and the exits of the others."""

    def __init__(self, termination_dir: Path, wakeup: _Wakeup, peers: PodPeers) -> None:
        self._termination_dir = termination_dir
        self._wakeup = wakeup
        self._peers = peers
        self._running: dict[int, tuple[int, int]] = {}
        """Rank and process ID by pidfd, which becomes readable when the process exits."""
        self._exits: list[ProcessExit] = []
        self._stop_forwarded = False

    def start(self, member: Membership, environ: Mapping[str, str], start: Start) -> None:
        """Start a member."""
        own = {LAUNCHER_ENV: str(os.getpid()), TERMINATION_LOG_ENV: str(self._termination_dir / str(member.rank))}
        # Blocked until the process has installed its handler: the default action would terminate it.
        with _stop_signals_blocked():
            pid = start({**environ, **member.environ(), **own})
        self._running[os.pidfd_open(pid)] = (member.rank, pid)

    def wait(self, stop: StopFlag) -> list[ProcessExit]:
        """Wait until all processes have exited; return the exits in that order."""
        deadline: float | None = None
        while self._running:
            self._forward_stop(stop)
            if deadline is None and self._is_broken:
                deadline = time.monotonic() + EXIT_GRACE_SECONDS
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            exited = self._select(_min_or_none(left, self._peers.poll_seconds))
            if left == 0.0 and not exited:
                self.kill()
                break
            self._wakeup.drain()
            for file in exited:
                self._reap(file)
            self._peers.poll()
        return self._exits

    def kill(self) -> None:
        """Kill and reap the remaining processes."""
        for file, (_rank, pid) in list(self._running.items()):
            os.kill(pid, signal.SIGKILL)
            self._reap(file, code=ExitCode.PEER_LOST)

    def _forward_stop(self, stop: StopFlag) -> None:
        """Forward a requested stop to the peers and the processes; stop the processes of a broken group too."""
        is_broken_by_peer = self._peers.lost is not None
        stopped_alone = any(one.code == ExitCode.INTERRUPTED for one in self._exits) and not is_broken_by_peer
        must_stop = stop.requested or self._peers.stop_requested or stopped_alone
        if must_stop:
            self._peers.request_stop()
        # A process outside a collective call does not detect a lost peer, so it is stopped.
        if (must_stop or is_broken_by_peer) and not self._stop_forwarded:
            self._stop_forwarded = True
            for _rank, pid in self._running.values():
                os.kill(pid, signal.SIGTERM)

    @property
    def _is_broken(self) -> bool:
        return self._peers.lost is not None or any(is_failure(one.code) for one in self._exits)

    def _select(self, timeout: float | None) -> list[int]:
        """Wait for a signal, a message or an exit; return the pidfds of exited processes."""
        channels = [channel.fileno() for channel in self._peers.channels()]
        ready, _, _ = select.select([self._wakeup.file, *self._running, *channels], [], [], timeout)
        return [file for file in ready if file in self._running]

    def _reap(self, file: int, code: int | None = None) -> None:
        """Reap a process and record its exit.

        Args:
            file: Its pidfd.
            code: Exit code to record. Default: the one that the kernel reports.
        """
        rank, pid = self._running.pop(file)
        os.close(file)
        _pid, status = os.waitpid(pid, 0)
        if code is None:
            code = os.waitstatus_to_exitcode(status)
        termination = _read_termination(self._termination_dir / str(rank))
        if code < 0 and termination is not None:
            code = termination.exit_code  # the signal arrived after the process had written its termination
        self._exits.append(ProcessExit(rank=rank, code=code, termination=termination))


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_own_program(environ: Mapping[str, str]) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def _read_termination(path: Path) -> Termination | None:
    try:
        return Termination.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _min_or_none(first: float | None, second: float | None) -> float | None:
    return min((seconds for seconds in (first, second) if seconds is not None), default=None)
