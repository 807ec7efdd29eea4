"""The interface of an admission backend."""

from __future__ import annotations

from typing import Any, Protocol

from trainyard_kube.resource import Key
from trainyard_operator.admission.candidate import Candidate
from trainyard_operator.admission.decision import Admission
from trainyard_operator.queue.inventory import Inventory
from trainyard_operator.queue.quota import Quotas

Object = dict[str, Any]


class AdmissionController(Protocol):
    """Decides which objects may start.

    Attributes:
        inventory: Nodes and the pods that hold GPUs; fed from outside.
        quotas: ResourceQuotas; fed from outside.
    """

    inventory: Inventory
    quotas: Quotas

    async def run(self) -> None:
        """Run the background tasks of the backend, without end."""

    def mark_dirty(self, key: Key) -> None:
        """Note that an object or its children changed."""

    def capacity_changed(self) -> None:
        """Note that the inventory or the quotas changed."""

    def observe_workload(self, workload: Object) -> None:
        """Take the API server's response to a change of a Kueue Workload."""

    def decide(self, candidate: Candidate) -> Admission:
        """Return the decision about one object."""

    def is_admitted_pending(self, key: Key) -> bool:
        """Return whether an object is admitted and its child Job has yet to be created or resumed."""

    def is_waiting(self, key: Key) -> bool:
        """Return whether an object waits for admission."""

    def count_waiting(self) -> dict[str, int]:
        """Return the number of waiting objects by pool or LocalQueue."""

    def describe(self) -> Object:
        """Return the exact queue for the debug endpoint."""
