"""RunConfig: everything a trainer process needs, in one JSON document.

The operator resolves a TrainingJob into it and mounts it read-only; on a laptop a user writes the few fields without a
default. The trainer reads nothing else of the custom resource.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from trainyard_crds.common import SpecModel, check
from trainyard_crds.exports import Export
from trainyard_crds.sources import Sha256
from trainyard_crds.tasks import TaskName
from trainyard_crds.trainingjob import TrainingJobSpec
from trainyard_crds.trainingjob_inputs import DATASET_RULES, VALIDATION_RULES, DatasetFormat
from trainyard_crds.trainingjob_rules import SHARED_RULES
from trainyard_crds.trainingjob_training import Adapter, Checkpoints, Evaluation, Llm, Optimization, Quantization

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
    """The source as the user wrote it, when the operator replaced it by a mounted path."""


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
    validation: RunValidation | None = None

    @model_validator(mode="after")
    def _check_rules(self) -> RunDataset:
        check(DATASET_RULES, self, "spec.dataset.")
        return self


class Identity(SpecModel):
    """Which TrainingJob this run belongs to; absent on a laptop."""

    namespace: str
    name: str
    uid: str


class RunS3(SpecModel):
    """Object storage; its credentials are AWS_ACCESS_KEY_ID and its companions in the environment, if there are any."""

    endpoint: str | None = Field(default=None, description="Address of the service. Default: that of AWS.")
    region: str = "us-east-1"


class Intake(SpecModel):
    """Where progress is reported to; absent on a laptop."""

    url: str
    token_file: str
    ca_file: str | None = None


class RunConfig(SpecModel):
    """One training run."""

    model_config = ConfigDict(title="RunConfig")

    version: Literal[1] = 1
    job: Identity | None = None
    run_directory: str = Field(min_length=1, description="Directory of checkpoints, metrics, exports and result.")
    cache_directory: str | None = Field(
        default=None,
        min_length=1,
        description="Directory for downloads and tokens, which runs may share. Default: the user's cache for "
        "downloads, the run directory for tokens.",
    )
    run_uri: str | None = Field(default=None, description="The run directory as users see it: pvc://claim/path.")
    task: TaskName
    method: Literal["lora", "qlora", "full"] = "lora"
    model: RunModelSource
    dataset: RunDataset
    optimization: Optimization = Optimization()
    adapter: Adapter | None = None
    quantization: Quantization | None = None
    llm: Llm = Llm()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    exports: list[Export] = Field(min_length=1, description="Default: the adapter, or the model with full.")
    s3: RunS3 = RunS3()
    progress: Intake | None = None
    gpus: int = Field(default=0, ge=0, le=64, description="GPUs each pod was given; 0 trains on the CPU.")
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        exclude_if=lambda nodes: nodes == 1,  # so that a trainer that knows of no nodes takes the document
        description="Pods (machines) the processes are spread over evenly. NNODES, NODE_RANK, MASTER_ADDR and "
        "MASTER_PORT in the environment of each say how they find each other.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64 * 64,
        description="Processes that train together, on all nodes: one for each GPU, or any number on the CPU.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_method_blocks(cls, data: Any) -> Any:
        """Leave `adapter` and `quantization` filled exactly where the method uses them, and `exports` always."""
        if not isinstance(data, dict):
            return data
        method = data.get("method", "lora")
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
        """Processes that each node runs."""
        return self.processes // self.nodes

    def to_json(self) -> dict[str, Any]:
        """The camelCase document without unset (None) fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def training_blocks(spec: TrainingJobSpec) -> dict[str, Any]:
    """The blocks a RunConfig takes from a spec as they are; unset ones get their models' defaults."""
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
