"""Retention of checkpoints: the newest ones and the best one; pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.objective import Objective


def best_of(checkpoints: Sequence[Checkpoint], objective: Objective) -> Checkpoint | None:
    """Return the checkpoint with the best evaluation, the older one of equals; None when none was evaluated."""
    costs = [
        (cost, one.order, one) for one in checkpoints if (cost := objective.cost(one.manifest.metrics)) is not None
    ]
    return min(costs, key=lambda entry: entry[:2])[2] if costs else None


def surplus(checkpoints: Sequence[Checkpoint], keep: int, objective: Objective) -> list[Checkpoint]:
    """Return the checkpoints to remove, oldest first: all but the `keep` newest and the best.

    A step that a resumed run saved again (to add an interrupted evaluation) counts once, as its newest checkpoint.
    """
    ordered = sorted(checkpoints, key=lambda one: one.order)
    newest_of_step = {one.manifest.step: one for one in ordered}
    kept = [*list(newest_of_step.values())[-keep:], best_of(ordered, objective)]
    return [one for one in ordered if one not in kept]
