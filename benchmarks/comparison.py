"""The same training by the trainer and by `transformers.Trainer` with PEFT, one after the other, in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from benchmarks.report import NONE, ROOT, Report

_TIMEOUT = 900.0

Method = Literal["lora", "qlora", "full"]


@dataclass(frozen=True)
class Case:
    """Settings of both contestants.

    Attributes:
        model: Model directory.
        rows: Tokenised rows; at least as many as the steps need.
        held_out: Tokenised rows for the loss at the end.
        method: How to train.
        precision: Of weights and activations.
        max_length: Tokens of a packed sequence; the longest row has as many.
        sequences: Packed sequences of a micro-batch of ours.
        rows_per_batch: Rows of a micro-batch of the peer's: on average as many real tokens.
        max_steps: Steps to make.
        accumulation: Micro-batches of a step.
        gpus: 0 or 1.
        threads: Of torch, without a GPU.
        cap: Bytes the GPU is made out to have; None for all it has.
        save_every: Steps between two checkpoints of ours.
        watched: Count the bytes of all tensors, which is slow.
        recompute: `optimization.recompute` of ours.
    """

    model: str
    rows: str
    held_out: str
    method: Method
    precision: Literal["bf16", "fp32"]
    max_length: int
    sequences: int
    rows_per_batch: int
    max_steps: int
    accumulation: int = 1
    gpus: int = 0
    threads: int = 1
    cap: int | None = None
    save_every: int = 1_000_000
    watched: bool = False
    recompute: str = "auto"


@dataclass(frozen=True)
class Side:
    """A contestant.

    Attributes:
        name: In the table.
        ours: Else the peer.
        grouped: The peer batches rows of like length (`train_sampling_strategy="group_by_length"`).
        recompute: The peer recomputes activations; we do as our memory plan says.
    """

    name: str
    ours: bool = False
    grouped: bool = False
    recompute: bool = False


OURS = Side("ours", ours=True)


@dataclass
class Result:
    """Measurements of one process.

    Attributes:
        logged: Unix time at which each step was logged.
        batches: Unix time at its begin, real and computed tokens of each micro-batch.
        cpu: Seconds of CPU the process had used at that time.
        peak_rss: MiB.
        loss: Of the held-out rows at the end, nats per token.
        data_wait: Share of the time, by step.
        packing: Packing efficiency as the trainer reports it.
        saves: Seconds the steps waited for each checkpoint.
        predicted: Bytes the memory plan says, without a GPU's context.
        measured: Most bytes of tensors: as allocated on a GPU, else as counted where the case is watched.
        reserved: Bytes torch took from the GPU.
        recompute: How activations were computed again.
        flops_per_token: As the memory plan counts them, for both sides.
        peak_flops: Of the GPU by its data sheet.
    """

    logged: list[float] = field(default_factory=list)
    batches: list[tuple[float, int, int]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_rss: float = 0.0
    loss: float = 0.0
    data_wait: list[float] = field(default_factory=list)
    packing: float | None = None
    saves: list[float] = field(default_factory=list)
    predicted: int = 0
    measured: int = 0
    reserved: int = 0
    recompute: str = "none"
    flops_per_token: float | None = None
    peak_flops: float | None = None

    @property
    def speed(self) -> float:
        """Real tokens per second."""
        return sum(real for _, real, _ in self.batches) / (self.logged[-1] - self.batches[0][0])

    @property
    def speed_by_cpu(self) -> float:
        """Real tokens per CPU second, up to the start of the last micro-batch."""
        return sum(real for _, real, _ in self.batches[:-1]) / (self.cpu[-1] - self.cpu[0])

    @property
    def real_share(self) -> float:
        """Share of the computed tokens that are real."""
        return sum(real for _, real, _ in self.batches) / sum(computed for _, _, computed in self.batches)

    @property
    def waiting(self) -> float:
        """Share of time spent waiting for data, from the first logged step on."""
        took = [after - before for before, after in pairwise(self.logged)]
        return sum(share * seconds for share, seconds in zip(self.data_wait[1:], took, strict=True)) / sum(took)

    @property
    def utilization(self) -> float | None:
        """Model FLOP/s utilisation, 0 to 1; None if the device's peak is unknown."""
        if self.flops_per_token is None or self.peak_flops is None:
            return None
        return self.speed * self.flops_per_token / self.peak_flops


class SideError(Exception):
    """A process failed; the message has its output."""


