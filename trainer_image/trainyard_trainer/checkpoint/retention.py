"""Which checkpoints are kept: the newest ones and the best one; pure."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard_trainer.checkpoint.manifest import Checkpoint

BEST_METRIC = "evalLoss"
"""Lower is better."""


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the lowest evaluation loss, the older one of equals; None when none was evaluated."""
    evaluated = [one for one in checkpoints if BEST_METRIC in one.manifest.metrics]
    return min(evaluated, key=lambda one: (one.manifest.metrics[BEST_METRIC], one.order), default=None)


def surplus(checkpoints: Sequence[Checkpoint], keep: int) -> list[Checkpoint]:
    """Checkpoints that are neither among the `keep` newest nor the best, oldest first.

    A step that a resumed run saved again (an interrupted evaluation was made up for) counts once, as its newest.
    """
    ordered = sorted(checkpoints, key=lambda one: one.order)
    newest_of_step = {one.manifest.step: one for one in ordered}
    kept = [*list(newest_of_step.values())[-keep:], best_of(ordered)]
    return [one for one in ordered if one not in kept]
