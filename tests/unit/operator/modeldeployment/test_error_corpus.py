"""Reason and message in the status for each mistake of the error corpus that the named TrainingJobs decide."""

from __future__ import annotations

import pytest

from error_corpus import StatusCase, statuses
from trainyard_operator.modeldeployment.model import Observed
from trainyard_operator.modeldeployment.resolve import Fault, resolve
from trainyard_operator.modeldeployment.spec import parse_spec

CASES = {name: case for name, case in statuses().items() if case.adapter is None}


def fault(case: StatusCase) -> Fault:
    """Return why the ModelDeployment, or its only adapter, cannot be served."""
    parsed = parse_spec(case.spec)
    assert not parsed.error
    found = resolve(
        Observed(
            obj={"metadata": {"name": "a-chat", "namespace": "team", "uid": "1"}, "spec": case.spec},
            spec=parsed.spec,
            jobs={name: {"metadata": {"name": name}, **job} for name, job in case.jobs.items()},
        )
    )
    if isinstance(found, Fault):
        return found
    (adapter,) = found.adapters
    assert adapter.fault is not None
    return adapter.fault


@pytest.mark.parametrize("name", CASES)
def test_status_has_reason_and_message(name: str, request: pytest.FixtureRequest) -> None:
    found = fault(CASES[name])
    text = f"{found.reason}: {found.message}"
    if request.config.getoption("--update-goldens"):
        CASES[name].expected_path.write_text(f"{text}\n")
    assert text == CASES[name].message
