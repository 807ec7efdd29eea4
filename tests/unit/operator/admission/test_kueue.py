"""The Kueue admission controller: decisions, positions and their rate."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.admission.workloads import workload
from tests.unit.operator.trainingjob.state_model import CHILD_UID, NAME, NAMESPACE, JobModel
from trainyard_kube.errors import NotFoundError
from trainyard_kube.resource import Key
from trainyard_operator.admission.kueue.controller import KueueAdmission, positions
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate
from trainyard_operator.trainingjob.resources import job_key

Object = dict[str, Any]
KEY = job_key(NAMESPACE, NAME)


class KueueFixture:
    """One TrainingJob that waits in Kueue, and a fake visibility API."""

    def __init__(self) -> None:
        self.state, self.added, self.requests = JobModel(), [], 0
        self.state.kueue = {"default": "gpus"}
        self.state.apply(self.state.plan())
        self.items: list[Object] | None = []
        self.gone, self.clock = False, 0.0
        self.controller = self.restart()

    def restart(self) -> KueueAdmission:
        """Replace the controller by one of a new process that observes the same job and Workload."""
        kube: Any = self
        self.controller = KueueAdmission(
            kube,
            observe=self._observe,
            add=self.added.append,
            now=lambda: self.state.now,
            clock=lambda: self.clock,
            default_queue="gpus",
        )
        self.controller._workloads.synced = True
        self.controller.mark_dirty(KEY)
        self.controller.observe_workload(workload(CHILD_UID, 5))
        return self.controller

    added: list[Key]

    def _observe(self, _key: Key) -> TrainingJobCandidate | None:
        return None if self.gone else TrainingJobCandidate(self.state.observed())

    async def get(self, url: str) -> Object:
        self.requests += 1
        assert url.endswith("/namespaces/team/localqueues/gpus/pendingworkloads")
        if self.items is None:
            raise NotFoundError(404, "", "404 page not found")
        return {"items": self.items}

    def decision(self) -> Any:
        return self.controller.decide(TrainingJobCandidate(self.state.observed()))


def item(uid: str, position: int) -> Object:
    return {"metadata": {"ownerReferences": [{"kind": "Job", "uid": uid}]}, "positionInClusterQueue": position}


async def test_position_is_requested_while_a_job_waits_and_published_on_change() -> None:
    fixture = KueueFixture()
    await fixture.controller.refresh()
    assert fixture.requests == 0, "no decision was requested yet"
    assert fixture.decision().queue.get("position") is None
    fixture.items = [item("other", 0), item(CHILD_UID, 1)]
    fixture.added.clear()
    await fixture.controller.refresh()
    assert (fixture.requests, fixture.added) == (1, [KEY])
    found = fixture.decision().queue
    assert (found["position"], found["length"]) == (2, 2)
    await fixture.controller.refresh()
    assert fixture.added == [KEY], "nothing changed"
    fixture.items = None
    await fixture.controller.refresh()
    assert fixture.added == [KEY, KEY]
    assert "position" not in fixture.decision().queue


async def test_new_operator_publishes_nothing_twice() -> None:
    fixture = KueueFixture()
    fixture.decision()
    fixture.items = [item("other", 0), item(CHILD_UID, 1)]
    await fixture.controller.refresh()
    before = fixture.decision()
    admitted = {"type": "Admitted", "status": "False", "reason": before.reason, "message": before.message}
    fixture.state.job["status"] = {"queue": before.queue, "conditions": [admitted]}
    fixture.restart()
    assert fixture.decision() == before
    fixture.added.clear()
    await fixture.controller.refresh()
    assert fixture.added == []


async def test_debug_view_is_exact_and_status_is_rounded() -> None:
    fixture = KueueFixture()
    fixture.decision()
    fixture.items = [*(item(f"u{number}", number) for number in range(22)), item(CHILD_UID, 22)]
    await fixture.controller.refresh()
    assert fixture.decision().queue["position"] == 30
    row = fixture.controller.describe()["waiting"][0]
    assert (row["name"], row["pool"], row["position"], row["length"]) == (NAME, "gpus", 23, 23)
    assert fixture.controller.count_waiting() == {f"{NAMESPACE}/gpus": 1}
    assert fixture.controller.is_waiting(KEY)


async def test_no_position_is_requested_for_suspended_or_deleted_jobs() -> None:
    fixture = KueueFixture()
    fixture.decision()
    fixture.state.job["spec"]["suspend"] = True
    fixture.controller.mark_dirty(KEY)
    fixture.decision()
    await fixture.controller.refresh()
    assert (fixture.requests, fixture.controller.describe()) == (0, {"waiting": [], "holding": []})
    fixture.gone = True
    fixture.controller.mark_dirty(KEY)
    fixture.added.clear()
    fixture.controller.observe_workload(workload(CHILD_UID, 9))
    assert fixture.added == []


async def test_job_without_a_workload_is_reconciled_periodically() -> None:
    fixture = KueueFixture()
    fixture.controller._workloads._by_job.clear()
    assert fixture.decision().reason == "WaitingForKueue"
    fixture.added.clear()
    await fixture.controller.refresh()
    assert (fixture.requests, fixture.added) == (0, [KEY])


async def test_changing_messages_are_rate_limited() -> None:
    fixture = KueueFixture()

    def missing(count: int) -> str:
        found = workload(CHILD_UID, 5 + count)
        text = f"{count} more needed"
        found["status"]["conditions"] = [{"type": "QuotaReserved", "status": "False", "reason": "Pending"}]
        found["status"]["conditions"][0]["message"] = text
        fixture.controller.observe_workload(found)
        return str(fixture.decision().message)

    assert missing(1) == "Kueue has not admitted it: 1 more needed."
    assert missing(2) == "Kueue has not admitted it: 1 more needed."
    fixture.clock = 11.0
    fixture.added.clear()
    await fixture.controller.refresh()
    assert KEY in fixture.added
    assert fixture.decision().message == "Kueue has not admitted it: 2 more needed."
    changed = workload(CHILD_UID, 9)
    changed["status"]["conditions"] = [{"type": "Evicted", "status": "True", "reason": "Preempted", "message": "x"}]
    fixture.controller.observe_workload(changed)
    assert fixture.decision().reason == "Preempted", "a new reason is published at once"


def test_no_decision_before_the_first_list_of_workloads() -> None:
    fixture = KueueFixture()
    fixture.controller._workloads.synced = False
    found = fixture.decision()
    assert (found.decided, found.admitted) == (False, False)
    fixture.added.clear()
    fixture.controller._availability_changed()
    assert fixture.added == [KEY]


def test_length_is_at_least_the_last_position() -> None:
    assert positions([item("a", 3), item("b", 6)]) == {"a": QueuePosition(4, 7), "b": QueuePosition(7, 7)}
    assert positions([]) == {}
