"""A TrainingJob that other clients write continuously."""

from __future__ import annotations

import contextlib
import threading

from cluster import node
from tests.e2e.support import Site, training_job
from trainyard_kube.errors import ApiError


def test_job_finishes_while_its_object_changes_continuously(site: Site) -> None:
    over = threading.Event()
    storm = threading.Thread(target=touch, args=(site, "touched", over))
    site.kubectl.apply(training_job("touched", steps=5))
    storm.start()
    try:
        status = site.wait_phase("touched", "Succeeded")
    finally:
        over.set()
        storm.join()
    assert [a["exitCode"] for a in status["attempts"]] == [0]
    reasons = site.wait_event("touched", "Succeeded")
    assert sorted(set(reasons) | {"Starting"}) == ["Running", "Starting", "Succeeded"]
    assert len(reasons) == len(set(reasons)), reasons
    assert int(site.job("touched")["metadata"]["annotations"]["touched"]) > 10


def touch(site: Site, name: str, over: threading.Event) -> None:
    """Patch the object as fast as possible, so that the operator often has a stale version."""
    client = node.find()[0].client()
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{site.kubectl.namespace}/trainingjobs/{name}"
    count = 0
    while not over.is_set():
        count += 1
        with contextlib.suppress(ApiError):  # the server fails a patch after too many conflicts
            client.patch(path, {"metadata": {"annotations": {"touched": str(count)}}})
