"""A model's tokenizer: the pipeline of its tokenizer.json, when training and when saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainyard_trainer.errors import NotFoundError, first_line
from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries

FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_CLASS_OF_FILE = "PreTrainedTokenizerFast"
"""Keeps tokenizer.json as it is. Version 5 of transformers saves it as TokenizersBackend, which version 4 lacks."""


def load_tokenizer(directory: Path, name: str) -> Any:
    """Load the tokenizer of a model as its tokenizer.json describes it; without that file, as transformers converts it.

    The class named in tokenizer_config.json is not used with the file: transformers 5 rebuilds the tokenizers of many
    classes, and drops the file's own normalizer, pre-tokenizer and decoder.

    Args:
        directory: The model's files.
        name: Its name in messages.

    Raises:
        NotFoundError: The directory holds none that can be loaded.
    """
    quiet_libraries()
    try:
        return _from_file(directory) if (directory / FILE).is_file() else _from_class(directory)
    except Exception as error:  # tokenizers raises nothing narrower for a file it cannot read
        raise NotFoundError(
            f"The model {name} has no tokenizer that can be loaded: {first_line(error)}",
            f"Copy {FILE} and {_CONFIG} to the model.",
        ) from error


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Write a tokenizer so that versions 4 and 5 of transformers load what was trained with."""
    tokenizer.save_pretrained(str(directory))
    path = directory / _CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    if config["tokenizer_class"] == "TokenizersBackend":
        config["tokenizer_class"] = _CLASS_OF_FILE
        path.write_text(f"{json.dumps(config, indent=2, ensure_ascii=False)}\n", encoding="utf-8")


def _from_file(directory: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory), local_files_only=True)
    if tokenizer.eos_token is None:
        _name_special_tokens(tokenizer, directory)
    return tokenizer


def _from_class(directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def _name_special_tokens(tokenizer: Any, directory: Path) -> None:
    """Take the names of special tokens from the class where the files have none, as with the published GPT-2."""
    try:
        named = _from_class(directory).special_tokens_map
    except (OSError, ValueError, KeyError, TypeError, ImportError):
        return  # a class of the model's own code; it is not run
    backend = tokenizer.backend_tokenizer
    known, post_processor = tokenizer.get_vocab(), backend.post_processor
    for kind, token in named.items():
        if getattr(tokenizer, kind, None) is None and token in known:
            setattr(tokenizer, kind, token)
    backend.post_processor = post_processor  # setting a name replaces it
