"""A control plane with fake nodes, a history of its changes, and operators that scenarios kill."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import service_account
from tests.api.supervised import SupervisedProcess
from tests.faults.process import OperatorProcess
from tests.queueing.history import History
from tests.queueing.load import CLAIM

_QUIET_SECONDS = 2.0
"""Seconds without a change of a job or pod after which a run is over."""
_SHOWN = 5
"""Problems of one kind that a report prints."""


@dataclass(kw_only=True)
class Report:
    """Result of a scenario.

    Attributes:
        name: The scenario's.
        problems: Violations, in sentences.
        figures: Measurements by name.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"== {self.name}: {'FAILED' if self.problems else 'good'}"]
        lines += [f"  {name:48} {value}" for name, value in self.figures.items()]
        kinds: dict[str, list[str]] = {}
        for problem in self.problems:
            kinds.setdefault(re.sub(r"\S*\d\S*", "#", problem)[:60], []).append(problem)
        for found in kinds.values():
            lines += [f"  PROBLEM: {problem}" for problem in found[:_SHOWN]]
            lines += [f"  ... and {len(found) - _SHOWN} more of this kind"] if len(found) > _SHOWN else []
        return "\n".join(lines)


@dataclass(kw_only=True)
class CampaignCluster:
    """Control plane of a scenario.

    Attributes:
        kubernetes: The control plane.
        folder: Logs and kubeconfigs.
        nodes: Number of fake nodes of 8 GPUs.
    """

    kubernetes: Kubernetes
    folder: Path
    nodes: int

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * 8

    @contextmanager
    def operator(self, identity: str = "one", **environment: str) -> Iterator[OperatorProcess]:
        """Run an operator with the chart's permissions and its own token."""
        home = self.folder / identity
        home.mkdir(exist_ok=True)
        config = service_account(self.kubernetes, home)
        operator = OperatorProcess(config, self.folder, identity, None, **environment)
        try:
            yield operator
        finally:
            operator.kill()

    @contextmanager
    def history(self) -> Iterator[History]:
        """Record all changes from now on."""
        history = History(self.kubernetes)
        try:
            yield history
        finally:
            history.stop()


@contextmanager
def campaign_cluster(name: str, folder: Path, *, nodes: int, seconds: Mapping[str, float]) -> Iterator[CampaignCluster]:
    """Start a control plane with namespaces whose pods run for a given number of seconds."""
    with kwok_support.control_plane(name, nodes=nodes, seconds=seconds) as kubernetes:
        for namespace in seconds:
            kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
        yield CampaignCluster(kubernetes=kubernetes, folder=folder, nodes=nodes)


class StalledError(AssertionError):
    """No TrainingJob has ended for too long."""


def until_ended(
    history: History, count: int, *, stall_timeout: float = 300.0, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait until `count` TrainingJobs have ended and their last events are recorded.

    Args:
        history: Recorder of changes.
        count: TrainingJobs that must end.
        stall_timeout: Longest time without an end, in seconds.
        meanwhile: Called several times a second.

    Raises:
        StalledError: no TrainingJob ended within the stall timeout.
    """
    ended, since = -1, time.monotonic()
    while len(history.ended) < count:
        if len(history.ended) != ended:
            ended, since = len(history.ended), time.monotonic()
        if time.monotonic() - since > stall_timeout:
            raise StalledError(
                f"{count - ended} of {count} TrainingJobs have not ended, and none for {stall_timeout:.0f} s"
            )
        meanwhile()
        SupervisedProcess.restart_all_lost()
        time.sleep(0.1)
    until(lambda: history.is_quiet(_QUIET_SECONDS))  # a late change would be a violation that the checks report
    until(history.is_complete)
