"""What a TrainingJob is to the queue: one that waits, one that holds GPUs, or neither."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from trainyard_kube.paths import Object
from trainyard_operator.queue.models import Admitted, Basis, Expectation, Request
from trainyard_operator.queue.pool import Pool, pool_of
from trainyard_operator.queue.position import Place
from trainyard_operator.queue.quota import pod_needs
from trainyard_operator.queue.reasons import Reason
from trainyard_operator.reconcile.fields import condition, parse_time, seconds_between
from trainyard_operator.trainingjob.conditions import is_final
from trainyard_operator.trainingjob.k8s_fields import container_state, job_finished, job_suspended, pod_ended
from trainyard_operator.trainingjob.model import Observed


class Entry(NamedTuple):
    """A job's part in a round; both are None for one that neither wants nor holds anything.

    Attributes:
        waiting: What it asks for.
        holding: What it was given and has not given back.
    """

    waiting: Request | None = None
    holding: Admitted | None = None


class Grant(NamedTuple):
    """What the queue decided for a job.

    Attributes:
        nodes: The node meant for each of its pods.
        since: When.
        open: Whether its Job has yet to be made or resumed.
    """

    nodes: tuple[str, ...]
    since: datetime
    open: bool


class Told(NamedTuple):
    """What a waiting job was told.

    Attributes:
        reason: Why it waits.
        place: Its place, where it has one.
        start, basis: When it is expected to start, and what that rests on.
    """

    reason: Reason
    place: Place | None
    start: datetime | None
    basis: Basis | None


History = Callable[[Pool, float], Expectation | None]
"""How long a job of a pool that has run for so many seconds is expected to run, by how long others ran before."""


def entry_of(
    observed: Observed, *, stamp: datetime, now: datetime, grant: Grant | None, preempted: bool, past: History
) -> Entry:
    """Read a job for the queue.

    Args:
        observed: The job and its children.
        stamp: Its place in the order for life.
        now: The time.
        grant: What the queue decided for it, if it did.
        preempted: Whether it was told to make room.
        past: What earlier jobs say of its duration.
    """
    request = _request(observed, stamp, now, past)
    child, wanted = observed.child, is_wanted(observed)
    over = child is not None and job_finished(child)
    runs = child is not None and not job_suspended(child) and not over
    if runs or (wanted and not over and grant is not None and grant.open and not _gave_up(request, now)):
        leaving = runs and (preempted or not wanted)
        return Entry(holding=_holding(observed, request, grant, now, leaving=leaving))
    if _holds_on(observed):
        return Entry(holding=_holding(observed, request, grant, now, leaving=True))
    return Entry(waiting=request) if wanted and not over else Entry()


def last_told(observed: Observed) -> Told | None:
    """What the status says to a waiting job: a new operator need not tell thousands at once what they know."""
    queue, told = observed.status.get("queue") or {}, condition(observed.job, "Admitted")
    if told is None or told["reason"] != queue.get("reason"):
        return None
    return Told(
        reason=Reason(told["reason"], told["message"]),
        place=Place(queue["position"], queue["length"]) if "position" in queue else None,
        start=parse_time(queue["estimatedStartTime"]) if "estimatedStartTime" in queue else None,
        basis=Basis(queue["estimateBasis"]) if "estimateBasis" in queue else None,
    )


def _gave_up(request: Request, now: datetime) -> bool:
    """Whether a job whose Job could not be made has given up its turn: no other is given before its delay is over."""
    return not request.made and request.not_before is not None and request.not_before > now


def is_wanted(observed: Observed) -> bool:
    """Whether a job is to run, now or when its turn comes."""
    spec = observed.spec
    leaving = "deletionTimestamp" in observed.job["metadata"] or is_final(observed)
    return not (leaving or spec.suspend or spec.stop is not None)


def _holds_on(observed: Observed) -> bool:
    """Whether a pod of a job that is not to run any more is still there."""
    status = (observed.child or {}).get("status") or {}
    busy = bool(status.get("active") or status.get("terminating"))
    return busy or any(not pod_ended(pod) for pod in observed.pods)


def _request(observed: Observed, stamp: datetime, now: datetime, past: History) -> Request:
    resources = observed.spec.resources
    pool = pool_of(resources)
    return Request(
        uid=observed.uid,
        namespace=observed.job["metadata"]["namespace"],
        pool=pool,
        gpus=resources.gpus,
        nodes=resources.nodes,
        priority=observed.spec.queue.priority,
        enqueued=stamp,
        seconds=_limit(observed),
        expected=_expected(observed) or past(pool, _spent(observed, now)),
        needs=pod_needs(resources.gpus, resources.gpu_resource, resources.cpu_limit, resources.memory_limit),
        made=observed.child is not None,
        **_setback(observed),
    )


def _setback(observed: Observed) -> Object:
    """When and why a job whose starts came to nothing is to wait."""
    failed = (observed.status.get("queue") or {}).get("failedStarts")
    return {"not_before": parse_time(failed["notBefore"]), "setback": failed["message"]} if failed else {}


def _limit(observed: Observed) -> float | None:
    """Seconds of running left under activeDeadlineSeconds, and the grace to save in."""
    limit = observed.spec.active_deadline_seconds
    if limit is None:
        return None
    return max(0.0, float(limit) - _recorded(observed)) + observed.spec.checkpoints.grace_period_seconds


def seconds_run(observed: Observed, now: datetime) -> float:
    """Seconds that a job's containers ran, in all."""
    return _recorded(observed) + _spent(observed, now)


