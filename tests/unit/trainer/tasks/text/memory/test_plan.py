"""The memory plan: table, advice, report, and the choice of the recompute mode."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.trainer import tiny
from tests.unit.trainer.definitions import replace_llm
from tests.unit.trainer.sources.hub_server import Hub, serve
from tests.unit.trainer.tasks.llm.runs import config as llm_config
from tests.unit.trainer.tasks.text.memory.configs import llama_8b, run
from trainyard_crds.report import Termination
from trainyard_trainer import bootstrap
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.errors import GpuMemoryError
from trainyard_trainer.memory.devices import peak_flops
from trainyard_trainer.memory.recompute import recompute_of
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.task import LlmTask
from trainyard_trainer.tasks.text.memory.estimate import estimate
from trainyard_trainer.tasks.text.memory.plan import advice, describe, table
from trainyard_trainer.tasks.text.memory.recompute_policy import FreeMemory

LARGE = run("lora", optimization={"precision": "bf16", "batchSize": 4}, llm={"maxLength": 4096})
FULL = recompute_of("full", llama_8b().layers)


def test_advice_is_sorted_by_saving_and_true() -> None:
    first, second, *_ = advice(LARGE, llama_8b(), FULL)
    assert first.startswith("use method: qlora (saves ")
    assert second.startswith(("set optimization.batchSize: 2 and gradientAccumulation: ", "set llm.maxLength: 2048"))
    half = LARGE.model_copy(update={"llm": LARGE.llm.model_copy(update={"max_length": 2048})})
    saved = estimate(LARGE, llama_8b(), FULL).peak - estimate(half, llama_8b(), FULL).peak
    [said] = [one for one in advice(LARGE, llama_8b(), FULL) if "maxLength" in one]
    assert f"{saved / 2**30:.2f} GiB" in said


def test_table_adds_up() -> None:
    lines = table(LARGE.model_copy(update={"gpus": 1}), llama_8b()).splitlines()
    assert lines[0].split() == ["part", "none", "selective", "full", "offload"]
    assert any(line.startswith("peak") and line.endswith("GiB") for line in lines)
    assert "What would lower the peak most:" in lines


def test_checkpoint_copy_has_its_own_line() -> None:
    # Rank 16 on Llama-3.1-8B has 41,943,040 values: as fp32 with two moments 480 MiB.
    config = LARGE.model_copy(update={"gpus": 1})
    lines = table(config, llama_8b()).splitlines()
    sentence = "beside it, for the copy that a checkpoint is written from: 480 MiB"
    assert f"Host memory {sentence}" in lines
    assert f"Memory {sentence}" in table(LARGE, llama_8b()).splitlines()
    assert lines.index(f"Host memory {sentence}") > next(at for at, line in enumerate(lines) if line.startswith("peak"))


def plan(path: Path, environ: Mapping[str, str] = {}, device_memory: str = "16") -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from trainyard_trainer.cli import run_command; from trainyard_trainer.stop import StopFlag;"
        f"sys.argv = ['trainyard-trainer', 'plan', {str(path)!r}, '--device-memory', {device_memory!r}];"
        "code = run_command(StopFlag());"
        "assert not {'torch', 'transformers'} & sys.modules.keys(); sys.exit(code)"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=False)


def test_command_prints_plan_without_torch(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "run.json"
    document = llm_config(tmp_path, tiny_model, "run", "lora").to_json()
    path.write_text(json.dumps(document))
    done = plan(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "activations" in done.stdout
    assert "peak" in done.stdout
    refused = plan(path, device_memory="0")
    assert refused.returncode == 64
    assert "0 is not a size: write the GiB of a device, for example 24" in refused.stderr


@pytest.mark.parametrize("shard", ["1GB", "300KB"])
def test_hub_model_is_planned_without_weights(tmp_path: Path, tiny_model: Path, shard: str) -> None:
    stored = tmp_path / "stored"
    tiny.make_model().save_pretrained(stored, max_shard_size=shard)
    path = tmp_path / "run.json"
    document = llm_config(tmp_path, tiny_model, "run", "lora").to_json()
    path.write_text(json.dumps(document))
    wanted = plan(path).stdout
    path.write_text(json.dumps({**document, "model": {"source": "hf://org/tiny"}}))
    # A head is fetched as the first 100 kB of its file; zeros behind the weights make weights worth not fetching.
    files = {one.name: one.read_bytes() + bytes(5_000_000 * (one.suffix == ".safetensors")) for one in stored.iterdir()}
    with serve(Hub(files)) as hub:
        environ = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_secret"}
        done = plan(path, environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == wanted
        shards = sum(name.endswith(".safetensors") for name in files)
        assert (shards > 1) == (shard == "300KB")
        assert hub.sent < 150_000 * shards
        hub.refuse = (403, "GatedRepo")
        refused = plan(path, environ)
    assert refused.returncode == 77
    assert "does not permit the download of hf://org/tiny" in refused.stderr


class TooLarge(LlmTask):
    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def train(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, task: LlmTask) -> Termination:
    replace_llm(lambda: task, monkeypatch)
    return bootstrap.train(llm_config(tmp_path, model, "run", "lora"), stop=StopFlag(), environ={})


def test_out_of_memory_ends_with_advice_of_plan(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    termination = train(tmp_path, tiny_model, monkeypatch, TooLarge())
    assert (termination.exit_code, termination.reason) == (79, "OutOfGPUMemory")
    assert "saves" in termination.advice
    assert "Predicted peak: " in termination.advice


def test_estimate_is_reported(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    termination = train(tmp_path, tiny_model, monkeypatch, LlmTask())
    assert termination.memory_estimate is not None
    assert termination.memory_estimate.bytes > 1_000_000
    assert termination.memory_estimate.basis.startswith("lora, fp32, 1 x 64 tokens per forward pass, adamw")


def test_longest_matching_gpu_name_counts() -> None:
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("Some other GPU") is None


def test_small_device_is_warned_of_before_loading(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise GpuMemoryError("The model does not fit into the GPU's memory.", "Something general.")

    monkeypatch.setattr("trainyard_trainer.tasks.llm.memory.free_memory", lambda: 2_000_000)
    monkeypatch.setattr("trainyard_trainer.tasks.llm.task.load_base_model", load)
    termination = train(tmp_path, tiny_model, monkeypatch, LlmTask())
    found = termination.memory_estimate
    assert found is not None
    assert found.device_bytes is not None
    assert found.device_bytes < 2_000_000 < found.bytes
    assert found.least_bytes == found.bytes
    assert "recompute full" in found.basis
    [warning] = [line for line in log_lines(tmp_path) if line["type"] == "MemoryTooSmall"]
    assert warning["level"] == "warning"
    assert "0.00 GiB are free for it" in warning["message"]
    assert termination.advice in warning["message"]
    assert "saves" in termination.advice


def test_estimate_has_least_bytes() -> None:
    config = LARGE.model_copy(update={"gpus": 1})
    found = estimate(config, llama_8b(), recompute_of("none", 32))
    offload = estimate(config, llama_8b(), recompute_of("offload", 32))
    auto = describe(found, config, llama_8b(), FreeMemory(80 * 2**30))
    assert (auto.bytes, auto.least_bytes, auto.device_bytes) == (found.peak, offload.peak, 80 * 2**30)
    fixed = config.model_copy(update={"optimization": config.optimization.model_copy(update={"recompute": "none"})})
    assert describe(found, fixed, llama_8b(), FreeMemory()).least_bytes == found.peak


def test_plan_for_device_names_mode_and_fit() -> None:
    config = LARGE.model_copy(update={"gpus": 1})
    assert "auto means none on a device with 200.00 GiB" in table(config, llama_8b(), 200 * 2**30)
    assert "which does NOT fit." in table(config, llama_8b(), 8 * 2**30)


def test_recompute_is_advised_where_not_used() -> None:
    config = LARGE.model_copy(update={"gpus": 1})
    [first, *_] = advice(config, llama_8b(), recompute_of("none", 32))
    assert first.startswith("set optimization.recompute: offload (saves ")
    assert not any("recompute" in one for one in advice(config, llama_8b(), recompute_of("offload", 32)))


def log_lines(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (directory / "run" / "log.jsonl").read_text().splitlines()]


def test_a_report_has_advice_only_where_memory_is_short() -> None:
    shape = llama_8b()
    found = estimate(LARGE, shape, FULL)
    assert describe(found, LARGE, shape, FreeMemory(found.peak)).advice is not None
    assert describe(found, LARGE, shape, FreeMemory(2 * found.peak)).advice is None
    assert describe(found, LARGE, shape, FreeMemory()).advice is not None
