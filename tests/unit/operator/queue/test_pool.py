from __future__ import annotations

from typing import Any

import pytest

from trainyard_crds.trainingjob_resources import Resources
from trainyard_operator.queue.pool import Node, Pool, Taint, Toleration, node_of, pool_of

GPU = "nvidia.com/gpu"


def pool_for(block: dict[str, Any]) -> Pool:
    return pool_of(Resources.model_validate(block))


def node(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "metadata": {"name": "a", "labels": {"gpu": "h100"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "64Gi", GPU: "8", "hugepages-2Mi": "0"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    for path, value in changes.items():
        target = body
        *parents, last = path.split("__")
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return body


def test_ready_node_has_its_extended_resources() -> None:
    found = node_of(node())
    assert found == Node(name="a", labels={"gpu": "h100"}, allocatable={GPU: 8})


def short_of(key: str) -> list[dict[str, str]]:
    return [{"key": key, "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("changes", "closed"),
    [
        ({"spec__unschedulable": True}, "cordoned"),
        ({"status__conditions": [{"type": "Ready", "status": "Unknown"}]}, "not ready"),
        ({"status__conditions": []}, "not ready"),
        ({"metadata__deletionTimestamp": "2026-01-02T10:00:00Z"}, "being deleted"),
        (
            {"spec__taints": short_of("node.kubernetes.io/disk-pressure")},
            "tainted node.kubernetes.io/disk-pressure",
        ),
        ({"spec__taints": short_of("karpenter.sh/disrupted")}, "tainted karpenter.sh/disrupted"),
    ],
    ids=["cordoned", "lost", "new", "leaving", "disk pressure", "disrupted"],
)
def test_node_that_takes_no_pods_now_is_closed(changes: dict[str, Any], closed: str) -> None:
    found = node_of(node(**changes))
    assert (found.schedulable, found.closed, found.taints) == (False, closed, ())
    assert Pool(GPU).matches(found), "it still belongs to the pool"


def test_preferred_taint_closes_no_node() -> None:
    taints = [{"key": "node.kubernetes.io/maintenance", "effect": "PreferNoSchedule"}]
    assert node_of(node(spec__taints=taints)).schedulable


def test_jobs_with_equal_node_requirements_share_a_pool() -> None:
    one = {"gpus": 1, "nodeSelector": {"b": "2", "a": "1"}, "tolerations": [{"key": "x", "operator": "Exists"}]}
    two = {"gpus": 8, "tolerations": [{"operator": "Exists", "key": "x"}], "nodeSelector": {"a": "1", "b": "2"}}
    assert pool_for(one) == pool_for(two)
    assert str(pool_for(one)) == "nvidia.com/gpu (a=1,b=2)"


def test_jobs_without_gpus_have_a_separate_pool() -> None:
    assert pool_for({"gpus": 0, "nodeSelector": {"a": "1"}}) == Pool("")
    assert pool_for({}) == Pool(GPU)
    assert str(pool_for({"nodeAffinity": [{"key": "zone", "operator": "In", "values": ["b", "a"]}]})) == (
        f"{GPU} (zone In (a, b))"
    )


def test_selector_matches_node_labels() -> None:
    found = node_of(node())
    assert Pool(GPU, (("gpu", "h100"),)).matches(found)
    assert not Pool(GPU, (("gpu", "a100"),)).matches(found)


TAINT = Taint("team", "vision", "NoSchedule")


@pytest.mark.parametrize(
    ("toleration", "passes"),
    [
        (Toleration("team", "Equal", "vision", "NoSchedule"), True),
        (Toleration("team", "Equal", "vision", ""), True),
        (Toleration("team", "Exists", "", ""), True),
        (Toleration("", "Exists", "", ""), True),
        (Toleration("team", "Equal", "speech", ""), False),
        (Toleration("other", "Exists", "", ""), False),
        (Toleration("team", "Exists", "", "NoExecute"), False),
        (Toleration("", "Equal", "vision", ""), False),
    ],
)
def test_toleration_matches_as_in_the_scheduler(toleration: Toleration, passes: bool) -> None:
    assert toleration.tolerates(TAINT) is passes
    assert Pool(GPU, (), (toleration,)).matches(Node(name="a", taints=(TAINT,))) is passes


def test_resource_taint_and_prefer_no_schedule_are_tolerated() -> None:
    taints = (Taint(GPU, "present", "NoSchedule"), Taint("x", "", "PreferNoSchedule"))
    assert Pool(GPU).matches(Node(name="a", taints=taints))


def test_time_sliced_gpus_need_the_shared_resource() -> None:
    sliced = Node(name="a", labels={"nvidia.com/gpu.replicas": "4"})
    assert not Pool(GPU).matches(sliced)
    assert Pool("nvidia.com/gpu.shared").matches(sliced)
    assert Pool(GPU).matches(Node(name="a", labels={"nvidia.com/gpu.replicas": "1"}))


def test_node_affinity_restricts_the_pool() -> None:
    pool = pool_for({"nodeAffinity": [{"key": "gpu", "operator": "NotIn", "values": ["v100"]}]})
    assert pool != pool_for({})
    assert pool.matches(Node(name="a", labels={"gpu": "h100"}))
    assert not pool.matches(Node(name="b", labels={"gpu": "v100"}))


def test_pool_does_not_depend_on_the_order_of_the_requirements() -> None:
    first = {"key": "zone", "operator": "In", "values": ["a", "b"]}
    second = {"key": "spot", "operator": "DoesNotExist"}
    swapped = {**first, "values": ["b", "a"]}
    assert pool_for({"nodeAffinity": [first, second]}) == pool_for({"nodeAffinity": [second, swapped]})
