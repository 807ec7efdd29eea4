"""RunConfig: the complete configuration of a trainer process in one JSON document.

The operator resolves a TrainingJob into it and mounts it read-only; on a laptop a user writes the few fields without a
default. The trainer does not read the TrainingJob.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from trainyard_crds.checkpoint_names import CHECKPOINT_FORMS, CHECKPOINT_PATTERN
from trainyard_crds.common import SpecModel, check
from trainyard_crds.exports import Export
from trainyard_crds.sources import DEFAULT_REGION, Sha256
from trainyard_crds.tasks import TaskName
from trainyard_crds.trainingjob import TrainingJobSpec
from trainyard_crds.trainingjob_inputs import (
    DATASET_RULES,
    DEFAULT_INVALID_FRACTION,
    VALIDATION_RULES,
    DatasetFormat,
    OnInvalidRow,
)
from trainyard_crds.trainingjob_resources import MAX_GPUS, MAX_NODES
from trainyard_crds.trainingjob_resume import DEFAULT_CHECKPOINT, ResumeMode
from trainyard_crds.trainingjob_rules import SHARED_RULES
from trainyard_crds.trainingjob_training import (
    DEFAULT_METHOD,
    Adapter,
    Checkpoints,
    Evaluation,
    Llm,
    Method,
    Optimization,
    Quantization,
)

_FILE = r"^(hf://[^/]+/[^/]+/.+|s3://[^/]+/[^\x00?#]+|https?://[^/@?#]+/[^\x00?#]+|file:///[^\x00]+)$"
_FILE_FORMS = "hf://org/name/file.jsonl, s3://bucket/file.jsonl, https://host/file.jsonl or file:///path/file.jsonl"


class RunModelSource(SpecModel):
    """The base model: hf://org/name, s3://bucket/path or file:///directory."""

    source: str = Field(
        pattern=r"^(hf://[^/]+/[^/]+|s3://[^/]+/[^\x00?#]+|file:///[^\x00]+)$",
        max_length=1024,
        description="hf://org/name, s3://bucket/path or file:///directory",
    )
    revision: str | None = None
    display_source: str | None = None
    """The source in the spec, if the operator replaced it by a mounted path."""


class RunValidation(SpecModel):
    """Held-out rows: exactly one of source and fraction."""

    source: str | None = Field(
        default=None,
        pattern=_FILE,
        max_length=1024,
        description=_FILE_FORMS,
    )
    sha256: str | None = Sha256
    fraction: float | None = Field(default=None, gt=0, le=0.5)

    @model_validator(mode="after")
    def _check_rules(self) -> RunValidation:
        check(VALIDATION_RULES, self, "spec.dataset.")
        return self


class RunDataset(SpecModel):
    """The training rows."""

    source: str = Field(
        pattern=_FILE,
        max_length=1024,
        description=_FILE_FORMS,
    )
    sha256: str | None = Sha256
    format: DatasetFormat = "auto"
    max_rows: int | None = Field(default=None, ge=1)
    on_invalid_row: OnInvalidRow = Field(
        default="fail",
        exclude_if=lambda chosen: chosen == "fail",  # an older trainer rejects the unknown field
    )
    max_invalid_fraction: float | None = Field(default=None, gt=0, le=0.5)
    validation: RunValidation | None = None

    @model_validator(mode="after")
    def _check_rules(self) -> RunDataset:
        check(DATASET_RULES, self, "spec.dataset.")
        return self

    @property
    def skip_limit(self) -> float | None:
        """Largest share of rows of a file that are skipped as invalid; None if an invalid row ends the run."""
        if self.on_invalid_row == "fail":
            return None
        return self.max_invalid_fraction or DEFAULT_INVALID_FRACTION


class RunResume(SpecModel):
    """A checkpoint of another run, at which this one begins."""

    run_directory: str = Field(min_length=1, description="The directory of that run.")
    run_uri: str | None = Field(default=None, description="Its location in messages: pvc://claim/path.")
    checkpoint: str = Field(default=DEFAULT_CHECKPOINT, pattern=CHECKPOINT_PATTERN, description=CHECKPOINT_FORMS)
    mode: ResumeMode = "continue"

    @property
    def display_name(self) -> str:
        """The run in messages."""
        return self.run_uri or self.run_directory


class Identity(SpecModel):
    """The TrainingJob of the run; absent on a laptop."""

    namespace: str
    name: str
    uid: str


class RunS3(SpecModel):
    """Object storage; credentials are in the environment: AWS_ACCESS_KEY_ID and related variables."""

    endpoint: str | None = Field(default=None, description="URL of the service. Default: the endpoint of AWS.")
    region: str = DEFAULT_REGION


