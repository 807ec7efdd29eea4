"""Which modules take an adapter or are trained whole; what cannot be is refused with a sentence."""

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, FalconConfig, PreTrainedConfig

from tests.unit.trainer.tasks.text.tied_models import tied_config
from trainyard_crds.trainingjob_training import Adapter
from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.tasks.text.models.adapter import adapter_weights, add_adapter


def adapted(config: PreTrainedConfig, **adapter: Any) -> Any:
    base = AutoModelForCausalLM.from_config(config)
    return add_adapter(base, Adapter.model_validate({"rank": 2, **adapter}), seed=1, base="tiny", revision=None)


@pytest.mark.parametrize(
    ("family", "whole", "embedding"),
    [
        ("llama", ["embed_tokens"], "model.embed_tokens"),
        ("llama", ["lm_head"], "model.embed_tokens"),
        ("llama", ["embed_tokens", "lm_head"], "model.embed_tokens"),
        ("gpt2", ["wte"], "transformer.wte"),
        ("gpt2", ["lm_head"], "transformer.wte"),
        ("gpt2", ["wte", "lm_head"], "transformer.wte"),
    ],
)
def test_a_tied_head_is_trained_as_one_tensor_under_both_names(family: str, whole: list[str], embedding: str) -> None:
    weights = adapter_weights(adapted(tied_config(family), modulesToSave=whole))
    first = weights[f"base_model.model.{embedding}.weight"]
    assert weights["base_model.model.lm_head.weight"] is first


def test_a_block_of_layers_cannot_be_trained_whole() -> None:
    with pytest.raises(ConfigurationError, match="names 'self_attn', which is a block of layers"):
        adapted(tied_config("llama"), modulesToSave=["self_attn"])


SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {"num_local_experts": 2, "num_experts_per_tok": 1}
STATE: dict[str, Any] = {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8}


@pytest.mark.parametrize(
    ("family", "config", "left_out"),
    [
        ("falcon_h1", SMALL | HEADS | STATE, ["out_proj", "conv1d"]),
        ("llama4_text", SMALL | HEADS | EXPERTS | {"intermediate_size_mlp": 32, "head_dim": 16}, ["router"]),
        ("phimoe", SMALL | HEADS | EXPERTS, ["router"]),
    ],
)
def test_all_linear_leaves_out_what_peft_refuses(family: str, config: dict[str, Any], left_out: list[str]) -> None:
    from transformers import AutoConfig

    weights = adapter_weights(adapted(AutoConfig.for_model(family, **config)))
    assert weights
    assert not [name for name in weights if any(f".{wrong}." in name for wrong in left_out)]


def test_a_refusal_of_peft_is_a_sentence_for_the_user() -> None:
    from transformers import AutoConfig

    config = SMALL | HEADS | STATE
    with pytest.raises(ConfigurationError, match=r"An adapter cannot be added to this model \(falcon_h1\)") as caught:
        adapted(AutoConfig.for_model("falcon_h1", **config), targets=["out_proj"])
    assert "Name other modules in spec.adapter.targets" in caught.value.advice


FALCON: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize("config", [tied_config("llama"), tied_config("gpt2"), FalconConfig(**FALCON)])
def test_all_linear_names_the_layers_that_peft_would(config: PreTrainedConfig) -> None:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_config(config)
    theirs = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    ours = adapter_weights(adapted(config))
    assert {name for name in ours if "lora" in name} == {
        name.replace(".default", "") for name, each in theirs.named_parameters() if each.requires_grad
    }
