"""`trainyard-trainer export`: exports of a finished run, written on the CPU from its best or last checkpoint.

The command takes over the run directory like a trainer. No trainer needs it any more: one that finds a result exits at
once. Of two exports at the same time, the later one owns the directory.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainyard_crds.report import ExportStatus, Outcome, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.bootstrap import POD_UID_ENV, drop_cache, prepare_environment, root_cause
from trainyard_trainer.checkpoint.files import Files, storage_errors
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.store import CheckpointStore, open_store
from trainyard_trainer.clock import Clock, SystemClock
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.errors import NotFoundError, TrainerError
from trainyard_trainer.exception_mapping import to_trainer_error
from trainyard_trainer.report.console import create_console
from trainyard_trainer.report.run_log import LibraryHandler, RunLog
from trainyard_trainer.report.termination import read_result
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.registry import definition_of

_MESSAGE_LIMIT = 1024


def export(config: RunConfig, *, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    """Write the exports of a run config that do not exist yet.

    Raises:
        NotFoundError: The run has not finished, or none of its checkpoints is valid.
        TrainerError: Any other error; finished exports stay.
    """
    run_directory = Path(config.run_directory)
    if (result := read_result(run_directory)) is None:
        raise NotFoundError(
            f"{run_directory} holds no finished run, and exports are made of finished ones.",
            "Train it to its end first; the weights of its checkpoints can be used as they are.",
        )
    definition = definition_of(config)
    prepare_environment()
    clock, files = SystemClock(), Files()
    store = open_store(
        run_directory,
        files=files,
        keep=config.checkpoints.keep,
        run_uri=config.run_uri,
        pod_uid=environ.get(POD_UID_ENV),
        now=clock.now(),
        objective=definition.objective_of(config),
    )
    try:
        with _logging(run_directory, clock, result.step) as log:
            exports = _write(config, definition, stop=stop, files=files, store=store, log=log)
    except Exception as error:
        ours = to_trainer_error(root_cause(error, store), run_directory, definition.memory_advice)
        if type(ours) is TrainerError:
            raise  # unexpected: the caller prints its traceback
        raise ours from error
    finally:
        drop_cache(run_directory, store.staging)
        store.close()
    made = ", ".join(f"{one.format} in {one.uri}" for one in exports)
    return Termination(
        outcome=Outcome.FINISHED,
        exit_code=0,
        reason="Exported",
        message=f"Made {made}."[:_MESSAGE_LIMIT],
        step=result.step,
        exports=exports,
    )


def _write(
    config: RunConfig,
    definition: TaskDefinition,
    *,
    stop: StopFlag,
    files: Files,
    store: CheckpointStore,
    log: Callable[[str, str], None],
) -> list[ExportStatus]:
    from trainyard_trainer.engine.device import choose_device
    from trainyard_trainer.engine.resolved import ResolvedFile
    from trainyard_trainer.engine.resume_checks import check_settings, training_settings
    from trainyard_trainer.engine.task import RunContext
    from trainyard_trainer.export.exporter import Exporter

    run_directory, checkpoint = Path(config.run_directory), _exported_checkpoint(store)
    check_settings(*_shared_settings(checkpoint.manifest.config, training_settings(config, definition.settings)))
    context = RunContext(
        config=config,
        run_directory=run_directory,
        device=choose_device(0),
        stop=stop,
        resolved=ResolvedFile(run_directory / "resolved.json", store.staging),
        stage=lambda _stage: None,
        log=log,
    )
    task = definition.create()
    exporter = Exporter(
        write=lambda request, weights, directory: task.export_saved(context, request, weights, directory),
        context=context,
        checkpoint=checkpoint,
        run_uri=config.run_uri or run_directory.absolute().as_uri(),
        files=files,
        staging=store.staging,
    )
    return [exporter.export(request) for request in config.exports]


def _exported_checkpoint(store: CheckpointStore) -> Checkpoint:
    """Return the checkpoint that the end of training would export."""
    checkpoint = store.best or store.newest
    if checkpoint is None:
        raise NotFoundError(
            "None of the run's checkpoints is whole any more, so there is nothing to export.",
            "Use what the run exported when it ended, or train again.",
        )
    return checkpoint


def _shared_settings(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings that both have: a run may be older than a setting."""
    names = before.keys() & now.keys()
    return {name: before[name] for name in names}, {name: now[name] for name in names}


@contextmanager
def _logging(run_directory: Path, clock: Clock, step: int) -> Iterator[Callable[[str, str], None]]:
    """Append the export's events to the run log, and print them."""
    with storage_errors(run_directory):
        run_log = RunLog(run_directory / "log.jsonl", clock)
    run_log.step = step
    console, libraries = create_console(sys.stdout), LibraryHandler(run_log)

    def log(kind: str, message: str) -> None:
        with storage_errors(run_directory):
            run_log.append(level="info", kind=kind, message=message)
        console.message("info", kind, message)

    logging.getLogger().addHandler(libraries)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(libraries)
        console.close()
        run_log.close()
