"""The launchers of several pods, each a process of its own on loopback; their trainers are small processes."""

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
    appear,
    forked,
    is_there,
    kept_port,
    until_asked,
    until_gone,
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
    """A launcher in a process of its own; it is more patient than the tests."""

    def __init__(self, directory: Path, node: Node, body: Body, *, processes: int = 1, group: str = GROUP) -> None:
        self.directory, self._node, self._body, self._processes = directory, node, body, processes
        self._word = directory / f"word-{node.index}"
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
            word = self._end(stop)
        except TrainerError as error:
            word = termination_of(error)
        self._word.write_text(word.to_message())
        return word.exit_code

    def _end(self, stop: StopFlag) -> Termination:
        found = rendezvous.rendezvous(
            self._node,
            self._group,
            stop=stop,
            say=self._say,
            find_result=lambda: read_result(self.directory),
        )
        if isinstance(found, Termination):
            return found
        return launch(self._processes, stop=stop, environ={}, pods=found, start=forked(self._body, self.directory))

    def _say(self, kind: str, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{kind}: {text}\n")

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def wait(self) -> Termination:
        """Its last word, which agrees with its code."""
        wait_until(lambda: not is_there(self.pid))
        _pid, status = os.waitpid(self.pid, 0)
        word = Termination.model_validate_json(self._word.read_bytes())
        assert word.exit_code == os.waitstatus_to_exitcode(status)
        return word

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def clear(self) -> None:
        """Leave nothing of it, where its test has not seen its end."""
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                self.kill()


Start = Callable[..., Pod]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a pod by its number."""
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

    with kept_port() as port:
        yield begin
        for pod in pods:
            pod.clear()


def here(directory: Path, *ranks: int) -> None:
    """Wait until these processes have begun."""
    wait_until(lambda: all((directory / str(rank)).exists() for rank in ranks))


def finish(_member: Membership, _stop: StopFlag) -> int:
    return 0


def until_stopped(_member: Membership, stop: StopFlag) -> int:
    return until_asked(stop)


def test_pods_meet_and_end_with_the_word_of_the_first(start: Start, tmp_path: Path) -> None:
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


def test_one_that_comes_late_is_waited_for(start: Start) -> None:
    first = start(0, finish, count=3)
    second = start(1, finish, count=3)
    wait_until(lambda: "Pod 0 of 3 waits for pod 2." in first.log and "waits until all are there" in second.log)
    third = start(2, finish, count=3)
    assert [pod.wait().exit_code for pod in (first, second, third)] == [0, 0, 0]
    assert "PodsMet: All 3 pods of the group are there." in first.log


def test_the_first_one_may_come_late_and_one_that_was_started_again_counts_once(start: Start) -> None:
    second = start(1, finish, count=3)
    wait_until(lambda: "waits for pod 0 at 127.0.0.1" in second.log and "connection refused" in second.log)
    first = start(0, finish, count=3)
    wait_until(lambda: "waits until all are there" in second.log)
    second.kill()
    pods = [first, start(1, finish, count=3), start(2, finish, count=3)]
    assert [pod.wait().exit_code for pod in pods] == [0, 0, 0]


def test_one_that_hears_go_and_the_end_at_once_misses_neither(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "trainyard_trainer.group.pod_peers._GOODBYE_SECONDS", 0.2
    )  # nobody waits for one that stands still
    first, second = (start(index, finish, count=3) for index in range(2))
    wait_until(lambda: "waits until all are there" in second.log)
    os.kill(second.pid, signal.SIGSTOP)
    third = start(2, finish, count=3)
    assert [pod.wait().exit_code for pod in (first, third)] == [0, 0]
    os.kill(second.pid, signal.SIGCONT)
    assert second.wait().message == "of 0"


def test_a_name_without_an_address_is_waited_for_and_then_costs_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "an-hour-later"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * later.exists())
    monkeypatch.setattr(rendezvous, "time", clock)
    pod = start(1, finish, address="pod-0.invalid")
    wait_until(lambda: "that name has no address yet" in pod.log)
    later.touch()
    found = pod.wait()
    assert found.exit_code == 76
    assert "Pod 1 of 2 waits for pod 0 at pod-0.invalid:" in found.message
    assert "that name has no address yet; 600 s were not enough." in found.message
    assert "kubectl describe" in found.advice


@pytest.mark.parametrize("index", [0, 1])
def test_one_that_is_asked_to_stop_while_it_waits_stops_at_once(start: Start, index: int) -> None:
    pod = start(index, finish)
    wait_until(lambda: "WaitingForPods" in pod.log)
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.wait().exit_code == 75


@pytest.mark.parametrize("index", [0, 1])
def test_a_run_that_has_finished_is_not_waited_for(start: Start, tmp_path: Path, index: int) -> None:
    pod = start(index, finish)
    wait_until(lambda: "WaitingForPods" in pod.log)
    leave_result(tmp_path)
    found = pod.wait()
    assert (found.exit_code, found.message) == (0, "It has finished.")


def leave_result(directory: Path) -> None:
    word = Termination(outcome=Outcome.FINISHED, exit_code=0, reason="Finished", message="It has finished.")
    appear(directory / RESULT_FILE, word.to_message())


def test_strangers_are_sent_away(start: Start) -> None:
    first = start(0, finish)
    wait_until(lambda: "WaitingForPods" in first.log)
    for text in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b'{"kind":"hello","index":1,"group":"another"}\n',
        b"x" * 70_000,
    ):
        assert is_sent_away(port_of(first), text)
    other = start(1, finish, group="another")
    wait_until(lambda: "it does not take this pod" in other.log)
    other.kill()
    assert start(1, finish).wait().exit_code == 0
    assert first.wait().exit_code == 0


def port_of(pod: Pod) -> int:
    return pod._node.port


def is_sent_away(port: int, text: bytes) -> bool:
    """Whether who says this hears nothing but the end of the connection, which comes hard where not all was read."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            connection.sendall(text)
            return connection.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError):
            return True


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_is_killed_ends_the_other_one(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """By the end of its connection: its silence would be noticed after hours."""
    monkeypatch.setattr("trainyard_trainer.group.control_channel.HEARTBEAT_SECONDS", 3600.0)
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.HEARTBEAT_SECONDS", 3600.0)
    pods = [start(number, until_stopped) for number in range(2)]
    here(tmp_path, 0, 1)
    pods[index].kill()
    found = pods[1 - index].wait()
    assert (found.exit_code, found.reason) == (76, "PeerLost")
    assert f"Pod {index} of 2 was lost" in found.message


def test_a_pod_that_is_silent_is_given_up(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its node loses power: no connection ends."""
    silent = tmp_path / "silent"
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() * (100 if silent.exists() else 1))
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.time", clock)
    monkeypatch.setattr("trainyard_trainer.group.pod_peers.HEARTBEAT_SECONDS", 0.05)
    first, second = (start(number, until_stopped) for number in range(2))
    here(tmp_path, 0, 1)
    os.kill(second.pid, signal.SIGSTOP)
    silent.touch()  # from now on the first one's time flies
    assert "Pod 1 of 2 was lost" in first.wait().message
    os.kill(second.pid, signal.SIGCONT)
    assert second.wait().exit_code == 76, "it was cut off, and finds the group gone"


@pytest.mark.parametrize("index", [0, 1])
def test_one_that_is_asked_to_stop_asks_the_others(start: Start, tmp_path: Path, index: int) -> None:
    def body(member: Membership, stop: StopFlag) -> int:
        """All save together, so that none may end before all were asked."""
        code = until_asked(stop)
        (tmp_path / f"asked-{member.rank}").touch()
        wait_until(lambda: all((tmp_path / f"asked-{rank}").exists() for rank in range(6)))
        return code

    pods = [start(number, body, processes=2, count=3) for number in range(3)]
    here(tmp_path, *range(6))
    os.kill(pods[index].pid, signal.SIGTERM)
    assert [pod.wait().exit_code for pod in pods] == [75, 75, 75]


def test_the_first_one_is_told_why_another_one_ends(start: Start, tmp_path: Path) -> None:
    def body(member: Membership, stop: StopFlag) -> int:
        return 79 if member.rank == 1 else until_asked(stop)

    pods = [start(number, body, count=3) for number in range(3)]
    words = [pod.wait() for pod in pods]
    assert [word.exit_code for word in words] == [76, 79, 76]
    assert words[0].message == "Pod 1 of 3 ended with Reason: of 1"
    assert words[2].message == words[0].message


def in_first(first: Body) -> Body:
    """The first process does this, the others are done at once."""
    return lambda member, stop: first(member, stop) if member.rank == 0 else 0


def test_others_end_after_the_first_one(start: Start, tmp_path: Path) -> None:
    first, second = (start(number, in_first(lambda _member, _stop: until_gone(tmp_path / "1"))) for number in range(2))
    assert [pod.wait().message for pod in (first, second)] == ["of 0", "of 0"], "the second one has the first one's"


@pytest.mark.parametrize(("code", "expected"), [(65, 76), (75, 75)])
def test_others_wait_for_a_first_one_that_does_not_finish(
    start: Start, tmp_path: Path, code: int, expected: int
) -> None:
    body = in_first(lambda _member, _stop: until_gone(tmp_path / "1") or code)
    first, second = (start(number, body) for number in range(2))
    assert (first.wait().exit_code, second.wait().exit_code) == (code, expected)


@pytest.mark.parametrize(("finished", "code"), [(False, 76), (True, 0)])
def test_a_first_one_that_is_killed_while_others_wait(start: Start, tmp_path: Path, finished: bool, code: int) -> None:
    first, second = (start(number, in_first(until_stopped)) for number in range(2))
    here(tmp_path, 0, 1)
    until_gone(tmp_path / "1")
    if finished:
        leave_result(tmp_path)
    first.kill()
    assert second.wait().exit_code == code


def test_one_that_waits_for_the_result_may_go_without_disturbing_the_first(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, gone, trained = tmp_path / "told", tmp_path / "gone", ConnectedPodPeers.trained

    def tell(pods: ConnectedPodPeers) -> None:
        trained(pods)
        told.touch()

    def body(_member: Membership, stop: StopFlag) -> int:
        wait_until(lambda: gone.exists() or stop.requested)
        return 75 if until_asked(stop, 1) == 75 else 0

    monkeypatch.setattr(ConnectedPodPeers, "trained", tell)
    monkeypatch.setattr("trainyard_trainer.group.pod_peers._GOODBYE_SECONDS", 0.2)  # the first one is busy, and stays
    first, second = (start(number, in_first(body)) for number in range(2))
    wait_until(told.exists)
    os.kill(second.pid, signal.SIGTERM)
    assert second.wait().exit_code == 75
    gone.touch()
    assert first.wait().exit_code == 0


def test_an_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    assert interface_of("no address") is None
    if any(line.startswith("0" * 31 + "1") for line in Path("/proc/net/if_inet6").read_text().splitlines()):
        assert interface_of("::1") == "lo"
