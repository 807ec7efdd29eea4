"""Loading of a model's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainyard_trainer.errors import NotFoundError, first_line
from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries


def load_tokenizer(directory: Path, name: str) -> Any:
    """Load the tokenizer of a model.

    Raises:
        NotFoundError: The directory holds none that can be loaded.
    """
    quiet_libraries()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise NotFoundError(
            f"The model {name} has no tokenizer that can be loaded: {first_line(error)}",
            "Copy tokenizer.json and tokenizer_config.json to the model.",
        ) from error
