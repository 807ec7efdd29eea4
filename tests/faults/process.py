"""Real operator processes that restart within milliseconds: forked from a process that has imported all modules."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.chart_support import ROOT
from tests.api.gateway_support import TIMEOUT, fetch, free_port, until
from tests.api.operator_support import IMAGE
from tests.api.supervised import SupervisedProcess
from tests.queueing.clock import move

_FORKS = multiprocessing.get_context("forkserver")
_PATHS = [str(ROOT), *(str(ROOT / name) for name in ("crds", "kube", "operator", "hack"))]


def _run(environment: dict[str, str], log: str, resync_period: float | None) -> None:
    """Run the operator in a forked process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    from trainyard_kube import resync
    from trainyard_operator import main

    if "CAMPAIGN_CLOCK" in environment:
        move(environment["CAMPAIGN_CLOCK"])
    if resync_period is not None:
        resync.PERIOD = resync.SUSPICIOUS_PERIOD = resync_period
        resync.GRACE = 2.5
    sys.exit(main.main())


class OperatorProcess(SupervisedProcess):
    """An operator process that can be killed at any instant.

    Args:
        kubeconfig: Kubeconfig of the API server.
        folder: Folder of the log.
        identity: Identity in the Lease.
        resync_period: Seconds between resyncs. Default: minutes, as in production.
        environment: More environment variables.
    """

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        identity: str = "one",
        resync_period: float | None = None,
        **environment: str,
    ) -> None:
        super().__init__()
        self.log_file, self._resync_period = folder / f"operator-{identity}.log", resync_period
        self.health_port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(kubeconfig),
            "TRAINYARD_NAMESPACE": SYSTEM,
            "TRAINYARD_IDENTITY": identity,
            "TRAINYARD_TRAINER_IMAGE": IMAGE,
            "TRAINYARD_OPERATOR_IMAGE": "registry.local/trainyard-operator:1",
            "TRAINYARD_SERVING_GPU_IMAGE": "registry.local/vllm:1",
            "TRAINYARD_SERVING_CPU_IMAGE": "registry.local/trainyard-server:1",
            "TRAINYARD_HEALTH_PORT": str(self.health_port),
            **environment,
        }
        self.starts = 0
        self._guard = threading.Lock()
        self.start()

    def start(self) -> None:
        """Fork a new process."""
        warm_up()
        self.starts += 1
        arguments = (self.environment, str(self.log_file), self._resync_period)
        self.process = _FORKS.Process(target=_run, args=arguments, daemon=True)
        self.process.start()
        self.supervise()

    def is_running(self) -> bool:
        return self.process.is_alive()

    def crash(self) -> None:
        """Kill the process with SIGKILL and start it again at once."""
        with self._guard:
            self.kill()
            self.start()

    def restart_if_ended(self) -> None:
        """Start the process again if it has exited, as a kubelet would."""
        if not self.is_running():
            self.start()

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.unsupervise()
        self.process.kill()
        self.process.join(TIMEOUT)

    def stop(self) -> int | None:
        """Stop the process with SIGTERM and return its exit status."""
        self.unsupervise()
        self.process.terminate()
        self.process.join(TIMEOUT)
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and stop to supervise the process."""
        self.unsupervise()
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for_leadership(self) -> None:
        """Wait until the operator leads.

        Raises:
            AssertionError: The process exited, or a timeout has passed.
        """
        until(lambda: self.has_failed() or self.leads())
        assert not self.has_failed(), self.log()

    def leads(self) -> bool:
        """Return whether the operator holds the Lease."""
        return "trainyard_leader 1.0" in fetch(self.health_port, "/metrics")[1]

    def log(self) -> str:
        """Return the complete output of all its processes."""
        return self.log_file.read_text() if self.log_file.exists() else ""


def warm_up() -> None:
    """Start the fork server, which imports all modules once."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(_PATHS)  # the fork server reads the path only from here
    try:
        set_forkserver_preload(["trainyard_operator.main", "kubernetes.aio.client", "kubernetes.aio.config"])
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
