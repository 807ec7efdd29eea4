"""Speed and memory of the trainer compared with `transformers.Trainer`: `python -m benchmarks.training`.

About 13 minutes on the CPU with one thread; a small Llama with random weights. `benchmarks.gpu.training` is the same at
the real size.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.comparison import OURS, Case, Method, Result, Side, alternate, compare, predicted, run_side
from benchmarks.report import Report, machine
from benchmarks.workload import SHAPES, Lengths, Workshop, describe, rows_per_step, some_lengths

LONGEST, SEQUENCES = 256, 2
"""Tokens of the longest row and of a packed sequence, and packed sequences of a step."""
EVERY = 10
"""checkpoints.everySteps of the run that measures the stall."""
_PEERS = (Side("Trainer"), Side("Trainer, grouped", grouped=True))
_NOTES = """\
Real tokens are those of rows, without padding; the speed is that of a whole run from its first micro-batch on, \
after a tiny pass that does what happens once in a process. Every side is a new process, and they take turns, every \
second time in the opposite order; `times` is the median (least to most) of the ratios of one turn. They have the \
same rows, weights, initial adapter, learning rates, optimizer and threads, and as many steps.
Per second of CPU: what is left of the speed when others use the machine too.
maxLength is the longest row. The peer's batch holds as many rows as have, on average, as many tokens as our step.
Grouping sorts 50 batches of rows, or a quarter of all where that is less, and begins with the longest. Here the steps \
are just that quarter, so that all lengths are seen, as in a long run.
A save is written by a thread: `steps wait` is the time the engine itself waits for it; `is longer` compares the step \
after a save with the median of the others, and so has in it what the thread takes from the steps.
Prediction: the memory plan's peak for the run, against the bytes of all tensors that exist at a time, counted by a \
dispatch mode in a run of its own, after the first step and before the first save."""


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark.

    Attributes:
        shape: Name of the model's shape.
        steps: Steps of a run on mixed lengths; half as many on equal ones, of which there is less to see.
        repetitions: Of every side.
        methods: Trained by all sides.
        checkpoints: Saves whose stall is measured.
    """

    shape: str = "small"
    steps: int = 16
    repetitions: int = 3
    methods: tuple[Method, ...] = ("lora", "qlora", "full")
    checkpoints: int = 3


QUICK = Scale(shape="tiny", steps=8, repetitions=1, methods=("lora",), checkpoints=1)


@dataclass(frozen=True)
class Bench:
    """Context of a section."""

    report: Report
    workshop: Workshop
    scale: Scale

    def case(self, method: Method, kind: Lengths, steps: int, *, answers: bool = False) -> Case:
        """Return a case of so many steps."""
        return self.workshop.case(method, kind, steps=steps, sequences=SEQUENCES, answers=answers)

    def contest(self, name: str, case: Case, peers: Sequence[Side]) -> dict[str, list[Result]]:
        """Run every side several times."""
        return alternate((OURS, *peers), case, self.workshop.folder / name, self.scale.repetitions)


# --- speed ------------------------------------------------------------------------------------------------------------


def mixed(bench: Bench) -> None:
    """Rows of mixed length, where packing helps."""
    for method in bench.scale.methods:
        found = bench.contest(f"mixed-{method}", bench.case(method, "mixed", bench.scale.steps), _PEERS)
        ours = found[OURS.name]
        compare(bench.report, f"{method}, mixed lengths", found, ">= 1.5")
        packing, wait = 100 * (ours[0].packing or 0), 100 * median(one.waiting for one in ours)
        bench.report.add(f"{method}, mixed lengths: packing efficiency (%)", f"{packing:.1f}", ">= 97")
        bench.report.add(f"{method}, mixed lengths: waiting for data (% of the time)", f"{wait:.2f}", "< 2")


def answers(bench: Bench) -> None:
    """Mixed rows with loss on the second half only, as for chats by default."""
    case = bench.case("lora", "mixed", bench.scale.steps, answers=True)
    compare(bench.report, "lora, mixed lengths, answers", bench.contest("answers", case, _PEERS), ">= 1.5")


def equal(bench: Bench) -> None:
    """Rows of one length, where packing and grouping have no effect."""
    for method in bench.scale.methods:
        case = bench.case(method, "equal", bench.scale.steps // 2)
        compare(bench.report, f"{method}, equal lengths", bench.contest(f"equal-{method}", case, _PEERS[:1]), ">= 1.0")


# --- checkpoints and memory -------------------------------------------------------------------------------------------


def checkpoints(bench: Bench) -> None:
    """Stall of the steps by a checkpoint."""
    steps = EVERY * bench.scale.checkpoints + 2
    case = replace(bench.case("lora", "equal", 2 * steps), max_steps=steps, accumulation=2, save_every=EVERY)
    result = run_side(OURS, case, bench.workshop.folder / "checkpoints")
    took = {step: after - before for step, before, after in _gaps(result.logged)}
    plain = median(seconds for step, seconds in took.items() if step > 1 and step % EVERY)
    after = median(seconds for step, seconds in took.items() if step % EVERY == 0)
    waited = median(result.saves[:-1])  # the last one comes after the last step
    name = f"lora, everySteps {EVERY}, a step of {plain * 1000:.0f} ms"
    text = f"{100 * waited / plain:.1f} ({waited * 1000:.1f} ms)"
    bench.report.add(f"{name}: steps wait for a save (% of a step)", text, "< 5")
    bench.report.add(f"{name}: the next step is longer by (% of a step)", f"{100 * (after / plain - 1):.1f}", "< 5")


def _gaps(logged: list[float]) -> list[tuple[int, float, float]]:
    """Return (step, its time, that of the next one)."""
    return [(number + 1, *pair) for number, pair in enumerate(pairwise(logged))]


def memory(bench: Bench) -> None:
    """The memory plan compared with the measured peak."""
    for method in bench.scale.methods:
        for mode in ("none", "selective", "full"):
            case = replace(bench.case(method, "equal", 3), watched=True, recompute=mode)
            result = run_side(OURS, case, bench.workshop.folder / f"memory-{method}-{mode}")
            predicted(bench.report, f"{method}, recompute {result.recompute}", result)


# --- the whole --------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "mixed": mixed,
    "answers": answers,
    "equal": equal,
    "checkpoints": checkpoints,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="a tiny model and little of everything: does it work?")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, of each side (default: %(default)s)")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="section (default: all)")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else Scale()
    report = Report("Training on the CPU", _setup(scale, chosen.threads), notes=_NOTES.splitlines())
    try:
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), SHAPES[scale.shape], "fp32", "cpu", LONGEST, chosen.threads)
            for section in chosen.only or SECTIONS:
                SECTIONS[section](Bench(report, workshop, scale))
    finally:  # what was measured before a failure is worth reading too
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


def _setup(scale: Scale, threads: int) -> dict[str, str]:
    lengths = some_lengths("mixed", scale.steps, SEQUENCES * LONGEST, LONGEST)
    theirs = rows_per_step(lengths, SEQUENCES * LONGEST)
    return machine("torch", "transformers", "peft", "bitsandbytes", "accelerate") | {
        "threads": f"{threads} for each side, which trains alone",
        "model": f"{SHAPES[scale.shape]}, fp32, random weights",
        "training": "LoRA rank 16, all linear layers, no dropout; AdamW, cosine without warm-up; loss on every token",
        "rows, mixed": describe(lengths),
        "a step": f"{SEQUENCES} x {LONGEST} tokens packed; the peer's {theirs} rows (mixed), {SEQUENCES} (equal)",
        "steps": f"{scale.steps} (mixed), {scale.steps // 2} (equal), {scale.repetitions} times, sides alternating",
    }


if __name__ == "__main__":
    main()