def _recorded(observed: Observed) -> float:
    return float((observed.status.get("attemptCounts") or {}).get("runningSeconds", 0))


def _expected(observed: Observed) -> Expectation | None:
    """What the job's own progress says of the time that is left."""
    left = (observed.status.get("progress") or {}).get("remainingSeconds")
    return None if left is None else Expectation(float(left), Basis.PROGRESS)


def _holding(observed: Observed, request: Request, grant: Grant | None, now: datetime, *, leaving: bool) -> Admitted:
    grace = float(observed.spec.checkpoints.grace_period_seconds)
    spent = _spent(observed, now)
    limit = None if request.seconds is None else max(grace, request.seconds - spent)
    remaining = request.expected
    if remaining is not None:
        remaining = remaining._replace(seconds=max(0.0, remaining.seconds - _age(observed, remaining, spent, now)))
    elif limit is not None:
        remaining = Expectation(limit, Basis.DEADLINE)
    if leaving:
        limit, remaining = grace, Expectation(grace, Basis.PROGRESS)
    return Admitted(
        request=request,
        placement=grant.nodes if grant else (),
        since=grant.since if grant else _since(observed, now),
        remaining=remaining,
        limit=limit,
        leaving=leaving,
        pods=sum(not pod_ended(pod) for pod in observed.pods),
        done=sum(pod.get("status", {}).get("phase") == "Succeeded" for pod in observed.pods),
    )


def _spent(observed: Observed, now: datetime) -> float:
    """Seconds the present attempt has run, by its pods: status and Job tell later, and seconds later under load."""
    last = (observed.status.get("attempts") or [{}])[-1]
    if "finishedAt" in last:
        return 0.0
    mine = (pod for pod in observed.pods if "podUID" not in last or pod["metadata"].get("uid") == last["podUID"])
    states = [container_state(pod) for pod in mine]
    told = [state[kind] for state in states for kind in ("running", "terminated") if kind in state]
    started = [entry["startedAt"] for entry in (last, *told) if entry.get("startedAt")]
    ended = [entry["finishedAt"] for entry in told if entry.get("finishedAt")]
    if not started:
        return 0.0
    end = max(map(parse_time, ended)) if ended and len(ended) == len(states) else now
    return max(0.0, (end - min(map(parse_time, started))).total_seconds())


def _age(observed: Observed, expected: Expectation, spent: float, now: datetime) -> float:
    """Seconds since an expectation was made: at the last report, or at the start."""
    updated = (observed.status.get("progress") or {}).get("updatedAt")
    if expected.basis is Basis.PROGRESS and updated:
        return seconds_between(updated, now.isoformat())
    return spent


def _since(observed: Observed, now: datetime) -> datetime:
    """When a job was let in, as far as its Job tells."""
    if observed.child is None:
        return now
    return parse_time(observed.child["metadata"]["creationTimestamp"])
