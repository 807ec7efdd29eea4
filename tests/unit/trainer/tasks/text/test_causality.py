"""Models that read the tokens they are to predict are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    MambaConfig,
    MixtralConfig,
    PretrainedConfig,
    RobertaConfig,
)

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.runs import config, train
from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.tasks.text.causality import is_causal
from trainyard_trainer.tasks.text.models.loading import load_base_model

SIZES = tiny.SMALL
CPU = torch.device("cpu")
CAUSAL: dict[str, PretrainedConfig] = {
    "gemma2": Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=16),  # scales embeddings, eager attention
    "mixtral": MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=4),
    "mamba": MambaConfig(vocab_size=346, hidden_size=32, num_hidden_layers=2, state_size=4),
    "a BERT decoder": BertConfig(**SIZES, is_decoder=True),
}
ENCODERS: dict[str, PretrainedConfig] = {"bert": BertConfig(**SIZES), "roberta": RobertaConfig(**SIZES)}


def make(settings: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(settings)


@pytest.mark.parametrize("name", CAUSAL)
def test_decoders_are_causal(name: str) -> None:
    assert is_causal(make(CAUSAL[name]), 346, CPU)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_not(name: str) -> None:
    assert not is_causal(make(ENCODERS[name]), 346, CPU)


def test_a_4_bit_model_can_be_tried(tiny_model: Path) -> None:
    model = load_base_model(tiny_model, "tiny", precision="fp32", device=CPU, quantization=Quantization())
    assert is_causal(model, 346, CPU)


def test_trying_a_model_leaves_no_trace() -> None:
    model = tiny.make_model().train()
    state = torch.random.get_rng_state()
    assert is_causal(model, 346, CPU)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not model.get_input_embeddings()._forward_hooks
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_on_an_encoder_ends_before_the_first_step_with_a_remedy(tmp_path: Path, method: str) -> None:
    make(ENCODERS["bert"]).save_pretrained(tmp_path / "model")
    tiny.make_tokenizer().save_pretrained(tmp_path / "model")
    ended = train(config(tmp_path, tmp_path / "model", "run", method, packing=False))
    assert (ended.exit_code, ended.step) == (64, 0)
    assert "is no causal language model (bert)" in ended.message
    assert "encoders such as BERT" in ended.advice
