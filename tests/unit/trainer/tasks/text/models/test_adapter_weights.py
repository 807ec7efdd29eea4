"""The tensors of an adapter's checkpoint are those that PEFT would save, without copies."""

from pathlib import Path
from typing import Any

import pytest
import torch

from trainyard_crds.trainingjob_training import Adapter, Quantization
from trainyard_trainer.tasks.text.models.adapter import adapter_weights, add_adapter
from trainyard_trainer.tasks.text.models.loading import load_base_model

ADAPTERS = [
    pytest.param({"rank": 4}, None, id="lora"),
    pytest.param({"rank": 4, "modulesToSave": ["lm_head"]}, None, id="a module trained whole"),
    pytest.param({"rank": 4}, Quantization(), id="qlora"),
]


@pytest.mark.parametrize(("adapter", "quantization"), ADAPTERS)
def test_adapter_weights_equal_those_peft_saves(
    tiny_model: Path, adapter: dict[str, Any], quantization: Quantization | None
) -> None:
    from peft import get_peft_model_state_dict

    base = load_base_model(tiny_model, "tiny", precision="fp32", device=torch.device("cpu"), quantization=quantization)
    model = add_adapter(base, Adapter.model_validate(adapter), seed=1, base="tiny", revision=None)
    weights, expected = adapter_weights(model), get_peft_model_state_dict(model, save_embedding_layers=False)
    assert weights.keys() == expected.keys()
    assert all(weights[name].data_ptr() == expected[name].data_ptr() for name in expected)
    trained = {parameter.data_ptr() for parameter in model.parameters() if parameter.requires_grad}
    assert {tensor.data_ptr() for tensor in weights.values()} == trained
