"""Entry point of the operator: settings, signals, the API server, exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVarTuple, Unpack

from trainyard_crds import logs
from trainyard_crds.constants import FIELD_MANAGER
from trainyard_kube.client import KubeClient, connect
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ConfigurationError, KubeError, NotFoundError
from trainyard_operator import gc_tuning
from trainyard_operator.assembly import Operator
from trainyard_operator.errors import ClusterNotReadyError, OperatorError, SettingsError
from trainyard_operator.settings import Settings, load

Ts = TypeVarTuple("Ts")

EXIT_STOPPED, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, os.EX_CONFIG


def main() -> int:
    """Run the operator until SIGTERM.

    Returns:
        0 after SIGTERM or SIGINT, 78 when the configuration cannot be used, 1 after a fault.
    """
    try:
        settings = load()
        # At INFO kopf logs every event; at DEBUG whole bodies, which may contain secrets.
        logs.configure(settings.log_level, quiet=["kopf"])
        gc_tuning.reduce_collections()
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(_run(settings))
    except (SettingsError, ClusterNotReadyError, ConfigurationError) as error:
        sys.stderr.write(f"trainyard-operator: {error}\n")
        return EXIT_MISCONFIGURED
    except (OperatorError, KubeError, OSError) as error:
        sys.stderr.write(f"trainyard-operator: {error}\n")
        return EXIT_FAILED
    return EXIT_STOPPED


class _Loop(asyncio.SelectorEventLoop):
    """Keeps the first handler of each signal: kopf sets its own, but the workers must end before its watches."""

    def __init__(self) -> None:
        super().__init__()
        self._handled: set[int] = set()

    def add_signal_handler(self, sig: int, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """Set a signal's handler unless it has one."""
        if sig not in self._handled:
            self._handled.add(sig)
            super().add_signal_handler(sig, callback, *args)


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clock = ServerClock()
    kube = await connect(settings.kubeconfig, clock, FIELD_MANAGER)
    try:
        await check_cluster(kube)
        await Operator(settings, kube, clock, stop).run()
    finally:
        await kube.close()


async def check_cluster(kube: KubeClient) -> None:
    """Check that the API server serves TrainingJobs; kopf would wait for the kind without logging it.

    Raises:
        ClusterNotReadyError: it does not.
        ApiError: it did not answer.
    """
    try:
        served = await kube.get("/apis/trainyard.dev/v1alpha1")
    except NotFoundError:
        served = {}
    if all(resource["name"] != "trainingjobs" for resource in served.get("resources", [])):
        raise ClusterNotReadyError(
            "the API server does not know TrainingJobs (trainyard.dev/v1alpha1). Install the CRD first: "
            "kubectl apply --server-side -f crds/manifests/trainingjobs.yaml, or the Helm chart with crds.install=true"
        )
