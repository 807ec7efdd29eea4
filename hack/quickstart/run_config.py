"""The run config of the quickstart: the settings of the demo's TrainingJob, with local files as sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from demo.kubectl import Object

_BLOCKS = ("task", "method", "optimization", "adapter", "llm", "evaluation", "checkpoints")
"""Blocks of a TrainingJob's spec that a run config takes as they are."""


def run_config(job: Object, inputs: Path, run_directory: Path) -> Object:
    """Return the run config of a TrainingJob whose claim `inputs` is a directory of this machine."""
    spec = job["spec"]
    dataset = spec["dataset"]
    return {
        "runDirectory": str(run_directory),
        **{block: spec[block] for block in _BLOCKS if block in spec},
        "model": {"source": _local(spec["model"]["source"], inputs)},
        "dataset": {
            "source": _local(dataset["source"], inputs),
            "validation": {"source": _local(dataset["validation"]["source"], inputs)},
        },
    }


def prepare(job: Object, inputs: Path, parent: Path) -> Path:
    """Write `run.json` into a separate directory below `parent`, and return the path.

    The directory is named by the settings and the inputs: the same settings find the same run again, and others start a
    new one.
    """
    directory = parent / _digest([job, str(inputs)])
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "run.json"
    path.write_text(json.dumps(run_config(job, inputs, directory / "run"), indent=1) + "\n")
    return path


def _local(source: str, inputs: Path) -> str:
    return (inputs / source.removeprefix("pvc://inputs/")).as_uri()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
