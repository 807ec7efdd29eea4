"""A ClusterQueue with two flavors of GPUs: nodes of admitted jobs, and reasons of waiting ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.kueue.cluster_fixture import Job, KueueTeam, Object, flavor, local_queue, queue_of_flavors

LABEL, QUEUE = "trainyard.test/gpu", "flavors"
TAINT = {"key": "trainyard.test/dedicated", "value": "h100", "effect": "NoSchedule"}
TOLERATION = {"key": TAINT["key"], "operator": "Exists", "effect": "NoSchedule"}


@pytest.fixture(scope="module")
def nodes(kubernetes: Kubernetes) -> Iterator[None]:
    """One node with A100s and a tainted one with H100s."""
    paths = [f"/api/v1/nodes/kwok-{index}" for index in range(2)]
    taints = kubernetes.client.get(paths[1])["spec"]["taints"]
    for path, name in zip(paths, ("a100", "h100"), strict=True):
        kubernetes.client.patch(path, {"metadata": {"labels": {LABEL: name}}})
    kubernetes.client.patch(paths[1], {"spec": {"taints": [*taints, TAINT]}})
    flavor(kubernetes, "a100", {LABEL: "a100"})
    flavor(kubernetes, "h100", {LABEL: "h100"}, nodeTaints=[TAINT])
    yield
    kubernetes.client.patch(paths[1], {"spec": {"taints": taints}})


@pytest.fixture
def shop(team: KueueTeam, kubernetes: Kubernetes, nodes: None) -> KueueTeam:
    """A team whose LocalQueue has 2 A100s and then 2 H100s."""
    quotas(kubernetes, 2, 2)
    local_queue(kubernetes, team.namespace, QUEUE, QUEUE)
    return team


def quotas(kubernetes: Kubernetes, a100: int, h100: int, **spec: Any) -> None:
    queue_of_flavors(kubernetes, QUEUE, {"a100": a100, "h100": h100}, **spec)


def submit(
    shop: KueueTeam, name: str, gpus: int = 2, *, tolerates: bool = True, gpu: str | None = None, priority: int = 5
) -> Job:
    resources: Object = {"gpus": gpus, "cpu": "100m", "memory": "64Mi"}
    resources |= {"tolerations": [TOLERATION]} if tolerates else {}
    resources |= {"nodeSelector": {LABEL: gpu}} if gpu else {}
    return shop.submit(name, resources=resources, queue={"name": QUEUE, "priority": priority})


def placed(job: Job) -> tuple[str, str]:
    """The flavor in its Job's template, and the node that its pod runs on."""
    (pod,) = job.live()
    return job.child()["spec"]["template"]["spec"]["nodeSelector"][LABEL], pod["spec"]["nodeName"]


def test_job_uses_the_second_flavor_while_the_first_is_full(shop: KueueTeam) -> None:
    first = submit(shop, "first")
    first.runs()
    assert placed(first) == ("a100", "kwok-0")
    second = submit(shop, "second")
    second.runs()
    assert placed(second) == ("h100", "kwok-1")
    before = second.child()
    assert TOLERATION in before["spec"]["template"]["spec"]["tolerations"]
    second.patch(suspend=True)
    second.wait("Suspended")
    until(lambda: "nodeSelector" not in second.child()["spec"]["template"]["spec"])
    first.succeed()
    second.patch(suspend=False)
    assert second.runs(attempts=2)["attemptCounts"]["failed"] == 0
    assert placed(second) == ("a100", "kwok-0")
    assert [one["node"] for one in second.status()["attempts"]] == ["kwok-1", "kwok-0"]
    after = second.child()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert tolerations(after) == tolerations(before)
    second.succeed()


def test_preempted_job_resumes_on_another_flavor_in_the_same_job(shop: KueueTeam, kubernetes: Kubernetes) -> None:
    low, other = submit(shop, "low", priority=1), submit(shop, "other", gpu="h100", priority=9)
    low.runs()
    other.runs()
    assert (placed(low), placed(other)) == (("a100", "kwok-0"), ("h100", "kwok-1"))
    uid = low.child()["metadata"]["uid"]
    quotas(kubernetes, 2, 2, preemption={"withinClusterQueue": "LowerPriority"})
    submit(shop, "high", gpu="a100", priority=9).runs()
    status = low.waits("Preempted")
    assert status["queue"]["pool"] == QUEUE
    until(lambda: "2 more needed" in low.status()["message"])
    assert low.status()["message"].endswith("It resumes where it was when Kueue admits it.")
    other.succeed()
    status = low.runs(attempts=2)
    assert (status["message"], status["attemptCounts"]["failed"]) == ("Attempt 2 is training.", 0)
    assert placed(low) == ("h100", "kwok-1")
    assert low.child()["metadata"]["uid"] == uid


def test_job_without_a_matching_flavor_names_the_mismatches(shop: KueueTeam) -> None:
    nowhere = "No ResourceFlavor of its queue matches spec.resources.nodeSelector and tolerations."
    unknown, untolerating = submit(shop, "unknown", gpu="v100"), submit(shop, "strict", tolerates=False, gpu="h100")
    assert unknown.waits("NoMatchingFlavor")["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: flavor a100 doesn't match node affinity, "
        f"flavor h100 doesn't match node affinity. {nowhere}"
    )
    assert untolerating.waits("NoMatchingFlavor")["message"] == (
        "Kueue has not admitted it: couldn't assign flavors to pod set main: flavor a100 doesn't match node affinity, "
        f"untolerated taint {{trainyard.test/dedicated h100 NoSchedule <nil>}} in flavor h100. {nowhere}"
    )


def test_job_waits_if_its_only_matching_flavor_is_full(shop: KueueTeam, kubernetes: Kubernetes) -> None:
    first = submit(shop, "first")
    first.runs()
    quotas(kubernetes, 2, 1)
    large, strict = submit(shop, "large", priority=9), submit(shop, "strict", 1, tolerates=False)
    message = large.waits("WaitingForQuota")["message"]
    assert "insufficient quota for nvidia.com/gpu in flavor h100" in message
    assert message.endswith("insufficient unused quota for nvidia.com/gpu in flavor a100, 2 more needed.")
    assert "1 more needed, untolerated taint" in strict.waits("WaitingForQuota")["message"]
    strict.delete()
    until(lambda: strict.workload() is None)
    first.succeed()
    large.runs()
    assert placed(large) == ("a100", "kwok-0")


def test_job_larger_than_its_flavors_names_the_remedy(shop: KueueTeam, kubernetes: Kubernetes) -> None:
    quotas(kubernetes, 2, 4)
    huge, picky = submit(shop, "huge", 5), submit(shop, "picky", 4, gpu="a100")
    less = "lower spec.resources, or ask the administrator for more quota."
    message = huge.waits("ExceedsMaxQuota")["message"]
    assert message.count("insufficient quota for nvidia.com/gpu in flavor") == 2
    assert message.endswith(f"> maximum capacity (4). Its queue never has that much: {less}")
    message = picky.waits("ExceedsMaxQuota")["message"]
    assert message.endswith(
        "> maximum capacity (2). It may not use the other flavors of its queue, and this one never has that much: "
        f"match another with spec.resources.nodeSelector and tolerations, {less}"
    )
    picky.delete()
    again = submit(shop, "again", 4)
    again.runs()
    assert placed(again) == ("h100", "kwok-1")


def tolerations(job: Object) -> list[Object]:
    """Return the tolerations of a Job's pods, sorted."""
    found: list[Object] = job["spec"]["template"]["spec"]["tolerations"]
    return sorted(found, key=lambda one: str(one["key"]))
