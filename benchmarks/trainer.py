"""Startup, checkpoint and recovery times of the trainer: `python -m benchmarks.trainer`, about 6 minutes, no cluster.

Runs real trainer processes, started as in a pod, on the CPU with one thread and the small model of hack/tiny_model.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.report import ROOT, Report, file_system, machine, percentile
from benchmarks.runs import Inputs, Run, checkpoint_bytes, run_config
from demo import inputs as demo_inputs

_NOTES = """\
start -> first step: from the start of the process (kernel time stamp) to the end of the first optimizer step, as \
logged by the trainer (`Started` in log.jsonl); median of the repetitions, with a warm page cache. In a pod, image, \
volumes and scheduling add to it.
stall: median time between logged steps with a checkpoint between them, minus the median without one, in the same run. \
It includes fsync and hashing (SHA-256) of files and directories.
faults: the process receives a signal at a random instant of training and is restarted at once on the same run \
directory. Kubernetes adds the time to detect the exit and to start a container. A lost step is one that is repeated."""

_PLAIN_IMPORT = "import torch, transformers.modeling_utils, peft"
_TRAINER_IMPORT = (
    "from trainyard_trainer.tasks.text.models.libraries import import_libraries; import_libraries(adapter=True)"
)


@dataclass(frozen=True)
class Scale:
    """Amount of work.

    Attributes:
        repetitions: Measured starts and imports.
        states: Full fine-tunes of about 100 and 500 MB of state: hidden size, layers.
        steps: Steps of a run that measures stalls; every second one saves.
        faults: Faults of each class.
        training: Longest time of training before a fault, seconds.
    """

    repetitions: int = 5
    states: tuple[tuple[int, int], ...] = ((256, 9), (512, 12))
    steps: int = 14
    faults: int = 6
    training: float = 4.0


QUICK = Scale(repetitions=1, states=((128, 2),), steps=6, faults=1, training=1.0)
INTERVAL = 10
"""checkpoints.everySteps of the runs with faults."""


# --- start ------------------------------------------------------------------------------------------------------------


def starts(report: Report, inputs: Inputs, folder: Path, scale: Scale) -> None:
    """Measure the time from process start to the first step, by phase."""
    for method in ("lora", "qlora", "full"):
        found = [_one_start(inputs, folder / f"{method}-{number}", method) for number in range(scale.repetitions + 1)]
        totals, parts, cpu = zip(*found[1:], strict=True)  # the first run warms the page cache
        bar = "< 8" if method == "lora" else "-"
        spread = f"{median(totals):.2f} ({min(totals):.2f} to {max(totals):.2f})"
        report.add(f"{method}: start -> first step (s)", spread, bar)
        report.add(f"{method}: CPU of the whole run of 2 steps (s)", f"{median(cpu):.2f}")
        for name in parts[0]:
            report.add(f"{method}: of it {name} (s)", f"{median(each[name] for each in parts):.2f}")


def _one_start(inputs: Inputs, folder: Path, method: str) -> tuple[float, dict[str, float], float]:
    before = _children_cpu()
    run = Run(run_config(folder / "run", inputs, method=method, steps=2, save_every=1000))
    run.finish()
    total, parts = run.startup()
    shutil.rmtree(folder)
    return total, parts, _children_cpu() - before


def imports(report: Report, scale: Scale) -> None:
    """Measure the imports of an adapter run, by the trainer's import function and by plain import statements."""
    found: dict[str, list[tuple[float, float]]] = {_PLAIN_IMPORT: [], _TRAINER_IMPORT: []}
    for _ in range(scale.repetitions):
        for code, seconds in found.items():
            seconds.append(_one_import(code))
    for how, code in (("as the trainer does it", _TRAINER_IMPORT), ("by plain import statements", _PLAIN_IMPORT)):
        wall, cpu = (median(values) for values in zip(*found[code], strict=True))
        report.add(f"imports of torch, transformers, PEFT, {how}: s (CPU s)", f"{wall:.2f} ({cpu:.2f})")


def _one_import(code: str) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'crds'}:{ROOT / 'trainer_image'}", "OMP_NUM_THREADS": "1"}
    before, began = _children_cpu(), time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    return time.monotonic() - began, _children_cpu() - before


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


# --- checkpoints ------------------------------------------------------------------------------------------------------


def stalls(report: Report, inputs: Inputs, folder: Path, scale: Scale) -> None:
    """Measure the stall of the training loop by a checkpoint, by size."""
    _stall(report, inputs, folder / "adapter", "lora", steps=4 * scale.steps)
    for number, (hidden, layers) in enumerate(scale.states):
        model = folder / f"model-{number}"
        _make_model(inputs.model, model, hidden, layers)
        _stall(report, Inputs(model, inputs.rows), folder / f"full-{number}", "full", steps=scale.steps)
        shutil.rmtree(model)


