"""`adapter` and `model`: the checkpoint's weights as they are, with the tokenizer."""

from __future__ import annotations

import shutil

from trainyard_trainer.tasks.text.export.format import ExportJob
from trainyard_trainer.tasks.text.models.tokenizer import save_tokenizer


def write_weights(job: ExportJob) -> None:
    """Copy a checkpoint's weights: a PEFT directory, or a transformers directory after full training."""
    for path in sorted(job.weights.iterdir()):
        if path.is_file():
            shutil.copyfile(path, job.directory / path.name)
    save_tokenizer(job.tokenizer, job.directory)
