"""What can only be said after the other end-to-end tests ran: permissions used, secrets kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import node
from demo.install import NAMESPACE
from demo.kubectl import Object
from tests.e2e.support import Site, condition, training_job

CANARY = "hf_canaryCANARYcanaryCANARYcanary1234"
SUBJECTS = ("trainyard-operator", "trainyard-gateway")
NOT_IN_EVERY_RUN = {
    # Only clusters with the OwnerReferencesPermissionEnforcement admission plugin ask for it.
    ("trainyard-operator", "update", "trainyard.dev", "trainingjobs/finalizers"),
    # Look-ups of what a watch missed, and adoption of what an operator that was killed had made.
    ("trainyard-operator", "get", "batch", "jobs"),
    ("trainyard-operator", "get", "", "pods"),
    ("trainyard-operator", "get", "", "configmaps"),
    ("trainyard-operator", "get", "", "persistentvolumeclaims"),
    ("trainyard-operator", "get", "trainyard.dev", "trainingjobs"),
    # Certificates are made once and renewed after months.
    ("trainyard-operator", "create", "", "secrets"),
    ("trainyard-operator", "patch", "", "secrets"),
    ("trainyard-operator", "create", "coordination.k8s.io", "leases"),
    ("trainyard-operator", "patch", "", "configmaps"),
    ("trainyard-operator", "delete", "", "configmaps"),
}
Permission = tuple[str, str, str, str]


def audit(site: Site) -> Iterator[dict[str, Any]]:
    """Audit events since the tier's start."""
    with node.find()[0].audit_log.open() as lines:
        lines.seek(site.audit_start)
        for line in lines:
            yield json.loads(line)


def granted(site: Site) -> set[Permission]:
    found: set[Permission] = set()
    for subject in SUBJECTS:
        for words in (("clusterrole", subject), ("role", subject, "-n", NAMESPACE)):
            role = site.kubectl.get(*words) or {"rules": []}
            found |= {
                (subject, verb, group, resource)
                for rule in role["rules"]
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
            }
    return found


def used(site: Site) -> set[Permission]:
    found: set[Permission] = set()
    for event in audit(site):
        user = event["user"]["username"].removeprefix(f"system:serviceaccount:{NAMESPACE}:")
        if user in SUBJECTS and "objectRef" in event:
            about = event["objectRef"]
            resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            found.add((user, event["verb"], about.get("apiGroup", ""), resource))
    return found


def test_every_permission_is_used_and_no_request_was_denied(site: Site) -> None:
    unused = granted(site) - used(site) - NOT_IN_EVERY_RUN
    assert unused == set(), "granted and never used"
    denied = [
        (event["user"]["username"], event["verb"], event.get("requestURI"))
        for event in audit(site)
        if event.get("responseStatus", {}).get("code") == 403
        and event["user"]["username"].startswith(f"system:serviceaccount:{NAMESPACE}:")
    ]
    assert denied == []


def test_job_pods_never_spoke_to_the_api_server(site: Site) -> None:
    users = {event["user"]["username"] for event in audit(site)}
    assert f"system:serviceaccount:{site.kubectl.namespace}:default" not in users


@pytest.fixture
def leaky_job(site: Site) -> dict[str, Any]:
    """A job that was given a hub token and failed while using it (no hub can be reached from the node)."""
    token = base64.b64encode(CANARY.encode()).decode()
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "data": {"token": token}}
    site.kubectl.run("apply", "-f", "-", text=json.dumps(secret))
    site.kubectl.run("annotate", "secret", "hub", "kubectl.kubernetes.io/last-applied-configuration-")
    model = {"source": "hf://org/name", "credentialsSecret": {"name": "hub", "key": "token"}}
    site.kubectl.apply(training_job("unreachable", model=model, retry={"limit": 0}))
    return site.wait_phase("unreachable", "Failed", seconds=300)


def test_a_hub_token_is_seen_nowhere_but_in_its_secret(site: Site, leaky_job: dict[str, Any]) -> None:
    assert condition(leaky_job, "Failed")["reason"] == "SourceUnreachable"
    assert "hf://org/name" in leaky_job["message"]
    listed = site.kubectl.run("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in listed if kind != "secrets" and not kind.startswith("componentstatuses")]
    documents = site.kubectl.run("get", ",".join(kinds), "-A", "-o", "json", timeout=300)
    assert "unreachable" in documents
    texts = {"objects": documents, "audit": node.find()[0].audit_log.read_text()}
    for name in ("deploy/trainyard-operator", "deploy/trainyard-gateway"):
        texts[name] = site.kubectl.run("logs", name, "-n", NAMESPACE, "--tail=-1")
    texts["pod"] = site.kubectl.run("logs", leaky_job["attempts"][-1]["pod"])
    needles = (CANARY, base64.b64encode(CANARY.encode()).decode())
    assert [where for where, text in texts.items() for needle in needles if needle in text] == []
