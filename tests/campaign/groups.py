"""Trials with groups of two trainers: a trainer or the launcher receives a signal at a random time."""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tests.campaign.invariants import Outcome, outcome_of, resumable, resumed_from
from tests.campaign.trials import METHODS, Campaign
from tests.campaign.warm import set_up_as_pod
from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import cli
from trainyard_trainer.cli import run_command
from trainyard_trainer.group.launcher import launch
from trainyard_trainer.stop import StopFlag

PROCESSES = 2
TIMEOUT_SECONDS = 300
"""Timeout of a group whose process was killed."""


class GroupTrainer:
    """A forked launcher and its forked trainers."""

    def __init__(self, config: RunConfig) -> None:
        self.run_directory = Path(config.run_directory)
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self.pid = os.fork()
        if self.pid == 0:
            _launch(config)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def members(self) -> list[int]:
        """Return the process IDs of the running trainers."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [int(pid) for pid in text.split()]

    def wait(self) -> int:
        """Wait for the launcher and return its exit code, negative for a signal."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "the group does not exit"
            time.sleep(0.01)


def signal_group(campaign: Campaign, name: str, rng: random.Random) -> None:
    """Send a signal to some attempts of a group after a random time, then let the last attempt finish."""
    method = rng.choice(METHODS)
    expected, seconds = _reference(campaign, method)
    config = _config(campaign, name, method)
    run = Path(config.run_directory)
    for _ in range(rng.randint(1, 3)):
        found, resumes = resumable(run), resumed_from(run)
        trainer = GroupTrainer(config)
        time.sleep(rng.uniform(0, seconds))
        number, at_launcher = rng.choice([signal.SIGKILL, signal.SIGTERM]), rng.random() < 0.3
        members = trainer.members()
        target = trainer.pid if at_launcher or not members else rng.choice(members)
        _signal(target, number)
        code = trainer.wait()
        _check_end(run, code, number, launcher=target == trainer.pid)
        _check_gone(members)
        campaign.tally[f"{number.name} at a {'launcher' if target == trainer.pid else 'process'} of a group"] += 1
        assert set(resumed_from(run)[len(resumes) :]) <= {found[0] if found else ""}, f"it did not resume from {found}"
        if (run / "result.json").exists():
            break
    if not (run / "result.json").exists() or list(run.rglob(".tmp-*")):
        assert GroupTrainer(config).wait() == ExitCode.FINISHED, "the last attempt of the group failed"
    assert outcome_of(run) == expected, "the group's run differs from the uninterrupted one"
    shutil.rmtree(run.parent)


def _check_end(run: Path, code: int, number: signal.Signals, *, launcher: bool) -> None:
    if (run / "result.json").exists():
        assert code in {ExitCode.FINISHED, -number}, f"a finished run ended with {code}"
        return
    lost = -signal.SIGKILL if launcher else ExitCode.PEER_LOST
    expected = ExitCode.INTERRUPTED if number is signal.SIGTERM else lost
    assert code == expected, f"{number.name} at {'the launcher' if launcher else 'a process'} ended with {code}"


def _check_gone(members: list[int]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while left := [pid for pid in members if _runs(pid)]:
        assert time.monotonic() < deadline, f"processes {left} outlive their launcher"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reference(campaign: Campaign, method: str) -> tuple[Outcome, float]:
    """Return outcome and seconds of an uninterrupted group, made once per method."""
    if method not in campaign.groups:
        config = _config(campaign, f"uninterrupted-group-{method}", method)
        started = time.monotonic()
        assert GroupTrainer(config).wait() == ExitCode.FINISHED, "the uninterrupted run of a group failed"
        campaign.groups[method] = outcome_of(Path(config.run_directory)), time.monotonic() - started
    return campaign.groups[method]


def _config(campaign: Campaign, name: str, method: str) -> RunConfig:
    return campaign.config(name, method).model_copy(update={"processes": PROCESSES})


def _launch(config: RunConfig) -> None:
    """Run the command line as a pod does, in a forked child; never returns."""
    set_up_as_pod(config)
    setattr(cli, "launch", partial(launch, start=_start))  # noqa: B010 - mypy takes it for private
    _run_command()


def _start(environ: Mapping[str, str]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        os.environ.update(environ)
        _run_command()
    return pid


def _run_command() -> None:
    code = 99
    try:
        stop = StopFlag()
        stop.install()
        code = run_command(stop)
    except BaseException:  # noqa: BLE001 - a forked child must not continue in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
