"""The spec of a TrainingJob as a model, parsed once per generation."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, NamedTuple

from pydantic import ValidationError

from trainyard_crds.pod_options import PodOptions
from trainyard_crds.queue import Queue
from trainyard_crds.trainingjob import Retry, TrainingJobSpec
from trainyard_crds.trainingjob_inputs import Dataset, Model
from trainyard_crds.trainingjob_resources import Resources, Storage
from trainyard_crds.trainingjob_training import Checkpoints

_CACHED = 8192
_PASSES = 5
"""Removing an invalid field can leave its block incomplete: the block is removed in the next pass."""
_PLACEHOLDERS: dict[str, Any] = {
    "task": "llm",
    "model": Model.model_construct(source=""),
    "dataset": Dataset.model_construct(source=""),
}
"""Required fields of a spec that lacks them; such a spec starts nothing."""


class InvalidSpecError(ValueError):
    """The spec does not fit this operator's API; the text is a sentence for the user."""


class Spec(TrainingJobSpec):
    """A TrainingJobSpec in which the blocks that the operator reads are filled with their defaults."""

    resources: Resources = Resources()
    pod: PodOptions = PodOptions()
    storage: Storage = Storage()
    queue: Queue = Queue()
    retry: Retry = Retry()
    checkpoints: Checkpoints = Checkpoints()


class ParsedSpec(NamedTuple):
    """A spec, valid or not.

    Attributes:
        spec: The spec; without its invalid fields where it has some.
        error: What is invalid, a sentence; empty for a valid spec.
    """

    spec: Spec
    error: str


class SpecCache:
    """Parsed specs of the TrainingJobs that were observed last."""

    def __init__(self) -> None:
        self._parsed: OrderedDict[str, tuple[int, ParsedSpec]] = OrderedDict()

    def parse(self, job: dict[str, Any]) -> ParsedSpec:
        """Return the spec of a TrainingJob; a spec changes only with its generation."""
        uid, generation = job["metadata"]["uid"], job["metadata"].get("generation")
        known = self._parsed.get(uid)
        if known is not None and known[0] == generation:
            self._parsed.move_to_end(uid)
            return known[1]
        parsed = parse_spec(job["spec"])
        if generation is not None:
            self._parsed[uid] = (generation, parsed)
            if len(self._parsed) > _CACHED:
                self._parsed.popitem(last=False)
        return parsed


def parse_spec(document: dict[str, Any]) -> ParsedSpec:
    """Parse a spec as the API server stores it.

    A spec that an older or newer CRD accepted can be invalid here. A job that runs already must be followed to its end
    all the same, so its invalid fields are left out and named in `error`, which keeps a new job from starting.
    """
    try:
        return ParsedSpec(_validated(document), "")
    except ValidationError as error:
        return ParsedSpec(_without_invalid_fields(document, error), sentence(error))


def sentence(error: ValidationError) -> str:
    """Return the first fault as a sentence: the field, what is wrong, its value and the remedy."""
    first = error.errors(include_url=False)[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    shown = "" if isinstance(first["input"], dict) else f" (it is {first['input']!r})"
    return f"{field}: {first['msg']}{shown}. Correct the field in a new TrainingJob, or update the operator."


def _validated(document: dict[str, Any]) -> Spec:
    return Spec.model_validate({key: value for key, value in document.items() if value is not None})


def _without_invalid_fields(document: dict[str, Any], error: ValidationError) -> Spec:
    kept = {**_PLACEHOLDERS, **copy.deepcopy(document)}
    for _ in range(_PASSES):
        for fault in sorted(error.errors(), key=lambda fault: _by_position(fault["loc"]), reverse=True):
            location = fault["loc"][:-1] if fault["type"] == "missing" else fault["loc"]
            _remove(kept, location)
        kept = {**_PLACEHOLDERS, **kept}
        try:
            return _validated(kept)
        except ValidationError as left:
            error = left
    return Spec.model_validate(_PLACEHOLDERS)


def _by_position(location: tuple[int | str, ...]) -> list[str]:
    """Sort key that orders the entries of a list by their index."""
    return [str(part).zfill(5) for part in location]


def _remove(document: Any, location: tuple[int | str, ...]) -> None:
    """Remove the innermost part of a location that the document has."""
    *parents, last = location or ("",)
    for part in parents:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(document, dict):
        document.pop(last, None)
    elif isinstance(document, list) and isinstance(last, int) and last < len(document):
        del document[last]
