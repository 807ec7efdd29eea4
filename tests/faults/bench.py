"""Fault bench: an operator behind a proxy, whose runs with a fault are compared with a run without."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.gateway_support import Kubernetes, plane, until
from tests.api.operator_support import NODE, Team, service_account, team_namespace
from tests.faults.plan import KILLS, Action, Fault, Request, WatchFault
from tests.faults.process import OperatorProcess
from tests.faults.proxy import Proxy
from tests.faults.scenarios import NAME, SCENARIOS, event_reasons, final_state

Object = dict[str, Any]
MAX_REQUEST_RATIO = 3
"""Most requests of a run with a fault, relative to a run without."""
_IDLE_SECONDS = 0.5
"""Time without requests after which the operator is considered idle."""
_REFERENCE_IDLE_SECONDS = 3.0
"""The same for a reference run, and for a busy machine."""


@dataclass(frozen=True, order=True)
class Position:
    """One write of a scenario: the n-th with a label.

    Attributes:
        scenario: Key of SCENARIOS.
        label: Label of the write.
        occurrence: Number among the writes with that label, from 1.
    """

    scenario: str
    label: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.scenario}: {self.label} #{self.occurrence}"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A run without faults.

    Attributes:
        positions: The writes.
        events: Watch events by resource.
        state: Final state.
        reasons: Reasons of the job's Events.
        requests: Number of requests.
    """

    positions: tuple[Position, ...]
    events: dict[str, int]
    state: Object
    reasons: Counter[str]
    requests: int


@dataclass(kw_only=True)
class Outcome:
    """A run with a fault.

    Attributes:
        what: Description of the fault.
        reached: Whether the fault was injected.
        problems: Differences from the run without faults.
        lost: Attempts recorded as PodLost: the pod was removed while no operator ran.
        seconds: Duration.
    """

    what: str
    reached: bool
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0


