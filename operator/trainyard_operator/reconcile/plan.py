"""Plans: what a kind decides for one object, as data. Pure; `reconciler` carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trainyard_kube.paths import Object

LOG, NODES, TERMINATING, FAILED_CREATE = "log", "nodes", "terminating", "failed-create"
"""Kinds of `Need` beside plural names: the end of a container's log, the nodes of a label selector, whether a namespace
is being deleted, and why the Job controller could not create a pod of a Job."""


class Need(NamedTuple):
    """Something to look up at the API server before a decision can be made.

    Attributes:
        kind: The plural name of a resource, for one object; or LOG, NODES, TERMINATING, FAILED_CREATE.
        name: Name of the object, pod, Job or namespace; or the selector.
        container: For LOG, the container.
    """

    kind: str
    name: str
    container: str = ""


class Refusal(NamedTuple):
    """The API server's refusal to create a child.

    Attributes:
        reason: CamelCase reason for the status.
        message: Sentence for the user.
        final: Whether another try cannot succeed.
        transient: Whether the cluster is at fault, not the child.
        may_pass: Whether it may pass without a change of the reconciled object: a policy, a quota, a webhook that is
            down. No deadline of the object runs meanwhile.
        child: Kind of the refused child. The children before it exist.
    """

    reason: str
    message: str
    final: bool
    transient: bool = False
    may_pass: bool = False
    child: str = ""


class Deletion(NamedTuple):
    """An object to delete, with its dependents in the background.

    Attributes:
        kind: Plural name of its resource.
        name: Its name.
        uid: UID it must have.
        grace: Grace period of its containers in seconds; None leaves it to the object.
    """

    kind: str
    name: str
    uid: str
    grace: int | None = None


class Patch(NamedTuple):
    """A merge patch of an object in the namespace of the reconciled one.

    Attributes:
        kind: Plural name of its resource, with the subresource where that is patched: `jobs/status`.
        name: Its name.
        body: The patch; a `metadata.resourceVersion` in it must be the current one.
        required: Whether a refusal fails the reconcile; otherwise it is logged and the object stays as it is.
    """

    kind: str
    name: str
    body: Object
    required: bool = False


class Note(NamedTuple):
    """One Event about the reconciled object."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to do about one object, in this order.

    Attributes:
        need: Look this up and plan again; nothing else is set then.
        create: Children that are missing, in the order they are needed. An existing one is adopted as it is.
        apply: Children that are missing or differ from what they should be: server-side apply.
        patches: Changes of related objects.
        delete: Objects to delete.
        status: Merge patch for the status; None when nothing changes.
        note: Event to record once the status is written.
        requeue_after: Seconds until the passing of time changes the decision.
    """

    need: Need | None = None
    create: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()
    patches: tuple[Patch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: Object | None = None
    note: Note | None = None
    requeue_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One object as it was last observed; a kind adds its children.

    Attributes:
        obj: The object.
        answers: Results of look-ups: the object or value, None where there is none.
        refusal: Why the children could not be created in this reconcile.
        blocked: Why a related object could not be changed in this reconcile, a sentence; empty if nothing failed.
    """

    obj: Object
    answers: Mapping[Need, Any] = field(default_factory=dict)
    refusal: Refusal | None = None
    blocked: str = ""

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return str(self.obj["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """The object's UID."""
        return str(self.obj["metadata"]["uid"])

    @property
    def status(self) -> Object:
        """The object's status as it is stored."""
        return self.obj.get("status") or {}

    @property
    def is_being_deleted(self) -> bool:
        """Whether the object is being deleted."""
        return "deletionTimestamp" in self.obj["metadata"]
