"""Two tenants on one node: what a training pod holds opens nothing but its own job's reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from demo.kubectl import namespace
from tests.e2e.support import TIMEOUT, Site, clear, training_job
from trainyard_crds.constants import progress_path

OTHER = "trainyard-e2e-other"
NAME = "tenant"
PROBE = """
import json, os, pathlib, ssl, sys, urllib.error, urllib.request

def ask(url, token, data, context):
    headers = {"Authorization": "Bearer " + token} if token else {}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120, context=context) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as refused:
        return [refused.code, refused.read().decode()]

asked = json.load(sys.stdin)
token = pathlib.Path("/var/run/secrets/trainyard/token").read_text()
api = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ)
gateway = os.environ["KUBEFLOW_TRAINER_SERVER_URL"].split("/apis/")[0]
trusted = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
any_server = ssl._create_unverified_context()
print(json.dumps({
    "api": {path: ask(api + path, token, None, any_server) for path in asked["api"]},
    "anonymous": {path: ask(api + path, "", None, any_server) for path in asked["api"]},
    "gateway": {path: ask(gateway + path, token, b"", trusted) for path in asked["gateway"]},
    "secrets": [str(p) for p in pathlib.Path("/var/run/secrets").rglob("*") if p.is_file() and ".." not in str(p)],
    "claims": sorted(os.listdir("/volumes/claims")),
    "runs": sorted(os.listdir("/volumes/run/trainyard")),
    "environment": dict(os.environ),
    "mounts": pathlib.Path("/proc/self/mounts").read_text(),
}))
"""


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[Site]:
    """The other tenant: another namespace, without a claim called `inputs`, with a job of the same name."""
    clear(site.kubectl, OTHER)
    site.kubectl.apply(namespace(OTHER))
    other = replace(site, kubectl=replace(site.kubectl, namespace=OTHER))
    other.kubectl.apply(training_job(NAME, steps=100_000))
    yield other
    clear(site.kubectl, OTHER)


@pytest.fixture(scope="module")
def probe(site: Site, other: Site) -> Iterator[dict[str, Any]]:
    """What can be seen and asked from inside a training pod, with its own token."""
    site.kubectl.apply(training_job(NAME, steps=100_000))
    pod = site.wait_trained(NAME)["attempts"][-1]["pod"]
    lists = [f"/api/v1/namespaces/{name}" for name in (site.kubectl.namespace, OTHER)]
    api = [f"{base}/{kind}" for base in lists for kind in ("secrets", "pods", "configmaps")]
    jobs = "/apis/trainyard.dev/v1alpha1/trainingjobs"
    asked = {"api": [*api, jobs, "/api"], "gateway": [progress_path(*place) for place in places(site)]}
    words = ("exec", "-i", pod, "--", "python", "-c", PROBE)
    yield site.kubectl.wait(
        "the gateway knows the attempt",
        lambda: json.loads(site.kubectl.run(*words, text=json.dumps(asked))),
        lambda seen: seen["gateway"][progress_path(*places(site)[0])][0] != 503,
        TIMEOUT,
    )
    site.patch(NAME, {"stop": "Force"})
    site.wait_phase(NAME, "Stopped")


def test_the_pods_token_is_nobody_to_the_api_server(probe: dict[str, Any]) -> None:
    assert {code for code, _ in probe["api"].values()} == {401}
    assert {code for code, _ in probe["anonymous"].values()} <= {401, 403}
    assert probe["secrets"] == ["/var/run/secrets/trainyard/token"]


def test_the_pods_token_reports_for_its_own_job_only(site: Site, probe: dict[str, Any]) -> None:
    own, foreign, missing = (probe["gateway"][progress_path(*place)] for place in places(site))
    assert (own[0], json.loads(own[1])["reason"]) == (400, "EmptyBody"), "the token is good for its own job"
    assert (foreign[0], json.loads(foreign[1])["reason"]) == (401, "Unauthorized")
    assert foreign == missing, "whether the other tenant has such a job is not told"


def places(site: Site) -> list[tuple[str, str]]:
    return [(site.kubectl.namespace, NAME), (OTHER, NAME), (OTHER, "none-such")]


def test_a_pod_sees_its_own_claims_and_run_only(site: Site, other: Site, probe: dict[str, Any]) -> None:
    status = site.status(NAME)
    assert (probe["claims"], probe["runs"]) == (["inputs"], [status["jobName"]])
    strange = (OTHER, other.job(NAME)["metadata"]["uid"], other.status(NAME)["jobName"])
    seen = json.dumps([probe["environment"], probe["mounts"]])
    assert [word for word in strange if word in seen] == []


def test_a_claim_on_the_same_node_is_not_found_from_another_namespace(other: Site, probe: dict[str, Any]) -> None:
    status = other.wait_status(
        NAME,
        "told of the missing claim",
        lambda status: 'persistentvolumeclaim "inputs" not found' in status.get("message", ""),
    )
    assert status["phase"] == "Starting"
    assert "progress" not in status
    assert [a for a in status["attempts"] if "startedAt" in a] == []


def test_the_authority_leaves_a_namespace_with_its_last_job(other: Site, probe: dict[str, Any]) -> None:
    assert other.kubectl.get("configmap", "trainyard-ca")
    other.kubectl.run("delete", "trainingjob", NAME, "--wait=true")
    other.kubectl.wait(
        "the ConfigMap is gone",
        lambda: other.kubectl.get("configmap", "trainyard-ca"),
        lambda found: found is None,
        TIMEOUT,
    )
