"""The generated CRD: structural, described, with immutability rules, and current."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

import generate
from trainyard_crds.schema import SchemaError, crd, root_schema, structural
from trainyard_crds.trainingjob import TrainingJob

FORBIDDEN = {"$ref", "anyOf", "oneOf", "title", "const", "uniqueItems", "prefixItems", "discriminator"}


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            found += walk(schema[key], f"{path}[]")
    return found


NODES = walk(root_schema(TrainingJob))


def test_generated_files_are_current() -> None:
    stale = [str(path) for path, text in generate.files().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: make reviewable"


def test_every_field_has_a_description() -> None:
    missing = [
        f"{path}.{name}"
        for path, schema in NODES
        for name, child in schema.get("properties", {}).items()
        if not child.get("description") and (path, name) != ("", "metadata")
    ]
    assert missing == []


def test_schema_is_structural() -> None:
    assert [(path, FORBIDDEN & schema.keys()) for path, schema in NODES if FORBIDDEN & schema.keys()] == []
    assert [path for path, schema in NODES if "type" not in schema] == []


def test_values_in_the_spec_are_bounded() -> None:
    spec = [(path, schema) for path, schema in NODES if path.startswith(".spec")]
    unbounded = [
        path
        for path, schema in spec
        if (schema["type"] == "string" and "maxLength" not in schema and "enum" not in schema)
        or (schema["type"] == "array" and "maxItems" not in schema)
        or (schema["type"] == "object" and "additionalProperties" in schema and "maxProperties" not in schema)
    ]
    assert unbounded == []


def test_other_than_mutable_fields_are_immutable() -> None:
    spec = root_schema(TrainingJob)["properties"]["spec"]
    guarded = {rule.get("fieldPath", "")[1:] for rule in spec["x-kubernetes-validations"]} - {""}
    assert guarded == set(spec["properties"]) - {"suspend", "stop", "queue", "exports", "s3"}


def test_rules_are_unique_per_node() -> None:
    for path, schema in NODES:
        texts = [rule["rule"] for rule in schema.get("x-kubernetes-validations", [])]
        assert len(texts) == len(set(texts)), path


def test_optional_blocks_and_status_have_no_defaults() -> None:
    assert [path for path, schema in NODES if path.startswith(".status") and "default" in schema] == []
    spec = root_schema(TrainingJob)["properties"]["spec"]["properties"]
    assert [name for name, child in spec.items() if child["type"] == "object" and "default" in child] == []


def test_columns_read_existing_fields() -> None:
    properties = {path for path, _ in NODES}
    for column in crd(TrainingJob)["spec"]["versions"][0]["additionalPrinterColumns"]:
        assert column["jsonPath"] in properties or column["jsonPath"].startswith(".metadata.")


class Node(BaseModel):
    child: Node | None = None


class Union(BaseModel):
    value: int | str


def test_recursion_and_unions_are_rejected_with_the_path() -> None:
    with pytest.raises(SchemaError, match=r"Node\.child: Node contains itself"):
        structural(Node)
    with pytest.raises(SchemaError, match=r"Union\.value"):
        structural(Union)