class Intake(SpecModel):
    """The gateway's intake for reports; absent on a laptop."""

    url: str
    token_file: str
    ca_file: str | None = None


class RunConfig(SpecModel):
    """One training run."""

    model_config = ConfigDict(title="RunConfig")

    version: Literal[1] = 1
    job: Identity | None = None
    run_directory: str = Field(min_length=1, description="Directory of checkpoints, metrics, exports and result.json.")
    cache_directory: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for downloads and tokenised rows, which runs may share. Default: the user's cache for "
        "downloads, the run directory for tokenised rows.",
    )
    run_uri: str | None = Field(default=None, description="Location of the run directory: pvc://claim/path.")
    task: TaskName
    method: Method = DEFAULT_METHOD
    model: RunModelSource
    dataset: RunDataset
    resume_from: RunResume | None = Field(
        default=None, description="The checkpoint of another run that this one begins at. Default: the base model."
    )
    optimization: Optimization = Optimization()
    adapter: Adapter | None = None
    quantization: Quantization | None = None
    llm: Llm = Llm()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    exports: list[Export] = Field(
        min_length=1, description="Exports of the run. Default: adapter, or model with method: full."
    )
    s3: RunS3 = RunS3()
    progress: Intake | None = None
    gpus: int = Field(default=0, ge=0, le=MAX_GPUS, description="GPUs of each pod; 0 trains on the CPU.")
    nodes: int = Field(
        default=1,
        ge=1,
        le=MAX_NODES,
        exclude_if=lambda nodes: nodes == 1,  # an older trainer rejects the unknown field
        description="Pods (machines) with the same number of processes each; their environment has NNODES, NODE_RANK, "
        "MASTER_ADDR and MASTER_PORT for the rendezvous.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=MAX_NODES * MAX_GPUS,
        description="Processes of the group on all nodes: one per GPU, or any number on the CPU.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_method_blocks(cls, data: Any) -> Any:
        """Fill `adapter` and `quantization` if the method uses them, and `exports` always."""
        if not isinstance(data, dict):
            return data
        method = data.get("method", DEFAULT_METHOD)
        filled = dict(data)
        if method in ("lora", "qlora") and filled.get("adapter") is None:
            filled["adapter"] = {}
        if method == "qlora" and filled.get("quantization") is None:
            filled["quantization"] = {}
        if filled.get("exports") is None:
            filled["exports"] = [{"format": "model" if method == "full" else "adapter"}]
        return filled

    @model_validator(mode="after")
    def _check_rules(self) -> RunConfig:
        check(SHARED_RULES, self)
        check(Evaluation.RULES, self.evaluation)
        if self.adapter is not None:
            check(Adapter.RULES, self.adapter)
        for export in self.exports:
            check(Export.RULES, export)
        if len({export.format for export in self.exports}) < len(self.exports):  # in the CRD, a key of the list
            raise ValueError("exports names a format twice; name each once")
        return self

    @model_validator(mode="after")
    def _check_processes(self) -> RunConfig:
        if self.nodes == 1 and self.gpus not in (0, self.processes):
            raise ValueError(
                f"processes is {self.processes}, but gpus is {self.gpus}: each process trains on one GPU; set both to "
                "the same number, or gpus to 0 to train on the CPU"
            )
        if self.gpus and self.processes != self.gpus * self.nodes:
            raise ValueError(
                f"processes is {self.processes}, but gpus is {self.gpus} on each of {self.nodes} nodes: each process "
                f"trains on one GPU; set processes to {self.gpus * self.nodes}"
            )
        if self.processes % self.nodes:
            raise ValueError(
                f"processes is {self.processes}, but nodes is {self.nodes}: each node runs the same number of "
                "processes; set processes to a multiple of nodes"
            )
        return self

    @property
    def processes_per_node(self) -> int:
        """Processes of each node."""
        return self.processes // self.nodes

    def to_json(self) -> dict[str, Any]:
        """Return the camelCase document without unset (None) fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def training_blocks(spec: TrainingJobSpec) -> dict[str, Any]:
    """Return the blocks of a spec that RunConfig takes over unchanged; it fills unset ones with defaults."""
    blocks = (
        "task",
        "method",
        "optimization",
        "adapter",
        "quantization",
        "llm",
        "evaluation",
        "checkpoints",
        "exports",
    )
    values = {name: getattr(spec, name) for name in blocks}
    return {name: value for name, value in values.items() if value is not None}
