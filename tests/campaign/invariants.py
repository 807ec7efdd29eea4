"""Invariants of a run directory after any fault of its trainers."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.unit.trainer.toy import event_lines, metric_lines
from trainyard_trainer.checkpoint.fencing import belongs_to_run, newest_owner
from trainyard_trainer.checkpoint.manifest import is_checkpoint_name, owner_epoch_of, read_verified


@dataclass(frozen=True)
class Outcome:
    """Result of a finished run, without what depends on the clock and the number of attempts."""

    export: dict[str, bytes]
    weights: dict[str, bytes]
    metrics: list[dict[str, float]]
    events: list[tuple[int, str, float]]


def outcome_of(run: Path) -> Outcome:
    """Return the outcome of a finished run; fail if there are leftovers."""
    assert (run / "result.json").exists(), "the run has no result"
    assert not list(run.rglob(".tmp-*")), "the run has leftovers"
    [export] = (run / "exports").iterdir()
    last = json.loads((run / "checkpoints/index.json").read_text())["last"]
    return Outcome(
        _contents(export),
        _contents(run / "checkpoints" / last / "weights"),
        metric_lines(run),
        event_lines(run),
    )


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def resumable(run: Path) -> tuple[str, int] | None:
    """Return name and step of the checkpoint that the next attempt resumes from; None for the start of the run."""
    if not (run / "owner").is_dir() or not (run / "checkpoints").is_dir():
        return None
    owner = newest_owner(run / "owner")
    names = [path.name for path in (run / "checkpoints").iterdir() if is_checkpoint_name(path.name)]
    owned = [name for name in names if belongs_to_run(name, owner_epoch_of(name), owner)]
    verified = [one for one in (read_verified(run / "checkpoints" / name) for name in owned) if one is not None]
    newest = max(verified, key=lambda one: one.order, default=None)
    return None if newest is None else (newest.name, newest.manifest.step)


def resumed_from(run: Path) -> list[str]:
    """Return the checkpoints that the attempts of a run resumed from, oldest first."""
    if not (run / "log.jsonl").exists():
        return []
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [e["message"].removeprefix("Resumed from ").rstrip(".") for e in events if e["type"] == "Resumed"]
