"""What a ModelDeployment's decisions are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trainyard_crds.serving import ReplicaState
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.spec import Spec
from trainyard_operator.pod_template.defaults import PodDefaults
from trainyard_operator.reconcile.plan import Need, Observation

REPLICA_STATE = "replica-state"
"""Kind of the `Need` for the state of a replica; its name is the address of the pod."""


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """Settings of the operator that go into the children of ModelDeployments.

    Attributes:
        gpu_image: Image of the engine for replicas with GPUs.
        cpu_image: Image of the engine for replicas without.
        proxy_image: Image of the proxy and of the container that fetches the model: the operator's own.
        image_pull_policy: `imagePullPolicy` of all containers.
        environment: Additional variables of the engine and of the fetching container, by name.
        pod_defaults: Options of pods that a spec does not set.
    """

    gpu_image: str
    cpu_image: str
    proxy_image: str
    image_pull_policy: str = "IfNotPresent"
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_defaults: PodDefaults = field(default_factory=PodDefaults)


@dataclass(frozen=True, kw_only=True)
class Observed(Observation):
    """One ModelDeployment and its children as they were last observed.

    Attributes:
        spec: Its spec, with defaults.
        spec_error: What is invalid in the spec, a sentence; empty for a valid spec.
        jobs: The TrainingJobs of its namespace that it names, by name.
        deployment: Its Deployment.
        applied: Its other children: ConfigMaps, Service, PodDisruptionBudget.
        pods: Its pods that exist, in any order.
        activators: Addresses of the gateway's pods.
        reader_problem: Returns why files of a claim cannot be read now, by namespace and claim; None if they can.
    """

    spec: Spec
    spec_error: str = ""
    jobs: Mapping[str, Object] = field(default_factory=dict)
    deployment: Object | None = None
    applied: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    activators: frozenset[str] = frozenset()
    reader_problem: Callable[[str, str], str | None] = field(default=lambda *_: None, compare=False)

    @property
    def replica_states(self) -> dict[str, ReplicaState | None]:
        """What the proxy of each pod reports, by the pod's name; None where it did not answer."""
        return {pod["metadata"]["name"]: self.answers.get(state_need(pod)) for pod in self.pods if address(pod)}


def address(pod: Object) -> str:
    """Return the address of a pod that runs and has one; empty otherwise."""
    status = pod.get("status") or {}
    return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""


def state_need(pod: Object) -> Need:
    """Return the need for the state of a pod."""
    return Need(REPLICA_STATE, address(pod))


def is_ready(pod: Object) -> bool:
    """Return whether a pod is ready and not being deleted."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
