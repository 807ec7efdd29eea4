"""A control plane with fake nodes, a history of all that happens there, and operators to torment."""

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
from tests.api.supervised import Attended
from tests.faults.process import OperatorProcess
from tests.queueing.history import History
from tests.queueing.load import CLAIM

_SHOWN = 5
"""Problems of a kind that a report prints."""


@dataclass(kw_only=True)
class Report:
    """What a scenario found.

    Attributes:
        name: The scenario's.
        problems: What must not be.
        figures: What was measured, by its name.
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
    """What a scenario works on.

    Attributes:
        kubernetes: The control plane.
        folder: For logs and kubeconfigs.
        nodes: How many fake nodes of 8 GPUs there are.
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
        """An operator with the permissions of the chart, and a token of its own."""
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
        """All changes from now on."""
        history = History(self.kubernetes)
        try:
            yield history
        finally:
            history.stop()


@contextmanager
def campaign_cluster(name: str, folder: Path, *, nodes: int, seconds: Mapping[str, float]) -> Iterator[CampaignCluster]:
    """A control plane of its own, with namespaces whose pods run for so many seconds."""
    with kwok_support.control_plane(name, nodes=nodes, seconds=seconds) as kubernetes:
        for namespace in seconds:
            kwok_support.prepare_namespace(kubernetes, namespace, CLAIM)
        yield CampaignCluster(kubernetes=kubernetes, folder=folder, nodes=nodes)


class StalledError(AssertionError):
    """Nothing has ended for too long."""


def until_ended(
    history: History, count: int, *, stall_timeout: float = 300.0, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait until so many TrainingJobs have ended, and then until their last events are in.

    Args:
        history: What happens.
        count: How many are to end.
        stall_timeout: Seconds without an end after which the rest is lost.
        meanwhile: Called some times a second.

    Raises:
        StalledError: the rest does not end.
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
        Attended.look_after_all()
        time.sleep(0.1)
    time.sleep(2.0)  # for what may come afterwards, and must not
    until(history.is_complete)