class Bench:
    """One control plane, one proxy, one operator.

    Args:
        kubernetes: The prepared control plane.
        proxy: Proxy in front of it.
        operator: Operator behind the proxy.
    """

    def __init__(self, kubernetes: Kubernetes, proxy: Proxy, operator: OperatorProcess) -> None:
        self.kubernetes, self.proxy, self.operator = kubernetes, proxy, operator
        self._references: dict[str, Reference] = {}
        proxy.kill = operator.crash

    def reference(self, scenario: str) -> Reference:
        """Return the run without faults, made once per scenario."""
        if scenario not in self._references:
            with self.team() as team:
                SCENARIOS[scenario](team)
                state, reasons = self._settled(team)
                writes = self.proxy.writes(team.namespace)
                events = {kind: count for (kind, space), count in self.proxy.events.items() if space == team.namespace}
                self._references[scenario] = Reference(
                    positions=tuple(_positions(scenario, writes)),
                    events=events,
                    state=state,
                    reasons=reasons,
                    requests=len(self._about(team)),
                )
        return self._references[scenario]

    def _settled(self, team: Team) -> tuple[Object, Counter[str]]:
        """Return the final state and the Events once neither changes and the Event of the last phase exists."""
        before = None
        while (now := (final_state(team), Counter(event_reasons(team)))) != before:
            before = now
            until(lambda: {job["status"]["phase"] for job in final_state(team)["jobs"]} <= set(event_reasons(team)))
            self.wait_until_idle(team.namespace, _REFERENCE_IDLE_SECONDS)
        return now

    def _about(self, team: Team) -> list[Request]:
        return [each for each in self.proxy.requests if each.namespace == team.namespace]

    def run_with_fault(self, position: Position, action: Action) -> Outcome:
        """Run a scenario with a fault at one of its writes."""
        with self.team() as team:
            fault = Fault(
                action=action,
                at=lambda request: request.namespace == team.namespace and request.label == position.label,
                nth=position.occurrence,
            )
            self.proxy.faults.append(fault)
            try:
                return self._run(position.scenario, team, f"{action}: {position}", fault, kills=action in KILLS)
            finally:
                self.proxy.faults.remove(fault)

    def run_with_watch_fault(self, scenario: str, resource: str, nth: int, hold: float | None) -> Outcome:
        """Run a scenario with one watch event dropped, or with all events from there on delayed."""
        with self.team() as team:
            fault = WatchFault(resource=resource, namespace=team.namespace, nth=nth, hold=hold)
            self.proxy.watch_faults.append(fault)
            done = "dropped" if hold is None else f"delayed by {hold:.0f} s"
            try:
                return self._run(scenario, team, f"{scenario}: event {nth} of {resource} {done}", fault)
            finally:
                self.proxy.watch_faults.remove(fault)

    def wait_until_idle(self, namespace: str, seconds: float = _IDLE_SECONDS) -> None:
        """Wait until there was no request about a namespace for some time."""
        until(lambda: all(time.monotonic() - each.at > seconds for each in self._latest(namespace)))

    def _latest(self, namespace: str) -> list[Request]:
        return [each for each in self.proxy.requests if each.namespace == namespace and not each.watch][-1:]

    def wait_for_lists(self, after: int, times: int = 1) -> None:
        """Wait until `times` resyncs have listed every kind and waited for late events, from a request on.

        A new process lists twice before its first resync: once itself, once through kopf.
        """

        def listed() -> bool:
            lists = Counter(each.resource for each in self.proxy.requests[after:] if each.is_list_of_all)
            return all(lists[kind] > times for kind in ("trainingjobs", "jobs", "pods"))

        until(listed)

    def wait_for_renewals(self, after: int, times: int) -> None:
        """Wait until the Lease was renewed `times` times (every 2 s), from a request on."""

        def renewed() -> bool:
            return sum(each.is_write and each.resource == "leases" for each in self.proxy.requests[after:]) >= times

        until(renewed)

    def _run(self, scenario: str, team: Team, what: str, fault: Fault | WatchFault, *, kills: bool = False) -> Outcome:
        reference, started_at, starts = (
            self.reference(scenario),
            time.monotonic(),
            self.operator.starts - self.operator.lost,
        )
        outcome = Outcome(what=what, reached=False)
        try:
            SCENARIOS[scenario](team)
        except AssertionError as error:
            outcome.problems.append(f"the scenario did not complete: {error}")
        self.wait_until_idle(team.namespace)
        outcome.reached = bool(fault.done)
        if kills and outcome.reached:
            self.operator.wait_for_leadership()
            self.wait_until_idle(team.namespace)
        outcome.problems += self._differences(team, reference, outcome if kills else None)
        has_restarted = self.operator.starts - self.operator.lost > starts + kills
        if has_restarted or self.operator.has_failed():
            outcome.problems.append("the operator exited unexpectedly")
            self.operator.crash()
        outcome.seconds = time.monotonic() - started_at
        return outcome

    def _differences(self, team: Team, reference: Reference, killed: Outcome | None) -> list[str]:
        found, expected = reference.state, reference.state

        def same() -> bool:
            nonlocal found, expected
            found, expected = final_state(team), reference.state
            if killed is not None:
                killed.lost, expected = without_lost_ends(expected, found)
            return found == expected

        problems = []
        try:
            until(same)
        except AssertionError:
            different = [key for key in found if found[key] != expected[key]]
            problems += [f"{key}: {json.dumps(found[key])}, not {json.dumps(expected[key])}" for key in different]
        surplus = Counter(event_reasons(team)) - reference.reasons
        if surplus:
            problems.append(f"additional Events: {dict(surplus)}")
        count, limit = len(self._about(team)), MAX_REQUEST_RATIO * reference.requests
        if count > limit:
            problems.append(f"{count} requests, at most {limit} allowed")
        return problems

    def team(self) -> AbstractContextManager[Team]:
        """Create a namespace for a run."""
        return team_namespace(self.kubernetes, NAME)


def without_lost_ends(expected: Object, found: Object) -> tuple[int, Object]:
    """Return the number of attempts recorded as PodLost, and the expected state with these attempts."""
    expected = copy.deepcopy(expected)
    lost = 0
    for expected_job, job in zip(expected["jobs"], found["jobs"], strict=False):
        for number, attempt in enumerate(job["status"].get("attempts", [])[: len(expected_job["status"]["attempts"])]):
            if attempt.get("reason") == "PodLost":
                expected_job["status"]["attempts"][number] = attempt
                lost += 1
    return lost, expected


def _positions(scenario: str, writes: list[Request]) -> Iterator[Position]:
    seen: Counter[str] = Counter()
    for write in writes:
        seen[write.label] += 1
        yield Position(scenario, write.label, seen[write.label])


@contextmanager
def prepared(name: str) -> Iterator[Kubernetes]:
    """Start a control plane with a node that has no kubelet."""
    with plane(name) as kubernetes:
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield kubernetes


@contextmanager
def bench(kubernetes: Kubernetes, folder: Path, resync_period: float | None = None) -> Iterator[Bench]:
    """Start a proxy and an operator that leads."""
    account = service_account(kubernetes, folder)
    with Proxy(kubernetes.cluster.server, kubernetes.cluster.ca, folder) as proxy:
        operator = OperatorProcess(proxy.kubeconfig(account), folder, resync_period=resync_period)
        try:
            operator.wait_for_leadership()
            yield Bench(kubernetes, proxy, operator)
        finally:
            operator.kill()
