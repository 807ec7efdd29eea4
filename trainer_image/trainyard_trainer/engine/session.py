"""One attempt of a run, from loading to the exports."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from trainyard_crds.report import ExportStatus, Stage
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.replica_store import ReplicaStore
from trainyard_trainer.checkpoint.store import CheckpointStore
from trainyard_trainer.clock import Clock
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.engine.device import slow_precision
from trainyard_trainer.engine.initial_checkpoint import InitialCheckpoint, find_initial
from trainyard_trainer.engine.loop import Engine
from trainyard_trainer.engine.resolved import RESOLVED_FILE, ResolvedFile
from trainyard_trainer.engine.resume_checks import check_same_rows, check_settings, training_settings
from trainyard_trainer.engine.rng import seed_everything
from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.export.exporter import Exporter
from trainyard_trainer.group.group import Group
from trainyard_trainer.report.reporter import Reporter
from trainyard_trainer.stop import StopFlag


class Session:
    """Loads, trains and exports a task in a run directory."""

    def __init__(
        self,
        *,
        config: RunConfig,
        definition: TaskDefinition,
        device: torch.device,
        stop: StopFlag,
        files: Files,
        clock: Clock,
        store: CheckpointStore | ReplicaStore,
        reporter: Reporter,
        group: Group | None = None,
    ) -> None:
        self._config = config
        self._definition = definition
        self._run_directory = Path(config.run_directory)
        self._files = files
        self._clock = clock
        self._store = store
        self._reporter = reporter
        self._resolved = ResolvedFile(self._run_directory / RESOLVED_FILE, store.staging)
        self._context = RunContext(
            config=config,
            run_directory=self._run_directory,
            device=device,
            stop=stop,
            resolved=self._resolved,
            stage=reporter.stage,
            log=reporter.log,
            memory=reporter.memory,
            invalid_rows=reporter.invalid_rows,
            progress=reporter.stage_progress,
            group=group or Group(),
        )

    def run(self) -> list[ExportStatus]:
        """Train to the last step and export.

        Raises:
            StopRequested: The run is to stop; it is saved.
            TrainerError: Any other error that ends a run.
        """
        if (checkpoint := self._store.newest) is not None:
            manifest = checkpoint.manifest
            self._reporter.restore(step=manifest.step, epoch=manifest.epoch, metrics=manifest.metrics)
        self._reporter.checkpoints(self._store.statuses())
        settings = training_settings(self._config, self._definition.settings)
        initial = None if checkpoint else self._find_initial(settings)
        if checkpoint is not None:
            check_settings(checkpoint.manifest.config, settings)
        if text := slow_precision(self._context.device, self._config.optimization.precision):
            self._reporter.log("SlowPrecision", text, "warning")
        task = self._definition.create()
        seed = self._config.optimization.seed
        seed_everything(seed)
        loaded = task.load(self._context)
        check_same_rows(self._context.group.all_gather(loaded.train.fingerprint))
        # Loading draws more or fewer numbers, depending on caches; training must not depend on that.
        seed_everything(seed + self._context.group.rank)
        if foreign := self._store.remove_stale():
            self._reporter.log(
                "CheckpointsRemoved", f"Damaged or superseded, removed: {', '.join(foreign)}.", "warning"
            )
        engine = Engine(
            task=task,
            loaded=loaded,
            context=self._context,
            store=self._store,
            reporter=self._reporter,
            clock=self._clock,
            objective=self._definition.objective_of(self._config),
            settings=settings,
            initial=initial,
        )
        chosen = engine.train()
        if self._store.staging is None or chosen is None:
            return []  # the main process exports
        self._context.stop.check()
        self._reporter.stage(Stage.EXPORTING)
        exporter = Exporter(
            write=partial(task.export, loaded, self._context),
            context=self._context,
            checkpoint=chosen,
            run_uri=self._config.run_uri or self._run_directory.absolute().as_uri(),
            files=self._files,
            staging=self._store.staging,
        )
        return [exporter.export(request) for request in self._config.exports]

    def _find_initial(self, settings: dict[str, str]) -> InitialCheckpoint | None:
        """Return the checkpoint of another run that this run, which has none of its own yet, begins at.

        Raises:
            ConfigurationError: The settings do not fit it.
            NotFoundError: It does not exist.
        """
        objective = self._definition.objective_of(self._config)
        initial = find_initial(self._config, self._resolved, objective, self._context.group)
        if initial is None:
            return None
        initial.check_settings(settings)
        self._reporter.begins_at(initial.name)
        if not initial.weights_only:
            manifest = initial.checkpoint.manifest
            self._reporter.restore(step=manifest.step, epoch=manifest.epoch, metrics=manifest.metrics)
        return initial
