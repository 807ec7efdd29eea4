"""An operator behind a proxy: learns a run without faults, repeats it with one, compares what is left."""

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
from tests.api.operator_support import NODE, Team, namespace_of_a_team, service_account
from tests.faults.plan import KILLS, Action, Fault, Request, WatchFault
from tests.faults.process import OperatorProcess
from tests.faults.proxy import Proxy
from tests.faults.scenarios import NAME, SCENARIOS, event_reasons, final_state

Object = dict[str, Any]
MOST_REQUESTS = 3
"""How many times as many requests a life may cost as one without faults."""
_CALM = 0.5
"""Seconds after which an operator that has nothing to do has done it."""
_QUIET = 3.0
"""The same for what all others are compared with, and for a busy machine."""


@dataclass(frozen=True, order=True)
class Position:
    """One write of a scenario: the n-th that does this.

    Attributes:
        scenario: Key of SCENARIOS.
        label: What the write does.
        occurrence: Which one of those, from 1.
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
        positions: Its writes.
        events: Watch events by resource.
        state: What was left.
        reasons: Events written about the job.
        requests: How many it cost.
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
        what: The fault, in words.
        reached: Whether it happened.
        problems: What was different; empty when all is well.
        lost: Attempts whose end nobody saw: the pod was removed while no operator ran. The status says so.
        seconds: How long it took.
    """

    what: str
    reached: bool
    problems: list[str] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0


class Bench:
    """One control plane, one proxy, one operator.

    Args:
        kubernetes: The control plane, prepared.
        proxy: In front of it.
        operator: Behind the proxy.
    """

    def __init__(self, kubernetes: Kubernetes, proxy: Proxy, operator: OperatorProcess) -> None:
        self.kubernetes, self.proxy, self.operator = kubernetes, proxy, operator
        self._references: dict[str, Reference] = {}
        proxy.kill = operator.crash

    def reference(self, scenario: str) -> Reference:
        """The run without faults, made once."""
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
        """What is left, and the Events, when neither changes any more and the Event of the last phase is there."""
        before = None
        while (now := (final_state(team), Counter(event_reasons(team)))) != before:
            before = now
            until(lambda: {job["status"]["phase"] for job in final_state(team)["jobs"]} <= set(event_reasons(team)))
            self.calm(team.namespace, _QUIET)
        return now

    def _about(self, team: Team) -> list[Request]:
        return [each for each in self.proxy.requests if each.namespace == team.namespace]

    def strike(self, position: Position, action: Action) -> Outcome:
        """Repeat a scenario with a fault at one of its writes."""
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

    def miss(self, scenario: str, resource: str, nth: int, hold: float | None) -> Outcome:
        """Repeat a scenario without one of its watch events, or with all late from there on."""
        with self.team() as team:
            fault = WatchFault(resource=resource, namespace=team.namespace, nth=nth, hold=hold)
            self.proxy.watch_faults.append(fault)
            done = "dropped" if hold is None else f"held for {hold:.0f} s"
            try:
                return self._run(scenario, team, f"{scenario}: event {nth} of {resource} {done}", fault)
            finally:
                self.proxy.watch_faults.remove(fault)

    def calm(self, namespace: str, seconds: float = _CALM) -> None:
        """Wait until nothing was asked about a namespace for some time."""
        until(lambda: all(time.monotonic() - each.at > seconds for each in self._latest(namespace)))

    def _latest(self, namespace: str) -> list[Request]:
        return [each for each in self.proxy.requests if each.namespace == namespace and not each.watch][-1:]

    def wait_for_lists(self, after: int, times: int = 1) -> None:
        """Wait until a resync has listed every kind, and has waited for late events, that often from a request on.

        A new process lists twice before its first resync: once itself, once through kopf.
        """

        def listed() -> bool:
            lists = Counter(each.resource for each in self.proxy.requests[after:] if each.is_list_of_all)
            return all(lists[kind] > times for kind in ("trainingjobs", "jobs", "pods"))

        until(listed)

    def wait_for_renewals(self, after: int, times: int) -> None:
        """Wait until the Lease was renewed that often (each 2 s) from a request on."""

        def renewed() -> bool:
            return sum(each.is_write and each.resource == "leases" for each in self.proxy.requests[after:]) >= times

        until(renewed)

    def _run(self, scenario: str, team: Team, what: str, fault: Fault | WatchFault, *, kills: bool = False) -> Outcome:
        reference, began, starts = self.reference(scenario), time.monotonic(), self.operator.starts - self.operator.lost
        outcome = Outcome(what=what, reached=False)
        try:
            SCENARIOS[scenario](team)
        except AssertionError as late:
            outcome.problems.append(f"it did not go on: {late}")
        self.calm(team.namespace)
        outcome.reached = bool(fault.done)
        if kills and outcome.reached:
            self.operator.wait_for_leadership()
            self.calm(team.namespace)
        outcome.problems += self._differences(team, reference, outcome if kills else None)
        if self.operator.starts - self.operator.lost > starts + kills or self.operator.has_failed():
            outcome.problems.append("the operator ended on its own")
            self.operator.crash()
        outcome.seconds = time.monotonic() - began
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
            problems.append(f"Events that a run without faults does not have: {dict(surplus)}")
        count, most = len(self._about(team)), MOST_REQUESTS * reference.requests
        if count > most:
            problems.append(f"{count} requests, at most {most} allowed")
        return problems

    def team(self) -> AbstractContextManager[Team]:
        """A namespace of its own."""
        return namespace_of_a_team(self.kubernetes, NAME)


def without_lost_ends(expected: Object, found: Object) -> tuple[int, Object]:
    """How many attempts were recorded as PodLost, and what is expected then: all else is the same."""
    expected = copy.deepcopy(expected)
    lost = 0
    for wanted, job in zip(expected["jobs"], found["jobs"], strict=False):
        for number, attempt in enumerate(job["status"].get("attempts", [])[: len(wanted["status"]["attempts"])]):
            if attempt.get("reason") == "PodLost":
                wanted["status"]["attempts"][number] = attempt
                lost += 1
    return lost, expected


def _positions(scenario: str, writes: list[Request]) -> Iterator[Position]:
    seen: Counter[str] = Counter()
    for write in writes:
        seen[write.label] += 1
        yield Position(scenario, write.label, seen[write.label])


@contextmanager
def prepared(name: str) -> Iterator[Kubernetes]:
    """A control plane with a node without a kubelet."""
    with plane(name) as kubernetes:
        kubernetes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        yield kubernetes


@contextmanager
def bench(kubernetes: Kubernetes, folder: Path, resync_period: float | None = None) -> Iterator[Bench]:
    """A proxy and an operator that leads, for as long as the context lasts."""
    account = service_account(kubernetes, folder)
    with Proxy(kubernetes.cluster.server, kubernetes.cluster.ca, folder) as proxy:
        operator = OperatorProcess(proxy.kubeconfig(account), folder, resync_period=resync_period)
        try:
            operator.wait_for_leadership()
            yield Bench(kubernetes, proxy, operator)
        finally:
            operator.kill()
