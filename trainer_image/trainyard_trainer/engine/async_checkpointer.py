"""Asynchronous checkpoints: a step waits for a copy to host memory; a thread writes, hashes and publishes it.

The thread has at most one checkpoint. A save that arrives while it is busy waits: none is skipped, and there is never
more than one copy. From `save` until its result is collected, the thread alone uses the store. Its errors are raised in
the training thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from trainyard_crds.report import CheckpointStatus, Stage
from trainyard_trainer.checkpoint.manifest import Checkpoint, CursorEntry
from trainyard_trainer.checkpoint.store import Draft
from trainyard_trainer.checkpoint.writer import Writer
from trainyard_trainer.clock import Clock
from trainyard_trainer.engine.grace import GracePeriodMonitor
from trainyard_trainer.engine.host_copy import HostCopy
from trainyard_trainer.engine.resume_checks import settings_hash
from trainyard_trainer.engine.state import TrainingState, write_state
from trainyard_trainer.errors import TrainerError
from trainyard_trainer.group.group import Group
from trainyard_trainer.report.reporter import Reporter

_WEIGHTS, _STATE = "weights:", "state:"


def draft_of(
    state: TrainingState, *, settings: dict[str, str], epoch: float, data_fingerprint: str, created_at: str
) -> Draft:
    """Return the manifest of a checkpoint of this state, without its files."""
    return Draft(
        step=state.step,
        epoch=epoch,
        cursor=CursorEntry(**vars(state.cursor)),
        data_fingerprint=data_fingerprint,
        config_hash=settings_hash(settings),
        config=settings,
        metrics=state.own_metrics(),
        created_at=created_at,
    )


class Store(Protocol):
    """The methods of `CheckpointStore` used here."""

    def save(self, draft: Draft, write: Callable[[Path, Path], None]) -> Checkpoint:
        """Commit a checkpoint, then remove those that are not kept."""

    def statuses(self) -> list[CheckpointStatus]:
        """Return the valid checkpoints, oldest first."""


class AsyncCheckpointer:
    """Saves a run in a thread.

    Args:
        store: Where checkpoints go.
        write_weights: Writes a copy of the weights into a directory; runs in the thread.
        reporter: Reports published checkpoints.
        clock: Measures how long a save takes.
        grace: Compares that with the grace period.
        group: The processes that hold parts of what is saved.
    """

    def __init__(
        self,
        *,
        store: Store,
        write_weights: Callable[[Mapping[str, Tensor], Path], None],
        reporter: Reporter,
        clock: Clock,
        grace: GracePeriodMonitor,
        group: Group | None = None,
    ) -> None:
        self._store = store
        self._write_weights = write_weights
        self._reporter = reporter
        self._clock = clock
        self._grace = grace
        self._group = group or Group()
        self._copy = HostCopy()
        self._writer: Writer[tuple[Checkpoint, float]] = Writer()
        self._saved_at = clock.monotonic()
        self.saved_step = 0
        """The step of the newest checkpoint, published or in flight."""

    @property
    def seconds_since_save(self) -> float:
        """Seconds since the newest copy was taken, or since the start."""
        return self._clock.monotonic() - self._saved_at

    def save(
        self, draft: Draft, *, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], document: dict[str, Any]
    ) -> None:
        """Copy the run as it is now; the thread makes a checkpoint of the copy.

        Args:
            draft: The manifest without its files.
            weights: The weights themselves; they may change as soon as this returns.
            state: The tensors of the rest of the state, likewise.
            document: The rest of the state as JSON values.

        Raises:
            StorageError: The previous checkpoint could not be written.
            SupersededError: A newer trainer owns the run directory.
        """
        self.flush()
        self._saved_at = self._clock.monotonic()
        self.saved_step = draft.step
        copies, wait = self._copy.take(_together(weights, state), self._group.full_tensor)
        self._writer.start(lambda: self._write(draft, copies, document, wait))

    def poll(self) -> None:
        """Report a checkpoint that was published in the meantime.

        Raises:
            StorageError: It could not be written.
            SupersededError: A newer trainer owns the run directory.
        """
        self._report(self._writer.collect(wait=False))

    def flush(self) -> None:
        """Wait until the checkpoint in flight, if any, is published; raises what `poll` does."""
        if self._writer.is_busy:
            self._reporter.stage(Stage.SAVING)
            self._report(self._writer.collect(wait=True))
            self._reporter.stage(Stage.TRAINING)
        else:
            self.poll()

    def close(self) -> None:
        """End the thread after its current checkpoint and report that one."""
        self._writer.close()
        with suppress(TrainerError, OSError):  # the error that ends the run is reported; often it is the same
            self.poll()
        self._copy.release()

    def _write(
        self, draft: Draft, copies: dict[str, Tensor], document: dict[str, Any], wait: Callable[[], None]
    ) -> tuple[Checkpoint, float]:
        """In the thread: write and publish; returns the checkpoint and the seconds since its copy began."""

        def write(weights: Path, state: Path) -> None:
            wait()
            self._reporter.metrics_log.sync()
            self._write_weights(_without_prefix(_WEIGHTS, copies), weights)
            write_state(state, _without_prefix(_STATE, copies), document)

        started = self._saved_at
        return self._store.save(draft, write), self._clock.monotonic() - started

    def _report(self, published: tuple[Checkpoint, float] | None) -> None:
        if published is None:
            return
        checkpoint, seconds = published
        self._grace.save_took(seconds)
        if warning := self._grace.warning():
            self._reporter.warn("GracePeriodTooShort", warning)
        self._reporter.log("CheckpointSaved", f"Saved {checkpoint.name}.")
        self._reporter.checkpoints(self._store.statuses())


class ReplicaCheckpointer:
    """Contributes a replica's shards to the saves of the main process; has the methods of `AsyncCheckpointer`."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.saved_step = 0

    @property
    def seconds_since_save(self) -> float:
        """Return 0; the main process measures."""
        return 0.0

    def save(
        self, draft: Draft, *, weights: Mapping[str, Tensor], state: Mapping[str, Tensor], document: dict[str, Any]
    ) -> None:
        """Gather this process's shards of the tensors."""
        self.saved_step = draft.step
        for tensor in _together(weights, state).values():
            self._group.full_tensor(tensor)

    def poll(self) -> None:
        """Do nothing: a replica has no checkpoint in flight."""

    def flush(self) -> None:
        """Do nothing: a replica has no checkpoint in flight."""

    def close(self) -> None:
        """Do nothing: a replica has no checkpoint in flight."""


def create_checkpointer(
    *,
    store: Store | None,
    write_weights: Callable[[Mapping[str, Tensor], Path], None],
    reporter: Reporter,
    clock: Clock,
    grace: GracePeriodMonitor,
    group: Group,
) -> AsyncCheckpointer | ReplicaCheckpointer:
    """Create the checkpointer of a process that owns the store, or of a replica (store None)."""
    if store is None:
        return ReplicaCheckpointer(group)
    return AsyncCheckpointer(
        store=store, write_weights=write_weights, reporter=reporter, clock=clock, grace=grace, group=group
    )


def _together(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return _prefixed(_WEIGHTS, weights) | _prefixed(_STATE, state)


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
