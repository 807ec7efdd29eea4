"""The README of an export: what it was made from and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainyard_crds.exports import ExportFormat
from trainyard_trainer.sources.resolve import LocalModel

_TITLES = {
    "adapter": "Adapter for",
    "model": "Fine-tuned",
    "merged": "Fine-tuned (adapter merged)",
    "gguf": "Fine-tuned, in GGUF:",
}
_WHOLE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this directory")
tokenizer = AutoTokenizer.from_pretrained("this directory")
```
"""
_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{reference}"{revision})
model = PeftModel.from_pretrained(base, "this directory")
tokenizer = AutoTokenizer.from_pretrained("this directory")
```
"""
_GGUF = """```sh
llama-cli --model *.gguf
```
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a README says."""

    format: ExportFormat
    method: str
    base: LocalModel
    merged_into: str | None = None
    """`original` or `dequantized`, where an adapter was merged."""


def write_readme(directory: Path, facts: Facts) -> None:
    """Write README.md."""
    base = facts.base
    revision = f", revision `{base.revision}`" if base.revision else ""
    quantized = ", on a base model stored in 4 bits (NF4)" if facts.method == "qlora" else ""
    lines = [
        f"# {_TITLES[facts.format]} {base.name}",
        "",
        f"- Base model: `{base.reference}`{revision}",
        f"- Method: {facts.method}{quantized}",
    ]
    if facts.merged_into is not None:
        lines.append(f"- Merged into: the {facts.merged_into} base model")
    (directory / "README.md").write_text("\n".join([*lines, "", _usage(facts)]))


def _usage(facts: Facts) -> str:
    if facts.format == "adapter":
        revision = f', revision="{facts.base.revision}"' if facts.base.revision else ""
        return _ADAPTER.format(reference=facts.base.reference, revision=revision)
    return _GGUF if facts.format == "gguf" else _WHOLE
