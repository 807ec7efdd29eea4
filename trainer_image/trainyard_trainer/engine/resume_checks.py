"""Whether a run may resume from a checkpoint: same data, same settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.errors import DataError, SourceError

_NO_EFFECT_ON_WEIGHTS = {"optimization.loggingSteps", "optimization.recompute"}
_UNWRITTEN = {"processes": "1"}
"""Settings that checkpoints omit while they have this value."""
_ADVICE = "Set it back, or start a new run (a new TrainingJob, or another runDirectory)."


def training_settings(config: RunConfig, blocks: Sequence[str]) -> dict[str, str]:
    """Return every setting that decides the final weights but the data: `optimization.learningRate` -> its JSON text.

    Args:
        config: The run config.
        blocks: The task's own blocks of it.
    """
    document = config.to_json()
    chosen = {name: document[name] for name in ("optimization", *blocks) if name in document}
    if config.processes > 1:
        chosen["processes"] = config.processes
    chosen["model"] = {"source": config.model.display_source or config.model.source, "revision": config.model.revision}
    flat = _flatten("", chosen)
    return {name: value for name, value in sorted(flat.items()) if name not in _NO_EFFECT_ON_WEIGHTS}


def settings_hash(settings: Mapping[str, str]) -> str:
    """Return the hex SHA-256 of the settings."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()


def check_settings(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Check that the settings are those the run began with.

    Raises:
        DataError: One of them differs.
    """
    difference = first_difference(before, now)
    if difference is not None:
        name, old, new = difference
        raise DataError(f"{name} was {old} when this run began and is {new} now.", _ADVICE)


def first_difference(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return name, old and new value of the first setting that differs; None if all are equal."""
    for name in sorted({*before, *now}, key=lambda name: (name.count("."), name)):
        unwritten = _UNWRITTEN.get(name, "unset")
        old, new = before.get(name, unwritten), now.get(name, unwritten)
        if old != new:
            return name, old, new
    return None


def check_fingerprint(before: str, now: str, step: int) -> None:
    """Check that the training rows are those the run began with.

    Raises:
        DataError: They differ.
    """
    if before != now:
        raise DataError(
            f"The training data is not the one this run made its first {step} steps with "
            f"(fingerprint {now[:12]}, was {before[:12]}): rows, tokenizer or data settings changed.",
            "Put the old data back, or start a new run (a new TrainingJob, or another runDirectory).",
        )


def check_same_rows(fingerprints: Sequence[str]) -> None:
    """Check that all processes of a group have the same training rows.

    Raises:
        SourceError: They differ.
    """
    if len(set(fingerprints)) > 1:
        raise SourceError(
            "The pods of the group found different training rows: dataset.source changed while they fetched it.",
            "The next start fetches it again. Use a source that does not change.",
        )


def _flatten(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(f"{prefix}{name}.", value)
        else:
            flat[f"{prefix}{name}"] = json.dumps(value)
    return flat
