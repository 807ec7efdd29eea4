"""Kueue in the place of the builtin queue: who is told what, when, and how often."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.admission.test_kueue_workloads import workload
from tests.unit.operator.trainingjob.state_model import CHILD_UID, NAME, NAMESPACE, World
from trainyard_kube.errors import NotFoundError
from trainyard_operator.admission.kueue.controller import KueueAdmission, positions
from trainyard_operator.kube.store import Key
from trainyard_operator.queue.position import QueuePosition
from trainyard_operator.trainingjob.queue_adapter import TrainingJobCandidate

Object = dict[str, Any]
KEY = Key(NAMESPACE, NAME)


class Yard:
    """One TrainingJob that waits in Kueue, and the API server's visibility API."""

    def __init__(self) -> None:
        self.world, self.added, self.asked = World(), [], 0
        self.world.kueue = {"default": "gpus"}
        self.world.apply(self.world.plan())
        self.items: list[Object] | None = []
        self.gone, self.clock = False, 0.0
        self.queue = self.restart()

    def restart(self) -> KueueAdmission:
        """A new process that knows the same job and its Workload."""
        kube: Any = self
        self.queue = KueueAdmission(
            kube,
            observe=self._observe,
            add=self.added.append,
            now=lambda: self.world.now,
            clock=lambda: self.clock,
            default_queue="gpus",
        )
        self.queue._workloads.listed = True
        self.queue.mark_dirty(KEY)
        self.queue.observe_workload(workload(CHILD_UID, 5))
        return self.queue

    added: list[Key]

    def _observe(self, _key: Key) -> TrainingJobCandidate | None:
        return None if self.gone else TrainingJobCandidate(self.world.observed())

    async def get(self, url: str) -> Object:
        self.asked += 1
        assert url.endswith("/namespaces/team/localqueues/gpus/pendingworkloads")
        if self.items is None:
            raise NotFoundError(404, "", "404 page not found")
        return {"items": self.items}

    def admission(self) -> Any:
        return self.queue.decide(TrainingJobCandidate(self.world.observed()))


def item(uid: str, position: int) -> Object:
    return {"metadata": {"ownerReferences": [{"kind": "Job", "uid": uid}]}, "positionInClusterQueue": position}


async def test_a_place_is_asked_for_while_a_job_waits_and_told_when_it_changes() -> None:
    yard = Yard()
    await yard.queue.refresh()
    assert yard.asked == 0, "nobody was answered yet"
    assert yard.admission().queue.get("position") is None
    yard.items = [item("other", 0), item(CHILD_UID, 1)]
    yard.added.clear()
    await yard.queue.refresh()
    assert (yard.asked, yard.added) == (1, [KEY])
    found = yard.admission().queue
    assert (found["position"], found["length"]) == (2, 2)
    await yard.queue.refresh()
    assert yard.added == [KEY], "nothing changed"
    yard.items = None
    await yard.queue.refresh()
    assert yard.added == [KEY, KEY]
    assert "position" not in yard.admission().queue


async def test_a_new_operator_tells_nothing_that_the_one_before_has_told() -> None:
    yard = Yard()
    yard.admission()
    yard.items = [item("other", 0), item(CHILD_UID, 1)]
    await yard.queue.refresh()
    before = yard.admission()
    admitted = {"type": "Admitted", "status": "False", "reason": before.reason, "message": before.message}
    yard.world.job["status"] = {"queue": before.queue, "conditions": [admitted]}
    yard.restart()
    assert yard.admission() == before
    yard.added.clear()
    await yard.queue.refresh()
    assert yard.added == []


async def test_the_exact_queue_is_shown_and_the_rounded_one_told() -> None:
    yard = Yard()
    yard.admission()
    yard.items = [*(item(f"u{number}", number) for number in range(22)), item(CHILD_UID, 22)]
    await yard.queue.refresh()
    assert yard.admission().queue["position"] == 30
    row = yard.queue.describe()["waiting"][0]
    assert (row["name"], row["pool"], row["position"], row["length"]) == (NAME, "gpus", 23, 23)
    assert yard.queue.count_waiting() == {f"{NAMESPACE}/gpus": 1}
    assert yard.queue.is_waiting(KEY)


async def test_a_job_that_is_suspended_or_gone_is_not_asked_for() -> None:
    yard = Yard()
    yard.admission()
    yard.world.job["spec"]["suspend"] = True
    yard.queue.mark_dirty(KEY)
    yard.admission()
    await yard.queue.refresh()
    assert (yard.asked, yard.queue.describe()) == (0, {"waiting": [], "holding": []})
    yard.gone = True
    yard.queue.mark_dirty(KEY)
    yard.added.clear()
    yard.queue.observe_workload(workload(CHILD_UID, 9))
    assert yard.added == []


async def test_a_job_without_a_workload_is_looked_at_now_and_then() -> None:
    yard = Yard()
    yard.queue._workloads._workloads.clear()
    assert yard.admission().reason == "WaitingForKueue"
    yard.added.clear()
    await yard.queue.refresh()
    assert (yard.asked, yard.added) == (0, [KEY])


async def test_words_that_change_with_every_start_of_others_are_told_now_and_then() -> None:
    yard = Yard()

    def missing(count: int) -> str:
        found = workload(CHILD_UID, 5 + count)
        text = f"{count} more needed"
        found["status"]["conditions"] = [{"type": "QuotaReserved", "status": "False", "reason": "Pending"}]
        found["status"]["conditions"][0]["message"] = text
        yard.queue.observe_workload(found)
        return str(yard.admission().message)

    assert missing(1) == "Kueue has not admitted it: 1 more needed."
    assert missing(2) == "Kueue has not admitted it: 1 more needed."
    yard.clock = 11.0
    yard.added.clear()
    await yard.queue.refresh()
    assert KEY in yard.added
    assert yard.admission().message == "Kueue has not admitted it: 2 more needed."
    changed = workload(CHILD_UID, 9)
    changed["status"]["conditions"] = [{"type": "Evicted", "status": "True", "reason": "Preempted", "message": "x"}]
    yard.queue.observe_workload(changed)
    assert yard.admission().reason == "Preempted", "another reason is told at once"


def test_nothing_is_settled_before_the_first_list_and_everybody_is_looked_at_after_it() -> None:
    yard = Yard()
    yard.queue._workloads.listed = False
    found = yard.admission()
    assert (found.decided, found.admitted) == (False, False)
    yard.added.clear()
    yard.queue._availability_changed()
    assert yard.added == [KEY]


def test_the_length_is_at_least_the_last_place_of_a_queue_that_others_share() -> None:
    assert positions([item("a", 3), item("b", 6)]) == {"a": QueuePosition(4, 7), "b": QueuePosition(7, 7)}
    assert positions([]) == {}
