"""Parsing of specs: defaults, specs that do not fit this operator, and the cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.operator.trainingjob.state_model import SPEC, JobModel, merged, new_job
from trainyard_operator.trainingjob.spec import SpecCache, parse_spec


def test_missing_blocks_get_their_defaults() -> None:
    spec, error = parse_spec({**SPEC, "resources": None})
    assert error == ""
    assert (spec.resources.gpus, spec.resources.nodes, spec.queue.priority, spec.retry.limit) == (1, 1, 5, 3)
    assert (spec.checkpoints.grace_period_seconds, spec.start_deadline_seconds) == (120, 1800)


@pytest.mark.parametrize(
    ("change", "sentence", "kept"),
    [
        ({"colour": "red"}, "spec.colour: Extra inputs are not permitted (it is 'red').", {"gpus": 4}),
        ({"resources": {"gpus": 4, "tpus": 1}}, "spec.resources.tpus: Extra inputs are not permitted", {"gpus": 4}),
        ({"resources": {"gpus": 4, "nodes": 0}}, "spec.resources.nodes: Input should be greater", {"gpus": 4}),
        ({"resources": "many"}, "spec.resources: Input should be a valid dictionary", {"gpus": 1}),
        ({"model": {"revision": "main"}}, "spec.model.source: Field required", {"gpus": 4}),
        ({"exports": [{"format": "x"}, {"format": "gguf", "y": 1}]}, "spec.exports.0.format: Input", {"gpus": 4}),
    ],
    ids=["unknown field", "unknown nested field", "value", "block", "required field", "list"],
)
def test_invalid_fields_are_named_and_the_rest_is_kept(
    change: dict[str, Any], sentence: str, kept: dict[str, int]
) -> None:
    spec, error = parse_spec({**SPEC, "resources": {"gpus": 4}, **change})
    assert error.startswith(sentence)
    assert error.endswith("Correct the field in a new TrainingJob, or update the operator.")
    assert {"gpus": spec.resources.gpus} == kept
    assert [export.format for export in spec.exports or []] == (["gguf"] if "exports" in change else [])


@pytest.mark.parametrize("document", [{}, {"task": 1, "model": [], "dataset": None}, {"exports": {"a": 1}}])
def test_any_document_parses(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    assert parse_spec(document).error
    assert document == before


def test_invalid_spec_fails_a_new_job_but_not_a_running_one() -> None:
    model = JobModel()
    model.job = merged(model.job, {"spec": {"colour": "red"}})
    failed = model.plan().status or {}
    assert (failed["phase"], failed["message"][:11]) == ("Failed", "spec.colour")
    assert {"type": "Stalled", "status": "True", "reason": "InvalidSpec"}.items() <= failed["conditions"][-1].items()
    model = JobModel()
    model.apply(model.plan())
    model.job = merged(model.job, {"spec": {"colour": "red", "suspend": True}, "status": {"jobName": "x"}})
    assert (model.plan().status or {})["phase"] == "Suspending"


def test_cache_parses_once_per_generation() -> None:
    cache, job = SpecCache(), new_job()
    first = cache.parse(job)
    assert cache.parse(job) is first
    assert cache.parse(merged(job, {"metadata": {"generation": 2}, "spec": {"suspend": True}})).spec.suspend
