"""qlora of models with matrices that cannot be stored in 4 bits: counted, planned for, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    MambaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen3MoeConfig,
)

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import config, train
from trainyard_crds.report import Outcome
from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.errors import GpuMemoryError
from trainyard_trainer.memory.recompute import recompute_of
from trainyard_trainer.tasks.text.memory.estimate import estimate
from trainyard_trainer.tasks.text.memory.shape import read_shape
from trainyard_trainer.tasks.text.models.loading import load_base_model

SIZES: dict[str, Any] = {**tiny.SMALL, "intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 16}
MIXTURES: dict[str, PretrainedConfig] = {
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, moe_intermediate_size=128, num_experts=4, num_experts_per_tok=2),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_that_stay_in_16_bits_are_reported_and_planned_for(tmp_path: Path, name: str) -> None:
    directory = tiny.save_random(MIXTURES[name], tmp_path / "model")
    run = config(tmp_path, directory, "run", "qlora", packing=False)
    assert train(run).outcome is Outcome.FINISHED
    lines = [json.loads(line) for line in Path(run.run_directory, "log.jsonl").read_text().splitlines()]
    (message,) = (line["message"] for line in lines if line["type"] == "PartlyQuantized")
    assert "experts" in message

    cpu = torch.device("cpu")
    model = load_base_model(directory, name, precision="fp32", device=cpu, quantization=run.quantization)
    stored = sum(parameter.nbytes for parameter in model.parameters())
    planned = estimate(run, read_shape(directory, name), recompute_of("none", 2)).parts["weights"]
    assert planned == pytest.approx(stored, rel=0.02)


def test_a_model_of_which_nothing_can_be_quantized_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 346, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    directory = tiny.save_random(FalconConfig(**sizes, alibi=False), tmp_path / "model")
    ended = train(config(tmp_path, directory, "run", "qlora", packing=False))
    assert (ended.exit_code, ended.advice) == (64, "Use method: lora.")


@pytest.mark.parametrize(("quantization", "is_advised"), [(None, True), (Quantization(), False)])
def test_qlora_is_not_the_remedy_for_qlora(
    quantization: Quantization | None, is_advised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(GpuMemoryError) as raised:
        load_base_model(tmp_path, "m", precision="fp32", device=torch.device("cpu"), quantization=quantization)
    assert ("qlora" in str(raised.value.advice)) is is_advised


def test_a_model_that_cannot_compute_with_4_bit_weights_is_refused(tmp_path: Path) -> None:
    settings = MambaConfig(vocab_size=346, hidden_size=32, num_hidden_layers=2, state_size=4)
    ended = train(config(tmp_path, tiny.save_random(settings, tmp_path / "model"), "run", "qlora", packing=False))
    assert (ended.exit_code, ended.advice) == (64, "Use method: lora.")
    assert "(mamba) cannot compute with weights in 4 bits" in ended.message
