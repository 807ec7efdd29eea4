"""Launchers of several pods, each its own process on loopback, with small processes instead of trainers."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.timeouts import wait_until
from tests.unit.trainer.group.launching import (
    Body,
    fork_start,
    is_running,
    reserved_port,
    wait_for_exit,
    wait_for_stop,
    write_atomically,
)
from trainyard_crds.report import Outcome, Termination
from trainyard_trainer.errors import TrainerError
from trainyard_trainer.group import rendezvous
from trainyard_trainer.group.interfaces import interface_of
from trainyard_trainer.group.launcher import launch
from trainyard_trainer.group.membership import Membership, Node
from trainyard_trainer.group.pod_peers import ConnectedPodPeers
from trainyard_trainer.report.termination import RESULT_FILE, read_result, termination_of
from trainyard_trainer.stop import StopFlag

GROUP = "this group"


class Pod:
    """A launcher in its own process."""

    def __init__(self, directory: Path, node: Node, body: Body, *, processes: int = 1, group: str = GROUP) -> None:
        self.directory, self._node, self._body, self._processes = directory, node, body, processes
        self._termination = directory / f"termination-{node.index}"
        self._log = directory / f"log-{node.index}"
        self._group = group
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                code = self._run()
            finally:
                os._exit(code)

    def _run(self) -> int:
        stop = StopFlag()
        stop.install()
        try:
            termination = self._launch(stop)
        except TrainerError as error:
            termination = termination_of(error)
        self._termination.write_text(termination.to_message())
        return termination.exit_code

    def _launch(self, stop: StopFlag) -> Termination:
        found = rendezvous.rendezvous(
            self._node,
            self._group,
            stop=stop,
            log_event=self._log_event,
            find_result=lambda: read_result(self.directory),
        )
        if isinstance(found, Termination):
            return found
        return launch(self._processes, stop=stop, environ={}, peers=found, start=fork_start(self._body, self.directory))

    def _log_event(self, kind: str, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{kind}: {text}\n")

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait(self) -> Termination:
        """Wait for the launcher and return its termination."""
        wait_until(lambda: not is_running(self.pid))
        _pid, status = os.waitpid(self.pid, 0)
        termination = Termination.model_validate_json(self._termination.read_bytes())
        assert termination.exit_code == os.waitstatus_to_exitcode(status)
        return termination

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def clear(self) -> None:
        """Kill the launcher if it is still running."""
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                self.kill()


Start = Callable[..., Pod]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a pod by index."""
    pods: list[Pod] = []

    def begin(
        index: int,
        body: Body,
        *,
        count: int = 2,
        address: str = "127.0.0.1",
        processes: int = 1,
        group: str = GROUP,
    ) -> Pod:
        node = Node(index=index, count=count, address=address, port=port, interface=None)
        pods.append(Pod(tmp_path, node, body, processes=processes, group=group))
        return pods[-1]

    with reserved_port() as port:
        yield begin
        for pod in pods:
            pod.clear()


def wait_for_start(directory: Path, *ranks: int) -> None:
    """Wait until these processes have started."""
    wait_until(lambda: all((directory / str(rank)).exists() for rank in ranks))


def finish(_member: Membership, _stop: StopFlag) -> int:
    return 0


def until_stopped(_member: Membership, stop: StopFlag) -> int:
    return wait_for_stop(stop)


def test_all_pods_end_with_the_termination_of_pod_0(start: Start, tmp_path: Path) -> None:
    def body(member: Membership, _stop: StopFlag) -> int:
        (tmp_path / f"member-{member.rank}").write_text(json.dumps(vars(member)))
        return 0

    pods = [start(index, body, count=3, processes=2) for index in (2, 0, 1)]
    assert [pod.wait().message for pod in pods] == ["of 0"] * 3
    members = [json.loads((tmp_path / f"member-{rank}").read_text()) for rank in range(6)]
    assert [(one["rank"], one["local_rank"], one["world_size"]) for one in members] == [
        (rank, rank % 2, 6) for rank in range(6)
    ]
    assert {(one["master_address"], one["interface"]) for one in members} == {("127.0.0.1", "lo")}
    assert len({one["master_port"] for one in members}) == 1


def test_pods_wait_for_a_late_pod(start: Start) -> None:
    first = start(0, finish, count=3)
    second = start(1, finish, count=3)
    wait_until(lambda: "Pod 0 of 3 waits for pod 2." in first.log and "waits for the other pods" in second.log)
    third = start(2, finish, count=3)
    assert [pod.wait().exit_code for pod in (first, second, third)] == [0, 0, 0]
    assert "PodsMet: All 3 pods of the group are connected." in first.log


