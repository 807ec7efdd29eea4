"""Reads the run config; every error names the field, its value and the remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.errors import ConfigurationError

_MOST_PROBLEMS = 5
_LONGEST_VALUE = 80


def load_config(path: Path) -> RunConfig:
    """Read the run config in a JSON file.

    Raises:
        ConfigurationError: The file is missing, is not JSON, or a field cannot work.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"The run config {path} cannot be read: {reason}.") from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"The run config {path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.",
            "Correct that place: JSON has no comments, no comma after the last entry, and names in double quotes.",
        ) from error
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(f"The run config {path} cannot work: {_problems(error)}") from error


def _problems(error: ValidationError) -> str:
    problems = [_problem(dict(one)) for one in error.errors(include_url=False)]
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more." if more > 0 else ".")


def _problem(details: dict[str, Any]) -> str:
    path, message = details["loc"], str(details["msg"])
    field = ".".join(str(part) for part in path)
    match details["type"]:
        case "missing":
            return f"{field} is missing: add it"
        case "extra_forbidden":
            return f"{field} is not a field of the run config: {_suggestion(path)}"
        case "value_error":
            sentence = message.removeprefix("Value error, ")
            return f"{field}: {sentence}" if field else sentence
        case "string_pattern_mismatch":
            return f"{field} is {_shown(details['input'])} but must be {_block(path[:-1])[str(path[-1])].description}"
        case "model_type":
            return f"{field or 'the document'} is {_shown(details['input'])} but must be an object: {{...}}"
        case _:
            rule = message.replace("Input should", "must", 1).replace("String should", "must", 1)
            return f"{field or 'the document'} is {_shown(details['input'])} but {rule}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def _suggestion(path: Sequence[str | int]) -> str:
    known = _known_fields(path[:-1])
    close = get_close_matches(str(path[-1]), known, n=1)
    return f"write {close[0]} instead" if close else f"remove it (known: {', '.join(known)})"


def _known_fields(path: Sequence[str | int]) -> list[str]:
    return sorted(_block(path))


def _block(path: Sequence[str | int]) -> dict[str, FieldInfo]:
    """The fields of the block at a path by their camelCase names."""
    model: type[BaseModel] = RunConfig
    for part in path:
        by_alias = {field.alias: field for field in model.model_fields.values()}
        model = next(
            kind
            for kind in (by_alias[str(part)].annotation, *getattr(by_alias[str(part)].annotation, "__args__", ()))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return {field.alias or name: field for name, field in model.model_fields.items()}
