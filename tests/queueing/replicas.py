"""Two replicas: one leader at a time, one writer at a time, and the time of a failover."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import requests_by
from tests.faults.process import OperatorProcess
from tests.queueing import load, scenarios
from tests.queueing.cluster_fixture import CampaignCluster, Report

Object = dict[str, Any]
_LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/trainyard/leases/trainyard-operator"
_USER = "system:serviceaccount:trainyard:trainyard-operator"
_WRITES = ("create", "update", "patch", "delete")
_TOKEN = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True, kw_only=True)
class Write:
    """One write of an operator, except to Leases.

    Attributes:
        at: When the API server received it.
        token: Token of the replica; each has its own.
        what: Verb, resource and name.
    """

    at: str
    token: str
    what: str


def writes(kubernetes: Kubernetes) -> list[Write]:
    """Return all successful writes of all replicas."""
    found = []
    for entry in requests_by(kubernetes, _USER):
        target = entry.get("objectRef") or {}
        if entry["verb"] in _WRITES and target.get("resource") != "leases" and entry["responseStatus"]["code"] < 400:
            what = f"{entry['verb']} {target.get('resource')}/{target.get('name', '')}"
            token = (entry["user"].get("extra") or {}).get(_TOKEN, [""])[0]
            found.append(Write(at=entry["requestReceivedTimestamp"], token=token, what=what))
    return sorted(found, key=lambda write: write.at)


def turns(found: Iterable[Write]) -> list[str]:
    """Return the tokens in the order of their writes; with one writer at a time, none appears twice."""
    order: list[str] = []
    for write in found:
        if not order or order[-1] != write.token:
            order.append(write.token)
    return order


def two_replicas(cluster: CampaignCluster, *, jobs: int, seed: int) -> Report:
    """Kill the leader, then stop the next one for longer than its Lease: writers must not overlap."""
    report = Report(name=f"replicas: {jobs} jobs on {cluster.nodes} nodes, seed {seed}")
    with cluster.operator("one") as one, cluster.operator("two") as two, cluster.history() as history:
        until(lambda: holder(cluster.kubernetes) != "")
        first, second = (one, two) if holder(cluster.kubernetes) == "one" else (two, one)
        first.wait_for_leadership()
        load.create(cluster.kubernetes, load.mixed(jobs, seed=seed, namespaces=list(scenarios.SECONDS)))
        report.figures["failover after a kill (s)"] = f"{_moved(first, second, signal.SIGKILL):.1f}"
        first.process.join()
        with cluster.operator("three") as third:
            until(lambda: len(history.ended) > jobs // 2)
            report.figures["failover after a stop (s)"] = f"{_moved(second, third, signal.SIGSTOP):.1f}"
            time.sleep(2.0)
            before = len(second.log())
            second.signal(signal.SIGCONT)
            until(lambda: not second.process.is_alive())
            report.figures["last log line of the stopped one"] = second.log()[before:].strip().splitlines()[-1][-160:]
            scenarios.finish(report, history, jobs)
    changes = history.changes()
    scenarios.safe(report, history, changes)
    found = writes(cluster.kubernetes)
    order = turns(found)
    report.figures["writes, of how many writers"] = f"{len(found)}, {len(order)}"
    if len(order) != 3 or "" in order:
        report.problems.append(f"three replicas led, but the writers were {order}")
    return report


def holder(kubernetes: Kubernetes) -> str:
    """Return the holder of the Lease."""
    if not kubernetes.client.exists(_LEASE_PATH):
        return ""
    return str(kubernetes.client.get(_LEASE_PATH)["spec"].get("holderIdentity") or "")


def _moved(leader: OperatorProcess, other: OperatorProcess, number: signal.Signals) -> float:
    """Signal the leader and return the seconds until another replica leads."""
    began = time.monotonic()
    leader.signal(number)
    other.wait_for_leadership()
    return time.monotonic() - began
