"""Checks over all other end-to-end tests: used permissions, leaked secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import node
from demo.install import NAMESPACE
from demo.kubectl import KubectlError, Object
from tests.e2e.alone import canary
from tests.e2e.alone.canary import PASSWORD, TOKEN
from tests.e2e.support import Site, condition, training_job

SUBJECTS = ("trainyard-operator", "trainyard-gateway")
CHECKED_INSIDE_THE_API_SERVER = {
    # The children's owner references block their owner's deletion (render.owner_reference). The admission plugin
    # OwnerReferencesPermissionEnforcement, on here, checks this right without a request that the audit log would show;
    # without it no Job is created.
    ("trainyard-operator", "update", "trainyard.dev", "trainingjobs/finalizers"),
    ("trainyard-operator", "update", "trainyard.dev", "modeldeployments/finalizers"),
}
USED_IN_THE_API_TIER = {
    # When an operator died between a Service and its Job: tests/api/test_gang.py.
    ("trainyard-operator", "get", "", "services"),
    # When a Job gets no pod: tests/api/test_admission.py.
    ("trainyard-operator", "list", "events.k8s.io", "events"),
    # Of an artifact reader that has ended: tests/api/test_artifact_reader.py.
    ("trainyard-operator", "delete", "", "services"),
}
SERVING = {
    "deployments",
    "endpointslices",
    "httproutes",
    "modeldeployments",
    "modeldeployments/scale",
    "modeldeployments/status",
    "poddisruptionbudgets",
}
"""Resources that only ModelDeployments have; tests/e2e/serving uses them, in a tier of its own."""
USED_IN_THE_SERVING_TIER = {
    ("trainyard-operator", "create", "", "pods"),
    ("trainyard-operator", "patch", "", "pods"),
    ("trainyard-operator", "delete", "", "secrets"),
    ("trainyard-operator", "patch", "", "services"),
}
Permission = tuple[str, str, str, str]


def audit(site: Site) -> Iterator[dict[str, Any]]:
    """Yield the audit events since the start of the tier, from rotated files too."""
    log = node.find()[0].audit_log
    for path in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        with path.open() as lines:
            for line in lines:
                if not line.endswith("\n"):
                    continue  # incomplete: being written
                event = json.loads(line)
                if event["requestReceivedTimestamp"] >= site.began:
                    yield event


def user(event: dict[str, Any]) -> str:
    """Return the user of a request; empty for a rejected token."""
    return str(event["user"].get("username", ""))


def granted(site: Site) -> set[Permission]:
    found: set[Permission] = set()
    for subject in SUBJECTS:
        for words in (("clusterrole", subject), ("role", subject, "-n", NAMESPACE)):
            role = site.kubectl.get(*words) or {"rules": []}
            found |= {
                (subject, verb, group, resource)
                for rule in role["rules"]
                for verb in rule["verbs"]
                for group in rule.get("apiGroups", ())
                for resource in rule.get("resources", ())
            }
    return found


def used(site: Site) -> set[Permission]:
    found: set[Permission] = set()
    for event in audit(site):
        name = user(event).removeprefix(f"system:serviceaccount:{NAMESPACE}:")
        if name in SUBJECTS and "objectRef" in event:
            about = event["objectRef"]
            resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            found.add((name, event["verb"], about.get("apiGroup", ""), resource))
    return found


def test_every_permission_is_used_and_no_request_was_denied(site: Site) -> None:
    unused = granted(site) - used(site) - USED_IN_THE_API_TIER - USED_IN_THE_SERVING_TIER
    unused = {permission for permission in unused if permission[3] not in SERVING}
    assert unused == CHECKED_INSIDE_THE_API_SERVER, "granted and never used"
    denied = [
        (user(event), event["verb"], event.get("requestURI"))
        for event in audit(site)
        if is_denied(event.get("responseStatus", {})) and user(event).startswith(f"system:serviceaccount:{NAMESPACE}:")
    ]
    assert denied == []


def is_denied(answer: dict[str, Any]) -> bool:
    """Return whether a permission was missing; creates in a terminating namespace do not count."""
    return answer.get("code") == 403 and "because it is being terminated" not in answer.get("message", "")


def test_trainer_pods_send_no_request_to_the_api_server(site: Site) -> None:
    assert f"system:serviceaccount:{site.kubectl.namespace}:default" not in {user(event) for event in audit(site)}


@pytest.fixture(scope="module")
def leaky_job(site: Site) -> dict[str, Any]:
    """The job that failed while using its hub token."""
    return site.wait_phase(canary.JOB, "Failed")


def url_jobs() -> list[Object]:
    """Return jobs with a password in each field that takes a URL."""
    url, ours = f"https://user:{PASSWORD}@hub.example/org/name", "pvc://inputs/train.jsonl"
    fields: list[dict[str, Any]] = [
        {"model": {"source": url}},
        {"model": {"source": f"hf://user:{PASSWORD}@org/name"}},
        {"model": {"source": f"https://hub.example/org/name?token={PASSWORD}"}},
        {"dataset": {"source": url}},
        {"dataset": {"source": f"s3://key:{PASSWORD}@bucket/../train.jsonl"}},
        {"dataset": {"source": ours, "validation": {"source": url}}},
    ]
    return [training_job("with-password", **field) for field in fields]


@pytest.mark.parametrize("job", url_jobs(), ids=["model", "hub", "query", "dataset", "dots", "validation"])
def test_url_with_a_password_is_refused_and_not_repeated(site: Site, job: Object) -> None:
    with pytest.raises(KubectlError) as refused:
        site.kubectl.run("create", "-f", "-", text=json.dumps(job))
    assert "must not hold a user name, password or token" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert site.kubectl.get("trainingjob", "with-password") is None


def test_token_is_found_only_in_its_secret(site: Site, leaky_job: dict[str, Any]) -> None:
    assert condition(leaky_job, "Failed")["reason"] == "SourceUnreachable"
    assert "hf://org/name" in leaky_job["message"]
    answers = canary.answers(site, TOKEN) | canary.answers(site, PASSWORD)
    assert [name for name, text in answers.items() if TOKEN in text or PASSWORD in text] == []
    needles = [*canary.spellings(TOKEN), *canary.spellings(PASSWORD)]
    searched, found = [], []
    for name, content in canary.places(site):
        searched.append(name)
        found += [name for needle in needles if needle in content]
    assert found == []
    for place in ("objects", "metrics of trainyard-op", "metrics of trainyard-gat", "trainer/0.log", "kubelet.log"):
        assert any(place in name for name in searched), f"{place} was not searched"


def test_search_finds_a_known_value(site: Site, leaky_job: dict[str, Any]) -> None:
    kept = [key for key, value in canary.etcd() if any(needle in value for needle in canary.spellings(TOKEN))]
    assert kept == [f"/registry/secrets/{site.kubectl.namespace}/hub".encode()]
