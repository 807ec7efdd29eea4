"""Many TrainingJobs of mixed size, priority and shape."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.errors import ApiRefusedError

CLAIM = "models"
SIZES = (1,) * 7 + (2,) * 2 + (8,)
"""GPUs of a job: 70, 20 and 10 %."""
PRIORITIES = (1, 5, 9)
GANGS = "nodes" in Resources.model_fields
_GANG_SHARE = 0.1
"""Share of gangs of two nodes."""
_LANES = 8


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A TrainingJob to create.

    Attributes:
        namespace: Determines how long its pods run.
        name: Its name.
        gpus: GPUs of each pod.
        nodes: Pods of its gang.
        priority: 0 to 10.
        selector: Labels of the nodes; None for all fake ones.
        more: Further fields of its spec.
    """

    namespace: str
    name: str
    gpus: int
    nodes: int = 1
    priority: int = 5
    selector: dict[str, str] | None = None
    more: dict[str, Any] = field(default_factory=dict)


def mixed(count: int, *, seed: int, namespaces: Sequence[str], prefix: str = "job") -> list[Wanted]:
    """Jobs of 1, 2 and 8 GPUs (70, 20, 10 %), three priorities, one in ten of them a gang of two nodes."""
    dice = random.Random(seed)
    return [
        Wanted(
            namespace=dice.choice(list(namespaces)),
            name=f"{prefix}-{number:04d}",
            gpus=dice.choice(SIZES),
            nodes=2 if dice.random() < _GANG_SHARE and GANGS else 1,
            priority=dice.choice(PRIORITIES),
        )
        for number in range(count)
    ]


def create(kubernetes: Kubernetes, jobs: Iterable[Wanted], *, lanes: int = _LANES) -> None:
    """Create jobs with several concurrent requests."""
    with ThreadPoolExecutor(lanes) as pool:
        for made in [pool.submit(_create, kubernetes, job) for job in jobs]:
            made.result()


def _create(kubernetes: Kubernetes, job: Wanted) -> None:
    body = kwok_support.training_job(
        job.namespace, job.name, claim=CLAIM, gpus=job.gpus, queue={"priority": job.priority}, **job.more
    )
    if job.selector is not None:
        body["spec"]["resources"]["nodeSelector"] = job.selector
    if job.nodes > 1:
        body["spec"]["resources"]["nodes"] = job.nodes
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{job.namespace}/trainingjobs"
    try:
        kubernetes.client._request("POST", path, body, timeout=60)
    except ApiRefusedError as error:
        if error.code != 409:
            raise
