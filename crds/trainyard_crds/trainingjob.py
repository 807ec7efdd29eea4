"""TrainingJob: one fine-tuning run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import (
    ByteQuantity,
    Column,
    CpuQuantity,
    DnsName,
    Kind,
    SecretKey,
    SpecModel,
    cel,
    rules,
)
from trainyard_crds.contract import NAME_LIMIT
from trainyard_crds.exports import Export
from trainyard_crds.sources import S3, Sha256, dataset_source, model_source, no_secret, sha256_of_downloads
from trainyard_crds.trainingjob_status import TrainingJobStatus


class Model(SpecModel):
    """The base model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret(
                "spec.model.source",
                "write hf://org/name and name a Secret with the hub token in spec.model.credentialsSecret",
            ),
            cel(
                "!has(self.credentialsSecret) || self.source.startsWith('hf://')",
                "spec.model.credentialsSecret is only used for hf:// sources; remove it",
            ),
            cel(
                "!has(self.revision) || self.source.startsWith('hf://')",
                "spec.model.revision is only used for hf:// sources; remove it",
            ),
        )
    )

    source: str = Field(
        min_length=1,
        max_length=512,
        description=(
            "Where the model is: hf://org/name on the model hub, or a directory (config.json, tokenizer, safetensors "
            "weights): pvc://claim/path on a PersistentVolumeClaim of this namespace, s3://bucket/path in spec.s3."
        ),
        json_schema_extra=model_source("spec.model.source"),
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Branch, tag or commit of an hf:// model. Default: the main branch. The commit used is reported.",
    )
    credentials_secret: SecretKey | None = Field(
        default=None, description="Secret key with the hub token for a gated or private hf:// model."
    )


_ROWS = "write pvc://claim/file.jsonl, hf://org/name/file.jsonl or s3://bucket/file.jsonl; secrets go into a Secret"
DatasetFormat = Literal["auto", "messages", "sharegpt", "alpaca", "query-response", "text", "tokenized"]


class Validation(SpecModel):
    """Held-out rows the model is evaluated on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret("spec.dataset.validation.source", _ROWS),
            sha256_of_downloads("spec.dataset.validation"),
            cel(
                "has(self.source) != has(self.fraction)",
                "spec.dataset.validation takes exactly one of source (a file) and fraction (a share of the rows)",
            ),
        )
    )

    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        description="A file of held-out rows, named as in spec.dataset.source, in the dataset's format.",
        json_schema_extra=dataset_source("spec.dataset.validation.source"),
    )
    sha256: str | None = Sha256
    fraction: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="Share of the training rows to hold out, chosen by a hash of the row; greater than 0, at most 0.5.",
    )


class Dataset(SpecModel):
    """The training rows."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            no_secret("spec.dataset.source", _ROWS),
            sha256_of_downloads("spec.dataset"),
            cel(
                "!has(self.validation) || !has(self.validation.source) || self.validation.source != self.source",
                "spec.dataset.validation.source is the training file itself, so the evaluation would say nothing; "
                "name another file, or use fraction",
            ),
        )
    )

    source: str = Field(
        min_length=1,
        max_length=512,
        description=(
            "A file of rows (JSON Lines, JSON array, CSV, Parquet, or a .zip, .tar, .tar.gz or .gz of them): "
            "pvc://claim/path, hf://org/name/path in a dataset repository of the hub, s3://bucket/key in spec.s3, or "
            "https://host/path."
        ),
        json_schema_extra=dataset_source("spec.dataset.source"),
    )
    sha256: str | None = Sha256
    format: DatasetFormat = Field(
        default="auto",
        description=(
            "How a row is written: messages (role, content), sharegpt (conversations of from, value), alpaca "
            "(instruction, input, output), query-response, text, tokenized (input_ids, labels). auto looks at the "
            "first rows."
        ),
    )
    max_rows: int | None = Field(
        default=None, ge=1, description="Use at most this many rows, from the start. Default: all."
    )
    validation: Validation | None = Field(default=None, description="Held-out rows. Default: none, no evaluation.")


