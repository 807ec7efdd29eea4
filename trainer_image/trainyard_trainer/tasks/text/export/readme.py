"""The README of an export: what it was made from and how it is loaded."""

from __future__ import annotations

from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.export.format import ExportFormat, ExportJob

_MODEL = """```python
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


def model_usage(_base: LocalModel) -> str:
    """Return the example of a transformers directory."""
    return _MODEL


def adapter_usage(base: LocalModel) -> str:
    """Return the example of a PEFT directory."""
    revision = f', revision="{base.revision}"' if base.revision else ""
    return _ADAPTER.format(reference=base.reference, revision=revision)


def write_readme(job: ExportJob, form: ExportFormat, merged_into: str | None) -> None:
    """Write README.md.

    Args:
        job: The export.
        form: Its format.
        merged_into: `original` or `dequantized`, where an adapter was merged.
    """
    base = job.base
    revision = f", revision `{base.revision}`" if base.revision else ""
    quantized = ", on a base model stored in 4 bits (NF4)" if job.config.method == "qlora" else ""
    lines = [
        f"# {form.title} {base.name}",
        "",
        f"- Base model: `{base.reference}`{revision}",
        f"- Method: {job.config.method}{quantized}",
    ]
    if merged_into is not None:
        lines.append(f"- Merged into: the {merged_into} base model")
    (job.directory / "README.md").write_text("\n".join([*lines, "", form.usage(base)]))
