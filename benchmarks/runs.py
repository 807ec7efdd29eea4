"""Trainer processes, started like in a pod, and the contents of their run directories."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT

_STARTED = re.compile(r"finished ([\d.]+) s after the process start: (.*)\.$")
_TIMEOUT = 120.0


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run.

    Attributes:
        model: Model directory.
        rows: JSON Lines file.
    """

    model: Path
    rows: Path


def run_config(run_directory: Path, inputs: Inputs, *, method: str, steps: int, save_every: int) -> dict[str, Any]:
    """Return a run config for one CPU core that logs every step, for the time of every step."""
    return {
        "runDirectory": str(run_directory),
        "task": "llm",
        "method": method,
        "model": {"source": f"file://{inputs.model}"},
        "dataset": {"source": f"file://{inputs.rows}"},
        "optimization": {
            "precision": "fp32",
            "maxSteps": steps,
            "batchSize": 1,
            "gradientAccumulation": 1,
            "loggingSteps": 1,
        },
        "adapter": None if method == "full" else {"rank": 8},
        "llm": {"maxLength": 256, "packing": True},
        "checkpoints": {"everySteps": save_every, "keep": 1},
    }


class Run:
    """A trainer process and its run directory.

    Args:
        config: Its run config.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.directory = Path(config["runDirectory"])
        home = self.directory.parent
        home.mkdir(parents=True, exist_ok=True)
        path = home / "run.json"
        path.write_text(json.dumps(config))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'trainer_image'}",
            "OMP_NUM_THREADS": "1",
            "TRAINYARD_TERMINATION_LOG": str(home / "termination"),
        }
        command = [sys.executable, "-m", "trainyard_trainer", "train", "--config", str(path)]
        self.output = home / "output.txt"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def finish(self) -> None:
        """Wait until it finishes.

        Raises:
            RuntimeError: It ended in another way.
        """
        if self.process.wait(600) != 0:
            raise RuntimeError(f"the trainer ended with {self.process.returncode}: {self.output.read_text()[-2000:]}")

    def end(self, number: signal.Signals) -> float:
        """Send a signal and wait; returns the seconds until it ended."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(_TIMEOUT)
        return time.monotonic() - began

    def wait_for_start(self, number: int) -> None:
        """Wait until that many attempts in its run directory have done their first step.

        Raises:
            RuntimeError: The trainer ended, or it took too long.
        """
        end = time.monotonic() + _TIMEOUT
        while len(self.log("Started")) < number:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"no first step: {self.output.read_text()[-2000:]}")
            time.sleep(0.01)

    def resumed_step(self, start: int) -> int:
        """Return the step that the `start`-th attempt resumed from; 0 without a checkpoint."""
        events = [each for each in _lines(self.directory / "log.jsonl") if each["type"] in ("Resumed", "Started")]
        begins = [number for number, each in enumerate(events) if each["type"] == "Started"]
        before = events[begins[start - 1] - 1] if begins[start - 1] else {"type": "Started"}
        return int(before["message"].split("step-")[1].split("-")[0]) if before["type"] == "Resumed" else 0

    def log(self, kind: str) -> list[str]:
        """Return the messages of one type, oldest first."""
        return [each["message"] for each in _lines(self.directory / "log.jsonl") if each["type"] == kind]

    def steps(self) -> dict[int, float]:
        """Return the Unix time at which each step was logged, by step."""
        lines = _lines(self.directory / "metrics.jsonl")
        return {each["step"]: datetime.fromisoformat(each["time"]).timestamp() for each in lines if "loss" in each}

    def startup(self) -> tuple[float, dict[str, float]]:
        """Return the seconds from process start to first step of the newest attempt, in total and by part."""
        found = _STARTED.search(self.log("Started")[-1])
        assert found is not None
        parts = dict(part.removesuffix(" s").rsplit(" ", 1) for part in found[2].split(", "))
        return float(found[1]), {name: float(seconds) for name, seconds in parts.items()}


def checkpoint_bytes(run_directory: Path) -> int:
    """Return the bytes of the newest checkpoint."""
    newest = max((run_directory / "checkpoints").glob("step-*"), key=lambda path: path.stat().st_mtime)
    return sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a JSON Lines file that may still grow."""
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
