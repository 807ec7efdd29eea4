"""Real operator processes that cost milliseconds to start again: forked from a process that has imported everything."""

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
from tests.api.supervised import Attended
from tests.queueing.clock import move

_FORKS = multiprocessing.get_context("forkserver")
_PATHS = [str(ROOT), *(str(ROOT / name) for name in ("crds", "kube", "operator", "hack"))]


def _run(environment: dict[str, str], log: str, resync_period: float | None) -> None:
    """The operator's process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    from trainyard_operator import main
    from trainyard_operator.kube import resync

    if "CAMPAIGN_CLOCK" in environment:
        move(environment["CAMPAIGN_CLOCK"])
    if resync_period is not None:
        resync.PERIOD = resync._SUSPICIOUS_PERIOD = resync_period
        resync.GRACE = 2.5
    sys.exit(main.main())


class OperatorProcess(Attended):
    """An operator that can be killed at any instant.

    Args:
        kubeconfig: How it reaches the API server.
        folder: Where its log goes.
        identity: Its name in the Lease.
        resync_period: Seconds between complete lists, instead of the minutes of a real one.
        environment: More settings.
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
        self.attend()

    def runs(self) -> bool:
        return self.process.is_alive()

    def crash(self) -> None:
        """kill -9, and start again at once."""
        with self._guard:
            self.kill()
            self.start()

    def revive(self) -> None:
        """Start again if it ended, as a kubelet would."""
        if not self.runs():
            self.start()

    def kill(self) -> None:
        """kill -9."""
        self.leave()
        self.process.kill()
        self.process.join(TIMEOUT)

    def stop(self) -> int | None:
        """SIGTERM; the exit status."""
        self.leave()
        self.process.terminate()
        self.process.join(TIMEOUT)
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nobody looks after it any more."""
        self.leave()
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for_leadership(self) -> None:
        """Wait until it leads.

        Raises:
            AssertionError: it ended, or it takes too long.
        """
        until(lambda: self.has_failed() or self.leads())
        assert not self.has_failed(), self.log()

    def leads(self) -> bool:
        """Whether it holds the Lease."""
        return "trainyard_leader 1.0" in fetch(self.health_port, "/metrics")[1]

    def log(self) -> str:
        """All it ever wrote."""
        return self.log_file.read_text() if self.log_file.exists() else ""


def warm_up() -> None:
    """Let the process that all are forked from import everything once."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(_PATHS)  # it learns the path from nowhere else
    try:
        set_forkserver_preload(["trainyard_operator.main", "kubernetes.aio.client", "kubernetes.aio.config"])
        multiprocessing.forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
