"""Generates CustomResourceDefinitions (apiextensions v1) from the pydantic models.

Converts pydantic's JSON Schema to the structural OpenAPI 3.0 subset of Kubernetes. CEL rules come from
`json_schema_extra`; immutability rules are generated from `Kind.mutable`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from trainyard_crds.common import GROUP, VERSION, Column, CustomResource, Kind, Rule, Scale
from trainyard_crds.modeldeployment import ModelDeployment
from trainyard_crds.trainingjob import TrainingJob

Schema = dict[str, Any]

KINDS: tuple[type[CustomResource], ...] = (TrainingJob, ModelDeployment)

_DROPPED = ("title", "examples", "additionalProperties", "const", "exclusiveMinimum", "exclusiveMaximum", "$defs")


class SchemaError(ValueError):
    """A model cannot be expressed as a structural schema."""


def crd(model: type[CustomResource]) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    info = model.kind_info
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "trainyard"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": info.kind,
                "listKind": f"{info.kind}List",
                "plural": info.plural,
                "singular": info.kind.lower(),
                "shortNames": list(info.short_names),
                "categories": ["trainyard"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} | _scale(info.scale),
                    "additionalPrinterColumns": [_column(column) for column in info.columns],
                    "schema": {"openAPIV3Schema": root_schema(model)},
                }
            ],
        },
    }


def _scale(scale: Scale | None) -> Schema:
    if scale is None:
        return {}
    paths = {
        "specReplicasPath": scale.replicas,
        "statusReplicasPath": scale.status_replicas,
        "labelSelectorPath": scale.selector,
    }
    return {"scale": paths}


def _column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.wide:
        entry["priority"] = 1
    return entry


def root_schema(model: type[CustomResource]) -> Schema:
    """Return the structural schema of a kind, immutability rules included."""
    schema = structural(model)
    schema["description"] = (model.__doc__ or "").strip()
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "description": "Version of the API: trainyard.dev/v1alpha1."}
    properties["kind"] = {"type": "string", "description": f"Kind of the object: {model.kind_info.kind}."}
    properties["metadata"] = {"type": "object"}
    schema["required"] = ["spec"]
    _drop_defaults(properties["status"])
    _add_immutability(properties["spec"], model.kind_info)
    return schema


def _drop_defaults(schema: Schema) -> None:
    """Remove every default, so that the API server does not add fields to the status."""
    schema.pop("default", None)
    for child in schema.get("properties", {}).values():
        _drop_defaults(child)
    if "items" in schema:
        _drop_defaults(schema["items"])


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a pydantic model."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}), (), model.__name__)


def _convert(node: Schema, definitions: dict[str, Schema], seen: tuple[str, ...], path: str) -> Schema:
    """Convert a schema node: inline references, collapse null unions, translate keywords."""
    node, seen = _inline(node, definitions, seen, path)
    node = _collapse_optional(node, path)
    if "$ref" in node:
        return _convert(node, definitions, seen, path)
    result = _translate(node)
    if "properties" in node:
        result["properties"] = {
            name: _convert(child, definitions, seen, f"{path}.{name}") for name, child in node["properties"].items()
        }
    if "items" in node:
        result["items"] = _convert(node["items"], definitions, seen, f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions, seen, f"{path}{{}}")
    if "type" not in result:
        raise SchemaError(f"{path}: a structural schema needs a type; found {sorted(node)}")
    return result


def _translate(node: Schema) -> Schema:
    """Translate the keywords of a node to OpenAPI 3.0; the caller converts the children."""
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in node:
        result["enum"] = [node["const"]]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            result[bound], result[exclusive] = node[exclusive], True
    _replace_fractional_maximum(result)
    if result.get("default", 0) is None:
        del result["default"]
    if "description" in result:
        result["description"] = _describe(result)
    return result


def _replace_fractional_maximum(node: Schema) -> None:
    """Replace a fractional maximum by a CEL rule: the API server's message rounds the bound ("at most 0")."""
    maximum = node.get("maximum")
    if isinstance(maximum, float) and not maximum.is_integer():
        del node["maximum"]
        rule: Rule[Any] = Rule(f"self <= {maximum}", f"must be at most {maximum}")
        node["x-kubernetes-validations"] = [*node.get("x-kubernetes-validations", []), rule.to_schema()]


def _describe(node: Schema) -> str:
    """Return the description on one line with the default, which `kubectl explain` does not show."""
    text = " ".join(node["description"].split())
    if "default" not in node or "Default:" in text or node["default"] in ([], {}):
        return text
    value = node["default"]
    shown = ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value
    return f"{text} Default: {shown}."


def _inline(
    node: Schema, definitions: dict[str, Schema], seen: tuple[str, ...], path: str
) -> tuple[Schema, tuple[str, ...]]:
    """Replace `$ref` by its target; keys beside the reference (description, default) take precedence."""
    while "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        if name in seen:
            raise SchemaError(f"{path}: {name} contains itself, which a structural schema does not support")
        seen = (*seen, name)
        beside = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[name], **beside}
    return node, seen


def _collapse_optional(node: Schema, path: str) -> Schema:
    """Replace `anyOf: [T, null]` by T; other unions are not supported."""
    if "anyOf" not in node:
        return node
    members = [member for member in node["anyOf"] if member.get("type") != "null"]
    if len(members) != 1:
        raise SchemaError(f"{path}: only optional types may be unions; use one object with optional members")
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    merged = {**members[0], **beside}
    validations = [*members[0].get("x-kubernetes-validations", []), *beside.get("x-kubernetes-validations", [])]
    return {**merged, "x-kubernetes-validations": validations} if validations else merged


def _add_immutability(spec: Schema, info: Kind) -> None:
    """Add a transition rule per immutable field to the parent, so that it also applies to added and removed fields."""
    if info.is_mutable:
        return
    always = set(spec.get("required", ())) | {name for name, child in spec["properties"].items() if "default" in child}
    validations = spec.setdefault("x-kubernetes-validations", [])
    for name in spec["properties"]:
        if name not in info.mutable:
            validations.append(_immutable(name, always_present=name in always, kind=info.kind))


def _immutable(name: str, *, always_present: bool, kind: str) -> dict[str, str]:
    equal = f"self.{name} == oldSelf.{name}"
    rule = equal if always_present else f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {equal})"
    return Rule(rule, f"spec.{name} is immutable; create a new {kind} instead", field_path=f".{name}").to_schema()
