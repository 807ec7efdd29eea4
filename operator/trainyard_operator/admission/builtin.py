"""The builtin queue at work: keeps what its rounds look at, runs them one at a time, and answers `plan`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from trainyard_crds.constants import ENQUEUED_ANNOTATION
from trainyard_kube.paths import Object
from trainyard_kube.token_bucket import TokenBucket
from trainyard_operator.admission.decision import QUEUE_WAITING_FIELDS, Admission
from trainyard_operator.kube.store import Key
from trainyard_operator.queue.admission_cycle import Outcome, admit
from trainyard_operator.queue.estimate import estimates, expected_run
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.models import Admitted, Basis, Expectation, Request
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Pool, pool_of
from trainyard_operator.queue.position import APART, TOLD_PER_SECOND, Place, places
from trainyard_operator.queue.quota import Headroom, Quotas, missing
from trainyard_operator.queue.reasons import Reason
from trainyard_operator.reconcile.fields import format_time, holds, parse_time
from trainyard_operator.trainingjob.model import Observed
from trainyard_operator.trainingjob.queue_adapter import Entry, Grant, Told, entry_of, last_told, seconds_run

logger = logging.getLogger(__name__)

_TICK = 5.0
"""Seconds between rounds when nothing happens: for backoffs, estimates and places that were held back."""
_GAP, _QUEUE_GAP, _SHARE = 0.005, 0.05, 4.0
"""Least pause between two rounds: seconds when nobody waits, and when somebody does (one end brings several events, and
each round looks at all that wait), and in multiples of the last round's own time."""
_TELL_SHARE = 20.0
"""Least pause between two looks at what everybody is told, in multiples of the time the last one took."""
_OWED = 0.5
"""Seconds after which what was left out is told, where nothing else brings a round."""
_PAST = 50
"""Finished jobs of a pool whose durations are remembered."""
_ESTIMATE_SLACK = 0.1
"""Share of the wait by which an estimate must change to be told anew; at least half a minute."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What the last rounds found, by UID.

    Attributes:
        reasons, places: Of the last round that somebody was told of.
        starts: When jobs are expected to start, and what that rests on, by the last look at all of them.
    """

    reasons: Mapping[str, Reason] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    starts: Mapping[str, tuple[datetime, Basis]] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Known:
    """What is remembered of one job; `told_at` is when it was told, in monotonic seconds."""

    key: Key
    stamp: datetime
    entry: Entry = field(default_factory=Entry)
    grant: Grant | None = None
    preempted: bool = False
    told: Told | None = None
    told_at: float = -APART


