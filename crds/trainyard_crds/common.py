"""Shared building blocks of all kinds: base models, rules, conditions, field types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "trainyard.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

T = TypeVar("T")


class SpecModel(BaseModel):
    """Base of the models that users write: camelCase in documents, unknown fields are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=False
    )


class StatusModel(BaseModel):
    """Base of the models that Trainyard writes: unknown fields are ignored, for readers older than the writer."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """Return the camelCase document without unset (None) fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One printer column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """JSON paths of the `scale` subresource, which `kubectl scale`, an HPA and KEDA use."""

    replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Parts of a CustomResourceDefinition beside its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    mutable: tuple[str, ...] = ()
    """Spec fields (camelCase) that may change after creation; all others get an immutability rule."""
    is_mutable: bool = False
    """Whether every spec field may change."""
    scale: Scale | None = None
    """The `scale` subresource; None: the kind cannot be scaled."""


class CustomResource(SpecModel):
    """Base of the kinds."""

    kind_info: ClassVar[Kind]


@dataclass(frozen=True)
class Rule(Generic[T]):
    """A validation rule: checked by the API server, and in Python where `holds` is set.

    Attributes:
        cel: CEL expression over the schema node that carries the rule.
        message: The refused value and the remedy; paths of fields start with `spec.`.
        field_path: The field that the API server names in its error.
        holds: The same rule over the pydantic model, for RunConfig; None for rules of the API server alone.
    """

    cel: str
    message: str
    field_path: str | None = None
    holds: Callable[[T], bool] | None = None

    def to_schema(self) -> dict[str, str]:
        """Return the rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        return entry if self.field_path is None else {**entry, "fieldPath": self.field_path}


def rules(*entries: Rule[Any], **extra: Any) -> dict[str, Any]:
    """Return the `json_schema_extra` that carries rules and other raw schema keys."""
    return {"x-kubernetes-validations": [entry.to_schema() for entry in entries], **extra}


def check(entries: Iterable[Rule[T]], subject: T, prefix: str = "spec.") -> None:
    """Check the rules that have a Python predicate.

    Args:
        entries: The rules.
        subject: The model they apply to.
        prefix: Removed from the message: the path of the model in a TrainingJob.

    Raises:
        ValueError: a rule does not hold.
    """
    for entry in entries:
        if entry.holds is not None and not entry.holds(subject):
            raise ValueError(entry.message.replace(prefix, ""))


Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 time in UTC, in the format of Kubernetes."""

DnsName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            Rule(
                r"self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
                "must be a Kubernetes object name: lower-case letters, digits, '-' and '.'",
            )
        ),
    ),
]


class Condition(StatusModel):
    """A Kubernetes condition."""

    type: str = Field(description="Type of the condition, for example Complete or Failed.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    reason: str = Field(description="Stable CamelCase reason of the last change.")
    message: str = Field(default="", description="Cause and remedy in a sentence.")
    last_transition_time: Timestamp = Field(description="When `status` last changed.")
    observed_generation: int | None = Field(
        default=None, description="Generation of the spec that the condition was computed from."
    )


class SecretKey(SpecModel):
    """A key of a Secret in the same namespace."""

    name: DnsName = Field(description="Name of the Secret, in the same namespace.")
    key: str = Field(
        min_length=1,
        max_length=253,
        description="Key of the Secret that holds the value.",
        json_schema_extra=rules(
            Rule(r"self.matches(r'^[-._a-zA-Z0-9]+$')", "must be a Secret key: letters, digits, '-', '_' and '.'")
        ),
    )


_POSITIVE = r"(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)"

CpuQuantity = Annotated[
    str,
    Field(
        max_length=32,
        json_schema_extra=rules(
            Rule(f"self.matches(r'^{_POSITIVE}m?$')", "must be a number of cores above 0, for example '2' or '500m'")
        ),
    ),
]

ByteQuantity = Annotated[
    str,
    Field(
        max_length=32,
        json_schema_extra=rules(
            Rule(
                # A number without a unit is in bytes; fewer than 7 digits mean a forgotten unit.
                f"self.matches(r'^({_POSITIVE}([kMGTP]|[KMGTP]i)|[1-9][0-9]{{6,}})$')",
                "must be a size above 0 with its unit, for example 500Mi or 16Gi; the unit is Gi or G, not GB",
            )
        ),
    ),
]
