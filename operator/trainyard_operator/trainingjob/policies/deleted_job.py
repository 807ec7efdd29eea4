"""The end of a job whose training Job another client deleted, such as the TTL controller.

The Job is not created again: its retry budget and its frozen template are lost with it. A run that finished before has
succeeded all the same; the check Job reads that from the volume.
"""

from __future__ import annotations

from trainyard_crds.constants import child_name
from trainyard_crds.trainingjob_status import Phase
from trainyard_operator.reconcile.fields import condition
from trainyard_operator.reconcile.plan import Deletion, Need
from trainyard_operator.trainingjob.k8s_fields import is_being_deleted, pod_ended
from trainyard_operator.trainingjob.model import Decision
from trainyard_operator.trainingjob.policies.completion import failed, read_result
from trainyard_operator.trainingjob.policy_context import PolicyContext

_REASON = "JobDeleted"


def end_without_job(context: PolicyContext) -> Decision | Need | None:
    """End a job whose training Job is gone, once its pods ended; None for others."""
    if context.child is not None or "jobName" not in context.observed.status:
        return None
    name = child_name(context.observed.name, context.observed.uid)
    pods = [pod for pod in context.observed.pods if not pod_ended(pod)]
    if pods:
        return Decision(
            phase=Phase.STOPPING,
            reason=_REASON,
            message=f"The training Job {name} was deleted by another client; its pods are stopped.",
            delete=tuple(
                Deletion("pods", pod["metadata"]["name"], pod["metadata"]["uid"])
                for pod in pods
                if not is_being_deleted(pod)
            ),
        )
    text = (
        f"The training Job {name} was deleted by another client. Checkpoints remain on the volume: a new TrainingJob "
        "with spec.resumeFrom continues from them. Use spec.suspend to pause a job and spec.stop to end it."
    )
    if context.history.ending is not None and context.history.ending.exit_code is not None:
        return failed(context.observed, context.history, _REASON, text)
    if not _is_reported(context):
        # Written before the check Job is created: where the TrainingJob is gone, too, the write shows that.
        reading = (
            f"The training Job {name} was deleted by another client; the result of its run is read from the volume."
        )
        return Decision(phase=Phase.STOPPING, reason=_REASON, message=reading, requeue_after=0.0)
    return read_result(context.observed, context.settings, otherwise=(_REASON, text))


def _is_reported(context: PolicyContext) -> bool:
    running = condition(context.observed.job, "Running")
    return running is not None and running["reason"] == _REASON
