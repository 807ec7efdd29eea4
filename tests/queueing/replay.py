"""State of the cluster after each change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tests.queueing.history import Change, Job, Node, Pod, TrainingJob

ChangeT = TypeVar("ChangeT", bound=Change)


class ClusterState:
    """The newest version of every object."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.jobs: dict[str, Job] = {}
        self.open_jobs: dict[str, Job] = {}
        self.training: dict[str, TrainingJob] = {}
        self.held: Counter[str] = Counter()
        self.pods_of: dict[str, dict[str, Pod]] = {}
        self.ever: dict[str, Node] = {}

    def apply(self, change: Change) -> None:
        """Apply one change."""
        if isinstance(change, Pod):
            self._apply_pod(change)
        elif isinstance(change, Node):
            self.ever[change.name] = change
            _put(self.nodes, change.name, change)
        elif isinstance(change, Job):
            _put(self.jobs, change.uid, change)
            self.open_jobs.pop(change.uid, None)
            if change.open:
                self.open_jobs[change.uid] = change
        elif isinstance(change, TrainingJob):
            _put(self.training, change.uid, change)

    def _apply_pod(self, pod: Pod) -> None:
        before = self.pods.get(pod.uid)
        if before is not None and before.holds:
            self.held[before.node] -= before.gpus
        if pod.holds:
            self.held[pod.node] += pod.gpus
        _put(self.pods, pod.uid, pod)
        if pod.job:
            self.pods_of.setdefault(pod.job, {})[pod.uid] = pod

    def free(self, selector: dict[str, str] | None = None) -> dict[str, int]:
        """Return the free GPUs of each schedulable node with these labels."""
        wanted = (selector or {}).items()
        return {
            node.name: max(0, node.gpus - self.held[node.name])
            for node in self.nodes.values()
            if node.open and node.gpus and wanted <= dict(node.labels).items()
        }

    def unbound(self, job: Job) -> int:
        """Return the number of pods of an open Job that hold no GPUs yet, or were lost and will be replaced."""
        training = self.training.get(job.job)
        if training is None or not job.open:
            return 0
        mine = self.pods_of.get(job.job, {}).values()
        if any(pod.phase == "Succeeded" for pod in mine):
            return 0  # one succeeded pod ends the Job
        return max(0, training.nodes - sum(pod.holds for pod in mine))


def replay(changes: Iterable[Change]) -> Iterator[tuple[Change, ClusterState]]:
    """Yield each change with the state after it."""
    state = ClusterState()
    for change in changes:
        state.apply(change)
        yield change, state


def _put(table: dict[str, ChangeT], key: str, change: ChangeT) -> None:
    if change.gone:
        table.pop(key, None)
    else:
        table[key] = change
