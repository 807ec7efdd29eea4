"""TrainingJobs in the builtin queue of a control plane with fake nodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.api import kwok_support
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Operator
from tests.api.status_history_support import StatusHistory

Object = dict[str, Any]


class QueueCluster:
    """TrainingJobs of one namespace whose pods run until they are deleted.

    Args:
        kubernetes: A control plane with fake nodes.
        operator: The operator.
        namespace: The namespace.
        claim: A claim in it for models, rows and runs.
    """

    def __init__(self, kubernetes: Kubernetes, operator: Operator, namespace: str, claim: str) -> None:
        self.kubernetes, self.client, self.operator = kubernetes, kubernetes.client, operator
        self.namespace, self._claim = namespace, claim
        self._jobs = f"/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs"
        self.history = StatusHistory(kubernetes, namespace)

    def submit(self, name: str, gpus: int = 1, **spec: Any) -> None:
        body = kwok_support.training_job(self.namespace, name, claim=self._claim, gpus=gpus, **spec)
        self.client.apply(f"{self._jobs}/{name}", body)

    def read(self, name: str) -> Object:
        found: Object = self.client.get(f"{self._jobs}/{name}")
        return found

    def status(self, name: str) -> Object:
        found: Object = self.read(name).get("status", {})
        return found

    def wait(self, name: str, phase: str, reason: str | None = None, **queue: Any) -> Object:
        """Wait for a phase with these values in `status.queue`."""
        wanted = queue if reason is None else {"reason": reason, **queue}

        def is_so(status: Object) -> bool:
            return status.get("phase") == phase and wanted.items() <= (status.get("queue") or {}).items()

        return self.history.wait(name, is_so)

    def delete(self, name: str) -> None:
        self.client.delete(f"{self._jobs}/{name}")

    def child(self, name: str) -> Object:
        found: Object = self.client.get(
            f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{self.status(name)['jobName']}"
        )
        return found

    def rows(self, part: str) -> dict[str, Object]:
        """Return one part of the operator's debug view of the queue, by job name."""
        return {row["name"]: row for row in self.operator.get_json("/queue")[part]}

    def holds(self, name: str) -> bool:
        return name in self.rows("holding")

    @contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """Pause a process of the control plane."""
        process = self.kubernetes.cluster.plane.processes.pid(part)
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def pods(self) -> list[Object]:
        found: list[Object] = self.client.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return found
