"""Chooses the admission backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock, monotonic
from trainyard_kube.resource import Key
from trainyard_operator.admission.builtin.controller import BuiltinAdmission
from trainyard_operator.admission.candidate import ObserveCandidate, observe_by_kind
from trainyard_operator.admission.controller import AdmissionController
from trainyard_operator.admission.kueue.controller import KueueAdmission
from trainyard_operator.admission.policy_file import PolicyFile
from trainyard_operator.settings import KUEUE, Settings


def create_admission(
    settings: Settings,
    kube: KubeClient,
    clock: ServerClock,
    *,
    policy: PolicyFile,
    adapters: Mapping[str, ObserveCandidate],
    add: Callable[[Key], None],
) -> AdmissionController:
    """Create the backend that the settings name.

    Args:
        settings: The operator's settings.
        kube: The API server.
        clock: The time.
        policy: The administrator's settings of the builtin queue.
        adapters: Readers of the kinds that pass the queue, by the plural name of the kind.
        add: Queues an object for reconciliation.
    """
    observe = observe_by_kind(adapters)
    if settings.queue_mode == KUEUE:
        return KueueAdmission(
            kube, observe=observe, add=add, now=clock.now, clock=monotonic, default_queue=settings.local_queue
        )
    return BuiltinAdmission(observe=observe, add=add, now=clock.now, clock=monotonic, policy=policy)
