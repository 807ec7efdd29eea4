"""The reconciler with a kind of its own: a Note whose text is in a ConfigMap."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import (
    ApiRefusedError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    status_error,
)
from trainyard_kube.events import EventWriter
from trainyard_kube.merge_patch import merge_patch
from trainyard_kube.paths import CONFIG_MAPS, Object
from trainyard_kube.resource import Key
from trainyard_operator.reconcile.applied_hash import is_applied, stamped
from trainyard_operator.reconcile.conditions import READY, Condition, conditions
from trainyard_operator.reconcile.kind import Kind, Resource
from trainyard_operator.reconcile.plan import Deletion, Need, Note, Observation, Patch, Plan
from trainyard_operator.reconcile.reconciler import Reconciler
from trainyard_operator.trainingjob.resources import job_key

NOTES = "/apis/example.com/v1/{namespace}notes"
KEY = job_key("team", "hello")
TYPE = {"apiVersion": "example.com/v1", "kind": "Note"}
OWNER = {**TYPE, "name": "hello", "uid": "u1", "controller": True}


@dataclass(frozen=True, kw_only=True)
class ObservedNote(Observation):
    child: Object | None = None


class Server:
    """Objects by URL, and the writes that reached them."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self.refuse: dict[str, Exception] = {}
        self._version = 0

    def put(self, url: str, obj: Object) -> Object:
        self._version += 1
        known = self.objects.get(url, {"metadata": {"uid": f"uid-{self._version}"}})
        metadata = {**known["metadata"], **obj["metadata"], "resourceVersion": str(self._version)}
        self.objects[url] = {**obj, "metadata": metadata}
        return self.objects[url]

    async def get(self, url: str) -> Object:
        if url not in self.objects:
            raise NotFoundError(404, "NotFound", url)
        return copy.deepcopy(self.objects[url])

    async def create(self, url: str, body: Object) -> Object:
        self._write("create", url)
        full = f"{url}/{body['metadata']['name']}"
        if full in self.objects:
            raise ConflictError(409, "AlreadyExists", full)
        return copy.deepcopy(self.put(full, body))

    async def apply(self, url: str, body: Object) -> Object:
        self._write("apply", url)
        return copy.deepcopy(self.put(url, body))

    async def merge(self, url: str, patch: Object) -> Object:
        self._write("patch", url)
        url = url.removesuffix("/status")
        known = await self.get(url)
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in (None, known["metadata"]["resourceVersion"]):
            raise ConflictError(409, "Conflict", url)
        return copy.deepcopy(self.put(url, _merged(known, patch)))

    async def delete(self, url: str, *, uid: str | None, grace: int | None) -> None:
        self._write("delete", url)
        assert self.objects[url]["metadata"]["uid"] == uid
        del self.objects[url]

    def _write(self, verb: str, url: str) -> None:
        self.writes.append(f"{verb} {url.rsplit('/', 1)[-1]}")
        if verb in self.refuse:
            raise self.refuse[verb]


