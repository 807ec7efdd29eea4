"""Training Jobs and pods that left the informer's selection."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.trainingjob.builders import CREATED, child, running
from tests.unit.operator.trainingjob.state_model import (
    CHILD,
    NAME,
    SETTINGS,
    UID,
    at,
    merged,
    need_of,
    new_job,
    observed_of,
)
from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL
from trainyard_kube.paths import Object
from trainyard_kube.store import Store
from trainyard_operator.reconcile.plan import Need
from trainyard_operator.stored_resources import SPECS
from trainyard_operator.trainingjob.observe import Observer
from trainyard_operator.trainingjob.plan import plan
from trainyard_operator.trainingjob.resources import ResourceKind, job_key

NEED = need_of("jobs", CHILD)
OWNER = {"kind": "TrainingJob", "name": NAME, "uid": UID, "controller": True}
RELABELLED: Object = merged(child(), {"metadata": {"labels": {MANAGED_BY_LABEL: "x"}, "ownerReferences": [OWNER]}})
JOB: Object = new_job() | {"status": {"phase": "Running", "jobName": CHILD}}


def test_job_that_the_cache_lacks_is_looked_up_before_it_counts_as_deleted() -> None:
    assert plan(observed_of(JOB), SETTINGS, at("10:10:00")).need == NEED


def test_job_with_changed_labels_goes_on_and_gets_them_back() -> None:
    found = plan(observed_of(JOB, pods=(running(),), answers={NEED: RELABELLED}), SETTINGS, at("10:10:00"))
    assert found.status is not None
    assert found.status.get("phase", "Running") == "Running"
    assert [patch.body["metadata"]["labels"][MANAGED_BY_LABEL] for patch in found.patches] == [MANAGED_BY]


def test_job_of_another_owner_does_not_count() -> None:
    foreign = merged(RELABELLED, {"metadata": {"ownerReferences": []}})
    found = plan(observed_of(JOB, answers={NEED: foreign}), SETTINGS, at("10:10:00"))
    assert found.status is not None
    assert "was deleted by another client" in found.status["message"]


@pytest.mark.parametrize(("answer", "phase"), [("same", "Running"), (None, "Starting")], ids=["there", "gone"])
def test_running_pod_that_vanished_is_looked_up_before_it_counts_as_lost(answer: Any, phase: str) -> None:
    need, gone = Need("pods", f"{CHILD}-a"), running() | {"gone": True}
    job = JOB | {"status": {"jobName": CHILD, "phase": "Starting"}}
    assert plan(observed_of(job, child=child(), pods=(gone,)), SETTINGS, at("10:10:00")).need == need
    answers = {need: running() if answer else None}
    found = plan(observed_of(job, child=child(), pods=(gone,), answers=answers), SETTINGS, at("10:10:00"))
    assert found.status is not None
    assert found.status.get("phase", "Starting") == phase


def test_job_that_left_the_selection_is_cached_again_from_an_answer_and_found_by_its_owner_reference() -> None:
    store = Store(SPECS)
    store.put(ResourceKind.TRAINING_JOBS, JOB)
    live = merged(RELABELLED, {"metadata": {"creationTimestamp": CREATED, "resourceVersion": "9"}})
    store.put(ResourceKind.JOBS, merged(live, {"metadata": {"resourceVersion": "7"}}))
    store.cache(ResourceKind.JOBS).delete(live)
    observed = Observer(store).observe(job_key("team", NAME))
    assert observed is not None
    assert observed.child is None
    store.put(ResourceKind.JOBS, live)
    observed = Observer(store).observe(job_key("team", NAME))
    assert observed is not None
    assert observed.child is not None
