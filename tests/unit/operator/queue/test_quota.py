"""What ResourceQuotas leave, in numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.unit.operator.queue.state_model import GPU, NOW, make_admitted, make_request, nodes, quota, quotas
from trainyard_operator.quantity import exact, written
from trainyard_operator.queue.admission_cycle import admit
from trainyard_operator.queue.models import Admitted
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.quota import Headroom, Quotas, pod_usage, quota_of

GPUS = f"requests.{GPU}"


@pytest.mark.parametrize(
    ("hard", "used", "sentence"),
    [
        (
            {GPUS: "4"},
            {GPUS: "4"},
            "Namespace team may use 4 nvidia.com/gpu (ResourceQuota gpus) and uses 4; this job needs 2.",
        ),
        (
            {GPUS: "1"},
            {},
            (
                "Namespace team may use 1 nvidia.com/gpu (ResourceQuota gpus) and uses 0; this job needs 2. "
                "Lower spec.resources, or ask for more."
            ),
        ),
        (
            {"limits.cpu": "2500m"},
            {"limits.cpu": "1500m"},
            "Namespace team may use 2.5 limits.cpu (ResourceQuota gpus) and uses 1.5; this job needs 2.",
        ),
        (
            {"memory": "64Gi"},
            {"memory": "58368Mi"},
            "Namespace team may use 64Gi memory (ResourceQuota gpus) and uses 57Gi; this job needs 8Gi.",
        ),
        (
            {"pods": "10"},
            {"pods": "10"},
            "Namespace team may use 10 pods (ResourceQuota gpus) and uses 10; this job needs 1.",
        ),
        (
            {"count/jobs.batch": "3"},
            {"count/jobs.batch": "3"},
            "Namespace team may use 3 count/jobs.batch (ResourceQuota gpus) and uses 3; this job needs 1.",
        ),
        ({GPUS: "4", "pods": "5", "services": "0"}, {GPUS: "2", "pods": "4", "services": "0"}, None),
        ({"requests.nvidia.com/mig-1g.10gb": "0"}, {}, None),
    ],
)
def test_refusal_names_the_quota_and_its_numbers(
    hard: dict[str, str], used: dict[str, str], sentence: str | None
) -> None:
    found = Headroom(quotas(quota(hard, used)), ()).refusal(make_request("a", 2))
    assert (found.message if found else None) == sentence


def test_gang_needs_quota_for_each_pod_and_one_job() -> None:
    limit = quotas(quota({"pods": "3", "count/jobs.batch": "0"}))
    made = make_request("a", 1, 4, has_job=True)
    found = Headroom(limit, ()).refusal(made)
    assert found is not None
    assert found.message.startswith("Namespace team may use 3 pods (ResourceQuota gpus) and uses 0; this job needs 4.")
    assert Headroom(limit, ()).refusal(made, pods=3) is None


FAST = "fast.storageclass.storage.k8s.io"


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize(
    ("hard", "used", "sentence"),
    [
        ("persistentvolumeclaims", "3", "may use 3 persistentvolumeclaims (ResourceQuota gpus) and uses 3;"),
        ("count/persistentvolumeclaims", "3", "may use 3 count/persistentvolumeclaims"),
        ("configmaps", "3", "may use 3 configmaps"),
        (f"{FAST}/persistentvolumeclaims", "3", "may use 3 fast.storageclass.storage.k8s.io/persistentvolumeclaims"),
        ("requests.storage", "3", "may use 3 requests.storage (ResourceQuota gpus) and uses 3; this job needs 20Gi."),
        (f"{FAST}/requests.storage", "3", "this job needs 20Gi. Lower spec.storage.size, or ask for more."),
    ],
)
def test_created_claim_needs_quota(hard: str, used: str, sentence: str, gpus: int) -> None:
    limit = quotas(quota({hard: "3"}, {hard: used}))
    request = make_request("a", gpus, claim_size="20Gi", storage_class="fast")
    found = Headroom(limit, ()).refusal(request)
    assert found is not None
    assert sentence in found.message
    assert Headroom(limit, ()).refusal(make_request("b", gpus, has_job=True)) is None
    if "/p" in hard or "storage" in hard:
        assert Headroom(limit, ()).refusal(make_request("c", gpus, claim_size=None)) is None


def test_claim_of_a_promised_job_is_reserved() -> None:
    limit = quotas(quota({"requests.storage": "50Gi"}, {"requests.storage": "10Gi"}))
    jobs = [make_request(uid, claim_size="20Gi", at=at) for at, uid in enumerate("abc")]
    found = admit(jobs, (), nodes(8), Policy(), NOW, quotas=limit)
    assert [start.request.uid for start in found.starts] == ["a", "b"]
    assert found.reasons["c"].code == "QuotaExceeded"


def scope(name: str, operator: str = "Exists", *values: str) -> dict[str, Any]:
    return {"scopeSelector": {"matchExpressions": [{"scopeName": name, "operator": operator, "values": list(values)}]}}


SCOPES: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"scopes": ["NotTerminating", "NotBestEffort"]}, True),
    ({"scopes": ["BestEffort"]}, False),
    ({"scopes": ["NotBestEffort", "Terminating"]}, False),
    (scope("PriorityClass", "In", "x"), False),
    (scope("PriorityClass"), False),
    (scope("PriorityClass", "DoesNotExist"), True),
    (scope("PriorityClass", "NotIn", "x"), True),
    (scope("NotTerminating"), True),
    (scope("CrossNamespacePodAffinity"), False),
]


@pytest.mark.parametrize(("spec", "counts"), SCOPES)
def test_only_quotas_that_match_trainer_pods_apply(spec: dict[str, Any], counts: bool) -> None:
    assert (quota_of(quota({GPUS: "0"}, **spec)) is not None) is counts


def start(limit: Quotas, *admitted: Admitted) -> list[str]:
    waiting = [make_request("two", 2), make_request("one", at=1), make_request("other", 2, at=2, namespace="other")]
    found = admit(waiting, admitted, nodes(8, 8), Policy(), NOW, quotas=limit)
    assert {uid for uid, reason in found.reasons.items() if reason.code == "QuotaExceeded"} == found.nonblocking
    return [start.request.uid for start in found.starts]


def test_admitted_job_uses_headroom_until_its_pods_count() -> None:
    limit = quotas(quota({GPUS: "4"}, {GPUS: "2"}))
    assert start(limit) == ["two", "other"]
    promised = make_admitted(make_request("p"), "n0")
    assert start(limit, promised) == ["one", "other"]
    there = Admitted(request=make_request("p"), placement=("n0",), admitted_at=NOW, live_pods=1)
    done = Admitted(request=make_request("p"), placement=("n0",), admitted_at=NOW, succeeded_pods=1)
    for counted in (there, done, make_admitted(make_request("p", 4), "n0", releasing=True)):
        assert start(limit, counted) == ["two", "other"]


def test_tightest_quota_applies() -> None:
    wide, narrow = quota({GPUS: "8"}), quota({GPUS: "3"})
    assert start(quotas(wide, narrow)) == ["two", "one", "other"]
    assert start(quotas(wide, narrow), make_admitted(make_request("p"), "n0")) == ["two", "other"]
    assert start(quotas(wide, narrow), make_admitted(make_request("p", 2), "n0")) == ["one", "other"]


def test_deleted_quota_no_longer_applies() -> None:
    limit = quotas(quota({GPUS: "0"}))
    assert not limit.put("quota-0", quota_of(quota({GPUS: "0"})))
    assert limit.put("quota-0", None)
    assert not limit.of("team")
    assert not limit.put("quota-0", None)


AMOUNTS = {
    "1": Fraction(1),
    "100m": Fraction(1, 10),
    "1.5Gi": Fraction(1610612736),
    "2E": Fraction(2 * 10**18),
    "12e6": Fraction(12000000),
    "1E3": Fraction(1000),
    "5n": Fraction(5, 10**9),
    ".5": Fraction(1, 2),
}


@pytest.mark.parametrize("text", AMOUNTS)
def test_quantities_are_read_exactly(text: str) -> None:
    assert exact(text) == AMOUNTS[text]


@pytest.mark.parametrize(("text", "shown"), [("1536Mi", "1536Mi"), ("2048Mi", "2Gi"), ("1000", "1000"), ("0", "0")])
def test_amounts_are_written_as_users_write_them(text: str, shown: str) -> None:
    assert written(exact(text), binary=True) == shown
    assert written(exact("100m"), binary=False) == "0.1"


def test_further_resources_and_ephemeral_storage_count() -> None:
    usage = pod_usage(0, "nvidia.com/gpu", "1", "1Gi", (("ephemeral-storage", "2Ki"), ("rdma/hca", "3")))
    wanted = {"ephemeral-storage": 2048, "requests.ephemeral-storage": 2048, "limits.ephemeral-storage": 2048}
    assert usage.items() >= {**wanted, "requests.rdma/hca": 3}.items()