def _merged(target: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    kept = dict(target) if isinstance(target, dict) else {}
    return kept | {key: _merged(kept.get(key), value) for key, value in change.items()}


class Notes(Kind[ObservedNote]):
    """`spec.text` is copied into a ConfigMap; `spec.text: null` deletes it."""

    uid_label = "example.com/note-uid"
    untrusted_status = ("echo",)

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.carried: list[str] = []
        self.fixed_plan: Plan | None = None
        self.resource = self._resource("Note", NOTES)
        self.related = (self._resource("ConfigMap", CONFIG_MAPS),)

    def _resource(self, kind: str, collection: str) -> Resource:
        return Resource(
            kind=kind,
            collection=collection,
            ingest=partial(self.objects.__setitem__, kind),
            remove=lambda _: self.objects.pop(kind, None),
        )

    def observe(self, key: Key) -> ObservedNote | None:
        note = self.objects.get("Note")
        return None if note is None else ObservedNote(obj=note, child=self.objects.get("ConfigMap"))

    def plan(self, observed: ObservedNote, now: datetime) -> Plan:
        if self.fixed_plan is not None and observed.refusal is None:
            return self.fixed_plan
        text, child = observed.obj["spec"]["text"], observed.child
        body = stamped(
            {
                "kind": "ConfigMap",
                "metadata": {
                    "name": "hello",
                    "namespace": "team",
                    "labels": {self.uid_label: "u1"},
                    "ownerReferences": [OWNER],
                },
                "data": {"text": text},
            }
        )
        if text is None:
            deletion = () if child is None else (Deletion("configmaps", "hello", child["metadata"]["uid"]),)
            return Plan(delete=deletion, status=self._status(observed, "Removed", now))
        if observed.refusal is not None:
            return Plan(status=self._status(observed, observed.refusal.reason, now))
        if child is None:
            need = Need("configmaps", "hello")
            return Plan(create=(body,)) if need in observed.answers else Plan(need=need)
        note = None if observed.status else Note("Normal", "Written", "The ConfigMap is written.")
        apply = () if is_applied(child, body) else (body,)
        return Plan(apply=apply, status=self._status(observed, "Written", now), note=note)

    def _status(self, observed: ObservedNote, reason: str, now: datetime) -> Object | None:
        desired = {
            "observedGeneration": observed.obj["metadata"]["generation"],
            "conditions": conditions(observed, {READY: Condition(reason == "Written", reason), "Old": None}, now),
            "echo": str(observed.obj["spec"]["text"]),
        }
        return merge_patch(observed.status, desired) or None

    def carried_out(self, observed: ObservedNote) -> None:
        self.carried.append(observed.name)


class Fixture:
    def __init__(self) -> None:
        self.server, self.kind = Server(), Notes()
        server: Any = self.server
        clock = ServerClock()
        self.events = EventWriter(server, clock, controller="test", instance="one")
        self.reconciler = Reconciler(self.kind, server, self.events, clock)
        self.set_text("hi")

    def set_text(self, text: str | None) -> None:
        known = self.server.objects.get(NOTE, {"metadata": {"generation": 0}})
        metadata = {"name": "hello", "namespace": "team", "uid": "u1"}
        metadata |= {"generation": known["metadata"]["generation"] + 1}
        self.kind.objects["Note"] = self.server.put(
            NOTE, {**known, **TYPE, "metadata": metadata, "spec": {"text": text}}
        )

    async def settle(self) -> list[str]:
        """Reconcile until nothing is due; the writes that were made."""
        before = len(self.server.writes)
        for _ in range(5):
            if (await self.reconciler.reconcile(KEY)).again_after != 0.0:
                break
        return self.server.writes[before:]

    @property
    def status(self) -> Object:
        status: Object = self.server.objects[NOTE]["status"]
        return status


NOTE = "/apis/example.com/v1/namespaces/team/notes/hello"
CHILD = "/api/v1/namespaces/team/configmaps/hello"


async def test_child_is_created_and_status_written() -> None:
    fixture = Fixture()
    assert await fixture.settle() == ["create configmaps", "patch status"]
    assert fixture.server.objects[CHILD]["data"] == {"text": "hi"}
    [ready] = fixture.status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"], ready["observedGeneration"]) == (
        "Ready",
        "True",
        "Written",
        1,
    )
    assert fixture.events._queue.qsize() == 1


async def test_unchanged_object_writes_nothing() -> None:
    fixture = Fixture()
    await fixture.settle()
    assert await fixture.settle() == []
    assert fixture.kind.carried == ["hello", "hello"]


