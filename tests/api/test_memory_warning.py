"""Warning about a run whose predicted memory exceeds the GPUs of its pool, as given by node labels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import USER, Operator, Team, TrainingJob, offer_gpus, requests_by

pytestmark = pytest.mark.api
RESOURCES = {"gpus": 1, "gpuResource": "example.com/gpu", "nodeSelector": {"pool": "memory-warning"}}
GIB = 2**30


@pytest.fixture
def node(control_plane: Kubernetes) -> Iterator[str]:
    """A node of the pool with GPUs of 16 GiB, as given by its label."""
    name = "memory-warning"
    labels = {"pool": name, "example.com/gpu.memory": "16384"}
    control_plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    offer_gpus(control_plane, name, "example.com/gpu", 2)
    yield name
    control_plane.kubectl("delete", "node", name)


def predict(job: TrainingJob, least: int) -> None:
    """Write the memory estimate of the first report, as the gateway does."""
    estimate = {"bytes": 2 * least, "leastBytes": least, "basis": "lora", "deviceBytes": 80 * GIB, "advice": "less"}
    job.client.patch(f"{job.path}/status", {"status": {"memoryEstimate": estimate}})


def node_lists(kubernetes: Kubernetes) -> int:
    """Return the number of lists of labelled nodes; the queue lists all nodes."""
    requests = requests_by(kubernetes, USER)
    return sum("/api/v1/nodes?" in entry["requestURI"] and "gpu.memory" in entry["requestURI"] for entry in requests)


def test_gpus_of_the_pool_that_are_too_small(
    control_plane: Kubernetes, operator: Operator, team: Team, node: str
) -> None:
    job, roomy = team.create("large", resources=RESOURCES), team.create("small", resources=RESOURCES)
    for one, least in ((job, 20 * GIB), (roomy, 10 * GIB)):
        one.run()
        predict(one, least)
    condition = until(lambda: job.condition("MemoryTooSmall"))
    sentence = (
        f"The run is predicted to need 20.00 GiB; 1 of the 1 nodes it may run on have smaller GPUs: {node} (16.00 GiB)."
        " Exclude them with spec.resources.nodeAffinity, or lower what the run needs. What helps most: less."
    )
    assert (condition["status"], condition["reason"]) == ("True", "PoolTooSmall")
    assert condition["message"] == sentence
    message = job.status()["message"]  # it may also mention that the node has no kubelet
    assert (message.startswith("Attempt 1 is training. "), message.endswith(f" {sentence}")) == (True, True)
    warnings = until(lambda: [event for event in job.events() if event["type"] == "Warning"])
    assert [event["note"] for event in warnings] == [sentence]
    lists = node_lists(control_plane)
    assert lists == 1, "of nodes, for both jobs"
    before = job.status()
    job.client.patch(f"{job.path}/status", {"status": {"metrics": {"loss": 0.5}}})
    pod = roomy.pod()
    roomy.finish(pod)
    roomy.wait("Succeeded")
    assert not roomy.condition("MemoryTooSmall")
    assert job.status() == before | {"metrics": {"loss": 0.5}}
    assert node_lists(control_plane) == lists
    assert len([event for event in job.events() if event["type"] == "Warning"]) == 1