class GpuQueue:
    """Decides who starts.

    Args:
        observe: The job of a key as it is known now; None when it is gone.
        add: Takes the key of each job for which something was decided.
        now: The time.
        clock: Monotonic seconds.
        policy: The administrator's settings.
    """

    def __init__(
        self,
        *,
        observe: Callable[[Key], Observed | None],
        add: Callable[[Key], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
        policy: Callable[[], Policy],
    ) -> None:
        self._observe, self._add, self._now, self._clock, self._policy = observe, add, now, clock, policy
        self.inventory, self.quotas = Inventory(), Quotas()
        self._known: dict[str, _Known] = {}
        self._uids: dict[Key, str] = {}
        self._dirty: dict[Key, None] = {}
        self._past: dict[Pool, deque[float]] = {}
        self._last_stamp = datetime.fromtimestamp(0, UTC)
        self._last_grant = datetime.fromtimestamp(0, UTC)
        self._wake = asyncio.Event()
        self._patience = Policy.start_seconds
        self._budget = TokenBucket(TOLD_PER_SECOND, TOLD_PER_SECOND)
        self._looked, self._look_cost, self._owes = clock(), 0.0, False
        self._found = _Found()

    # --- news ---------------------------------------------------------------------------------------------------------

    def look(self, key: Key) -> None:
        """A job has news."""
        self._dirty[key] = None
        self._wake.set()

    def wake(self) -> None:
        """Nodes, foreign pods or quotas have news."""
        self._wake.set()

    # --- answers ------------------------------------------------------------------------------------------------------

    def is_let_in(self, key: Key) -> bool:
        """Whether a job was let in and its Job has yet to be made or resumed: its GPUs idle until then."""
        known = self._known.get(self._uids.get(key, ""))
        return known is not None and known.grant is not None and known.grant.open

    def is_waiting(self, key: Key) -> bool:
        """Whether a job was looked at and waits."""
        known = self._known.get(self._uids.get(key, ""))
        return known is not None and known.entry.waiting is not None

    def admission(self, observed: Observed) -> Admission:
        """The answer for `plan`."""
        known = self._known.get(observed.uid)
        if known is None:
            return Admission(admitted=False, reason="", message="", decided=False)
        request = known.entry.waiting or (known.entry.holding.request if known.entry.holding else None)
        queue = _lasting(known, request, observed)
        if known.entry.holding is not None and (known.entry.waiting is None):
            answer = _of_holder(known, observed, queue)
            return answer._replace(start_seconds=self._start_seconds(known), quota=self._quota(known.entry.holding))
        if known.told is None or request is None:
            return Admission(admitted=False, reason="", message="", decided=False, queue=queue)
        if not _stands(known.told, observed) and observed.uid in self._found.reasons:
            # Behind many others, what is written now may have been found long ago.
            known.told, known.told_at = self._as_found(observed.uid), self._clock()
        return Admission(
            admitted=False,
            reason=known.told.reason.word,
            message=known.told.reason.sentence,
            queue=(queue or {}) | _shown(known.told),
        )

    def _start_seconds(self, known: _Known) -> int | None:
        """Nobody waits for what a job without GPUs holds."""
        holding = known.entry.holding
        return self._patience if holding is not None and holding.request.gpus else None

    def _quota(self, job: Admitted) -> str:
        """Why a job that was let in cannot have the pods that it lacks."""
        pods = missing(job)
        refusal = Headroom(self.quotas, ()).refusal(job.request, pods) if pods and job.request.made else None
        return refusal.sentence if refusal else ""

    # --- rounds -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run rounds for ever, one at a time, when there is news and now and then."""
        aged = self._clock()
        while True:
            began = self._clock()
            if began - aged >= _TICK:  # what is left of a running job grows less without an event
                self._dirty |= {known.key: None for known in self._known.values() if known.entry.holding}
                aged = began
            self.round()
            gap = _QUEUE_GAP if any(known.entry.waiting for known in self._known.values()) else _GAP
            await asyncio.sleep(max(gap, _SHARE * (self._clock() - began)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OWED if self._owes else _TICK):
                    await self._wake.wait()
            self._wake.clear()

    def round(self) -> None:
        """One admission round, and what is told of it."""
        policy = self._policy()
        if policy.start_seconds != self._patience:
            self._patience = policy.start_seconds
            for known in self._known.values():  # those that start have another deadline now
                if known.entry.holding:
                    self._add(known.key)
        self._take_in()
        waiting = [known.entry.waiting for known in self._known.values() if known.entry.waiting]
        holding = [known.entry.holding for known in self._known.values() if known.entry.holding]
        if not waiting:
            return
        outcome = admit(waiting, holding, self.inventory, policy, self._now(), quotas=self.quotas)
        self._let_in(outcome)
        for uid in outcome.preempt:
            self._known[uid].preempted = True
            self._add(self._known[uid].key)
        self._tell(outcome, [known.entry.holding for known in self._known.values() if known.entry.holding])

    def _take_in(self) -> None:
        dirty, self._dirty = self._dirty, {}
        now = self._now()
        news = [(key, self._observe(key)) for key in dirty]
        for key, observed in news:
            if observed is None or observed.uid != self._uids.get(key, observed.uid):
                self._forget(key)
        for key, observed in sorted(((key, observed) for key, observed in news if observed), key=_arrival):
            self._read(key, observed, now)

    def _read(self, key: Key, observed: Observed, now: datetime) -> None:
        known = self._known.get(observed.uid)
        if known is None:
            known = self._known[observed.uid] = _Known(key=key, stamp=self._enqueue(observed))
            self._uids[key] = observed.uid
        before = known.entry
        known.entry = entry_of(
            observed, stamp=known.stamp, now=now, grant=known.grant, preempted=known.preempted, past=self._expected
        )
        leaves = known.entry.holding is not None and known.entry.holding.leaving
        if known.grant is not None and known.grant.open and (leaves or _runs(observed)):
            known.grant = known.grant._replace(open=False)
        if known.entry.holding is None:
            known.preempted = False
            known.grant = None
            if before.holding is not None and holds(observed.child, "Complete"):
                past = self._past.setdefault(before.holding.request.pool, deque(maxlen=_PAST))
                past.append(seconds_run(observed, now))
        if known.told is None and known.entry.waiting is not None and before == Entry():
            known.told, known.told_at = last_told(observed), -APART
        if known.entry == Entry() and _is_over(observed):
            self._forget(key)

    def _forget(self, key: Key) -> None:
        uid = self._uids.pop(key, None)
        if uid is not None:
            self._known.pop(uid, None)

    def _enqueue(self, observed: Observed) -> datetime:
        """A job's stamp: the one it was told, else its creation, and after every other: creations are whole seconds."""
        told = _told_stamp(observed)
        if told is not None:
            self._last_stamp = max(self._last_stamp, told)
            return told
        created = parse_time(observed.job["metadata"]["creationTimestamp"])
        self._last_stamp = max(created, self._last_stamp + timedelta(microseconds=1))
        return self._last_stamp

    def _expected(self, pool: Pool, spent: float) -> Expectation | None:
        past = self._past.get(pool)
        return Expectation(expected_run(past, spent), Basis.HISTORY) if past else None

    def _let_in(self, outcome: Outcome) -> None:
        for start in outcome.starts:
            known = self._known[start.request.uid]
            now = self._last_grant = max(self._now(), self._last_grant + timedelta(microseconds=1))
            known.grant = Grant(start.placement, now, open=True)
            known.entry = Entry(holding=Admitted(request=start.request, placement=start.placement, since=now))
            known.told = None
            self._add(known.key)

    # --- what waiting jobs are told -----------------------------------------------------------------------------------

    def _tell(self, outcome: Outcome, holding: list[Admitted]) -> None:
        """Give each waiting job its place and reason: those that know nothing now, the rest as time and rate allow."""
        began = self._clock()
        new = [uid for uid in outcome.reasons if self._known[uid].told is None]
        self._owes = began - self._looked < _TELL_SHARE * self._look_cost
        if not self._owes:
            in_line = [request for request in outcome.waiting if request.uid not in outcome.apart]
            expected, now = estimates(in_line, holding, self.inventory), self._now()
            starts = {uid: (now + timedelta(seconds=one.seconds), one.basis) for uid, one in expected.items()}
            self._found = _Found(reasons=outcome.reasons, places=places(outcome.waiting), starts=starts)
            self._tell_each(outcome.reasons)
            self._looked, self._look_cost = began, self._clock() - began
        elif new:
            self._found = replace(self._found, reasons=outcome.reasons, places=places(outcome.waiting))
            self._tell_each(new)

    def _tell_each(self, uids: Iterable[str]) -> None:
        found, now = self._found, self._now()
        for uid in uids:
            known = self._known[uid]
            if uid not in found.starts and _is_same(known.told, found.reasons[uid], found.places.get(uid)):
                continue  # most of a long queue
            told = self._as_found(uid)
            if self._is_due(known, told, now):
                known.told, known.told_at = told, self._clock()
                self._add(known.key)

    def _as_found(self, uid: str) -> Told:
        found = self._found
        start, basis = found.starts.get(uid, (None, None))
        return Told(reason=found.reasons[uid], place=found.places.get(uid), start=start, basis=basis)

    def _is_due(self, known: _Known, told: Told, now: datetime) -> bool:
        if known.told is None:
            return True
        late = self._clock() - known.told_at >= APART
        return late and _differ(known.told, told, now) and self._budget.try_take(self._clock())

    # --- for people ---------------------------------------------------------------------------------------------------

    def waiting(self) -> dict[str, int]:
        """Jobs that wait, by pool."""
        pools = (str(known.entry.waiting.pool) for known in self._known.values() if known.entry.waiting)
        return dict(Counter(pools))

    def describe(self) -> dict[str, Any]:
        """The whole exact queue: jobs that wait, in order, and jobs that hold GPUs."""
        waiting = sorted((known for known in self._known.values() if known.entry.waiting), key=_order)
        return {
            "waiting": [_row(known, known.entry.waiting) for known in waiting if known.entry.waiting],
            "holding": [
                _row(known, known.entry.holding.request) | {"leaving": known.entry.holding.leaving}
                for known in self._known.values()
                if known.entry.holding
            ],
        }


def _arrival(entry: tuple[Key, Observed]) -> tuple[bool, str, int]:
    """Order in which jobs are stamped: those with a stamp first, then as they were created."""
    metadata = entry[1].job["metadata"]
    return _told_stamp(entry[1]) is None, metadata["creationTimestamp"], int(metadata.get("resourceVersion", 0))


def _told_stamp(observed: Observed) -> datetime | None:
    """A job's stamp as its status has it, or as its Job does: a kill may come before the first status is written."""
    annotations = (observed.child or {"metadata": {}})["metadata"].get("annotations") or {}
    told = (observed.status.get("queue") or {}).get("enqueuedAt") or annotations.get(ENQUEUED_ANNOTATION)
    return parse_time(told) if told else None


def _order(known: _Known) -> tuple[Any, ...]:
    assert known.entry.waiting is not None
    return known.entry.waiting.order


def _row(known: _Known, request: Request) -> dict[str, Any]:
    row: dict[str, Any] = {
        "namespace": known.key.namespace,
        "name": known.key.name,
        "pool": str(request.pool),
        "gpus": request.gpus,
        "nodes": request.nodes,
        "priority": request.priority,
        "enqueuedAt": _stamp(request.enqueued),
    }
    return row | ({"reason": known.told.reason.word, "message": known.told.reason.sentence} if known.told else {})


def _lasting(known: _Known, request: Request | None, observed: Observed) -> Object | None:
    """What a job is told for life; also one that was done before anything was written of it."""
    if request is None and observed.child is None:
        return None
    pool = request.pool if request else pool_of(observed.spec.resources)
    return {"pool": str(pool), "enqueuedAt": _stamp(known.stamp)}


def _of_holder(known: _Known, observed: Observed, queue: Object | None) -> Admission:
    """The answer for a job that holds GPUs: to go on, to make room, or none.

    A Job that was suspended while its pod holds on is resumed only by a new grant: what the queue meant it to make room
    for is not remembered over a restart, and a user who suspends and resumes has given up the turn.
    """
    grant = known.grant
    goes_on = not known.preempted and (_runs(observed) or (grant is not None and grant.open))
    return Admission(
        admitted=goes_on,
        reason="Admitted" if goes_on else "Preempted" if known.preempted else "",
        message="",
        decided=goes_on,
        preempted=known.preempted,
        nodes=tuple(node for node in grant.nodes if node) if grant else (),
        admitted_at=_stamp(grant.since) if grant else "",
        queue=queue,
    )


def _runs(observed: Observed) -> bool:
    return observed.child is not None and not observed.child["spec"].get("suspend", False)


def _is_over(observed: Observed) -> bool:
    return observed.status.get("phase") in {"Succeeded", "Failed", "Stopped"}


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _shown(told: Told) -> dict[str, Any]:
    shown: dict[str, Any] = {"reason": told.reason.word}
    if told.place is not None:
        shown |= told.place._asdict()
    if told.start is not None and told.basis is not None:
        shown |= {"estimatedStartTime": format_time(told.start), "estimateBasis": told.basis.value}
    return shown


def _stands(told: Told, observed: Observed) -> bool:
    """Whether a job's status says what it was told."""
    status, shown = observed.status.get("queue") or {}, _shown(told)
    return all(status.get(key) == shown.get(key) for key in QUEUE_WAITING_FIELDS)


def _is_same(before: Told | None, reason: Reason, place: Place | None) -> bool:
    """Whether a job was told just that, and no estimate."""
    return before is not None and before.basis is None and before.reason == reason and before.place == place


def _differ(before: Told, after: Told, now: datetime) -> bool:
    """Whether there is something new to tell; an estimate that hardly moved is not."""
    if (before.reason, before.place, before.basis) != (after.reason, after.place, after.basis):
        return True
    if before.start is None or after.start is None:
        return before.start is not after.start
    moved = abs((after.start - before.start).total_seconds())
    return moved > max(30.0, _ESTIMATE_SLACK * abs((after.start - now).total_seconds()))
