"""Two tenants on one node: a trainer pod can access only the report API of its own job."""

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

def send(url, token, data, context):
    headers = {"Authorization": "Bearer " + token} if token else {}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120, context=context) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as refused:
        return [refused.code, refused.read().decode()]

paths = json.load(sys.stdin)
token = pathlib.Path("/var/run/secrets/trainyard/token").read_text()
api = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ)
gateway = os.environ["KUBEFLOW_TRAINER_SERVER_URL"].split("/apis/")[0]
trusted = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
any_server = ssl._create_unverified_context()
print(json.dumps({
    "api": {path: send(api + path, token, None, any_server) for path in paths["api"]},
    "anonymous": {path: send(api + path, "", None, any_server) for path in paths["api"]},
    "gateway": {path: send(gateway + path, token, b"", trusted) for path in paths["gateway"]},
    "secrets": [str(p) for p in pathlib.Path("/var/run/secrets").rglob("*") if p.is_file() and ".." not in str(p)],
    "claims": sorted(os.listdir("/volumes/claims")),
    "runs": sorted(os.listdir("/volumes/run/trainyard")),
    "environment": dict(os.environ),
    "mounts": pathlib.Path("/proc/self/mounts").read_text(),
}))
"""


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[Site]:
    """The other tenant: a namespace without a claim `inputs`, with a job of the same name."""
    clear(site.kubectl, OTHER)
    site.kubectl.apply(namespace(OTHER))
    other = replace(site, kubectl=replace(site.kubectl, namespace=OTHER))
    other.kubectl.apply(training_job(NAME, steps=100_000))
    yield other
    clear(site.kubectl, OTHER)


@pytest.fixture(scope="module")
def probe(site: Site, other: Site) -> Iterator[dict[str, Any]]:
    """Results of reads and requests inside a trainer pod, with its own token."""
    site.kubectl.apply(training_job(NAME, steps=100_000))
    pod = site.wait_trained(NAME)["attempts"][-1]["pod"]
    lists = [f"/api/v1/namespaces/{name}" for name in (site.kubectl.namespace, OTHER)]
    api = [f"{base}/{kind}" for base in lists for kind in ("secrets", "pods", "configmaps")]
    jobs = "/apis/trainyard.dev/v1alpha1/trainingjobs"
    paths = {"api": [*api, jobs, "/api"], "gateway": [progress_path(*place) for place in places(site)]}
    command = ("exec", "-i", pod, "--", "python", "-c", PROBE)
    yield site.kubectl.wait(
        "the gateway knows the attempt",
        lambda: json.loads(site.kubectl.run(*command, text=json.dumps(paths))),
        lambda seen: seen["gateway"][progress_path(*places(site)[0])][0] != 503,
        TIMEOUT,
    )
    site.patch(NAME, {"stop": "Force"})
    site.wait_phase(NAME, "Stopped")


def test_api_server_rejects_pod_token(probe: dict[str, Any]) -> None:
    assert {code for code, _ in probe["api"].values()} == {401}
    assert {code for code, _ in probe["anonymous"].values()} <= {401, 403}
    assert probe["secrets"] == ["/var/run/secrets/trainyard/token"]


def test_pod_token_is_valid_for_its_own_job_only(site: Site, probe: dict[str, Any]) -> None:
    own, foreign, missing = (probe["gateway"][progress_path(*place)] for place in places(site))
    assert (own[0], json.loads(own[1])["reason"]) == (400, "EmptyBody"), "the token is valid for its own job"
    assert (foreign[0], json.loads(foreign[1])["reason"]) == (401, "Unauthorized")
    assert foreign == missing, "the response does not reveal whether the other tenant has such a job"


def places(site: Site) -> list[tuple[str, str]]:
    return [(site.kubectl.namespace, NAME), (OTHER, NAME), (OTHER, "none-such")]


def test_pod_mounts_its_own_claims_and_run_only(site: Site, other: Site, probe: dict[str, Any]) -> None:
    status = site.status(NAME)
    assert (probe["claims"], probe["runs"]) == (["inputs"], [status["jobName"]])
    foreign = (OTHER, other.job(NAME)["metadata"]["uid"], other.status(NAME)["jobName"])
    seen = json.dumps([probe["environment"], probe["mounts"]])
    assert [name for name in foreign if name in seen] == []


def test_claim_of_another_namespace_is_not_found(other: Site, probe: dict[str, Any]) -> None:
    status = other.wait_status(
        NAME,
        "with the missing claim in its message",
        lambda status: 'persistentvolumeclaim "inputs" not found' in status.get("message", ""),
    )
    assert status["phase"] == "Starting"
    assert "progress" not in status
    assert [a for a in status["attempts"] if "startedAt" in a] == []


def test_ca_is_removed_with_the_last_job_of_a_namespace(other: Site, probe: dict[str, Any]) -> None:
    assert other.kubectl.get("configmap", "trainyard-ca")
    other.kubectl.run("delete", "trainingjob", NAME, "--wait=true")
    other.kubectl.wait(
        "the ConfigMap is gone",
        lambda: other.kubectl.get("configmap", "trainyard-ca"),
        lambda found: found is None,
        TIMEOUT,
    )
