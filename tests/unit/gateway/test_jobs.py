from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.unit.gateway.fakes import KEY, UID, Clock, attempt, job, job_object
from trainyard_gateway.jobs import JobCache, JobKey, Reflector
from trainyard_kube.errors import ApiError, ApiUnreachableError, GoneError, ServerError


def test_a_job_is_read_from_an_object() -> None:
    read = job(progress={"step": 1}, phase="Running", attempts=[attempt(2, "b"), attempt(1, "a", ended=True)])
    assert [entry.pod_uid for entry in read.attempts] == ["a", "b"]
    assert read.current_pod() == "b"
    assert read.share == {"progress": {"step": 1}}
    assert not read.finished


def test_a_new_job_has_no_status() -> None:
    document = job_object()
    del document["status"]
    from trainyard_gateway.jobs import Job

    assert Job.from_object(document).current_pod() is None


@pytest.mark.parametrize("final", ["Finished", "Complete", "Failed", "Stopped"])
def test_each_final_condition_finishes_a_job(final: str) -> None:
    assert job(conditions=[{"type": final, "status": "True"}]).finished
    assert not job(conditions=[{"type": final, "status": "False"}, {"type": "Suspended", "status": "True"}]).finished


def test_an_older_version_does_not_replace_a_newer_one() -> None:
    cache = JobCache()
    cache.put(job(version=100, phase="Running"))
    cache.put(job(version=9, phase="Failed"))
    known = cache.get(KEY)
    assert known is not None
    assert known.resource_version == "100"


def test_another_object_of_the_name_replaces_the_old_one_and_its_late_deletion_does_nothing() -> None:
    cache, ended = JobCache(), list[str]()
    cache.on_end(ended.append)
    cache.put(job(version=100))
    cache.put(job(uid="new", version=5))
    assert ended == [UID]
    cache.remove(KEY, UID)
    assert cache.get(KEY) is not None


def test_a_list_removes_what_it_lacks() -> None:
    cache, ended = JobCache(), list[str]()
    cache.on_end(ended.append)
    cache.put(job())
    cache.replace([job(uid="other", key=JobKey("team", "other"))])
    assert ended == [UID]
    assert len(cache) == 1


class Source:
    """A list, then a script of watches: each a list of events and perhaps a failure at its end."""

    def __init__(self, *watches: list[dict[str, Any] | ApiError], jobs: list[dict[str, Any]] | None = None) -> None:
        self.watches, self.jobs = list(watches), jobs or []
        self.lists, self.versions = 0, list[str]()

    async def list_all(self, url: str) -> tuple[list[dict[str, Any]], str]:
        self.lists += 1
        return self.jobs, "50"

    async def watch(self, url: str, query: Any, version: str, seconds: int) -> AsyncGenerator[dict[str, Any]]:
        self.versions.append(version)
        for event in self.watches.pop(0):
            if isinstance(event, ApiError):
                raise event
            yield event


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "object": job_object(**fields)}


BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}}


async def test_the_cache_follows_list_and_watch() -> None:
    source = Source(
        [event("MODIFIED", version=60, phase="Running"), BOOKMARK], [event("DELETED", version=80)], jobs=[job_object()]
    )
    cache, clock = JobCache(), Clock()
    reflector = Reflector(source, cache, clock)
    assert not reflector.synced
    clock.now += 5
    await reflector.round()
    known = cache.get(KEY)
    assert known is not None
    assert known.resource_version == "60"
    assert reflector.synced
    assert reflector.last_contact == clock.now
    await reflector.round()
    assert cache.get(KEY) is None
    assert (source.lists, source.versions) == (1, ["50", "77"])


async def test_a_watch_that_lost_its_place_lists_again() -> None:
    source = Source([GoneError(410, "Expired", "too old")], [], jobs=[job_object()])
    reflector = Reflector(source, JobCache(), Clock())
    await reflector.round()
    await reflector.round()
    assert source.lists == 2


async def test_a_broken_watch_goes_on_where_it_was() -> None:
    source = Source([BOOKMARK, ApiUnreachableError("reset")], [])
    reflector = Reflector(source, JobCache(), Clock())
    with pytest.raises(ApiUnreachableError):
        await reflector.round()
    await reflector.round()
    assert (source.lists, source.versions) == (1, ["50", "77"])


async def test_a_refused_watch_is_a_failure_and_not_a_reason_to_list_at_once() -> None:
    source = Source([ServerError(500, "", "etcd")])
    with pytest.raises(ServerError):
        await Reflector(source, JobCache(), Clock()).round()
    assert source.lists == 1
