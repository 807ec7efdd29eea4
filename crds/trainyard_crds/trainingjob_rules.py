"""Rules over several blocks of a TrainingJob's spec; those with `holds` apply to a RunConfig too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from trainyard_crds.common import Rule
from trainyard_crds.constants import HUB_TOKEN_ENV, S3_CREDENTIALS, S3_SESSION_TOKEN
from trainyard_crds.exports import ADAPTER_FORMATS, FULL_FORMATS, Export
from trainyard_crds.optimizers import NOT_PAGED, PAGED, SHARDABLE
from trainyard_crds.trainingjob_training import Adapter, Evaluation, Optimization, Quantization


class Run(Protocol):
    """The settings of a run that the shared rules read."""

    @property
    def method(self) -> str:
        """lora, qlora or full."""

    @property
    def adapter(self) -> Adapter | None:
        """Set only where the method trains an adapter."""

    @property
    def quantization(self) -> Quantization | None:
        """Set only where the method quantizes the base model."""

    @property
    def optimization(self) -> Optimization:
        """Optimizer and schedule."""

    @property
    def evaluation(self) -> Evaluation:
        """When the model is evaluated."""

    @property
    def dataset(self) -> Any:
        """The training rows; `validation` holds the held-out ones."""

    @property
    def exports(self) -> Sequence[Export]:
        """The exports of the finished run."""

    @property
    def gpus(self) -> int:
        """GPUs of each pod."""

    @property
    def processes(self) -> int:
        """Processes on all pods."""


SHARED_RULES: tuple[Rule[Run], ...] = (
    Rule(
        "!has(self.adapter) || self.method != 'full'",
        "spec.adapter has no effect with method: full; remove it, or use method: lora or qlora",
        holds=lambda run: run.adapter is None or run.method != "full",
    ),
    Rule(
        "!has(self.quantization) || self.method == 'qlora'",
        "spec.quantization has no effect without method: qlora; remove it, or use method: qlora",
        holds=lambda run: run.quantization is None or run.method == "qlora",
    ),
    Rule(
        f"!has(self.optimization) || !(self.optimization.optimizer in {list(PAGED)}) || "
        "!has(self.resources) || self.resources.gpus > 0",
        f"spec.optimization.optimizer: {' and '.join(PAGED)} has no effect without a GPU; use {' or '.join(NOT_PAGED)}",
        holds=lambda run: run.optimization.optimizer not in PAGED or run.gpus > 0,
    ),
    Rule(
        "self.method != 'full' || !has(self.resources) || "
        "(self.resources.gpus < 2 && self.resources.nodes < 2) || "
        f"!has(self.optimization) || self.optimization.optimizer in {list(SHARDABLE)}",
        f"spec.optimization.optimizer: only {' and '.join(SHARDABLE)} can be sharded over several processes (one per "
        "GPU) with method: full; use it, or a single GPU",
        holds=lambda run: run.method != "full" or run.processes < 2 or run.optimization.optimizer in SHARDABLE,
    ),
    Rule(
        "!has(self.optimization) || self.optimization.recompute != 'offload' || "
        "!has(self.resources) || self.resources.gpus > 0",
        "spec.optimization.recompute: offload has no effect without a GPU; use auto or full",
        holds=lambda run: run.optimization.recompute != "offload" or run.gpus > 0,
    ),
    Rule(
        "!has(self.evaluation) || has(self.dataset.validation)",
        "spec.evaluation needs held-out rows: set spec.dataset.validation.source or .fraction",
        # RunConfig always has the block, so these two fields show that an evaluation was requested.
        holds=lambda run: (
            run.dataset.validation is not None
            or (run.evaluation.early_stopping is None and run.evaluation.metric is None)
        ),
    ),
    Rule(
        f"!has(self.exports) || self.method != 'full' || !self.exports.exists(e, e.format in {list(ADAPTER_FORMATS)})",
        "spec.exports: method: full trains no adapter that could be exported or merged; use format: model or gguf",
        holds=lambda run: run.method != "full" or not _formats(run) & set(ADAPTER_FORMATS),
    ),
    Rule(
        f"!has(self.exports) || self.method == 'full' || !self.exports.exists(e, e.format in {list(FULL_FORMATS)})",
        "spec.exports: format: model is for method: full; use format: merged for a whole model",
        holds=lambda run: run.method == "full" or not _formats(run) & set(FULL_FORMATS),
    ),
    Rule(
        "!has(self.exports) || self.method == 'qlora' || !self.exports.exists(e, has(e.base))",
        "spec.exports[].base has no effect without method: qlora; remove it",
        holds=lambda run: run.method == "qlora" or all(export.base is None for export in run.exports),
    ),
)

SPEC_RULES: tuple[Rule[Any], ...] = (
    *SHARED_RULES,
    Rule(
        "!has(self.resources) || self.resources.nodes < 2 || !has(self.storage) || "
        "!has(self.storage.accessMode) || self.storage.accessMode == 'ReadWriteMany'",
        "spec.storage.accessMode: the pods of a job with spec.resources.nodes above 1 share its volume; write "
        "ReadWriteMany, or remove accessMode",
    ),
    Rule(
        "!has(self.s3) || self.model.source.startsWith('s3://') || self.dataset.source.startsWith('s3://') || "
        "(has(self.dataset.validation) && has(self.dataset.validation.source) && "
        "self.dataset.validation.source.startsWith('s3://')) || "
        "(has(self.exports) && self.exports.exists(e, has(e.destination)))",
        "spec.s3 has no effect without an s3:// source or destination; remove it",
    ),
    Rule(
        "!has(self.pod) || !has(self.pod.env) || !has(self.model.credentialsSecret) || "
        f"!self.pod.env.exists(e, e.name == '{HUB_TOKEN_ENV}')",
        f"spec.pod.env: {HUB_TOKEN_ENV} is read from spec.model.credentialsSecret; remove one of them",
    ),
    Rule(
        "!has(self.pod) || !has(self.pod.env) || !has(self.s3) || !has(self.s3.credentialsSecret) || "
        f"!self.pod.env.exists(e, e.name in {[*S3_CREDENTIALS, S3_SESSION_TOKEN]})",
        "spec.pod.env: the AWS credentials are read from spec.s3.credentialsSecret; remove one of them",
    ),
    Rule(
        "!has(oldSelf.exports) || (has(self.exports) && oldSelf.exports.all(o, self.exports.exists(e, e == o)))",
        "spec.exports: entries may be added to a TrainingJob that exists, but not changed or removed; put the "
        "earlier ones back as they were, and add formats that are not there yet",
    ),
    Rule(
        "!has(oldSelf.s3) || (has(self.s3) && self.s3 == oldSelf.s3)",
        "spec.s3 cannot be changed once it is set; put it back as it was",
    ),
    Rule(
        "!has(oldSelf.stop) || (has(self.stop) && (oldSelf.stop == self.stop || self.stop == 'Force'))",
        "spec.stop cannot be taken back: a stopped job never runs again (create a new TrainingJob); "
        "it may only go from Graceful to Force",
    ),
)


def _formats(run: Run) -> set[str]:
    return {export.format for export in run.exports}
