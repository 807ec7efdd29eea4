"""What a policy decides from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trainyard_kube.paths import Object
from trainyard_operator.admission.decision import Admission
from trainyard_operator.reconcile.fields import holds
from trainyard_operator.trainingjob.k8s_fields import is_busy, job_suspended
from trainyard_operator.trainingjob.model import Observed, RenderSettings
from trainyard_operator.trainingjob.pods.attempts import History
from trainyard_operator.trainingjob.spec import Spec


@dataclass(frozen=True, kw_only=True)
class PolicyContext:
    """One unfinished job at one moment.

    Attributes:
        observed: The job and its children.
        history: Its attempts, up to date.
        settings: The operator's settings.
        now: The time.
        admission: Whether it may start.
    """

    observed: Observed
    history: History
    settings: RenderSettings
    now: datetime
    admission: Admission

    @property
    def spec(self) -> Spec:
        """The TrainingJob's spec."""
        return self.observed.spec

    @property
    def child(self) -> Object | None:
        """The training Job."""
        return self.observed.child

    @property
    def is_idle(self) -> bool:
        """Whether no pod runs or will: the Job controller has observed the suspension and every pod ended."""
        if self.history.unfinished:
            return False
        if self.child is None:
            return True
        return job_suspended(self.child) and holds(self.child, "Suspended") and not is_busy(self.child)
