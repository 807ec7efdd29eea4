"""spec.resumeFrom: a new run that begins at a checkpoint of another one."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from trainyard_crds.checkpoint_names import CHECKPOINT_FORMS, CHECKPOINT_PATTERN
from trainyard_crds.common import DnsName, Rule, SpecModel, rules

ResumeMode = Literal["continue", "weights"]
DEFAULT_CHECKPOINT = "last"
_RUN_URI = r"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^?#\x00-\x1f]+$"
_ESCAPES = r"(^|/)[.][.]?(/|$)|^pvc://.*//"


class ResumeFrom(SpecModel):
    """A checkpoint of another run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.trainingJob) != has(self.runUri)",
                "spec.resumeFrom takes exactly one of trainingJob (a name) and runUri (pvc://claim/path, the "
                "status.runUri of a TrainingJob that may be deleted)",
            )
        )
    )

    training_job: DnsName | None = Field(
        default=None, description="Name of the TrainingJob of that run, in this namespace; it may have failed."
    )
    run_uri: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Run directory, as in the status.runUri of its TrainingJob, which may be deleted: pvc://claim/path.",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{_RUN_URI}') && !self.matches(r'{_ESCAPES}')",
                "spec.resumeFrom.runUri must be the status.runUri of a TrainingJob, for example "
                "pvc://tune-1a2b3c4d/trainyard/tune-1a2b3c4d",
            )
        ),
    )
    checkpoint: str = Field(
        default=DEFAULT_CHECKPOINT,
        max_length=128,
        description=f"Checkpoint of that run: {CHECKPOINT_FORMS}.",
        json_schema_extra=rules(
            Rule(f"self.matches(r'{CHECKPOINT_PATTERN}')", f"spec.resumeFrom.checkpoint must be {CHECKPOINT_FORMS}")
        ),
    )
    mode: ResumeMode = Field(
        default="continue",
        description=(
            "continue goes on at the step, the row and the optimizer state of the checkpoint; the dataset and the "
            "settings must be the same, except epochs, maxSteps, learningRate, scheduler, warmupRatio and maxGradNorm. "
            "weights starts at step 0 with the checkpoint's weights; model, method, adapter and quantization must be "
            "the same."
        ),
    )
