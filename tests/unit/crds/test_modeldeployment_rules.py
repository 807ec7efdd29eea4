"""Every rule of a ModelDeployment has a manifest in the error corpus, which an API server decides."""

from __future__ import annotations

from typing import Any

from error_corpus import manifests
from trainyard_crds.common import CustomResource
from trainyard_crds.modeldeployment import ModelDeployment
from trainyard_crds.schema import root_schema
from trainyard_crds.trainingjob import TrainingJob


def messages(schema: dict[str, Any]) -> set[str]:
    """Return the messages of the rules of a schema."""
    found = {rule["message"] for rule in schema.get("x-kubernetes-validations", [])}
    children = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    return found.union(*(messages(child) for child in children))


def rules_of(kind: type[CustomResource]) -> set[str]:
    return messages(root_schema(kind))


def test_every_rule_has_a_manifest() -> None:
    own = rules_of(ModelDeployment) - rules_of(TrainingJob)
    texts = "\n".join(case.message for name, case in manifests().items() if name.startswith("serve-"))

    assert own
    assert {message for message in own if message not in texts} == set()