async def test_changed_child_is_applied_and_the_transition_time_stays() -> None:
    fixture = Fixture()
    await fixture.settle()
    since = fixture.status["conditions"][0]["lastTransitionTime"]
    fixture.set_text("bye")
    assert await fixture.settle() == ["apply hello", "patch status"]
    assert fixture.server.objects[CHILD]["data"] == {"text": "bye"}
    assert fixture.status["conditions"][0]["lastTransitionTime"] == since
    assert fixture.status["observedGeneration"] == 2


async def test_child_is_deleted_and_status_written() -> None:
    fixture = Fixture()
    await fixture.settle()
    fixture.set_text(None)
    assert await fixture.settle() == ["delete hello", "patch status"]
    assert CHILD not in fixture.server.objects
    assert (fixture.status["conditions"][0]["status"], fixture.status["conditions"][0]["reason"]) == (
        "False",
        "Removed",
    )


async def test_stale_observation_deletes_nothing() -> None:
    fixture = Fixture()
    await fixture.settle()
    fixture.set_text(None)
    stale = copy.deepcopy(fixture.kind.objects["Note"])
    fixture.set_text("back")
    fixture.kind.objects["Note"] = stale
    assert "delete hello" not in await fixture.settle()


async def test_existing_child_of_the_same_owner_is_adopted_and_of_another_refused() -> None:
    fixture = Fixture()
    await fixture.settle()
    del fixture.kind.objects["ConfigMap"]
    assert await fixture.settle() == []  # looked up, ingested
    fixture = Fixture()
    other = {"metadata": {"name": "hello", "ownerReferences": [{**OWNER, "uid": "u2"}]}}
    fixture.server.put(CHILD, other)
    fixture.kind.related[0].remove({})
    fixture.kind.fixed_plan = Plan(create=(_body(),))
    assert (await fixture.reconciler.reconcile(KEY)).failed
    assert fixture.status["conditions"][0]["reason"] == "NameTaken"


def _body() -> Object:
    metadata = {"name": "hello", "namespace": "team", "ownerReferences": [OWNER]}
    return {"kind": "ConfigMap", "metadata": {**metadata, "labels": {Notes.uid_label: "u1"}}}


@pytest.mark.parametrize(
    ("error", "reason", "failed"),
    [
        (InvalidError(422, "Invalid", "data is wrong", ["FieldValueInvalid"]), "InvalidSpec", False),
        (ForbiddenError(403, "Forbidden", "exceeded quota: configmaps"), "QuotaExceeded", True),
        (ForbiddenError(403, "Forbidden", "not allowed"), "CreateForbidden", True),
    ],
)
async def test_refused_child_is_reported(error: Exception, reason: str, failed: bool) -> None:
    fixture = Fixture()
    fixture.server.refuse["create"] = error
    assert (await fixture.reconciler.reconcile(KEY)).failed is failed
    assert fixture.status["conditions"][0]["reason"] == reason


async def test_child_that_exists_is_adopted_although_a_quota_would_refuse_another() -> None:
    fixture = Fixture()
    fixture.server.put(CHILD, _body())
    fixture.server.refuse["create"] = ForbiddenError(403, "Forbidden", "exceeded quota: configmaps")
    fixture.kind.fixed_plan = Plan(create=(_body(),))
    assert not (await fixture.reconciler.reconcile(KEY)).failed


WEBHOOK = 'admission webhook "closed.example" denied the request: maintenance until 18:00'
POLICY = (
    """configmaps "hello" is forbidden: ValidatingAdmissionPolicy 'closed' with binding 'all' denied request: later"""
)


@pytest.mark.parametrize(
    "error",
    [
        *(status_error(code, "", WEBHOOK) for code in (400, 401, 403, 404, 409, 418, 422, 429, 500, 503)),
        status_error(409, "AlreadyExists", WEBHOOK),
        status_error(422, "Invalid", WEBHOOK, ["FieldValueInvalid"]),
        status_error(422, "Invalid", POLICY, ["None"]),
        status_error(422, "Invalid", POLICY.replace(" with binding 'all'", ""), ["None"]),
        status_error(422, "Invalid", "some admission plugin says no"),
    ],
    ids=lambda error: f"{error.code} {error.reason} {error.message[:20]}",
)
async def test_denial_with_any_code_is_reported_and_retried(error: Exception) -> None:
    fixture = Fixture()
    fixture.server.refuse["create"] = error
    assert (await fixture.reconciler.reconcile(KEY)).failed
    assert fixture.status["conditions"][0]["reason"] == "CreateForbidden"
    del fixture.server.refuse["create"]
    await fixture.settle()
    assert CHILD in fixture.server.objects


