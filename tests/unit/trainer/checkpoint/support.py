"""Open a checkpoint store and save small checkpoints in it."""

from pathlib import Path

from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.manifest import CursorEntry
from trainyard_trainer.checkpoint.store import CheckpointStore, Draft, open_store
from trainyard_trainer.objective import Objective

NOW = "2026-01-02T03:04:05Z"


def open_at(directory: Path, *, keep: int = 2, files: Files | None = None) -> CheckpointStore:
    return open_store(
        directory,
        files=files or Files(),
        keep=keep,
        run_uri="pvc://c/run",
        pod_uid="uid",
        now=NOW,
        objective=Objective("evalLoss", "minimize"),
    )


def draft(step: int, **metrics: float) -> Draft:
    return Draft(
        step=step,
        epoch=step / 10,
        cursor=CursorEntry(epoch=0, index=step),
        data_fingerprint="f",
        config_hash="h",
        config={"method": '"full"'},
        metrics=metrics,
        created_at=NOW,
    )


def write(weights: Path, state: Path) -> None:
    (weights / "model.safetensors").write_bytes(b"weights")
    (state / "state.json").write_bytes(b"{}")


def save(store: CheckpointStore, step: int, **metrics: float) -> None:
    store.save(draft(step, **metrics), write)


def names(store: CheckpointStore) -> list[str]:
    return [one.name for one in store.statuses()]
