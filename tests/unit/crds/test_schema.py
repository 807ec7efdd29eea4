"""The generated CRDs of all kinds: structural, described, with immutability rules, and current."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import BaseModel

import generate
from trainyard_crds.common import CustomResource
from trainyard_crds.modeldeployment import ModelDeployment
from trainyard_crds.schema import KINDS, SchemaError, crd, root_schema, structural
from trainyard_crds.trainingjob import TrainingJob

FORBIDDEN = {"$ref", "anyOf", "oneOf", "title", "const", "uniqueItems", "prefixItems", "discriminator"}
FILTER = re.compile(r"\[\?\(.*?\)\]")
"""Filter of a JSONPath, which selects one entry of a list."""


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += walk(schema[key], f"{path}[]")
    return found


NODES = {kind: walk(root_schema(kind)) for kind in KINDS}
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_info.kind)


def test_generated_files_are_current() -> None:
    stale = [str(path) for path, text in generate.files().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: make reviewable"


@every_kind
def test_every_field_has_a_description(kind: type[CustomResource]) -> None:
    missing = [
        f"{path}.{name}"
        for path, schema in NODES[kind]
        for name, child in schema.get("properties", {}).items()
        if not child.get("description") and (path, name) != ("", "metadata")
    ]
    assert missing == []


@every_kind
def test_schema_is_structural(kind: type[CustomResource]) -> None:
    assert [(path, FORBIDDEN & schema.keys()) for path, schema in NODES[kind] if FORBIDDEN & schema.keys()] == []
    assert [path for path, schema in NODES[kind] if "type" not in schema] == []


@every_kind
def test_values_in_the_spec_are_bounded(kind: type[CustomResource]) -> None:
    spec = [(path, schema) for path, schema in NODES[kind] if path.startswith(".spec")]
    unbounded = [
        path
        for path, schema in spec
        if (schema["type"] == "string" and "maxLength" not in schema and "enum" not in schema)
        or (schema["type"] == "array" and "maxItems" not in schema)
        or (schema["type"] == "object" and "additionalProperties" in schema and "maxProperties" not in schema)
    ]
    assert unbounded == []


@every_kind
def test_references_stay_in_the_namespace(kind: type[CustomResource]) -> None:
    named = [
        path for path, schema in NODES[kind] if path.startswith(".spec") and "namespace" in schema.get("properties", {})
    ]
    assert named == ([".spec.route.gateway"] if kind is ModelDeployment else [])


@pytest.mark.parametrize(
    ("kind", "mutable"),
    [(TrainingJob, {"suspend", "stop", "queue", "exports", "s3"}), (ModelDeployment, None)],
    ids=["TrainingJob", "ModelDeployment"],
)
def test_other_than_mutable_fields_are_immutable(kind: type[CustomResource], mutable: set[str] | None) -> None:
    spec = root_schema(kind)["properties"]["spec"]
    guarded = {rule.get("fieldPath", "")[1:] for rule in spec["x-kubernetes-validations"]} - {""}
    assert guarded == (set() if mutable is None else set(spec["properties"]) - mutable)


@every_kind
def test_rules_are_unique_per_node(kind: type[CustomResource]) -> None:
    for path, schema in NODES[kind]:
        texts = [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])]
        assert len(texts) == len(set(texts)), path


@every_kind
def test_optional_blocks_and_status_have_no_defaults(kind: type[CustomResource]) -> None:
    assert [path for path, schema in NODES[kind] if path.startswith(".status") and "default" in schema] == []
    spec = root_schema(kind)["properties"]["spec"]["properties"]
    assert [name for name, child in spec.items() if child["type"] == "object" and "default" in child] == []


@every_kind
def test_columns_read_existing_fields(kind: type[CustomResource]) -> None:
    properties = {path for path, _ in NODES[kind]}
    for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = FILTER.sub("[]", column["jsonPath"])
        assert path in properties or path.startswith(".metadata.")


@every_kind
def test_scale_reads_existing_fields(kind: type[CustomResource]) -> None:
    properties = {path for path, _ in NODES[kind]}
    scale = crd(kind)["spec"]["versions"][0]["subresources"].get("scale", {})
    assert bool(scale) == (kind is ModelDeployment)
    assert set(scale.values()) <= properties


class Node(BaseModel):
    child: Node | None = None


class Union(BaseModel):
    value: int | str


def test_recursion_and_unions_are_rejected_with_the_path() -> None:
    with pytest.raises(SchemaError, match=r"Node\.child: Node contains itself"):
        structural(Node)
    with pytest.raises(SchemaError, match=r"Union\.value"):
        structural(Union)
