"""Reads a checkpoint of another run's directory; changes nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainyard_crds.runconfig import RunResume
from trainyard_trainer.checkpoint.fencing import newest_owner
from trainyard_trainer.checkpoint.manifest import MANIFEST, Checkpoint, Manifest, digest_of, read_verified
from trainyard_trainer.checkpoint.retention import best_of
from trainyard_trainer.checkpoint.store import CHECKPOINTS, OWNERS, names_of_run
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.objective import Objective

_MOST_NAMED = 20


def find_checkpoint(request: RunResume, objective: Objective) -> Checkpoint:
    """Return the checkpoint that a run resumes from, verified.

    Args:
        request: The other run and the checkpoint.
        objective: Decides which checkpoint is the best.

    Raises:
        NotFoundError: the run has no such checkpoint, or it is damaged.
    """
    run = Path(request.run_directory)
    if not (run / CHECKPOINTS).is_dir():
        raise NotFoundError(
            f"resumeFrom: {request.display_name} is not the directory of a run.",
            "Use the status.runUri of a TrainingJob whose claim still exists.",
        )
    names = sorted(names_of_run(run / CHECKPOINTS, newest_owner(run / OWNERS)), key=_step, reverse=True)
    found = next(_candidates(request, run / CHECKPOINTS, names, objective), None)
    if found is None:
        raise NotFoundError(
            f"resumeFrom: the run {request.display_name} has no complete checkpoint '{request.checkpoint}'"
            f" (it has: {', '.join(names[:_MOST_NAMED]) or 'none'}).",
            "Name one that it has, or last.",
        )
    return found


def read_checkpoint(request: RunResume, name: str) -> Checkpoint:
    """Return a checkpoint that another process of the group has verified."""
    directory = Path(request.run_directory) / CHECKPOINTS / name
    data = (directory / MANIFEST).read_bytes()
    return Checkpoint(directory=directory, manifest=Manifest.model_validate_json(data), digest=digest_of(data))


def _candidates(request: RunResume, directory: Path, names: list[str], objective: Objective) -> Iterator[Checkpoint]:
    """Yield the checkpoints that fit the request, the preferred one first; each is read when it is asked for."""
    if request.checkpoint not in {"last", "best"}:
        names = [name for name in names if name == request.checkpoint]
    verified = (one for name in names if (one := read_verified(directory / name)) is not None)
    if request.checkpoint != "best":
        yield from verified
    elif (best := best_of(list(verified), objective)) is not None:
        yield best


def _step(name: str) -> tuple[int, int]:
    """Sort key of a checkpoint's name: step, owner epoch."""
    _, step, epoch = name.split("-")
    return int(step), int(epoch.removeprefix("e"))