class Optimization(SpecModel):
    """The optimizer and its schedule."""

    epochs: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Passes over the training rows. Default: 3 when maxSteps is not set; with both set, maxSteps wins.",
    )
    max_steps: int | None = Field(default=None, ge=1, le=100_000_000, description="Optimizer steps of the whole run.")
    batch_size: int = Field(
        default=1,
        ge=1,
        le=65_536,
        description="Sequences per forward pass; with packing, packed sequences of maxLength.",
    )
    gradient_accumulation: int = Field(default=4, ge=1, le=65_536, description="Forward passes per optimizer step.")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine",
        description="How the learning rate falls after the warm-up: to 0 by a cosine or a line, or not.",
    )
    warmup_ratio: float = Field(
        default=0.05, ge=0, le=1, description="Share of all steps over which the learning rate rises from 0."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(
        default=1.0, ge=0, le=1_000_000, description="Gradients are scaled down to this global norm; 0 switches it off."
    )
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = Field(
        default="adamw",
        description=(
            "adamw, or with its two moments in 8 bits (bitsandbytes: a quarter of their memory): adamw8bit, and "
            "paged_adamw8bit, whose moments may move to host memory when the GPU's is short."
        ),
    )
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16", description="Type of the weights and activations. fp32 is faster on most CPUs."
    )
    seed: int = Field(default=42, ge=0, le=2**31 - 1, description="Seed of every random choice of the run.")
    logging_steps: int = Field(default=5, ge=1, le=1_000_000, description="Steps between two lines of metrics.")


AdapterTarget = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            cel(r"self.matches(r'^[-\w.]+$')", "must be all-linear or the name of a module, for example q_proj")
        ),
    ),
]


ModuleName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            cel(
                r"self.matches(r'^[-\w.]+$') && self != 'all-linear'",
                "must be the name of a module, for example embed_tokens or lm_head",
            )
        ),
    ),
]


class Adapter(SpecModel):
    """The LoRA adapter (PEFT's terms)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.modulesToSave) || !self.modulesToSave.exists(m, m in self.targets)",
                "spec.adapter.modulesToSave and .targets name the same module; one that is trained whole needs no "
                "adapter: remove it from targets",
            )
        )
    )

    rank: int = Field(default=16, ge=1, le=1024, description="Rank r of the update matrices.")
    alpha: float = Field(default=32, gt=0, le=4096, description="The update is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input while training.")
    use_rslora: bool = Field(
        default=False, description="Scale the update by alpha / sqrt(rank) (rank-stabilised LoRA): for high ranks."
    )
    modules_to_save: list[ModuleName] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description=(
            "Modules trained whole and saved with the adapter, for example embed_tokens and lm_head for new tokens. "
            "Default: none."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    targets: list[AdapterTarget] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Modules with an adapter: names such as q_proj, or all-linear for every linear layer but the head.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"}
        | rules(
            cel(
                "!self.exists(t, t == 'all-linear') || self.size() == 1",
                "spec.adapter.targets: all-linear already names every linear layer; give it alone",
            )
        ),
    )


class Quantization(SpecModel):
    """How the frozen base model is stored (method qlora)."""

    type: Literal["nf4"] = Field(default="nf4", description="4-bit NormalFloat, by bitsandbytes.")
    double_quant: bool = Field(
        default=True, description="Quantise the quantisation constants too (saves 0.4 bit a weight)."
    )


class Llm(SpecModel):
    """What is particular to language models."""

    max_length: int = Field(default=2048, ge=8, le=1_048_576, description="Longest training sequence in tokens.")
    packing: bool = Field(
        default=True,
        description="Put several rows into one sequence of maxLength, each seeing only itself: no padding is computed.",
    )
    overlong: Literal["drop", "truncate", "split"] = Field(
        default="drop",
        description=(
            "What happens to rows longer than maxLength; the count is reported. split cuts rows of text or tokens into "
            "several and drops conversations: a piece of one would be an answer without its question."
        ),
    )
    train_on: Literal["completions", "all"] = Field(
        default="completions", description="Which tokens carry loss: the assistant's answers, or every token."
    )


class EarlyStopping(SpecModel):
    """When a run ends before its last step because it no longer improves."""

    patience: int = Field(
        ge=1, le=10_000, description="Evaluations in a row without a lower evalLoss after which the run is finished."
    )


class Evaluation(SpecModel):
    """When the model is evaluated on the validation rows."""

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Steps between two evaluations, one more at the end. Default: at every periodic checkpoint.",
    )
    baseline: bool = Field(default=False, description="Evaluate once before training too, to compare with.")
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="Finish before the last step, with the best checkpoint, when evalLoss no longer falls. "
        "Default: never.",
    )


class Checkpoints(SpecModel):
    """When the run is saved, and how many saves are kept."""

    every_steps: int = Field(default=100, ge=1, le=100_000_000, description="Steps between two checkpoints.")
    every_minutes: float | None = Field(
        default=None, gt=0, le=100_000, description="Also save when the last checkpoint is this many minutes old."
    )
    keep: int = Field(default=2, ge=1, le=20, description="Newest checkpoints kept; the best one is kept beside them.")
    grace_period_seconds: int = Field(
        default=120,
        ge=1,
        le=86_400,
        description="Seconds a pod has to save and stop when it is suspended, stopped or evicted, before it is killed.",
    )


class TolerationSpec(SpecModel):
    """A Kubernetes toleration."""

    key: str | None = Field(
        default=None, max_length=316, description="Taint key. Default: every key (operator Exists)."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="How value is compared. Default: Equal."
    )
    value: str | None = Field(default=None, max_length=63, description="Taint value the toleration matches.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect to tolerate. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, description="Seconds a NoExecute taint is tolerated. Default: for ever."
    )


class Resources(SpecModel):
    """What the training pod asks for."""

    gpus: int = Field(default=1, ge=0, le=1, description="GPUs of the pod: 1, or 0 to train on the CPU.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        min_length=3,
        max_length=253,
        description="Extended resource a GPU is counted by.",
        json_schema_extra=rules(
            cel(
                r"self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$')",
                "spec.resources.gpuResource must be a resource name with a domain, for example nvidia.com/gpu",
            )
        ),
    )
    cpu: CpuQuantity = Field(default="2", description="CPU cores requested and allowed; torch uses as many threads.")
    memory: ByteQuantity = Field(default="8Gi", description="Memory requested and allowed, /dev/shm included.")
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        default=None, max_length=16, description="Labels a node must have."
    )
    tolerations: list[TolerationSpec] | None = Field(
        default=None,
        max_length=16,
        description="Taints the pod tolerates.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )


class Storage(SpecModel):
    """The volume that holds the run directory: checkpoints, metrics, exports."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.accessMode) "
                "|| has(self.retain))",
                "spec.storage.claimName names an existing claim; remove size, storageClassName, accessMode and retain",
            )
        )
    )

    claim_name: DnsName | None = Field(
        default=None, description="An existing PersistentVolumeClaim. Default: one is made for this job."
    )
    size: ByteQuantity | None = Field(default=None, description="Size of the claim that is made. Default: 10Gi.")
    storage_class_name: DnsName | None = Field(
        default=None, description="Storage class of the claim that is made. Default: the cluster's default class."
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] | None = Field(
        default=None, description="Access mode of the claim that is made. Default: ReadWriteOnce."
    )
    retain: bool | None = Field(
        default=None, description="Whether the claim that is made outlives the TrainingJob. Default: true."
    )


