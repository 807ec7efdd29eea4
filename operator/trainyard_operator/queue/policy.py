"""How the queue is run: what an administrator sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The queue's settings.

    Attributes:
        held: Whether nothing is let in (maintenance); what runs goes on.
        backfill: Whether a job may pass a blocked one that it cannot delay.
        preemption: Whether a blocked job may suspend running ones of strictly lower priority.
        namespace_gpus: Most GPUs that a namespace's jobs may hold together.
        default_namespace_gpus: The same for namespaces that are not named; None for no limit.
        start_seconds: Seconds within which the pods of a job that was let in have to get their nodes, or it gives its
            GPUs back; None for no limit.
    """

    held: bool = False
    backfill: bool = False
    preemption: bool = False
    namespace_gpus: Mapping[str, int] = field(default_factory=dict)
    default_namespace_gpus: int | None = None
    start_seconds: int | None = 300

    def cap(self, namespace: str) -> int | None:
        """Most GPUs a namespace may hold; None for no limit."""
        return self.namespace_gpus.get(namespace, self.default_namespace_gpus)
