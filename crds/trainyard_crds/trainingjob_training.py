"""How a TrainingJob trains: spec.optimization, adapter, quantization, llm, evaluation and checkpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainyard_crds.common import Rule, SpecModel, rules


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
    recompute: Literal["auto", "none", "selective", "full", "offload"] = Field(
        default="auto",
        description=(
            "Activations that the backward pass computes again (gradient checkpointing): none; selective, those of as "
            "many layers as the memory needs, at least half; full, those of all layers; offload, full with the layers' "
            "inputs in host memory. auto takes the fastest that fits the device. It changes time and memory, not the "
            "result."
        ),
    )
    seed: int = Field(default=42, ge=0, le=2**31 - 1, description="Seed of every random choice of the run.")
    logging_steps: int = Field(default=5, ge=1, le=1_000_000, description="Steps between two lines of metrics.")


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
    """The LoRA adapter (PEFT's terms)."""

    RULES: ClassVar[tuple[Rule[Adapter], ...]] = (
        Rule(
            "!has(self.modulesToSave) || !self.modulesToSave.exists(m, m in self.targets)",
            "spec.adapter.modulesToSave and .targets name the same module; one that is trained whole needs no "
            "adapter: remove it from targets",
            holds=lambda adapter: not set(adapter.targets) & set(adapter.modules_to_save or ()),
        ),
    )
    model_config = ConfigDict(json_schema_extra=rules(*RULES))

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
            Rule(
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
        ge=1, le=10_000, description="Evaluations in a row without a better value after which the run is finished."
    )


Goal = Literal["minimize", "maximize"]


class Evaluation(SpecModel):
    """When the model is evaluated on the validation rows, and what makes one checkpoint better than another."""

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
        description="Steps between two evaluations, one more at the end. Default: at every periodic checkpoint.",
    )
    baseline: bool = Field(default=False, description="Evaluate once before training too, to compare with.")
    metric: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Metric of the evaluation that decides the best checkpoint and early stopping. Default: the "
        "task's, evalLoss for llm.",
    )
    goal: Goal | None = Field(
        default=None,
        description="Whether a lower (minimize) or a higher value (maximize) of metric is better. Default: as the task "
        "defines the metric.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="Finish before the last step, with the best checkpoint, when metric no longer improves. "
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
