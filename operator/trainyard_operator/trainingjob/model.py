"""What a TrainingJob's decisions are made from, and what a policy concludes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from trainyard_crds.report import Termination
from trainyard_crds.trainingjob_status import Phase
from trainyard_kube.paths import Object
from trainyard_operator.pod_template.defaults import PodDefaults
from trainyard_operator.reconcile.plan import Deletion, Observation
from trainyard_operator.trainingjob.spec import Spec


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Settings of the operator that plans depend on: most go into children.

    Attributes:
        trainer_image: Image of the trainer.
        image_pull_policy: `imagePullPolicy` of the trainer's container.
        gateway_url: URL of the gateway's intake, without a path.
        scratch_size: Size limit of the pod's home directory (caches, downloaded models), a Kubernetes quantity.
        tmp_size: Size limit of /tmp, a Kubernetes quantity.
        ephemeral_storage: Ephemeral storage of pods, a Kubernetes quantity; None for no request and no limit.
        environment: Additional variables of training and export pods, by name.
        pod_defaults: Options of pods that a spec does not set.
        retention_seconds: Seconds after which finished TrainingJobs are deleted; None keeps them.
    """

    trainer_image: str
    image_pull_policy: str
    gateway_url: str
    scratch_size: str = "100Gi"
    tmp_size: str = "10Gi"
    ephemeral_storage: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    pod_defaults: PodDefaults = field(default_factory=PodDefaults)
    retention_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Observed(Observation):
    """One TrainingJob and its children as they were last observed.

    Attributes:
        spec: Its spec, with defaults.
        spec_error: What is invalid in the spec, a sentence; empty for a valid spec.
        child: Its training Job.
        pods: Pods of the training Job, in any order, including ended ones that were just deleted.
        check: The Job that reads the result from the volume.
        check_pods: Pods of that Job.
        export_jobs: The Jobs of exports that were requested later.
        export_pods: Pods of those, including ended ones that were just deleted.
        unreachable_nodes: Unreachable nodes, and since when (API timestamps).
    """

    spec: Spec
    spec_error: str = ""
    child: Object | None = None
    pods: tuple[Object, ...] = ()
    check: Object | None = None
    check_pods: tuple[Object, ...] = ()
    export_jobs: tuple[Object, ...] = ()
    export_pods: tuple[Object, ...] = ()
    unreachable_nodes: Mapping[str, str] = field(default_factory=dict)

    @property
    def job(self) -> Object:
        """The TrainingJob."""
        return self.obj

    @property
    def queue_status(self) -> Object:
        """Its `status.queue`; empty if it has none."""
        return self.status.get("queue") or {}

    @property
    def failed_starts(self) -> Object:
        """Its `status.queue.failedStarts`; empty if it has none."""
        return self.queue_status.get("failedStarts") or {}


class Caution(NamedTuple):
    """A warning beside the phase, reported by a condition for as long as it holds.

    Attributes:
        condition: Type of the condition.
        reason: CamelCase reason.
        message: Sentence.
    """

    condition: str
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one policy concluded.

    Attributes:
        phase: The phase this leads to; None keeps the status as it is.
        reason: Stable CamelCase reason.
        message: Sentence for the user.
        termination: The trainer's termination message, where it decides the final values.
        log_tail: End of the log of a failed job.
        caution: Warning beside the phase.
        obstacle: What keeps the job from continuing, in a sentence; empty if nothing does.
        failed_starts: New `status.queue.failedStarts`; None leaves it as it is.
        waits: Whether the job is not admitted.
        suspend: Whether the training Job is to be suspended; `kueue_handoff.change` decides by which field.
        create, delete, requeue_after: As in `Plan`.
    """

    phase: Phase | None
    reason: str = ""
    message: str = ""
    termination: Termination | None = None
    log_tail: str | None = None
    caution: Caution | None = None
    obstacle: str = ""
    failed_starts: Object | None = None
    waits: bool = False
    create: tuple[Object, ...] = ()
    suspend: bool | None = None
    delete: tuple[Deletion, ...] = ()
    requeue_after: float | None = None