def test_pods_wait_for_a_late_pod_0_and_a_restarted_pod_joins_once(start: Start) -> None:
    second = start(1, finish, count=3)
    wait_until(lambda: "waits for pod 0 at 127.0.0.1" in second.log and "connection refused" in second.log)
    first = start(0, finish, count=3)
    wait_until(lambda: "waits for the other pods" in second.log)
    second.kill()
    pods = [first, start(1, finish, count=3), start(2, finish, count=3)]
    assert [pod.wait().exit_code for pod in pods] == [0, 0, 0]


def test_pod_that_receives_start_and_exit_at_once_handles_both(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard_trainer.group.pod_peers._DRAIN_SECONDS", 0.2)  # do not wait for a stopped pod
    first, second = (start(index, finish, count=3) for index in range(2))
    wait_until(lambda: "waits for the other pods" in second.log)
    os.kill(second.pid, signal.SIGSTOP)
    third = start(2, finish, count=3)
    assert [pod.wait().exit_code for pod in (first, third)] == [0, 0]
    os.kill(second.pid, signal.SIGCONT)
    assert second.wait().message == "of 0"


def test_name_that_does_not_resolve_times_out(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = tmp_path / "an-hour-later"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * later.exists())
    monkeypatch.setattr(rendezvous, "time", clock)
    pod = start(1, finish, address="pod-0.invalid")
    wait_until(lambda: "the name does not resolve yet" in pod.log)
    later.touch()
    found = pod.wait()
    assert found.exit_code == 76
    assert "Pod 1 of 2 waits for pod 0 at pod-0.invalid:" in found.message
    assert "the name does not resolve yet; timed out after 600 s." in found.message
    assert "kubectl describe" in found.advice


@pytest.mark.parametrize("index", [0, 1])
def test_pod_stops_while_it_waits(start: Start, index: int) -> None:
    pod = start(index, finish)
    wait_until(lambda: "WaitingForPods" in pod.log)
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.wait().exit_code == 75


@pytest.mark.parametrize("index", [0, 1])
def test_waiting_pod_returns_the_result_of_a_finished_run(start: Start, tmp_path: Path, index: int) -> None:
    pod = start(index, finish)
    wait_until(lambda: "WaitingForPods" in pod.log)
    write_result(tmp_path)
    found = pod.wait()
    assert (found.exit_code, found.message) == (0, "It has finished.")


def write_result(directory: Path) -> None:
    termination = Termination(outcome=Outcome.FINISHED, exit_code=0, reason="Finished", message="It has finished.")
    write_atomically(directory / RESULT_FILE, termination.to_message())


def test_unknown_connections_are_closed(start: Start) -> None:
    first = start(0, finish)
    wait_until(lambda: "WaitingForPods" in first.log)
    for text in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b'{"kind":"join","index":1,"group":"another"}\n',
        b"x" * 70_000,
    ):
        assert is_closed(port_of(first), text)
    other = start(1, finish, group="another")
    wait_until(lambda: "it rejects this pod" in other.log)
    other.kill()
    assert start(1, finish).wait().exit_code == 0
    assert first.wait().exit_code == 0


def port_of(pod: Pod) -> int:
    return pod._node.port


def is_closed(port: int, text: bytes) -> bool:
    """Return whether the peer closes the connection without an answer (a reset if it did not read everything)."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            connection.sendall(text)
            return connection.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True


@pytest.mark.parametrize("index", [0, 1])
def test_killed_pod_breaks_the_group(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    """Detected by the end of its connection: heartbeats are disabled."""
    monkeypatch.setattr("trainyard_trainer.group.control_channel.HEARTBEAT_SECONDS", 3600.0)
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.HEARTBEAT_SECONDS", 3600.0)
    pods = [start(number, until_stopped) for number in range(2)]
    wait_for_start(tmp_path, 0, 1)
    pods[index].kill()
    found = pods[1 - index].wait()
    assert (found.exit_code, found.reason) == (76, "PeerLost")
    assert f"Pod {index} of 2 was lost" in found.message


def test_pod_without_heartbeats_breaks_the_group(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a power loss of its node: the connection stays open."""
    stopped = tmp_path / "stopped"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * (100 if stopped.exists() else 1))
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.time", clock)
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.HEARTBEAT_SECONDS", 0.05)
    first, second = (start(number, until_stopped) for number in range(2))
    wait_for_start(tmp_path, 0, 1)
    os.kill(second.pid, signal.SIGSTOP)
    stopped.touch()  # from now on the clock of pod 0 runs 100 times as fast
    assert "Pod 1 of 2 was lost" in first.wait().message
    os.kill(second.pid, signal.SIGCONT)
    assert second.wait().exit_code == 76, "the resumed pod must find the group broken"


