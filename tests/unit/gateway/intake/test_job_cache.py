from __future__ import annotations

import pytest

from tests.unit.gateway.fakes import KEY, UID, attempt, job, job_object
from trainyard_gateway.intake.job_cache import Job, JobCache, JobKey


def test_job_is_parsed_from_an_object() -> None:
    read = job(progress={"step": 1}, phase="Running", attempts=[attempt(2, "b"), attempt(1, "a", ended=True)])
    assert [entry.pod_uid for entry in read.attempts] == ["a", "b"]
    assert read.current_pod() == "b"
    assert read.owned_status == {"progress": {"step": 1}}
    assert not read.finished


def test_job_without_a_status() -> None:
    document = job_object()
    del document["status"]
    assert Job.from_object(document).current_pod() is None


@pytest.mark.parametrize("final", ["Finished", "Complete", "Failed", "Stopped"])
def test_each_final_condition_finishes_a_job(final: str) -> None:
    assert job(conditions=[{"type": final, "status": "True"}]).finished
    assert not job(conditions=[{"type": final, "status": "False"}, {"type": "Suspended", "status": "True"}]).finished


def test_older_version_does_not_replace_a_newer_one() -> None:
    cache = JobCache()
    cache.put(job_object(version=100, phase="Running"))
    cache.put(job_object(version=9, phase="Failed"))
    known = cache.get(KEY)
    assert known is not None
    assert known.resource_version == "100"


def test_recreated_job_replaces_the_old_one_and_ignores_its_late_deletion() -> None:
    cache, ended = JobCache(), list[str]()
    cache.on_end(ended.append)
    cache.put(job_object(version=100))
    cache.put(job_object(uid="new", version=5))
    assert ended == [UID]
    cache.cache.delete(job_object(version=110))
    assert cache.get(KEY) is not None


def test_list_removes_missing_jobs() -> None:
    cache, ended = JobCache(), list[str]()
    cache.on_end(ended.append)
    cache.put(job_object())
    listed = cache.cache.entry(job_object(uid="other", key=JobKey("team", "other")))
    cache.cache.replace([listed], 50)
    assert ended == [UID]
    assert len(cache) == 1
