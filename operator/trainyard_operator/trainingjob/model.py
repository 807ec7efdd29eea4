"""What a decision is made from and what it results in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trainyard_crds.report import Termination
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.trainingjob.spec import Spec

Object = dict[str, Any]
"""An object of the Kubernetes API as JSON."""


class Need(NamedTuple):
    """Something to look up live before a decision can be made.

    Attributes:
        kind: `jobs`, `pods` and `claims` ask for the object itself, `log` for the end of a pod's log, `nodes` for all
            nodes of a label selector, `terminating` whether the TrainingJob's namespace is being deleted.
        name: Name of the Job, pod, claim or namespace; or that selector.
    """

    kind: Literal["jobs", "pods", "claims", "log", "nodes", "terminating"]
    name: str


class Refusal(NamedTuple):
    """The API server's answer to the attempt to create a child.

    Attributes:
        reason: CamelCase word for the status.
        message: Sentence for the user.
        final: Whether trying again cannot help.
        passing: Whether it is no answer about the Job but a fault of the cluster, which passes.
    """

    reason: str
    message: str
    final: bool
    passing: bool = False


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """What the operator's settings put into children.

    Attributes:
        trainer_image: Image of the trainer.
        image_pull_policy: `imagePullPolicy` of the trainer's container.
        gateway_url: URL of the gateway's intake, without a path.
        scratch_size: Size limit of the pod's home directory (caches, downloaded models), a Kubernetes quantity.
        environment: More variables of the training pods, by name.
    """

    trainer_image: str
    image_pull_policy: str
    gateway_url: str
    scratch_size: str = "100Gi"
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One TrainingJob and its children, as they were last seen.

    Attributes:
        job: The TrainingJob.
        spec: Its spec, with defaults.
        spec_error: What is invalid in the spec, a sentence; empty for a valid spec.
        child: Its training Job.
        pods: Pods of the training Job, in any order, ended ones that have just been deleted included.
        check: The Job that reads the result from the volume.
        check_pods: Pods of that Job.
        export_jobs: The Jobs that make exports that were asked for later.
        export_pods: Pods of those, ended ones that have just been deleted included.
        answers: What was looked up: the object or text, None where there is none.
        refusal: Why the children could not be created just now.
        silent_nodes: Nodes that do not answer, and since when (API timestamps).
        held_up: Why a child could not be changed just now, a sentence; empty where none was to be, or it could.
    """

    job: Object
    spec: Spec
    spec_error: str = ""
    child: Object | None = None
    pods: tuple[Object, ...] = ()
    check: Object | None = None
    check_pods: tuple[Object, ...] = ()
    export_jobs: tuple[Object, ...] = ()
    export_pods: tuple[Object, ...] = ()
    answers: Mapping[Need, Any] = field(default_factory=dict)
    refusal: Refusal | None = None
    silent_nodes: Mapping[str, str] = field(default_factory=dict)
    held_up: str = ""

    @property
    def status(self) -> Object:
        """The TrainingJob's status as it stands."""
        return self.job.get("status") or {}

    @property
    def name(self) -> str:
        """The TrainingJob's name."""
        return str(self.job["metadata"]["name"])

    @property
    def uid(self) -> str:
        """The TrainingJob's UID."""
        return str(self.job["metadata"]["uid"])


class Deletion(NamedTuple):
    """An object to delete.

    Attributes:
        kind: `jobs` (with its pods, in the background) or `pods`.
        name: Its name.
        uid: UID it must have.
        grace: Seconds its containers get; None leaves it to the pod.
    """

    kind: Literal["jobs", "pods"]
    name: str
    uid: str
    grace: int | None = None


class Patch(NamedTuple):
    """A merge patch of an object in the TrainingJob's namespace.

    Attributes:
        kind: Plural name of its kind, with its subresource where that is patched.
        name: Its name.
        body: The patch.
    """

    kind: Literal["jobs", "jobs/status", "workloads"]
    name: str
    body: Object


class Note(NamedTuple):
    """One Event of the TrainingJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class Caution(NamedTuple):
    """Something a user should know beside the phase, told by a condition that is there as long as it holds.

    Attributes:
        condition: Its type.
        reason: CamelCase word.
        message: Sentence.
    """

    condition: str
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about one TrainingJob, in this order.

    Attributes:
        need: Look this up and plan again; nothing else is set then.
        create: Children that are missing, in the order they are needed.
        suspend: What the training Job's `spec.suspend` becomes.
        patches: What else of the children, or of what Kueue made for them, is patched.
        delete: Children to delete.
        status: Merge patch for the status; None when nothing changes.
        note: Event to write once the status is written.
        requeue_after: Seconds until time alone changes the decision.
    """

    need: Need | None = None
    create: tuple[Object, ...] = ()
    suspend: bool | None = None
    patches: tuple[Patch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: Object | None = None
    note: Note | None = None
    requeue_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one policy concluded.

    Attributes:
        phase: The phase this leads to; None keeps the status as it stands.
        reason: Stable CamelCase word.
        message: Sentence for the user.
        termination: The trainer's last words, where they decide the final values.
        log_tail: End of the log of a failed job.
        caution: What to warn of beside the phase.
        obstacle: What is in the job's way beside, in a sentence; empty where nothing is.
        failed_starts: What `status.queue.failedStarts` becomes; None leaves it as it is.
        waits: Whether the queue has not let it in.
        suspend: Whether the training Job is held back; who holds it, and where, is the matter of `handoff.change`.
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
