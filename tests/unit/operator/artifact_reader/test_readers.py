"""Readers start on demand, end, are replaced and removed, also when the operator is killed in between."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.artifact_reader.api import EVENTS, TEAM, Api, Killed, claim, unavailable
from trainyard_crds.serving import reader_name
from trainyard_kube.clock import ServerClock
from trainyard_operator.artifact_reader.objects import ReaderObjects
from trainyard_operator.artifact_reader.readers import ArtifactReaders
from trainyard_operator.certificates import Pair, new_authority
from trainyard_operator.pod_template.defaults import PodDefaults

NAME = reader_name("runs")
POD = f"{TEAM}/pods/{NAME}"
STARTED = ["create services", "create secrets", "create pods"]
REMOVED = ["delete pods", "delete secrets", "delete services"]
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
AUTHORITY = new_authority(ServerClock().now())


class Operator:
    """One operator process.

    Attributes:
        now: Monotonic seconds.
        authority: The certificate authority.
    """

    def __init__(self, api: Api, now: float = 1000.0) -> None:
        self.api, self.now = api, now
        self.authority: Pair | None = AUTHORITY
        objects = ReaderObjects(
            api,  # type: ignore[arg-type]
            ServerClock(),
            image="operator",
            pull_policy="IfNotPresent",
            defaults=PodDefaults(),
            others=(),
        )
        self.readers = ArtifactReaders(
            objects, lambda: self.now, authority=lambda: self.authority, namespaces=("team",)
        )

    async def request(self) -> None:
        """Request the reader of the claim and follow the request."""
        self.readers.request("team", "runs")
        await self.readers.work()

    async def sweep(self) -> None:
        """Let a minute pass."""
        self.now += 60
        await self.readers.work()

    @property
    def problem(self) -> str | None:
        return self.readers.problem("team", "runs")


@pytest.fixture
def api() -> Api:
    made = Api()
    made.objects[f"{TEAM}/persistentvolumeclaims/runs"] = claim()
    return made


@pytest.fixture
def operator(api: Api) -> Operator:
    return Operator(api)


def names(api: Api) -> set[str]:
    return {path.split("/")[-2] for path in api.objects if path.endswith(NAME)}


async def test_request_starts_a_reader_once(api: Api, operator: Operator) -> None:
    await operator.request()
    assert api.writes == STARTED
    operator.now += 6
    await operator.request()
    assert api.writes == STARTED


async def test_nothing_is_called_while_nothing_changes(api: Api, operator: Operator) -> None:
    await operator.readers.work()
    before = api.calls
    for _ in range(10):
        await operator.sweep()
    assert api.calls == before

    await operator.request()
    api.objects[POD]["status"] = READY
    operator.now += 6
    await operator.request()
    before = api.calls
    for _ in range(10):
        operator.now += 2
        await operator.request()
    assert api.calls == before


@pytest.mark.parametrize("end", [{"phase": "Succeeded"}, {"phase": "Failed"}])
async def test_reader_that_ended_is_removed(api: Api, operator: Operator, end: dict[str, Any]) -> None:
    await operator.request()
    await operator.sweep()
    assert api.writes == STARTED
    api.objects[POD]["status"] = end
    await operator.sweep()
    assert api.writes == [*STARTED, *REMOVED]
    before = api.calls
    await operator.sweep()
    assert api.calls == before


async def test_reader_that_ended_is_started_again_by_a_request(api: Api, operator: Operator) -> None:
    await operator.request()
    old = api.objects[f"{TEAM}/secrets/{NAME}"]["data"]["tls.key"]
    api.objects[POD]["status"] = {"phase": "Succeeded"}
    operator.now += 6
    await operator.request()
    assert api.writes == [*STARTED, *REMOVED, *STARTED]
    assert api.objects[f"{TEAM}/secrets/{NAME}"]["data"]["tls.key"] != old


async def test_deleted_pod_is_replaced_with_its_certificate(api: Api, operator: Operator) -> None:
    await operator.request()
    del api.objects[POD]
    operator.now += 6
    await operator.request()
    assert api.writes == [*STARTED, "delete secrets", "create secrets", "create pods"]


async def live(operator: Operator) -> None:
    """Start a reader, replace it after its end, and be killed at the latest then."""
    await operator.request()
    operator.api.objects[POD]["status"] = {"phase": "Succeeded"}
    operator.now += 6
    await operator.request()
    raise Killed


@pytest.mark.parametrize("requested", [True, False])
@pytest.mark.parametrize("lives", range(10))
async def test_killed_operator_leaves_nothing_behind(api: Api, lives: int, requested: bool) -> None:
    api.lives = lives
    with pytest.raises(Killed):
        await live(Operator(api))
    api.lives = None
    second = Operator(api, now=5.0)
    await second.readers.work()
    if requested:
        await second.request()
        assert names(api) == {"pods", "secrets", "services"}
        assert api.objects[POD].get("status") is None
        api.objects[POD]["status"] = {"phase": "Succeeded"}
    elif POD in api.objects:
        api.objects[POD]["status"] = {"phase": "Succeeded"}
    await second.sweep()
    assert names(api) == set()


async def test_missing_claim_has_a_sentence(api: Api, operator: Operator) -> None:
    found = api.objects.pop(f"{TEAM}/persistentvolumeclaims/runs")
    await operator.request()
    assert operator.problem == "Claim runs does not exist: the files on it are gone."
    api.objects[f"{TEAM}/persistentvolumeclaims/runs"] = found
    operator.now += 6
    await operator.request()
    assert operator.problem is None
    assert api.writes == STARTED


async def test_claim_that_is_being_deleted_gets_no_reader(api: Api, operator: Operator) -> None:
    api.objects[f"{TEAM}/persistentvolumeclaims/runs"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await operator.request()
    assert operator.problem == "Claim runs is being deleted, and the files on it with it."
    assert api.writes == []


async def test_failing_api_server_has_a_sentence_and_is_not_asked_at_once_again(api: Api, operator: Operator) -> None:
    await operator.readers.work()
    api.broken = unavailable()
    await operator.request()
    text = "The reader of claim runs cannot be started: 503 ServiceUnavailable: etcd is down."
    assert operator.problem == text
    before = api.calls
    await operator.request()
    assert api.calls == before
    api.broken = None
    operator.now += 6
    await operator.request()
    assert operator.problem is None
    assert api.writes == STARTED


async def test_pauses_between_failed_tries_grow_to_a_minute(api: Api, operator: Operator) -> None:
    api.refuses = "pods"
    tries = []
    for second in range(240):
        before = len(api.writes)
        await operator.request()
        if api.writes[before:][-1:] == ["create secrets"]:
            tries.append(second)
        operator.now += 1
    assert tries == [0, 5, 15, 35, 75, 135, 195]
    assert operator.problem == "The reader of claim runs cannot be started: 403 Forbidden: exceeded quota."
    api.refuses = ""
    operator.now += 60
    await operator.request()
    assert operator.problem is None
    assert POD in api.objects


async def test_problem_without_a_further_request_is_forgotten(api: Api, operator: Operator) -> None:
    api.objects.pop(f"{TEAM}/persistentvolumeclaims/runs")
    await operator.request()
    await operator.sweep()
    assert operator.problem is None
    before = api.calls
    await operator.sweep()
    assert api.calls == before


async def test_readers_that_cannot_be_listed_are_listed_later(api: Api, operator: Operator) -> None:
    await operator.request()
    api.objects[POD]["status"] = {"phase": "Succeeded"}
    second, api.broken = Operator(api), unavailable()
    await second.readers.work()
    api.broken = None
    await second.readers.work()
    await second.sweep()
    assert names(api) == set()


async def test_authority_that_is_not_known_yet_is_waited_for(api: Api, operator: Operator) -> None:
    operator.authority = None
    await operator.request()
    assert api.writes == []
    operator.authority = AUTHORITY
    await operator.readers.work()
    assert api.writes == STARTED


def mounted_by(api: Api, name: str, node: str, phase: str) -> None:
    volumes = [{"name": "run", "persistentVolumeClaim": {"claimName": "runs"}}]
    body = {"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": volumes}, "status": {"phase": phase}}
    api.objects[f"{TEAM}/pods/{name}"] = body


async def test_reader_of_a_claim_of_one_node_goes_there_and_yields(api: Api, operator: Operator) -> None:
    api.objects[f"{TEAM}/persistentvolumeclaims/runs"] = claim("runs", "ReadWriteOnce")
    mounted_by(api, "train", "node-1", "Running")
    await operator.request()
    affinity = api.objects[POD]["spec"]["affinity"]["nodeAffinity"]
    assert "node-1" in str(affinity["preferredDuringSchedulingIgnoredDuringExecution"])

    api.objects[POD] |= {"status": READY, "spec": {**api.objects[POD]["spec"], "nodeName": "node-1"}}
    await operator.sweep()
    assert api.writes == STARTED
    mounted_by(api, "next", "node-2", "Pending")
    await operator.sweep()
    assert api.writes == [*STARTED, *REMOVED]


async def test_reader_of_a_shared_claim_does_not_yield(api: Api, operator: Operator) -> None:
    await operator.request()
    api.objects[POD] |= {"status": READY, "spec": {**api.objects[POD]["spec"], "nodeName": "node-1"}}
    mounted_by(api, "next", "node-2", "Pending")
    await operator.sweep()
    assert api.writes == STARTED
    assert "affinity" not in api.objects[POD]["spec"]


async def test_reader_on_a_lost_node_is_reported_and_not_deleted_again(api: Api, operator: Operator) -> None:
    await operator.request()
    pod = api.objects[POD]
    pod["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z"
    pod |= {"status": READY, "spec": {**pod["spec"], "nodeName": "node-1"}}
    operator.now += 6
    await operator.request()
    assert operator.problem is not None
    assert "its earlier reader on node node-1 does not end. If the node is lost, delete it" in operator.problem
    assert api.writes == STARTED
    del api.objects[POD]
    operator.now += 6
    await operator.request()
    assert operator.problem is None
    assert POD in api.objects


async def test_event_says_why_the_claim_cannot_be_mounted(api: Api, operator: Operator) -> None:
    await operator.request()
    pod = api.objects[POD]
    at = "2020-01-01T00:00:00Z"
    pod["status"] = {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at}]}
    regarding = {"kind": "Pod", "name": NAME, "uid": pod["metadata"]["uid"]}
    event = {"metadata": {}, "type": "Warning", "note": "Multi-Attach error", "eventTime": at, "regarding": regarding}
    older = {**event, "note": "of an earlier pod", "regarding": {**regarding, "uid": "gone"}}
    api.objects |= {f"{EVENTS}/one": event, f"{EVENTS}/two": older}
    operator.now += 6
    await operator.request()
    assert operator.problem == "The files of claim runs cannot be read yet: Multi-Attach error."
    pod["status"] = READY
    operator.now += 6
    await operator.request()
    assert operator.problem is None
