"""`python -m quickstart`: what `make try` runs.

Each step reuses what is already there: the inputs, the checkpoints of an interrupted run, a finished run.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from cluster.paths import state_dir
from demo import inputs
from demo.compare import Comparison, compare_arguments, parse_comparison
from demo.manifest import load
from demo.show import EXAMPLE, show_comparison
from demo.steps import Steps
from quickstart.run_config import prepare
from trainyard_crds.exitcodes import ExitCode


def main() -> int:
    """Run the steps; 0 when the model learned, 1 when it did not or a step failed, 75 when training was stopped."""
    try:
        return quickstart()
    except subprocess.CalledProcessError as failure:  # the program has printed its error
        if failure.returncode == ExitCode.INTERRUPTED:
            print("\nStopped; the checkpoint is saved. `make try` resumes there.")
            return failure.returncode
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make try` continues with what is done.")
        return 130


def quickstart() -> int:
    """Build the inputs, train, and compare the model before and after on held-out questions.

    Raises:
        CalledProcessError: a program failed; it has printed its error.
    """
    steps = Steps(3)
    with steps.step("a small model, and questions and answers about Python's library (3 min once, then reused)"):
        directory = inputs.ensure()
    config = prepare(load(EXAMPLE), directory, state_dir() / "quickstart")
    run = config.parent / "run"
    with steps.step("trainyard-trainer train --config run.json (QLoRA on the CPU: 1 to 3 min)"):
        train(config)
    with steps.step("trainyard-trainer compare: held-out questions before and after (about 20 s)"):
        passed = show_comparison(compare(directory, run))
    print(_next_steps(config.parent, steps.elapsed))
    return 0 if passed else 1


def train(config: Path) -> None:
    """Train; Ctrl-C reaches the trainer too, which saves a checkpoint before it exits.

    Raises:
        CalledProcessError: the trainer failed or was stopped.
    """
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run([sys.executable, "-m", "trainyard_trainer", "train", "--config", str(config)], check=True)
    finally:
        signal.signal(signal.SIGINT, previous)


def compare(directory: Path, run: Path) -> Comparison:
    """Compare the trained adapter with the base model.

    Raises:
        CalledProcessError: the comparison failed; it has printed its error.
    """
    arguments = compare_arguments(
        model=str(directory / "model"),
        adapter=str(run / "exports" / "adapter"),
        data=str(directory / "heldout.jsonl"),
        method="qlora",
    )
    done = subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return parse_comparison(done.stdout)


def _next_steps(directory: Path, elapsed: str) -> str:
    return "\n".join(
        [
            f"\nThe quickstart took {elapsed}. The run is in {directory}:",
            "  run.json              the settings; `trainyard-trainer train --config FILE` trains with an edited copy",
            "  run/exports/adapter   the trained adapter, a PEFT directory",
            "  run/checkpoints       where a stopped run resumes",
            "  run/metrics.jsonl     loss, learning rate and speed of each logged step",
            "`make try` prints the comparison again; it trains again once you delete that directory.",
            "Next: docs/getting-started.md, the same on Kubernetes.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
