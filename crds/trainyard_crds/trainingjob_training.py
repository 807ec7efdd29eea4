"""Training settings of a TrainingJob: spec.optimization, adapter, quantization, llm, evaluation, checkpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import Rule, SpecModel, rules
from trainyard_crds.optimizers import OPTIMIZER_DESCRIPTION, OptimizerName

Method = Literal["lora", "qlora", "full"]
DEFAULT_METHOD: Method = "lora"
DEFAULT_EPOCHS = 3


class Optimization(SpecModel):
    """Optimizer and learning rate schedule."""

    epochs: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description=f"Passes over the training rows. Default: {DEFAULT_EPOCHS} if maxSteps is not set; maxSteps takes "
        "precedence over epochs.",
    )
    max_steps: int | None = Field(default=None, ge=1, le=100_000_000, description="Optimizer steps of the whole run.")
    batch_size: int = Field(
        default=1,
        ge=1,
        le=65_536,
        description="Sequences per micro-batch; with packing, packed sequences of maxLength.",
    )
    gradient_accumulation: int = Field(default=4, ge=1, le=65_536, description="Micro-batches per optimizer step.")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine",
        description="Decay of the learning rate after the warm-up: to 0 (cosine, linear), or none (constant).",
    )
    warmup_ratio: float = Field(
        default=0.05, ge=0, le=1, description="Share of all steps in which the learning rate rises from 0."
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(
        default=1.0, ge=0, le=1_000_000, description="Global norm that gradients are clipped to; 0 disables clipping."
    )
    optimizer: OptimizerName = Field(default="adamw", description=OPTIMIZER_DESCRIPTION)
    precision: Literal["bf16", "fp32"] = Field(
        default="bf16",
        description="Data type of weights and activations; updates are computed in fp32. fp32 is faster on most CPUs.",
    )
    recompute: Literal["auto", "none", "selective", "full", "offload"] = Field(
        default="auto",
        description=(
            "Activations that the backward pass recomputes (activation checkpointing): none; selective, those of as "
            "many layers as the memory requires, at least half; full, those of all layers; offload, full with the "
            "layers' inputs in host memory. auto selects the fastest that fits the device. It affects time and memory, "
            "not the result."
        ),
    )
    seed: int = Field(default=42, ge=0, le=2**31 - 1, description="Seed of the random number generators.")
    logging_steps: int = Field(default=5, ge=1, le=1_000_000, description="Steps between two log entries of metrics.")


AdapterTarget = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            Rule(r"self.matches(r'^[-\w.]+$')", "must be all-linear or the name of a module, for example q_proj")
        ),
    ),
]


ModuleName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[-\w.]+$') && self != 'all-linear'",
                "must be the name of a module, for example embed_tokens or lm_head",
            )
        ),
    ),
]


class Adapter(SpecModel):
    """The LoRA adapter, in the terms of PEFT."""

    RULES: ClassVar[tuple[Rule[Adapter], ...]] = (
        Rule(
            "!has(self.modulesToSave) || !self.modulesToSave.exists(m, m in self.targets)",
            "spec.adapter.modulesToSave and .targets name the same module; a module "
            "trained in full needs no adapter: remove it from targets",
            holds=lambda adapter: not set(adapter.targets) & set(adapter.modules_to_save or ()),
        ),
    )
    model_config = ConfigDict(json_schema_extra=rules(*RULES))

    rank: int = Field(default=16, ge=1, le=1024, description="Rank r of the update matrices.")
    alpha: float = Field(default=32, gt=0, le=4096, description="The update is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the input of the adapter in training.")
    use_rslora: bool = Field(
        default=False, description="Scale the update by alpha / sqrt(rank) (rank-stabilised LoRA), for high ranks."
    )
    modules_to_save: list[ModuleName] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description=(
            "Modules trained in full and saved with the adapter, for example embed_tokens and lm_head for new tokens. "
            "Default: none."
        ),
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    targets: list[AdapterTarget] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        description="Modules with an adapter: names such as q_proj, or all-linear for all linear layers except the "
        "output head.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"}
        | rules(
            Rule(
                "!self.exists(t, t == 'all-linear') || self.size() == 1",
                "spec.adapter.targets: all-linear already includes every linear layer; remove the other names",
            )
        ),
    )


class Quantization(SpecModel):
    """Quantization of the frozen base model (method: qlora)."""

    type: Literal["nf4"] = Field(default="nf4", description="4-bit NormalFloat, by bitsandbytes.")
    double_quant: bool = Field(
        default=True, description="Also quantize the quantization constants, which saves 0.4 bit per weight."
    )


class Llm(SpecModel):
    """Settings of language models."""

    max_length: int = Field(
        default=2048, ge=8, le=1_048_576, description="Maximum length of a training sequence in tokens."
    )
    packing: bool = Field(
        default=True,
        description="Pack several rows into one sequence of maxLength, with attention limited to each row, instead "
        "of padding.",
    )
    overlong: Literal["drop", "truncate", "split"] = Field(
        default="drop",
        description=(
            "Handling of rows longer than maxLength; their number is reported. split divides rows of text or "
            "tokens and "
            "drops conversations, whose parts would be answers without questions."
        ),
    )
    train_on: Literal["completions", "all"] = Field(
        default="completions", description="Tokens with a loss: the assistant's answers, or all tokens."
    )


class EarlyStopping(SpecModel):
    """End of a run before its last step, because the metric no longer improves."""

    patience: int = Field(
        ge=1, le=10_000, description="Consecutive evaluations without a better value after which the run finishes."
    )


Goal = Literal["minimize", "maximize"]


class Evaluation(SpecModel):
    """Evaluation on the validation rows, and the comparison of checkpoints."""

    RULES: ClassVar[tuple[Rule[Evaluation], ...]] = (
        Rule(
            "!has(self.goal) || has(self.metric)",
            "spec.evaluation.goal has no effect without evaluation.metric; name the metric too, or remove goal",
            holds=lambda evaluation: evaluation.goal is None or evaluation.metric is not None,
        ),
    )
    model_config = ConfigDict(json_schema_extra=rules(*RULES))

    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Steps between two evaluations; another follows the last step. Default: at every periodic "
        "checkpoint.",
    )
    baseline: bool = Field(default=False, description="Also evaluate before training, for comparison.")
    metric: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Metric of the evaluation that determines the best checkpoint and early stopping. Default: that of "
        "the task, evalLoss for llm.",
    )
    goal: Goal | None = Field(
        default=None,
        description="Whether a lower (minimize) or a higher value (maximize) of metric is better. Default: as "
        "defined by "
        "the task.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="Finish before the last step, with the best checkpoint, if metric no longer improves. Default: "
        "never.",
    )


class Checkpoints(SpecModel):
    """Checkpoint intervals and retention."""

    every_steps: int = Field(default=100, ge=1, le=100_000_000, description="Steps between two checkpoints.")
    every_minutes: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="Also save when the last checkpoint is this many minutes old. Default: never.",
    )
    keep: int = Field(
        default=2, ge=1, le=20, description="Number of newest checkpoints to keep; the best one is kept in addition."
    )
    grace_period_seconds: int = Field(
        default=120,
        ge=1,
        le=86_400,
        description="Seconds from SIGTERM, after suspension, stop or eviction, until the pod is killed; the "
        "trainer saves in this "
        "time.",
    )
