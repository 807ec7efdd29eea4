"""`adapter` and `model`: what training wrote, with the tokenizer and how to load it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trainyard_trainer.tasks.text.export.readme import Facts, write_readme


def export_weights(weights: Path, tokenizer: Any, directory: Path, facts: Facts) -> None:
    """Copy a checkpoint's weights: a PEFT directory, or a transformers directory after full training.

    Args:
        weights: A checkpoint's weights.
        tokenizer: The model's tokenizer.
        directory: An empty directory.
        facts: What the README says.
    """
    for path in sorted(weights.iterdir()):
        if path.is_file():
            shutil.copyfile(path, directory / path.name)
    tokenizer.save_pretrained(str(directory))
    write_readme(directory, facts)
