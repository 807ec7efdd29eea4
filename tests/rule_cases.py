"""Cases of the rules that TrainingJob and RunConfig share: checked as CEL by an API server, in Python by RunConfig."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

HELD_OUT = {"dataset": {"source": "pvc://data/train.jsonl", "validation": {"fraction": 0.1}}}
SHARDED = {"method": "full", "resources": {"gpus": 2}}

REFUSED: dict[str, tuple[Spec, str]] = {
    "adapter with full": (
        {"method": "full", "adapter": {"rank": 8}},
        "adapter has no effect with method: full; remove it, or use method: lora or qlora",
    ),
    "quantization with lora": (
        {"method": "lora", "quantization": {}},
        "quantization has no effect without method: qlora; remove it, or use method: qlora",
    ),
    "limit of invalid rows that are not skipped": (
        {"dataset": {"source": "pvc://data/train.jsonl", "maxInvalidFraction": 0.1}},
        "maxInvalidFraction has no effect without onInvalidRow: skip; remove it, or skip invalid rows",
    ),
    "paged optimizer without a GPU": (
        {"optimization": {"optimizer": "paged_adamw8bit"}, "resources": {"gpus": 0}},
        "optimization.optimizer: paged_adamw8bit has no effect without a GPU; use adamw or adamw8bit",
    ),
    "offload without a GPU": (
        {"optimization": {"recompute": "offload"}, "resources": {"gpus": 0}},
        "optimization.recompute: offload has no effect without a GPU; use auto or full",
    ),
    "8-bit optimizer on several GPUs": (
        SHARDED | {"optimization": {"optimizer": "adamw8bit"}},
        "optimization.optimizer: only adamw can be sharded over several processes",
    ),
    "8-bit optimizer on several nodes": (
        {"method": "full", "resources": {"nodes": 2}, "optimization": {"optimizer": "adamw8bit"}},
        "optimization.optimizer: only adamw can be sharded over several processes",
    ),
    "early stopping without held-out rows": (
        {"evaluation": {"earlyStopping": {"patience": 2}}},
        "evaluation needs held-out rows: set ",
    ),
    "metric without held-out rows": (
        {"evaluation": {"metric": "evalLoss"}},
        "evaluation needs held-out rows: set ",
    ),
    "goal without a metric": (
        HELD_OUT | {"evaluation": {"goal": "maximize"}},
        "evaluation.goal has no effect without evaluation.metric; name the metric too, or remove goal",
    ),
    "merged export with full": (
        {"method": "full", "exports": [{"format": "merged"}]},
        "exports: method: full trains no adapter that could be exported or merged; use format: model or gguf",
    ),
    "adapter export with full": (
        {"method": "full", "exports": [{"format": "gguf"}, {"format": "adapter"}]},
        "exports: method: full trains no adapter that could be exported or merged; use format: model or gguf",
    ),
    "model export with lora": (
        {"exports": [{"format": "model"}]},
        "exports: format: model is for method: full; use format: merged for a whole model",
    ),
    "export base with lora": (
        {"method": "lora", "exports": [{"format": "merged", "base": "dequantized"}]},
        "exports[].base has no effect without method: qlora; remove it",
    ),
    "base of an adapter export": (
        {"method": "qlora", "exports": [{"format": "adapter", "base": "original"}]},
        "exports[].base has no effect on this format; remove it, or use format: merged or gguf",
    ),
    "type of a merged export": (
        {"exports": [{"format": "merged", "type": "f16"}]},
        "exports[].type has no effect on this format; remove it, or use format: gguf",
    ),
    "module saved and adapted": (
        {"adapter": {"targets": ["q_proj"], "modulesToSave": ["embed_tokens", "q_proj"]}},
        "adapter.modulesToSave and .targets name the same module",
    ),
    "two kinds of validation": (
        {"dataset": {"source": "pvc://d/t.jsonl", "validation": {"source": "pvc://d/v.jsonl", "fraction": 0.1}}},
        "validation takes exactly one of source (a file) and fraction (a share of the rows)",
    ),
    "empty validation": (
        {"dataset": {"source": "pvc://d/t.jsonl", "validation": {}}},
        "validation takes exactly one of source (a file) and fraction (a share of the rows)",
    ),
    "training file as validation file": (
        {"dataset": {"source": "pvc://d/t.jsonl", "validation": {"source": "pvc://d/t.jsonl"}}},
        "validation.source is the training file itself",
    ),
}

ACCEPTED: dict[str, Spec] = {
    "adapter with lora": {"method": "lora", "adapter": {"rank": 8}},
    "quantization with qlora": {"method": "qlora", "quantization": {}},
    "skipped rows with a limit": {
        "dataset": {"source": "pvc://data/train.jsonl", "onInvalidRow": "skip", "maxInvalidFraction": 0.1}
    },
    "paged optimizer on a GPU": {"resources": {"gpus": 1}, "optimization": {"optimizer": "paged_adamw8bit"}},
    "offload on a GPU": {"resources": {"gpus": 1}, "optimization": {"recompute": "offload"}},
    "8-bit optimizer on one GPU": {
        "method": "full",
        "resources": {"gpus": 1},
        "optimization": {"optimizer": "adamw8bit"},
    },
    "8-bit optimizer with lora on several GPUs": {
        "resources": {"gpus": 2},
        "optimization": {"optimizer": "adamw8bit"},
    },
    "plain optimizer on several GPUs": SHARDED,
    "early stopping with held-out rows": HELD_OUT | {"evaluation": {"earlyStopping": {"patience": 2}}},
    "goal of a metric": HELD_OUT | {"evaluation": {"metric": "evalLoss", "goal": "minimize"}},
    "model export with full": {"method": "full", "exports": [{"format": "model"}, {"format": "gguf"}]},
    "merged export with qlora": {"method": "qlora", "exports": [{"format": "merged", "base": "dequantized"}]},
    "type of a gguf export": {"exports": [{"format": "gguf", "type": "f16"}]},
    "modules saved beside the adapted ones": {"adapter": {"targets": ["q_proj"], "modulesToSave": ["lm_head"]}},
    "another validation file": {
        "dataset": {"source": "pvc://d/t.jsonl", "validation": {"source": "pvc://d/v.jsonl"}},
    },
}
