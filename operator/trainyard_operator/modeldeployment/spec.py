"""The spec of a ModelDeployment as a model, with the defaults of its blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError

from trainyard_crds.modeldeployment import ModelDeploymentSpec
from trainyard_crds.modeldeployment_model import ServedModel
from trainyard_crds.modeldeployment_serving import Rollout, ServingResources
from trainyard_crds.pod_options import PodOptions
from trainyard_crds.queue import Queue


class Spec(ModelDeploymentSpec):
    """A ModelDeploymentSpec in which the blocks that the operator reads are filled with their defaults."""

    resources: ServingResources = ServingResources()
    queue: Queue = Queue()
    pod: PodOptions = PodOptions()
    rollout: Rollout = Rollout()


class ParsedSpec(NamedTuple):
    """A spec, valid or not.

    Attributes:
        spec: The spec; one that serves nothing if it is invalid.
        error: What is invalid, a sentence; empty for a valid spec.
    """

    spec: Spec
    error: str = ""


def parse_spec(document: dict[str, Any]) -> ParsedSpec:
    """Parse a spec as the API server stores it; an older or newer CRD may have accepted what is invalid here."""
    try:
        return ParsedSpec(Spec.model_validate({key: value for key, value in document.items() if value is not None}))
    except ValidationError as error:
        return ParsedSpec(Spec(model=ServedModel.model_construct()), sentence(error))


def sentence(error: ValidationError) -> str:
    """Return the first fault as a sentence: the field, what is wrong, its value and the remedy."""
    first = error.errors(include_url=False)[0]
    field = ".".join(["spec", *(str(part) for part in first["loc"])])
    shown = "" if isinstance(first["input"], dict) else f" (it is {first['input']!r})"
    return f"{field}: {first['msg']}{shown}. Correct the field, or update the operator."
