"""An 8B model on one GPU, compared with `transformers.Trainer`: `python -m benchmarks.gpu.training --json FILE`.

Random weights of Llama-3.1-8B, of which only the shape matters here. About 15 minutes on an H200 and 20 GB of disk;
`--only` does a part. `--shape tiny --device cpu` runs the same code on a small model, to see whether it works.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.comparison import OURS, Case, Method, Result, Side, SideError, compare, gpu_peak, predicted, run_side
from benchmarks.report import Report, machine
from benchmarks.workload import SHAPES, Precision, Workshop, describe, rows_per_step, some_lengths

CAP = 8 * 2**30
"""Bytes of the emulated small GPU."""
_PEERS = (
    Side("Trainer", recompute=True),
    Side("Trainer, grouped", grouped=True, recompute=True),
    Side("Trainer, grouped, activations kept", grouped=True),
)
_NOTES = """\
Real tokens exclude padding. The speed is that of a whole run from its first micro-batch on, after a tiny warm-up \
pass. Every side is a new process with the same rows, weights, initial adapter, learning rates, optimizer and steps.
The peer's batch has, on average, as many tokens as our step. It recomputes activations, as its recipe for 4 bits \
does, except for one contestant that keeps them; we follow our memory plan.
MFU: operations of the method, without recomputation and attention's products, by the data sheet's dense bf16.
Under the cap torch can allocate no more than it (the context of CUDA comes on top), and reads it as the GPU's \
memory."""


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark.

    Attributes:
        shape: Name of the model's shape.
        device: cuda or cpu.
        length: Tokens of the longest row and of a packed sequence.
        sequences: Packed sequences of a micro-batch.
        steps: Steps of a run.
    """

    shape: str
    device: str
    length: int = 4096
    sequences: int = 4
    steps: int = 24

    @property
    def precision(self) -> Precision:
        """What the device is good at."""
        return "bf16" if self.device == "cuda" else "fp32"


def qlora(report: Report, workshop: Workshop, scale: Scale) -> None:
    """4 bits, packed 4096."""
    _contest(report, workshop, scale, "qlora", "H200: >= 10k")


def lora(report: Report, workshop: Workshop, scale: Scale) -> None:
    """The base model in bf16."""
    _contest(report, workshop, scale, "lora", "H200: >= 13k")


def _contest(report: Report, workshop: Workshop, scale: Scale, method: Method, bar: str) -> None:
    case = workshop.case(method, "mixed", steps=scale.steps, sequences=scale.sequences)
    name = f"{method}, packed {scale.length}"
    found = {OURS.name: [run_side(OURS, case, workshop.folder / method / "ours")]}
    for number, side in enumerate(_PEERS):
        if result := _tried(report, name, side, case, workshop.folder / method / str(number)):
            found[side.name] = [result]
    ours = found[OURS.name][0]
    compare(report, name, found, ">= 1.3", bar)
    _memory(report, name, ours)


def capped(report: Report, workshop: Workshop, scale: Scale) -> None:
    """4 bits on a GPU of 8 GiB."""
    length = scale.length // 2
    case = workshop.case("qlora", "mixed", steps=scale.steps, sequences=1, length=length)
    if scale.device == "cuda":
        case = replace(case, cap=CAP)
    name = f"qlora, {length} tokens, GPU of 8 GiB"
    result = _tried(report, name, OURS, case, workshop.folder / "capped")
    if result is None:
        return
    report.add(f"{name}: real tokens/s", f"{result.speed:.0f}", "H200: >= 5k")
    if result.reserved:
        report.add(f"{name}: peak, allocated / reserved (GiB)", gpu_peak(result), "<= 7.4")
    _memory(report, name, result)


def _tried(report: Report, name: str, side: Side, case: Case, folder: Path) -> Result | None:
    """Run a side that may not fit."""
    try:
        return run_side(side, case, folder)
    except SideError as error:
        report.notes.append(f"{name}: {error}")
        print(f"  {name}: {error}", flush=True)
        return None


def _memory(report: Report, name: str, result: Result) -> None:
    if result.measured:
        predicted(report, name, result)


SECTIONS: dict[str, Callable[[Report, Workshop, Scale], None]] = {"qlora": qlora, "lora": lora, "capped": capped}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.training", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b", help="of the model (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: only to see whether it works")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="section (default: all)")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not _gpus():
        print("There is no GPU that torch can use here, so nothing was measured.")
        return
    small = {} if chosen.device == "cuda" else {"length": 128, "sequences": 4, "steps": 4}
    scale = Scale(chosen.shape, chosen.device, **small)
    report = Report("Training on a GPU", _setup(scale), notes=_NOTES.splitlines())
    try:
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), SHAPES[scale.shape], scale.precision, scale.device, scale.length)
            for section in chosen.only or SECTIONS:
                SECTIONS[section](report, workshop, scale)
    finally:  # what was measured before a failure is worth reading too
        report.publish(chosen.json)


def _gpus() -> list[str]:
    """Return name, memory and driver of each GPU."""
    import torch

    if not torch.cuda.is_available():
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _setup(scale: Scale) -> dict[str, str]:
    tokens = scale.length * scale.sequences
    lengths = some_lengths("mixed", scale.steps, tokens, scale.length)
    return machine("torch", "transformers", "peft", "bitsandbytes", "accelerate") | {
        "GPU": "; ".join(_gpus()) if scale.device == "cuda" else "none",
        "model": f"{SHAPES[scale.shape]}, {scale.precision}, random weights",
        "training": "LoRA rank 16, all linear layers, no dropout; AdamW, cosine without warm-up; loss on every token",
        "rows": describe(lengths),
        "a step": f"{scale.sequences} x {scale.length} tokens packed; the peer's {rows_per_step(lengths, tokens)} rows",
        "steps": f"{scale.steps}, once",
    }


if __name__ == "__main__":
    main()