def run_side(side: Side, case: Case, folder: Path) -> Result:
    """Train in a new process.

    Raises:
        SideError: It did not finish.
    """
    folder.mkdir(parents=True)
    task, found, output = folder / "case.json", folder / "result.json", folder / "output.txt"
    task.write_text(json.dumps({"side": asdict(side), "case": asdict(case)}))
    path = ":".join(str(ROOT / name) for name in ("", "crds", "trainer_image", "hack"))
    # Of several GPUs, Trainer would take all.
    devices = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    own = devices if case.gpus else {"OMP_NUM_THREADS": str(case.threads)}
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **own}
    command = [sys.executable, "-m", "benchmarks.contestants", str(task), str(found)]
    with output.open("wb") as file:
        done = subprocess.run(
            command, env=environment, cwd=folder, stdout=file, stderr=file, timeout=_TIMEOUT, check=False
        )
    if done.returncode:
        lines = output.read_text().strip().splitlines() or ["it said nothing"]
        raise SideError(f"{side.name} ended with {done.returncode}: {lines[-1][:300]}")
    return Result(**json.loads(found.read_text()))


def alternate(sides: Sequence[Side], case: Case, folder: Path, times: int) -> dict[str, list[Result]]:
    """Run every side in turn, repeatedly, with alternating order: a slower machine then affects all sides alike."""
    found: dict[str, list[Result]] = {side.name: [] for side in sides}
    for number in range(times):
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side.name].append(run_side(side, case, folder / f"{side.name.replace(' ', '-')}-{number}"))
    return found


def compare(report: Report, name: str, found: dict[str, list[Result]], bar: str, speed_bar: str = NONE) -> None:
    """Return the lines of a comparison: speed, its parts, and proof of the same training.

    Args:
        report: Where they go.
        name: What they begin with.
        found: Results by side.
        bar: How many times faster than each peer we should be.
        speed_bar: What our tokens per second should be.
    """
    ours = found.pop(OURS.name)

    def add(what: str, own: str, peers: Iterator[str], bar: str = NONE) -> None:
        text = "; ".join(f"{peer} {value}" for peer, value in zip(found, peers, strict=True))
        report.add(f"{name}: {what}", own, bar, text or NONE)

    add("real tokens/s", _spread(ours), (_spread(results) for results in found.values()), speed_bar)
    for peer, results in found.items():
        report.add(f"{name}: times the speed of {peer}", _times(ours, results, lambda one: one.speed), bar)
        if ours[0].peak_flops is None:  # a GPU does not wait for its host
            text = _times(ours, results, lambda one: one.speed_by_cpu)
            report.add(f"{name}: times the speed of {peer}, by CPU", text, bar)
    add("real tokens/s of CPU", _by_cpu(ours), (_by_cpu(results) for results in found.values()))
    add("real share of the computed tokens", _share(ours), (_share(results) for results in found.values()))
    add("real tokens seen", _seen(ours), (_seen(results) for results in found.values()))
    add("held-out loss behind them", _loss(ours), (_loss(results) for results in found.values()))
    add("peak RSS (MiB)", _rss(ours), (_rss(results) for results in found.values()))
    if ours[0].peak_flops is not None:
        add("MFU (%)", _mfu(ours), (_mfu(results) for results in found.values()))
    if ours[0].reserved:
        add(
            "peak on the GPU, allocated / reserved (GiB)",
            gpu_peak(ours[0]),
            (gpu_peak(one[0]) for one in found.values()),
        )


def gpu_peak(result: Result) -> str:
    """Return allocated and reserved GiB, and the recompute mode."""
    return f"{result.measured / 2**30:.2f} / {result.reserved / 2**30:.2f}, recompute {result.recompute}"


def predicted(report: Report, name: str, result: Result) -> None:
    """Return the line of the memory plan."""
    error = result.predicted / result.measured - 1
    text = f"{result.predicted / 2**20:.0f} for {result.measured / 2**20:.0f} ({100 * error:+.1f} %)"
    report.add(f"{name}: predicted for measured peak (MiB)", text, "within 10 %")


def _times(ours: Sequence[Result], theirs: Sequence[Result], speed: Callable[[Result], float]) -> str:
    """Return the speed-up: the median over repetitions, each compared with its neighbour in time."""
    ratios = [speed(one) / speed(other) for one, other in zip(ours, theirs, strict=True)]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f}{spread}"


def _spread(results: Sequence[Result]) -> str:
    speeds = [one.speed for one in results]
    spread = f" ({min(speeds):.0f} to {max(speeds):.0f})" if len(speeds) > 1 else ""
    return f"{median(speeds):.0f}{spread}"


def _by_cpu(results: Sequence[Result]) -> str:
    return f"{median(one.speed_by_cpu for one in results):.0f}"


def _share(results: Sequence[Result]) -> str:
    return f"{100 * results[0].real_share:.1f} %"


def _seen(results: Sequence[Result]) -> str:
    return f"{sum(real for _, real, _ in results[0].batches)}"


def _loss(results: Sequence[Result]) -> str:
    return f"{results[0].loss:.3f}"


def _rss(results: Sequence[Result]) -> str:
    return f"{median(one.peak_rss for one in results):.0f}"


def _mfu(results: Sequence[Result]) -> str:
    return f"{100 * median(one.utilization or 0.0 for one in results):.1f}"
