"""Changes while no operator runs are detected when it is back, and lost objects are created again."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Any

import pytest

from demo.install import NAMESPACE
from tests.e2e.support import TIMEOUT, Site, condition, training_job

NAMES = ("pod-vanished", "job-vanished", "half-made")


@dataclass(frozen=True)
class Outage:
    """State before the outage."""

    authority: str
    statuses: dict[str, dict[str, Any]]
    kept: dict[str, str]
    """UIDs of the ConfigMap and the claim of `half-made`."""


@pytest.fixture(scope="module")
def outage(site: Site) -> Outage:
    """Three jobs train. Then no operator runs, and one job's pod vanishes, another's Job, the third loses its Job and
    its status, as if an operator had been killed on the way; the certificate authority and the Lease are lost."""
    for name in NAMES:
        job = training_job(name, steps=5 if name == "half-made" else 100_000, cpu="600m")
        job["spec"]["checkpoints"]["gracePeriodSeconds"] = 5
        site.kubectl.apply(job)
    before = {name: site.wait_phase(name, "Running", "Succeeded") for name in NAMES}
    found = Outage(authority=authority(site), statuses=before, kept=children(site, "half-made"))
    site.scale("operator", 0)
    try:
        site.kubectl.run("delete", "pod", before["pod-vanished"]["attempts"][0]["pod"], "--force", "--grace-period=0")
        for name in ("job-vanished", "half-made"):
            site.kubectl.run("delete", "job", before[name]["jobName"], "--cascade=foreground", "--wait=true")
        wipe = '[{"op": "remove", "path": "/status"}]'
        site.kubectl.run("patch", "trainingjob", "half-made", "--subresource=status", "--type=json", "-p", wipe)
        site.kubectl.run("delete", "secret", "trainyard-ca", "-n", NAMESPACE)
        site.kubectl.run("delete", "lease", "trainyard-operator", "-n", NAMESPACE)
    finally:
        site.scale("operator", 1)
    return found


def authority(site: Site) -> str:
    """Return the CA certificate that the namespace's pods verify the gateway with."""
    found = site.kubectl.get("configmap", "trainyard-ca")
    return str(found["data"]["ca.crt"]) if found else ""


def children(site: Site, name: str) -> dict[str, str]:
    selector = f"trainyard.dev/trainingjob={name}"
    found = site.kubectl.items("configmaps,persistentvolumeclaims", "-l", selector)
    return {entry["kind"]: entry["metadata"]["uid"] for entry in found}


def test_incomplete_children_are_adopted(site: Site, outage: Outage) -> None:
    status = site.wait_phase("half-made", "Succeeded")
    assert set(outage.kept) == {"ConfigMap", "PersistentVolumeClaim"}
    assert children(site, "half-made") == outage.kept
    assert status["progress"]["step"] == 5


def test_deleted_child_job_is_not_created_again(site: Site, outage: Outage) -> None:
    status = site.wait_phase("job-vanished", "Failed")
    assert condition(status, "Failed")["reason"] == "JobDeleted"
    assert outage.statuses["job-vanished"]["jobName"] in status["message"]
    assert site.kubectl.get("job", status["jobName"]) is None


def test_deleted_pod_is_a_lost_attempt_without_a_retry(site: Site, outage: Outage) -> None:
    status = site.wait_status(
        "pod-vanished",
        "running in attempt 2",
        lambda status: status["phase"] == "Running" and len(status["attempts"]) == 2,
    )
    lost = status["attempts"][0]
    assert (lost["podUID"], lost["reason"]) == (outage.statuses["pod-vanished"]["attempts"][0]["podUID"], "PodLost")
    assert status["attemptCounts"]["failed"] == 0


def test_deleted_ca_is_created_again_and_reports_continue(site: Site, outage: Outage) -> None:
    site.kubectl.wait(
        "another authority", lambda: authority(site), lambda found: found not in ("", outage.authority), TIMEOUT
    )
    lease = site.kubectl.get("lease", "trainyard-operator", "-n", NAMESPACE)
    assert lease
    assert lease["spec"]["holderIdentity"].startswith("trainyard-operator-")
    # The kubelet updates the files of running pods within about a minute: the gateway's pair, the trainer's CA.
    site.kubectl.wait("the gateway's new pair", lambda: is_trusted(site, authority(site)), lambda good: good, TIMEOUT)
    step = site.status("pod-vanished").get("progress", {}).get("step", 0)
    status = site.wait_step("pod-vanished", step + 20)
    assert status["phase"] == "Running"
    site.patch("pod-vanished", {"stop": "Force"})
    site.wait_phase("pod-vanished", "Stopped")


def is_trusted(site: Site, ca: str) -> bool:
    """Return whether the gateway's certificate is signed by this CA."""
    pods = site.kubectl.items("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=trainyard-gateway")
    context = ssl.create_default_context(cadata=ca)
    address, name = (pods[0]["status"]["podIP"], 8443), f"trainyard-gateway.{NAMESPACE}.svc"
    try:
        with socket.create_connection(address, 60) as plain, context.wrap_socket(plain, server_hostname=name):
            return True
    except OSError:  # signed by another CA, or the pair is being replaced
        return False