class Retry(SpecModel):
    """What happens after a fault of the machine."""

    limit: int = Field(
        default=3,
        ge=0,
        le=20,
        description="Restarts after a crash or an unreachable source. Preemptions and evictions are free.",
    )


class Stop(StrEnum):
    """How a job is ended for good."""

    GRACEFUL = "Graceful"
    FORCE = "Force"


class TrainingJobSpec(SpecModel):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!has(self.adapter) || self.method != 'full'",
                "spec.adapter has no effect with method: full; remove it, or use method: lora or qlora",
            ),
            cel(
                "!has(self.quantization) || self.method == 'qlora'",
                "spec.quantization has no effect without method: qlora; remove it, or use method: qlora",
            ),
            cel(
                "!has(self.optimization) || self.optimization.optimizer != 'paged_adamw8bit' || "
                "!has(self.resources) || self.resources.gpus > 0",
                "spec.optimization.optimizer: paged_adamw8bit has no effect without a GPU; use adamw or adamw8bit",
            ),
            cel(
                "!has(self.evaluation) || has(self.dataset.validation)",
                "spec.evaluation needs held-out rows: set spec.dataset.validation.source or .fraction",
            ),
            cel(
                "!has(self.exports) || self.method != 'full' || "
                "!self.exports.exists(e, e.format in ['adapter', 'merged'])",
                "spec.exports: method: full trains no adapter that could be exported or merged; use format: model or "
                "gguf",
            ),
            cel(
                "!has(self.exports) || self.method == 'full' || !self.exports.exists(e, e.format == 'model')",
                "spec.exports: format: model is for method: full; use format: merged for a whole model",
            ),
            cel(
                "!has(self.exports) || self.method == 'qlora' || !self.exports.exists(e, has(e.base))",
                "spec.exports[].base has no effect without method: qlora; remove it",
            ),
            cel(
                "!has(self.s3) || self.model.source.startsWith('s3://') || self.dataset.source.startsWith('s3://') || "
                "(has(self.dataset.validation) && has(self.dataset.validation.source) && "
                "self.dataset.validation.source.startsWith('s3://')) || "
                "(has(self.exports) && self.exports.exists(e, has(e.destination)))",
                "spec.s3 has no effect without an s3:// source or destination; remove it",
            ),
            cel(
                "!has(oldSelf.stop) || (has(self.stop) && (oldSelf.stop == self.stop || self.stop == 'Force'))",
                "spec.stop cannot be taken back: a stopped job never runs again (create a new TrainingJob); "
                "it may only go from Graceful to Force",
            ),
        )
    )

    task: Literal["llm"] = Field(description="What kind of model is trained: llm, a causal language model.")
    method: Literal["lora", "qlora", "full"] = Field(
        default="lora",
        description="lora trains an adapter, qlora an adapter on a 4-bit base model, full every weight.",
    )
    model: Model = Field(description="The base model.")
    dataset: Dataset = Field(description="The training rows.")
    optimization: Optimization | None = Field(
        default=None, description="Optimizer and schedule. Default: its defaults."
    )
    adapter: Adapter | None = Field(default=None, description="LoRA settings (lora, qlora). Default: its defaults.")
    quantization: Quantization | None = Field(
        default=None, description="4-bit settings (qlora). Default: its defaults."
    )
    llm: Llm | None = Field(default=None, description="Settings of language models. Default: its defaults.")
    evaluation: Evaluation | None = Field(default=None, description="When to evaluate. Default: its defaults.")
    checkpoints: Checkpoints | None = Field(default=None, description="When to save. Default: its defaults.")
    exports: list[Export] | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        description="What the finished run leaves, each format once. Default: the adapter, or the model with full.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["format"]},
    )
    s3: S3 | None = Field(default=None, description="Object storage of s3:// sources and destinations.")
    resources: Resources | None = Field(default=None, description="GPUs, CPU and memory. Default: its defaults.")
    storage: Storage | None = Field(default=None, description="Volume of the run. Default: a claim of 10Gi, retained.")
    suspend: bool = Field(
        default=False, description="true: save, stop and free the GPUs. false again: resume where it was."
    )
    stop: Stop | None = Field(
        default=None,
        description="Ends the job for good: Graceful saves first, Force does not wait. Graceful may become Force.",
    )
    retry: Retry | None = Field(
        default=None, description="Restarts after faults of the machine. Default: its defaults."
    )
    start_deadline_seconds: int = Field(
        default=1800,
        ge=1,
        le=31_536_000,
        description="Seconds a started job may take until its container runs; then it fails with what prevented it.",
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Seconds of running time (suspended time not counted) after which the job fails. Default: none.",
    )