@pytest.mark.parametrize("index", [0, 1])
def test_stopped_pod_stops_the_others(start: Start, tmp_path: Path, index: int) -> None:
    def body(member: Membership, stop: StopFlag) -> int:
        """Exit once all processes were stopped, since they save together."""
        code = wait_for_stop(stop)
        (tmp_path / f"stopped-{member.rank}").touch()
        wait_until(lambda: all((tmp_path / f"stopped-{rank}").exists() for rank in range(6)))
        return code

    pods = [start(number, body, processes=2, count=3) for number in range(3)]
    wait_for_start(tmp_path, *range(6))
    os.kill(pods[index].pid, signal.SIGTERM)
    assert [pod.wait().exit_code for pod in pods] == [75, 75, 75]


def test_failure_of_a_pod_is_the_cause_in_the_others(start: Start, tmp_path: Path) -> None:
    def body(member: Membership, stop: StopFlag) -> int:
        return 79 if member.rank == 1 else wait_for_stop(stop)

    pods = [start(number, body, count=3) for number in range(3)]
    terminations = [pod.wait() for pod in pods]
    assert [one.exit_code for one in terminations] == [76, 79, 76]
    assert terminations[0].message == "Pod 1 of 3 ended with Reason: of 1"
    assert terminations[2].message == terminations[0].message


def in_rank_0(first: Body) -> Body:
    """Return a body that runs `first` in rank 0 and succeeds at once in the others."""
    return lambda member, stop: first(member, stop) if member.rank == 0 else 0


def test_pods_wait_for_the_result_of_pod_0(start: Start, tmp_path: Path) -> None:
    first, second = (
        start(number, in_rank_0(lambda _member, _stop: wait_for_exit(tmp_path / "1"))) for number in range(2)
    )
    assert [pod.wait().message for pod in (first, second)] == ["of 0", "of 0"]


@pytest.mark.parametrize(("code", "expected"), [(65, 76), (75, 75)])
def test_waiting_pods_end_with_a_pod_0_that_does_not_finish(
    start: Start, tmp_path: Path, code: int, expected: int
) -> None:
    body = in_rank_0(lambda _member, _stop: wait_for_exit(tmp_path / "1") or code)
    first, second = (start(number, body) for number in range(2))
    assert (first.wait().exit_code, second.wait().exit_code) == (code, expected)


@pytest.mark.parametrize(("finished", "code"), [(False, 76), (True, 0)])
def test_waiting_pod_handles_a_killed_pod_0(start: Start, tmp_path: Path, finished: bool, code: int) -> None:
    first, second = (start(number, in_rank_0(until_stopped)) for number in range(2))
    wait_for_start(tmp_path, 0, 1)
    wait_for_exit(tmp_path / "1")
    if finished:
        write_result(tmp_path)
    first.kill()
    assert second.wait().exit_code == code


def test_waiting_pod_may_exit_without_stopping_pod_0(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced, gone = tmp_path / "announced", tmp_path / "gone"
    announce_trained = ConnectedPodPeers.announce_trained

    def announce(peers: ConnectedPodPeers) -> None:
        announce_trained(peers)
        announced.touch()

    def body(_member: Membership, stop: StopFlag) -> int:
        wait_until(lambda: gone.exists() or stop.requested)
        return 75 if wait_for_stop(stop, 1) == 75 else 0

    monkeypatch.setattr(ConnectedPodPeers, "announce_trained", announce)
    monkeypatch.setattr(
        "trainyard_trainer.group.pod_peers._DRAIN_SECONDS", 0.2
    )  # pod 0 is busy and keeps the channel open
    first, second = (start(number, in_rank_0(body)) for number in range(2))
    wait_until(announced.exists)
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait().exit_code == 75
    gone.touch()
    assert first.wait().exit_code == 0


def test_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    assert interface_of("no address") is None
    if any(line.startswith("0" * 31 + "1") for line in Path("/proc/net/if_inet6").read_text().splitlines()):
        assert interface_of("::1") == "lo"
