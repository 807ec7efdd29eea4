"""An object that others write all the time."""

from __future__ import annotations

import contextlib
import threading

from cluster import node
from cluster.client import ApiError
from tests.e2e.support import Site, training_job


def test_an_object_that_changes_all_the_time_does_not_keep_a_job_from_its_end(site: Site) -> None:
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
    reasons = site.wait_told("touched", "Succeeded")
    assert sorted(set(reasons) | {"Starting"}) == ["Running", "Starting", "Succeeded"]
    assert len(reasons) == len(set(reasons)), reasons
    assert int(site.job("touched")["metadata"]["annotations"]["touched"]) > 10


def touch(site: Site, name: str, over: threading.Event) -> None:
    """Change the object's version as fast as requests can be made, so that the operator's is often an old one."""
    client = node.find()[0].client()
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{site.kubectl.namespace}/trainingjobs/{name}"
    count = 0
    while not over.is_set():
        count += 1
        with contextlib.suppress(ApiError):  # the server gives up on a patch when too many others come between
            client.patch(path, {"metadata": {"annotations": {"touched": str(count)}}})
