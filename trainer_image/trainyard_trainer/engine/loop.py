"""The training loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from trainyard_crds.report import ResolvedModel, Stage
from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.replica_store import ReplicaStore
from trainyard_trainer.checkpoint.store import CheckpointStore
from trainyard_trainer.clock import Clock
from trainyard_trainer.engine.async_checkpointer import create_checkpointer, draft_of
from trainyard_trainer.engine.evaluation import Evaluator
from trainyard_trainer.engine.grace import GracePeriodMonitor
from trainyard_trainer.engine.gradients import Gradients
from trainyard_trainer.engine.initial_checkpoint import InitialCheckpoint
from trainyard_trainer.engine.loss_accumulator import LossAccumulator
from trainyard_trainer.engine.master_weights import MasterWeights
from trainyard_trainer.engine.optimizer import clip_gradients, create_optimizer, set_learning_rates
from trainyard_trainer.engine.resume_checks import check_fingerprint
from trainyard_trainer.engine.rng import capture_rng, restore_rng
from trainyard_trainer.engine.schedule import learning_rate_factor
from trainyard_trainer.engine.state import TrainingState, pack_peer, pack_state, read_state
from trainyard_trainer.engine.step_plan import StepPlan
from trainyard_trainer.engine.task import Loaded, RunContext, Task
from trainyard_trainer.engine.throughput import Throughput
from trainyard_trainer.engine.triggers import Triggers
from trainyard_trainer.errors import StopRequested
from trainyard_trainer.objective import Objective
from trainyard_trainer.report.reporter import Reporter


class Engine:
    """Trains a loaded task from its newest checkpoint, or from the start, to the last step."""

    def __init__(
        self,
        *,
        task: Task,
        loaded: Loaded,
        context: RunContext,
        store: CheckpointStore | ReplicaStore,
        reporter: Reporter,
        clock: Clock,
        objective: Objective,
        settings: dict[str, str],
        initial: InitialCheckpoint | None = None,
    ) -> None:
        config = context.config
        self._task = task
        self._loaded = loaded
        self._context = context
        self._store = store
        self._reporter = reporter
        self._clock = clock
        self._config = config
        self._objective = objective
        self._settings = settings
        self._initial = initial
        self._group = context.group
        self._plan = StepPlan.of(loaded.train, config.optimization, self._group.world_size)
        self._triggers = Triggers(config, total_steps=self._plan.total_steps, has_evaluation=loaded.has_evaluation)
        self._masters = MasterWeights(loaded.parameter_groups)
        self._optimizer = create_optimizer(self._masters.groups, config.optimization.optimizer)
        self._state = TrainingState(objective=objective)
        self._losses = LossAccumulator(context.device, loaded.train, self._group)
        self._rng = capture_rng(context.device)
        self._grace = GracePeriodMonitor(config.checkpoints.grace_period_seconds)
        self._checkpointer = create_checkpointer(
            store=store if isinstance(store, CheckpointStore) else None,
            write_weights=partial(task.save_weights, loaded),
            reporter=reporter,
            clock=clock,
            grace=self._grace,
            group=self._group,
        )
        self._weights: Mapping[str, Tensor] | None = None
        self._throughput = Throughput(clock, loaded.flops_per_item, context.device, devices=self._group.world_size)
        self._gradients = Gradients(task=task, loaded=loaded, context=context, throughput=self._throughput)
        self._evaluator = Evaluator(task=task, loaded=loaded, context=context, objective=objective, reporter=reporter)
        self._unsaved_best = False

    def train(self) -> Checkpoint | None:
        """Run the remaining steps.

        Returns:
            The checkpoint to export: the best when there is an evaluation, else the last; None in a process that does
            not own the store.

        Raises:
            StopRequested: The run is to stop; everything up to the last whole step is saved.
            DataError: Training diverged, or the checkpoint belongs to other data or settings.
            StorageError: A checkpoint could not be written.
            SupersededError: A newer trainer owns the run directory.
        """
        try:
            self._run_steps()
        finally:
            self._checkpointer.close()
        if self._stops_early and self._state.step < self._plan.total_steps:
            self._report_early_stop()
        return (self._store.best if self._loaded.has_evaluation else None) or self._store.newest

    def _report_early_stop(self) -> None:
        best, evaluations = self._state.best_value, self._state.evaluations_since_best
        assert best is not None
        self._reporter.stopped_early(self._objective.no_improvement(best, evaluations))

    def _run_steps(self) -> None:
        try:
            self._begin()
            while self._state.step < self._plan.total_steps and not self._stops_early:
                self._step()
                self._run_triggers()
        except StopRequested:
            # The unfinished step is dropped: it changed no weights, and the generators' states before it are saved.
            if self._state.step > self._checkpointer.saved_step or self._unsaved_best:
                self._save()
            self._checkpointer.flush()
            raise
        self._checkpointer.flush()

    @property
    def _stops_early(self) -> bool:
        return self._triggers.stops_early(self._state.evaluations_since_best)

    def _begin(self) -> None:
        if (checkpoint := self._store.newest) is not None:
            self._resume(checkpoint)
        else:
            self._reporter.metrics_log.begin(0)
            if self._initial is not None:
                self._begin_at(self._initial)
        self._loaded.model.train()
        self._reporter.begin(
            step=self._state.step,
            total_steps=self._plan.total_steps,
            epoch=self._plan.epochs_done(self._state.cursor),
            items=self._state.items,
            unit=self._loaded.unit,
            model=ResolvedModel(source=self._loaded.model_source, revision=self._loaded.model_revision),
            metrics={**self._context.metrics, **self._state.metrics},
        )
        if self._state.step > 0:
            self._run_triggers()
            if self._checkpointer.saved_step != self._state.step:
                self._save()  # a run that began at another run's checkpoint does not need it again
        elif self._config.evaluation.baseline and self._loaded.has_evaluation:
            self._evaluator.evaluate_baseline(self._state)
        self._reporter.stage(Stage.TRAINING)
        self._throughput.begin(self._state.items)

    def _resume(self, checkpoint: Checkpoint) -> None:
        manifest = checkpoint.manifest
        check_fingerprint(manifest.data_fingerprint, self._loaded.train.fingerprint, manifest.step)
        self._reporter.metrics_log.begin(self._restore(checkpoint))
        self._checkpointer.saved_step = self._state.step
        self._reporter.log("Resumed", f"Resumed from {checkpoint.name}.")

    def _begin_at(self, initial: InitialCheckpoint) -> None:
        """Begin at a checkpoint of another run."""
        if initial.weights_only:
            self._task.load_weights(self._loaded, initial.checkpoint.weights)
            self._masters.restore({})
        else:
            initial.check_rows(self._loaded.train.fingerprint)
            initial.check_steps(self._plan.total_steps)
            self._restore(initial.checkpoint)
        self._reporter.log("ResumedFrom", f"The run begins at {initial.name}, with its {initial.taken}.")

    def _restore(self, checkpoint: Checkpoint) -> int:
        """Restore weights and training state; return the bytes of metrics.jsonl that belong to them."""
        self._task.load_weights(self._loaded, checkpoint.weights)
        self._state, self._rng, length = read_state(
            checkpoint.state,
            optimizer=self._optimizer,
            masters=self._masters,
            losses=self._losses,
            rank=self._group.rank,
        )
        self._state.judge_by(self._objective)
        restore_rng(self._rng, self._context.device)
        return length

    def _step(self) -> None:
        started = self._clock.monotonic()
        state = self._state
        cursors, next_cursor = self._plan.step(state.cursor)
        rates = set_learning_rates(self._optimizer, self._masters.groups, self._factor(state.step + 1))
        done = self._gradients.compute(cursors)
        self._masters.take_gradients()
        norm = clip_gradients(self._masters.groups, self._config.optimization.max_grad_norm)
        self._optimizer.step()
        self._masters.publish()
        self._optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.cursor = next_cursor
        state.items += done.num_items
        state.metrics |= rates
        self._losses.add(
            step=state.step, cursors=done.cursors, losses=done.losses, loss_weight=done.loss_weight, grad_norm=norm
        )
        self._rng = capture_rng(self._context.device)
        self._grace.step_took(self._clock.monotonic() - started)
        self._reporter.step_done(step=state.step, epoch=self._plan.epochs_done(state.cursor), items=state.items)

    def _factor(self, step: int) -> float:
        options, total = self._config.optimization, self._plan.total_steps
        return learning_rate_factor(
            step, total_steps=total, warmup_ratio=options.warmup_ratio, scheduler=options.scheduler
        )

    def _run_triggers(self) -> None:
        """Log, evaluate and save as triggered by the current step; after a resume, only what was not done before."""
        self._checkpointer.poll()
        state = self._state
        if self._triggers.logs(state.step) and state.logged_step != state.step:
            self._log()
        if self._triggers.evaluates(state.step) and state.evaluated_step != state.step:
            self._unsaved_best = self._evaluator.evaluate(state)
        is_due = self._stops_early or self._triggers.saves(state.step, seconds_since_save=self._seconds_since_save())
        is_saved = self._checkpointer.saved_step == state.step
        if self._unsaved_best or (is_due and not is_saved):
            self._save()

    def _seconds_since_save(self) -> float:
        """Measured by the main process, so that all save at the same step; 0 where everyMinutes is not set."""
        if self._config.checkpoints.every_minutes is None:
            return 0.0
        return self._group.sum([self._checkpointer.seconds_since_save])[0]

    def _log(self) -> None:
        self._store.check_ownership()
        state = self._state
        state.metrics |= self._losses.take()
        state.logged_step = state.step
        names = ("loss", "gradNorm", *(name for name in state.metrics if name.lower().endswith("learningrate")))
        metrics = {name: state.metrics[name] for name in names if name in state.metrics}
        self._reporter.metrics(metrics, self._throughput.take(state.items))

    def _save(self) -> None:
        self._losses.check_finite()
        state = self._state
        draft = draft_of(
            state,
            settings=self._settings,
            epoch=self._plan.epochs_done(state.cursor),
            data_fingerprint=self._loaded.train.fingerprint,
            created_at=self._clock.now(),
        )
        tensors, document = pack_state(
            state=state,
            optimizer=self._optimizer,
            masters=self._masters,
            losses=self._losses,
            rng=self._rng,
            metrics_length=self._reporter.metrics_log.length,
            peers=self._group.all_gather(pack_peer(self._losses, self._rng))[1:],
        )
        self._weights = self._weights or self._task.weights(self._loaded)
        self._checkpointer.save(draft, weights=self._weights, state=tensors, document=document)
        self._unsaved_best = False
