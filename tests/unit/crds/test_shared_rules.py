"""RunConfig decides the cases of tests/rule_cases.py; tests/api/test_crd.py sends the same to an API server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.rule_cases import ACCEPTED, REFUSED
from trainyard_crds.common import Rule
from trainyard_crds.exports import Export
from trainyard_crds.runconfig import RunConfig, training_blocks
from trainyard_crds.trainingjob import TrainingJobSpec
from trainyard_crds.trainingjob_inputs import DATASET_RULES, VALIDATION_RULES
from trainyard_crds.trainingjob_resources import Resources
from trainyard_crds.trainingjob_rules import SHARED_RULES
from trainyard_crds.trainingjob_training import Adapter, Evaluation

RULES: list[Rule[Any]] = [
    *SHARED_RULES,
    *Adapter.RULES,
    *Evaluation.RULES,
    *Export.RULES,
    *VALIDATION_RULES,
    *DATASET_RULES,
]
MINIMAL = {
    "task": "llm",
    "model": {"source": "pvc://models/tiny"},
    "dataset": {"source": "pvc://data/train.jsonl"},
}


def run_config(spec: dict[str, Any]) -> RunConfig:
    """Convert a spec as the operator does."""
    parsed = TrainingJobSpec.model_validate(MINIMAL | spec)
    resources = parsed.resources or Resources()
    dataset = (MINIMAL | spec)["dataset"]
    held_out = dict(dataset.get("validation", {}))
    if "source" in held_out:
        held_out["source"] = held_out["source"].replace("pvc://", "file:///")
    rows = {**dataset, "source": dataset["source"].replace("pvc://", "file:///")}
    return RunConfig.model_validate(
        {
            "run_directory": "/run",
            "model": {"source": "file:///model"},
            "dataset": rows | ({"validation": held_out} if "validation" in dataset else {}),
            "gpus": resources.gpus,
            "nodes": resources.nodes,
            "processes": resources.processes * resources.nodes,
            **training_blocks(parsed),
        }
    )


@pytest.mark.parametrize(("spec", "sentence"), REFUSED.values(), ids=REFUSED)
def test_violation_is_refused_with_the_message_of_the_rule(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        run_config(spec)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_other_specs_are_accepted(spec: dict[str, Any]) -> None:
    run_config(spec)


def test_every_shared_rule_has_a_case() -> None:
    untested = [
        rule.message
        for rule in RULES
        if rule.holds is not None and not any(sentence in rule.message for _, sentence in REFUSED.values())
    ]
    assert untested == []
