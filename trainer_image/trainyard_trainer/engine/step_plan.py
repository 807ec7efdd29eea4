"""Which micro-batches make up which optimizer step; pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from trainyard_crds.trainingjob_training import DEFAULT_EPOCHS, Optimization
from trainyard_trainer.engine.task import TrainData


@dataclass(frozen=True)
class Cursor:
    """The next micro-batch."""

    epoch: int = 0
    index: int = 0


class StepPlan:
    """The steps of a run. A step never spans two epochs, so the last one of an epoch may be smaller."""

    def __init__(self, data: TrainData, *, accumulation: int, epochs: float | None, max_steps: int | None) -> None:
        self._data = data
        self._accumulation = accumulation
        self.total_steps = max_steps if max_steps is not None else self._steps_in(epochs or DEFAULT_EPOCHS)

    def step(self, cursor: Cursor) -> tuple[list[Cursor], Cursor]:
        """Return the micro-batches of the step that begins at the cursor, and the cursor after it."""
        count = self._data.num_micro_batches(cursor.epoch)
        end = min(cursor.index + self._accumulation, count)
        batches = [Cursor(cursor.epoch, index) for index in range(cursor.index, end)]
        return batches, Cursor(cursor.epoch, end) if end < count else Cursor(cursor.epoch + 1, 0)

    def epochs_done(self, cursor: Cursor) -> float:
        """Return the passes over the data that are done at the cursor."""
        if cursor.index == 0:
            return float(cursor.epoch)
        return cursor.epoch + cursor.index / self._data.num_micro_batches(cursor.epoch)

    @classmethod
    def of(cls, data: TrainData, options: Optimization, processes: int) -> StepPlan:
        """Return the plan of a run; in a step each process makes `gradientAccumulation` passes."""
        accumulation = options.gradient_accumulation * processes
        return cls(data, accumulation=accumulation, epochs=options.epochs, max_steps=options.max_steps)

    def _steps_in(self, epochs: float) -> int:
        whole = sum(self._steps_of(epoch) for epoch in range(int(epochs)))
        rest = epochs - int(epochs)
        return max(1, whole + (ceil(rest * self._steps_of(int(epochs))) if rest else 0))

    def _steps_of(self, epoch: int) -> int:
        return ceil(self._data.num_micro_batches(epoch) / self._accumulation)
