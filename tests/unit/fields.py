"""Field paths of models, for tables that must list every field."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the path of every leaf field, through lists and optional blocks."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        blocks = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if blocks:
            yield from leaves(blocks[0], f"{path}.")
        else:
            yield path


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def values(document: Any, path: str) -> list[Any]:
    """Return the values at a path of a document, one for each entry of the lists on the way."""
    name, _, rest = path.partition(".")
    if isinstance(document, list):
        return [value for entry in document for value in values(entry, path)]
    if not isinstance(document, dict) or name not in document:
        return []
    return values(document[name], rest) if rest else [document[name]]
