"""How fast the trainer trains, and in how much memory, beside `transformers.Trainer`: `python -m benchmarks.training`.

About 6 minutes on the CPU with one thread; a small Llama with random weights. `benchmarks.gpu.training` is the same at
the real size.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from benchmarks.contest import OURS, Case, Result, Side, alternate, compare, predicted, run_side
from benchmarks.report import Report, machine
from benchmarks.workload import (
    SHAPES,
    Lengths,
    describe,
    make_model,
    row_lengths,
    rows,
    rows_per_step,
    some_lengths,
    write_rows,
)

LONGEST, SEQUENCES = 256, 2
"""Tokens of the longest row and of a packed sequence, and packed sequences of a step."""
EVERY = 10
"""checkpoints.everySteps of the run whose stall is measured."""
_PEERS = (Side("Trainer"), Side("Trainer, grouped", grouped=True))
_NOTES = """\
Real tokens are those of rows, without padding; the speed is that of a whole run from its first micro-batch on, the \
median of the repetitions, after a tiny pass that does what happens once in a process. Every side is a new process, \
and they take turns. They have the same rows, weights, initial adapter, learning rates and optimizer, and as many steps.
Per second of CPU: what is left of the speed when others use the machine too.
maxLength is the longest row. The peer's batch holds as many rows as have, on average, as many tokens as our step.
Grouping sorts 50 batches of rows, or a quarter of all where that is less, and begins with the longest. Here the steps \
are just that quarter, so that all lengths are seen, as in a long run.
A save is written by a thread: `steps wait` is the time the engine itself waits for it; `is longer` compares the step \
after a save with the median of the others, and so has in it what the thread takes from the steps.
Prediction: the memory plan's peak for the run, against the bytes of all tensors that exist at a time, counted by a \
dispatch mode in a run of its own, after the first step."""


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        shape: Name of the model's shape.
        steps: Steps of a run on mixed lengths; half as many on equal ones, of which there is less to see.
        repetitions: Of every side.
        methods: Trained by both.
        checkpoints: Saves whose stall is measured.
    """

    shape: str = "small"
    steps: int = 20
    repetitions: int = 2
    methods: tuple[Literal["lora", "qlora"], ...] = ("lora", "qlora")
    checkpoints: int = 3


QUICK = Scale(shape="tiny", steps=8, repetitions=1, methods=("lora",), checkpoints=1)


class Workshop:
    """Makes models and rows below a folder.

    Args:
        folder: An empty one.
        scale: How much.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder, self.scale = folder, scale
        shape = SHAPES[scale.shape]
        make_model(folder / "model", shape, precision="fp32", device="cpu", context=LONGEST)
        self._vocabulary = shape.vocabulary
        lengths = row_lengths("mixed", 24, LONGEST)
        write_rows(folder / "held-out.jsonl", rows(lengths, shape.vocabulary, seed=2))

    def case(self, method: Literal["lora", "qlora", "full"], kind: Lengths, steps: int) -> Case:
        """A run of so many steps."""
        path, tokens = self.folder / f"{kind}-{steps}.jsonl", SEQUENCES * LONGEST
        lengths = some_lengths(kind, steps, tokens, LONGEST)
        if not path.exists():
            write_rows(path, rows(lengths, self._vocabulary, seed=1))
        return Case(
            model=str(self.folder / "model"),
            rows=str(path),
            held_out=str(self.folder / "held-out.jsonl"),
            method=method,
            precision="fp32",
            max_length=LONGEST,
            sequences=SEQUENCES,
            rows_per_batch=rows_per_step(lengths, tokens),
            max_steps=steps,
        )


# --- speed ------------------------------------------------------------------------------------------------------------


def mixed(report: Report, workshop: Workshop) -> None:
    """Rows of mixed length: what packing is for."""
    for method in workshop.scale.methods:
        found = _contest(workshop, method, "mixed", _PEERS)
        ours = found[OURS.name]
        compare(report, f"{method}, mixed lengths", found, ">= 1.5")
        report.add(f"{method}, mixed lengths: packing efficiency (%)", f"{100 * (ours[0].packing or 0):.1f}", ">= 97")
        wait = median(one.waiting for one in ours)
        report.add(f"{method}, mixed lengths: waiting for data (% of the time)", f"{100 * wait:.2f}", "< 2")