class TrainingJob(SpecModel):
    """A fine-tuning run: queued, run as a Job, followed to its end."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                f"self.metadata.name.size() <= {NAME_LIMIT}",
                f"metadata.name may have at most {NAME_LIMIT} characters: the Job's and pods' names are made from it",
            )
        )
    )
    kind_info: ClassVar[Kind] = Kind(
        kind="TrainingJob",
        plural="trainingjobs",
        short_names=("tj",),
        mutable=("suspend", "stop"),
        columns=(
            Column(name="Phase", path=".status.phase"),
            Column(name="Progress", path=".status.summary.progress"),
            Column(name="Step", path=".status.summary.step"),
            Column(name="Loss", path=".status.summary.loss"),
            Column(name="ETA", path=".status.summary.eta"),
            Column(name="GPUs", path=".status.summary.gpus"),
            Column(name="Age", path=".metadata.creationTimestamp", type="date"),
            Column(name="Task", path=".spec.task", wide=True),
            Column(name="Method", path=".spec.method", wide=True),
            Column(name="Model", path=".spec.model.source", wide=True),
            Column(name="Message", path=".status.message", wide=True),
        ),
    )

    api_version: Literal["trainyard.dev/v1alpha1"] = "trainyard.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: dict[str, Any]
    spec: TrainingJobSpec = Field(description="What to train, on what, how.")
    status: TrainingJobStatus | None = Field(
        default=None, description="What is known about the run; written by the system."
    )
