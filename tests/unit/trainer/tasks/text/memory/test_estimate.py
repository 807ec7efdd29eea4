"""The predicted peak compared with the bytes of a real step."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.text.memory.batches import full_batch
from tests.unit.trainer.tasks.text.memory.configs import BATCH, BF16, LAYERS, VOCABULARY, llama_8b, load, run
from tests.unit.trainer.tasks.text.memory.live import LiveBytes
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.engine.host_copy import HostCopy
from trainyard_trainer.engine.master_weights import MasterWeights
from trainyard_trainer.engine.optimizer import create_optimizer, pack_optimizer
from trainyard_trainer.engine.task import ParameterGroup
from trainyard_trainer.errors import NotFoundError
from trainyard_trainer.memory.recompute import Mode, Recompute, recompute_of
from trainyard_trainer.tasks.text.loss import find_chunk_rows, summed_loss
from trainyard_trainer.tasks.text.memory.estimate import checkpoint_copy, estimate
from trainyard_trainer.tasks.text.memory.recompute_policy import FreeMemory, choose_recompute
from trainyard_trainer.tasks.text.memory.shape import read_shape
from trainyard_trainer.tasks.text.models.adapter import adapter_weights, add_adapter


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 9 million random parameters."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    path = tmp_path_factory.mktemp("nine")
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def measured_peak(directory: Path, config: RunConfig, recompute: Recompute) -> int:
    """Most bytes held in the second optimizer step."""
    model, cpu = load(directory, config, recompute), torch.device("cpu")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    group = ParameterGroup(name="all", parameters=trained, learning_rate=1e-4, weight_decay=0.0)
    masters = MasterWeights([group])
    optimizer = create_optimizer(masters.groups, config.optimization.optimizer)
    batch, live = full_batch(BATCH, config.llm.max_length), LiveBytes()
    for tensor in (*held_tensors(model), *masters.tensors().values()):
        live.hold(tensor)
    rows = find_chunk_rows(model, cpu)
    with live:
        for micro_steps in (1, config.optimization.gradient_accumulation):
            live.peak = live.now
            for _ in range(micro_steps):
                torch.autograd.backward(summed_loss(model, batch, rows))
            masters.take_gradients()
            optimizer.step()
            masters.publish()
            optimizer.zero_grad()
    return live.peak


def held_tensors(model: Any) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    for parameter in model.parameters():
        for state in filter(None, (getattr(parameter, "quant_state", None),)):
            inner = state.state2
            yield from (one for one in (state.absmax, state.code, getattr(inner, "absmax", None)) if one is not None)


@pytest.mark.parametrize(
    ("method", "mode", "blocks"),
    [
        pytest.param("full", "none", {}, id="full"),
        pytest.param("full", "selective", {}, id="full, selective"),
        pytest.param("full", "full", {}, id="full, recomputed"),
        pytest.param("full", "none", {"optimization": {"gradientAccumulation": 1}}, id="full, no accumulation"),
        pytest.param(
            "full",
            "full",
            {"optimization": {"gradientAccumulation": 1}, "llm": {"maxLength": 384}},
            id="full, recomputed, no accumulation, longer",
        ),
        pytest.param("full", "none", {"optimization": {"optimizer": "adamw8bit"}}, id="full, 8-bit optimizer"),
        pytest.param("full", "none", {**BF16, "llm": {"maxLength": 64}}, id="full, bf16"),
        pytest.param("full", "full", BF16, id="full, bf16, recomputed"),
        pytest.param("lora", "none", {"adapter": {"rank": 16}}, id="lora"),
        pytest.param("lora", "full", {"adapter": {"rank": 16}}, id="lora, recomputed"),
        pytest.param("lora", "none", {"adapter": {"dropout": 0.1}}, id="lora, dropout"),
        pytest.param("lora", "none", {**BF16, "llm": {"maxLength": 288}}, id="lora, bf16, longer"),
        pytest.param("lora", "none", {"adapter": {"modulesToSave": ["lm_head"]}}, id="lora, head trained whole"),
        pytest.param("lora", "none", {"adapter": {"targets": ["q_proj", "v_proj"]}}, id="lora, two targets"),
        pytest.param("qlora", "none", BF16, id="qlora, bf16"),
        pytest.param("qlora", "selective", BF16, id="qlora, bf16, selective"),
        pytest.param("qlora", "full", BF16, id="qlora, bf16, recomputed"),
        pytest.param("qlora", "offload", BF16, id="qlora, bf16, offload"),
    ],
)
def test_predicted_peak_is_within_a_tenth_of_measured(
    directory: Path, method: str, mode: Mode, blocks: dict[str, dict[str, Any]]
) -> None:
    config, way = run(method, **blocks), recompute_of(mode, LAYERS)
    predicted = estimate(config, read_shape(directory, "nine"), way)
    measured = measured_peak(directory, config, way)
    assert predicted.peak == pytest.approx(measured, rel=0.1), predicted.parts


@pytest.mark.parametrize(
    ("method", "blocks"),
    [
        pytest.param("full", {}, id="full"),
        pytest.param("full", {"optimization": {"optimizer": "adamw8bit"}}, id="full, 8-bit optimizer"),
        pytest.param("full", {"optimization": {"precision": "bf16"}}, id="full, bf16"),
        pytest.param("lora", {"optimization": {"precision": "bf16"}}, id="lora, bf16"),
        pytest.param("lora", {"adapter": {"modulesToSave": ["lm_head"]}}, id="lora, head trained whole"),
    ],
)
def test_checkpoint_copy_is_as_large_as_predicted(
    tiny_model: Path, method: str, blocks: dict[str, dict[str, Any]]
) -> None:
    config = run(method, **blocks)
    dtype = torch.float32 if config.optimization.precision == "fp32" else torch.bfloat16
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    if config.adapter is not None:
        model = add_adapter(model, config.adapter, seed=0, base="tiny", revision=None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    group = ParameterGroup(name="all", parameters=trained, learning_rate=1e-4, weight_decay=0.0)
    masters = MasterWeights([group])
    optimizer = create_optimizer(masters.groups, config.optimization.optimizer)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    masters.take_gradients()
    optimizer.step()
    weights = adapter_weights(model) if config.adapter else model.state_dict()
    copies, _wait = HostCopy().take({**weights, **masters.tensors(), **pack_optimizer(optimizer)[0]})
    measured = sum(tensor.nbytes for tensor in copies.values())
    assert checkpoint_copy(config, read_shape(tiny_model, "tiny")) == pytest.approx(measured, rel=0.01)


def test_known_numbers_of_8b_model() -> None:
    shape = llama_8b()
    assert shape.parameters == pytest.approx(8.03e9, rel=0.001)
    changes: dict[str, dict[str, Any]] = {
        "optimization": {"precision": "bf16", "batchSize": 1},
        "llm": {"maxLength": 2048},
    }
    parts = estimate(run("qlora", **changes), shape, recompute_of("full", shape.layers)).parts
    gib = {name: size / 2**30 for name, size in parts.items()}
    assert gib["weights"] + gib["quantisation constants"] == pytest.approx(3.35 + 1.96, abs=0.1)
    assert gib["activations"] == pytest.approx(0.5, abs=0.05)
    assert parts["adapters"] == 4 * 41_943_040


def test_8b_model_with_qlora_at_2048_tokens_fits_8_gib() -> None:
    config = run("qlora", optimization={"precision": "bf16", "batchSize": 1}, llm={"maxLength": 2048})
    config = config.model_copy(update={"gpus": 1})
    way = choose_recompute(config, llama_8b(), FreeMemory(8 * 2**30))
    assert way.mode == "offload"
    assert estimate(config, llama_8b(), way).peak / 2**30 <= 7.4


def test_gpu_context_is_counted() -> None:
    none = recompute_of("none", llama_8b().layers)
    cpu = estimate(run("lora"), llama_8b(), none)
    gpu = estimate(run("lora").model_copy(update={"gpus": 1}), llama_8b(), none)
    assert "CUDA context" not in cpu.parts
    assert gpu.peak > cpu.peak


def test_sharded_model_takes_its_share_of_each_gpu() -> None:
    shape, config = llama_8b(), run("full", optimization={"precision": "bf16"})
    way = recompute_of("full", shape.layers)
    peaks = [estimate(config.model_copy(update={"processes": count}), shape, way).peak for count in (1, 2, 4, 8)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < peaks[0] / 3
    # Weights, gradients and two moments in 16 bits are 64 GB; the eighth of them is there, whatever is gathered.
    assert peaks[-1] > 8 * shape.parameters / 8
    adapter = run("lora")
    alone, together = (estimate(adapter.model_copy(update={"processes": count}), shape, way).peak for count in (1, 8))
    assert together == alone, "each holds the whole model"


def test_only_headers_are_read(tmp_path: Path) -> None:
    tiny.save_tiny_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    length = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    weights.write_bytes(weights.read_bytes()[:length])
    assert read_shape(tmp_path, "tiny").parameters == tiny.make_model().num_parameters()


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_unreadable_model_is_named(tmp_path: Path, broken: str) -> None:
    tiny.save_tiny_model(tmp_path)
    (tmp_path / broken).write_text("{}")
    with pytest.raises(NotFoundError, match="memory of tiny cannot be predicted"):
        read_shape(tmp_path, "tiny")


def test_sharded_model_is_whole_while_loading() -> None:
    config, none = run("full", **BF16), recompute_of("full", llama_8b().layers)
    spread = {count: estimate(config.model_copy(update={"processes": count}), llama_8b(), none) for count in (1, 2, 64)}
    assert "whole model while loading" not in spread[1].parts
    assert "whole model while loading" not in spread[2].parts
    assert spread[64].parts["weights"] < spread[2].parts["weights"] < spread[1].parts["weights"]
    assert spread[64].peak == spread[1].parts["weights"]


def test_weights_that_repeat_the_others_are_counted_once(tmp_path: Path, tiny_model: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_model, directory)
    weights = load_file(directory / "model.safetensors")
    save_file({f"original.{name}": value for name, value in weights.items()}, directory / "consolidated.safetensors")
    assert read_shape(directory, "model") == read_shape(tiny_model, "model")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=64))
    model.save_pretrained(tmp_path)
    with pytest.raises(NotFoundError, match="does not know the architecture gpt2") as caught:
        read_shape(tmp_path, "model")
    assert "Copy" not in caught.value.advice