def _stall(report: Report, inputs: Inputs, folder: Path, method: str, *, steps: int) -> None:
    run = Run(run_config(folder / "run", inputs, method=method, steps=steps, save_every=2))
    run.finish()
    at = run.steps()
    # Exclude the first step of a process, which is slower.
    gaps = {step: at[step + 1] - at[step] for step in range(2, steps)}
    saved = [seconds for step, seconds in gaps.items() if step % 2 == 0]
    plain = [seconds for step, seconds in gaps.items() if step % 2 == 1]
    stall, size = median(saved) - median(plain), checkpoint_bytes(run.directory) / 1e6
    name = f"{method}, checkpoint of {size:.1f} MB"
    report.add(f"{name}: stall (ms)", f"{stall * 1000:.0f}")
    report.add(f"{name}: step without, with (ms)", f"{median(plain) * 1000:.0f}, {median(saved) * 1000:.0f}")
    shutil.rmtree(folder)


def _make_model(tiny: Path, target: Path, hidden: int, layers: int) -> None:
    """Save a random Llama with the small model's tokenizer; in fp32, Adam's state triples its size."""
    from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries

    quiet_libraries()
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(str(tiny))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(target)
    tokenizer.save_pretrained(target)


# --- faults -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """A fault and the restart after it.

    Attributes:
        ended: Seconds from the signal to the exit of the process.
        restarted: Seconds from the start of the next process to its first new step.
        lost: Steps that had to be repeated.
    """

    ended: float
    restarted: float
    lost: int


def faults(report: Report, inputs: Inputs, folder: Path, scale: Scale) -> None:
    """Kill and stop a run repeatedly, and measure each restart."""
    found: dict[str, list[Recovery]] = {"kill -9": [], "SIGTERM": []}
    for name, recovery in _recoveries(inputs, folder, scale):
        found[name].append(recovery)
    for name, recoveries in found.items():
        restarted = [each.restarted for each in recoveries]
        what = f"{name} at a random instant, {len(recoveries)} times"
        text = f"{median(restarted):.2f} (at most {max(restarted):.2f})"
        report.add(f"{what}: process start -> first new step (s)", text)
        lost = [each.lost for each in recoveries]
        bar = "0" if name == "SIGTERM" else f"<= {INTERVAL} (everySteps)"
        report.add(f"{what}: steps lost, median and most", f"{median(lost):.0f}, {max(lost)}", bar)
        if name == "SIGTERM":
            ended = [each.ended for each in recoveries]
            text = f"{median(ended):.2f} (at most {percentile(ended, 1):.2f})"
            report.add(f"{what}: signal -> saved and ended (s)", text)


def _recoveries(inputs: Inputs, folder: Path, scale: Scale) -> Iterator[tuple[str, Recovery]]:
    rng = random.Random(1)
    config = run_config(folder / "run", inputs, method="lora", steps=1_000_000, save_every=INTERVAL)
    run = Run(config)
    try:
        run.wait_for_start(1)
        for number in range(2 * scale.faults):
            name, sent = (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM))[number % 2]
            time.sleep(rng.uniform(0, scale.training))
            ended = run.end(sent)
            done = max(run.steps())
            run = Run(config)
            run.wait_for_start(number + 2)
            yield name, Recovery(ended, run.startup()[0], done - run.resumed_step(number + 2))
    finally:
        run.end(signal.SIGKILL)


# --- main -------------------------------------------------------------------------------------------------------------

SECTIONS = ("imports", "starts", "stalls", "faults")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="one repetition of each section, as a smoke test")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="section (default: all)")
    chosen = parser.parse_args()
    scale, sections = QUICK if chosen.quick else Scale(), set(chosen.only or SECTIONS)
    made = demo_inputs.ensure()
    inputs = Inputs(made / "model", made / "train.jsonl")
    setup = machine("torch", "transformers", "peft", "bitsandbytes")
    setup |= {"threads": "1 (OMP_NUM_THREADS)", "run directories on": file_system(Path(tempfile.gettempdir()))}
    report = Report("Trainer", setup, notes=_NOTES.splitlines())
    try:
        with tempfile.TemporaryDirectory() as folder:
            _measure(report, inputs, Path(folder), scale, sections)
    finally:  # publish what was measured before a failure, too
        report.setup["load average after (1, 5, 15 min)"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        report.publish(chosen.json)


def _measure(report: Report, inputs: Inputs, folder: Path, scale: Scale, sections: set[str]) -> None:
    if "imports" in sections:
        imports(report, scale)
    if "starts" in sections:
        starts(report, inputs, folder / "starts", scale)
    if "stalls" in sections:
        stalls(report, inputs, folder / "stalls", scale)
    if "faults" in sections:
        faults(report, inputs, folder / "faults", scale)


if __name__ == "__main__":
    main()
