"""Wires the parts of a training run; the only module that imports them all."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard_crds.report import Outcome, Stage, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.replica_store import ReplicaStore, describe_store
from trainyard_trainer.checkpoint.staging import StagingDirectory
from trainyard_trainer.checkpoint.store import CACHE, CheckpointStore, open_store
from trainyard_trainer.clock import Clock, SystemClock, process_start_time
from trainyard_trainer.cpus import threads_per_process
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.errors import ConfigurationError, StopRequested, SupersededError, TrainerError
from trainyard_trainer.exception_mapping import to_trainer_error, traceback_of
from trainyard_trainer.group.membership import Membership, membership
from trainyard_trainer.report.console import create_console
from trainyard_trainer.report.gateway_client import GatewayClient, create_sender
from trainyard_trainer.report.gpu import GpuSampler, create_gpu_sampler, gpus_of_all_pods, no_gpus
from trainyard_trainer.report.metrics_log import MetricsLog
from trainyard_trainer.report.null_reporter import create_null_reporter
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.report.run_log import LibraryHandler, RunLog
from trainyard_trainer.report.startup import IMPORTS, RUN_DIRECTORY, StartupTimer
from trainyard_trainer.report.termination import RESULT_FILE, termination_of
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.registry import definition_of

if TYPE_CHECKING:
    import torch

    from trainyard_trainer.group.group import Group

POD_UID_ENV = "POD_UID"
DEVICE_ENV = "TRAINYARD_DEVICE"
"""`cpu` trains on the CPU although the pod has GPUs: for clusters with simulated GPUs."""

_LIBRARY_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",  # its threads and forked data workers deadlock
}


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """What every process of an attempt has."""

    config: RunConfig
    definition: TaskDefinition
    environ: Mapping[str, str]
    device: torch.device
    group: Group
    stop: StopFlag
    clock: Clock
    gpus: GpuSampler
    startup: StartupTimer
    files: Files = field(default_factory=Files)

    @property
    def run_directory(self) -> Path:
        return Path(self.config.run_directory)

    def run(self, store: CheckpointStore | ReplicaStore, reporter: Reporter) -> Termination:
        """Load, train and export."""
        from trainyard_trainer.engine.session import Session

        session = Session(
            config=self.config,
            definition=self.definition,
            device=self.device,
            stop=self.stop,
            files=self.files,
            clock=self.clock,
            store=store,
            reporter=reporter,
            group=self.group,
        )
        return reporter.finished(session.run())


def train(config: RunConfig, *, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    """Run one attempt of a training run.

    Raises:
        TrainerError: The attempt ended before it owned the run directory.
    """
    definition = definition_of(config)
    prepare_environment(config.processes_per_node)

    import trainyard_trainer.engine.session  # noqa: F401 - slow to import: before the group waits for this process
    from trainyard_trainer.engine.device import choose_device

    member = membership(environ)
    gpus = 0 if environ.get(DEVICE_ENV) == "cpu" else config.gpus
    device, clock = choose_device(gpus, member.local_rank if member else 0), SystemClock()
    startup = StartupTimer(process_start_time(clock))
    startup.enter(RUN_DIRECTORY, clock.monotonic())
    group = join_group(config, member, device)
    group.check_stop(stop.check)
    attempt = _Attempt(
        config=config,
        definition=definition,
        environ=environ,
        device=device,
        group=group,
        stop=stop,
        clock=clock,
        gpus=gpu_sampler(config, member, group, gpus),
        startup=startup,
    )
    termination = _train_as_main(attempt) if group.is_main_process else _train_as_replica(attempt)
    return _leave(group, termination)


def _train_as_main(attempt: _Attempt) -> Termination:
    """Own the run directory, train, and write the result."""
    config, definition, clock = attempt.config, attempt.definition, attempt.clock
    store = open_store(
        attempt.run_directory,
        files=attempt.files,
        keep=config.checkpoints.keep,
        run_uri=config.run_uri,
        pod_uid=attempt.environ.get(POD_UID_ENV),
        now=clock.now(),
        objective=definition.objective_of(config),
    )
    reporter = create_reporter(config, clock=clock, store=store, gpus=attempt.gpus, startup=attempt.startup)
    attempt.startup.enter(IMPORTS, clock.monotonic())
    try:
        attempt.group.broadcast(describe_store(store))
        termination = attempt.run(store, reporter)
        write_result(attempt.run_directory, termination, store.staging)
        drop_cache(attempt.run_directory, store.staging)
        reporter.stage(Stage.FINISHED)
        reporter.log("Finished", termination.message)
    except Exception as error:  # noqa: BLE001 - a run's outermost frame: every error becomes a termination
        termination = _report_failure(
            reporter, root_cause(error, store), attempt.run_directory, definition.memory_advice
        )
    finally:
        reporter.close()
        store.close()
    return termination


def _train_as_replica(attempt: _Attempt) -> Termination:
    """Take part in a run whose directory the main process owns."""
    try:
        store = ReplicaStore(attempt.run_directory, attempt.group.broadcast(None))
        reporter = create_null_reporter(
            attempt.clock, gpus=attempt.gpus, owner_epoch=store.owner_epoch, startup=attempt.startup
        )
        return attempt.run(store, reporter)
    except Exception as error:  # noqa: BLE001 - a process's outermost frame: every error becomes a termination
        if type(error) is TrainerError or not isinstance(error, TrainerError):
            sys.stderr.write(traceback_of(error))
        return termination_of(to_trainer_error(error, attempt.run_directory, attempt.definition.memory_advice))


def _leave(group: Group, termination: Termination) -> Termination:
    """Leave the group, unless the process failed and must not wait for the others; returns the termination."""
    if termination.outcome is not Outcome.FAILED:
        group.close()
    return termination


def join_group(config: RunConfig, member: Membership | None, device: torch.device) -> Group:
    """Join the group that the launcher names; without a launcher, the process is a group of its own.

    Raises:
        ConfigurationError: The launcher's group has another size than the run.
        PeerLostError: Another process did not join.
    """
    from trainyard_trainer.group.group import Group

    if member is None:
        return Group()
    if (member.local_world_size, member.world_size) != (config.processes_per_node, config.processes):
        raise ConfigurationError(
            f"The environment's LOCAL_WORLD_SIZE is {member.local_world_size} and WORLD_SIZE {member.world_size}, but "
            f"processes is {config.processes} on {config.nodes} nodes.",
            "Set processes and nodes to match, or start the trainer without a launcher: it starts its own processes.",
        )
    from trainyard_trainer.group.distributed import join

    return join(member, device)


def gpu_sampler(config: RunConfig, member: Membership | None, group: Group, gpus: int) -> GpuSampler:
    """Return the sampler of the run's GPUs: the first process of each pod samples its own, and pods exchange them.

    Args:
        config: The run config.
        member: Membership of this process; None without a group.
        group: Its group.
        gpus: GPUs of this pod.
    """
    from trainyard_trainer.engine.device import gpu_uuids

    is_first_here = member is None or member.local_rank == 0
    sample = create_gpu_sampler(gpu_uuids(gpus)) if is_first_here else no_gpus
    if member is None or config.nodes == 1:
        return sample
    return gpus_of_all_pods(sample, member.rank // member.local_world_size, group.all_gather)


def prepare_environment(processes: int = 1) -> None:
    """Set the environment variables that torch and other libraries read on import.

    Args:
        processes: Processes that share this machine's cores.
    """
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_per_process(processes)))
    logging.captureWarnings(capture=True)


def create_reporter(
    config: RunConfig, *, clock: Clock, store: CheckpointStore, gpus: GpuSampler, startup: StartupTimer
) -> Reporter:
    """Create the run's reporter; it logs the libraries' warnings too."""
    run_directory = Path(config.run_directory)
    with storage_errors(run_directory):
        run_log = RunLog(run_directory / "log.jsonl", clock)
        metrics_log = MetricsLog(run_directory / "metrics.jsonl", store.staging)
    console = create_console(sys.stdout)

    logging.getLogger().addHandler(LibraryHandler(run_log))
    client = None
    if config.progress is not None:
        client = GatewayClient(send=create_sender(config.progress), clock=clock, run_log=run_log)
        client.start()
    return Reporter(
        clock=clock,
        console=console,
        run_log=run_log,
        metrics_log=metrics_log,
        client=client,
        gpus=gpus,
        owner_epoch=store.owner_epoch,
        startup=startup,
    )


def write_result(run_directory: Path, termination: Termination, staging: StagingDirectory) -> None:
    """Write result.json: from then on the run is finished."""
    with storage_errors(run_directory):
        staging.replace(run_directory / RESULT_FILE, json.dumps(termination.to_json(), indent=1).encode())


def drop_cache(run_directory: Path, staging: StagingDirectory) -> None:
    """Remove the cache for later attempts; errors are ignored, since the run is finished."""
    with suppress(OSError, SupersededError):
        if (run_directory / CACHE).exists():
            staging.discard(run_directory / CACHE)


def root_cause(error: Exception, store: CheckpointStore) -> Exception:
    """Return SupersededError if this trainer lost the run directory, which causes other errors; else the error."""
    if isinstance(error, StopRequested):
        return error
    try:
        store.check_ownership()
    except SupersededError as superseded:
        return superseded
    except OSError:
        return error
    return error


def _report_failure(reporter: Reporter, error: Exception, run_directory: Path, memory_advice: str) -> Termination:
    """Report the error that ended a run, and return the termination."""
    ours = to_trainer_error(error, run_directory, memory_advice)
    termination = reporter.ended(ours)
    is_unexpected = type(ours) is TrainerError
    if is_unexpected:
        sys.stderr.write(traceback_of(error))
    level = "info" if isinstance(ours, StopRequested) else "error"
    # A failing volume may refuse the log too.
    with suppress(OSError):
        if is_unexpected:
            reporter.log_to_file("Traceback", traceback_of(error), level)
        reporter.log_to_file(termination.reason, termination.message, level)
    return termination