@pytest.mark.parametrize("code", [409, 429, 500])
async def test_failed_request_that_nothing_denied_is_retried_without_a_status(code: int) -> None:
    fixture = Fixture()
    fixture.server.refuse["create"] = status_error(code, "", "try again")
    with pytest.raises(ApiRefusedError):
        await fixture.reconciler.reconcile(KEY)
    assert "status" not in fixture.server.objects[NOTE]


async def test_status_conflict_reads_the_object_again() -> None:
    fixture = Fixture()
    await fixture.reconciler.reconcile(KEY)
    seen = copy.deepcopy(fixture.kind.objects["Note"])
    fixture.server.put(NOTE, {**seen, "metadata": {**seen["metadata"], "labels": {"a": "b"}}})
    fixture.kind.objects["Note"] = seen
    with pytest.raises(ConflictError):
        await fixture.reconciler.reconcile(KEY)
    assert fixture.kind.objects["Note"]["metadata"]["labels"] == {"a": "b"}
    assert await fixture.settle() == ["patch status"]


async def test_refused_untrusted_fields_are_left_out() -> None:
    fixture = Fixture()
    await fixture.reconciler.reconcile(KEY)
    merge = fixture.server.merge

    async def strict(url: str, patch: Object) -> Object:
        if "echo" in patch["status"]:
            raise InvalidError(422, "Invalid", "echo is too long")
        return await merge(url, patch)

    fixture.server.merge = strict  # type: ignore[method-assign]
    await fixture.reconciler.reconcile(KEY)
    assert "echo" not in fixture.status
    assert fixture.status["observedGeneration"] == 1


async def test_optional_patch_may_be_refused_and_a_required_one_not() -> None:
    fixture = Fixture()
    await fixture.settle()
    fixture.server.refuse["patch"] = ForbiddenError(403, "Forbidden", "immutable")
    for required in (False, True):
        patch = Patch("configmaps", "hello", {"metadata": {"labels": {"a": "b"}}}, required=required)
        fixture.kind.fixed_plan = Plan(patches=(patch,))
        if required:
            with pytest.raises(ForbiddenError):
                await fixture.reconciler.reconcile(KEY)
        else:
            assert not (await fixture.reconciler.reconcile(KEY)).failed


async def test_deleted_object_is_removed_from_the_cache() -> None:
    fixture = Fixture()
    await fixture.reconciler.reconcile(KEY)
    del fixture.server.objects[NOTE]
    await fixture.reconciler.reconcile(KEY)
    assert "Note" not in fixture.kind.objects
    assert (await fixture.reconciler.reconcile(KEY)).again_after is None


def test_condition_time_changes_with_the_status_only() -> None:
    first, later = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
    obj: Object = {"metadata": {"name": "a", "namespace": "b", "uid": "c"}}
    known = conditions(Observation(obj=obj), {READY: Condition(False, "Waits")}, first)
    observed = Observation(obj={**obj, "status": {"conditions": known}})
    [same] = conditions(observed, {READY: Condition(False, "StillWaits")}, later)
    [changed] = conditions(observed, {READY: Condition(True, "Runs")}, later)
    assert (same["lastTransitionTime"], same["reason"]) == ("2026-01-02T00:00:00Z", "StillWaits")
    assert changed["lastTransitionTime"] == "2026-01-03T00:00:00Z"
    assert "observedGeneration" not in changed