def equal(report: Report, workshop: Workshop) -> None:
    """Rows of one length: neither packing nor grouping has anything to do."""
    for method in workshop.scale.methods:
        compare(report, f"{method}, equal lengths", _contest(workshop, method, "equal", _PEERS[:1]), ">= 1.0")


def _contest(
    workshop: Workshop, method: Literal["lora", "qlora"], kind: Lengths, peers: tuple[Side, ...]
) -> dict[str, list[Result]]:
    scale = workshop.scale
    case = workshop.case(method, kind, scale.steps if kind == "mixed" else scale.steps // 2)
    return alternate((OURS, *peers), case, workshop.folder / f"{method}-{kind}", scale.repetitions)


# --- checkpoints and memory -------------------------------------------------------------------------------------------


def checkpoints(report: Report, workshop: Workshop) -> None:
    """What a checkpoint costs the steps."""
    steps = EVERY * workshop.scale.checkpoints + 2
    case = replace(workshop.case("lora", "equal", 2 * steps), max_steps=steps, accumulation=2, save_every=EVERY)
    result = run_side(OURS, case, workshop.folder / "checkpoints")
    took = {step: after - before for step, before, after in _gaps(result.logged)}
    plain = median(seconds for step, seconds in took.items() if step > 1 and step % EVERY)
    after = median(seconds for step, seconds in took.items() if step % EVERY == 0)
    waited = median(result.saves[:-1])  # the last one comes after the last step
    name = f"lora, everySteps {EVERY}, a step of {plain * 1000:.0f} ms"
    text = f"{100 * waited / plain:.1f} ({waited * 1000:.1f} ms)"
    report.add(f"{name}: steps wait for a save (% of a step)", text, "< 5")
    report.add(f"{name}: the next step is longer by (% of a step)", f"{100 * (after / plain - 1):.1f}", "< 5")


def _gaps(logged: list[float]) -> list[tuple[int, float, float]]:
    """(step, its time, that of the next one)."""
    return [(number + 1, *pair) for number, pair in enumerate(pairwise(logged))]


def memory(report: Report, workshop: Workshop) -> None:
    """The memory plan against what is there."""
    methods: tuple[Literal["lora", "qlora", "full"], ...] = (*workshop.scale.methods, "full")
    for method in methods:
        case = replace(workshop.case(method, "equal", 3), watched=True)
        predicted(report, method, run_side(OURS, case, workshop.folder / f"memory-{method}"))


# --- the whole --------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Report, Workshop], None]] = {
    "mixed": mixed,
    "equal": equal,
    "checkpoints": checkpoints,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny model and little of everything: does it work?")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="section (default: all)")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else Scale()
    report = Report("Training on the CPU", _setup(scale), notes=_NOTES.splitlines())
    try:
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), scale)
            for section in chosen.only or SECTIONS:
                SECTIONS[section](report, workshop)
    finally:  # what was measured before a failure is worth reading too
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


def _setup(scale: Scale) -> dict[str, str]:
    lengths = some_lengths("mixed", scale.steps, SEQUENCES * LONGEST, LONGEST)
    theirs = rows_per_step(lengths, SEQUENCES * LONGEST)
    return machine("torch", "transformers", "peft", "bitsandbytes", "accelerate") | {
        "threads": "1 (OMP_NUM_THREADS)",
        "model": f"{SHAPES[scale.shape]}, fp32, random weights",
        "training": "LoRA rank 16, all linear layers, no dropout; AdamW, cosine without warm-up; loss on every token",
        "rows, mixed": describe(lengths),
        "a step": f"{SEQUENCES} x {LONGEST} tokens packed; the peer's {theirs} rows (mixed), {SEQUENCES} (equal)",
        "steps": f"{scale.steps} (mixed), {scale.steps // 2} (equal), {scale.repetitions} times, sides alternating",
    }


if __name__ == "__main__":
    main()
