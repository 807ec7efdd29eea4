"""What a finished run leaves to use: the weights, the tokenizer, and how to load them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.sources.resolve import LocalModel

_ADAPTER_README = """# Adapter for {name}

- Base model: `{reference}`{revision}
- Method: {method}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{reference}"{revision_argument})
model = PeftModel.from_pretrained(base, "this directory")
tokenizer = AutoTokenizer.from_pretrained("this directory")
```
"""
_MODEL_README = """# Fine-tuned {name}

- Base model: `{reference}`{revision}
- Method: {method}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("this directory")
tokenizer = AutoTokenizer.from_pretrained("this directory")
```
"""


def export(config: RunConfig, base: LocalModel, tokenizer: Any, weights: Path, directory: Path) -> str:
    """Make the deliverable of a run in an empty directory.

    Args:
        config: The run.
        base: Its base model.
        tokenizer: Its tokenizer.
        weights: A checkpoint's weights.
        directory: Where the deliverable goes.

    Returns:
        `adapter` (a PEFT directory) or `model` (a transformers directory).
    """
    for path in sorted(weights.iterdir()):
        if path.is_file():
            shutil.copyfile(path, directory / path.name)
    tokenizer.save_pretrained(str(directory))
    adapter = config.method != "full"
    (directory / "README.md").write_text((_ADAPTER_README if adapter else _MODEL_README).format(**_facts(config, base)))
    return "adapter" if adapter else "model"


def _facts(config: RunConfig, base: LocalModel) -> dict[str, str]:
    quantized = ", on a base model stored in 4 bits (NF4)" if config.method == "qlora" else ""
    return {
        "name": base.name,
        "reference": base.reference,
        "revision": f", revision `{base.revision}`" if base.revision else "",
        "revision_argument": f', revision="{base.revision}"' if base.revision else "",
        "method": f"{config.method}{quantized}",
    }
