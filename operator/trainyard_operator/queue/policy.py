"""Queue policy: the settings of an administrator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainyard_operator.queue.elastic import ElasticPool


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Settings of the builtin queue.

    Attributes:
        held: Whether the queue admits no job (maintenance); running jobs continue.
        backfill: Whether a job may pass a blocked one that it cannot delay.
        preemption: Whether a blocked job may suspend running jobs of strictly lower priority.
        namespace_gpus: Most GPUs that the jobs of a namespace may hold together.
        default_namespace_gpus: The same for namespaces without an entry; None for no limit.
        start_seconds: Start timeout in seconds: the pods of an admitted job must be bound by then, or the admission is
            withdrawn; None for no limit.
        elastic_pools: Node groups that an autoscaler grows.
    """

    held: bool = False
    backfill: bool = False
    preemption: bool = False
    namespace_gpus: Mapping[str, int] = field(default_factory=dict)
    default_namespace_gpus: int | None = None
    start_seconds: int | None = 300
    elastic_pools: tuple[ElasticPool, ...] = ()

    def cap(self, namespace: str) -> int | None:
        """Most GPUs that a namespace may hold; None for no limit."""
        return self.namespace_gpus.get(namespace, self.default_namespace_gpus)

    def timeout(self, elastic: Iterable[ElasticPool]) -> int | None:
        """Start timeout of a job, in seconds, by the elastic pools that can serve it; None for no limit."""
        return max((pool.start_seconds for pool in elastic), default=self.start_seconds)
