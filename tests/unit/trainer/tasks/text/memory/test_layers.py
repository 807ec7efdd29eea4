"""What autograd keeps of a layer, tensor by tensor, compared with the plan."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from tests.unit.trainer.tasks.text.memory.batches import full_batch
from tests.unit.trainer.tasks.text.memory.configs import BATCH, BF16, LENGTH, VOCABULARY, load, run
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import recompute_of
from trainyard_trainer.tasks.text.loss import summed_loss
from trainyard_trainer.tasks.text.memory.estimate import estimate
from trainyard_trainer.tasks.text.memory.shape import read_shape

FAMILIES = {"llama": LlamaConfig, "qwen3": Qwen3Config}


def stored(directory: Path, family: str, layers: int) -> Path:
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 8, "num_key_value_heads": 2}
    config = FAMILIES[family](vocab_size=VOCABULARY, num_hidden_layers=layers, head_dim=16, **sizes)  # type: ignore[operator,unused-ignore]
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def saved_bytes(model: Any) -> int:
    """Bytes that the graph of one loss holds beside the weights, each storage once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    kept: dict[int, Any] = {}  # by address; held, so that no address is given twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        summed_loss(model, full_batch(BATCH, LENGTH), 500)
    return sum(storage.nbytes() for storage in kept.values())


def of_one_layer(config: RunConfig, directory: Path, family: str) -> tuple[int, int]:
    """Bytes of one layer as counted, and as the plan says: what a third layer adds to two."""
    counted, planned = [], []
    for layers in (2, 3):
        path, none = stored(directory / str(layers), family, layers), recompute_of("none", layers)
        counted.append(saved_bytes(load(path, config, none)))
        planned.append(estimate(config, read_shape(path, family), none).parts["activations"])
    return counted[1] - counted[0], planned[1] - planned[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("method", "blocks"),
    [
        pytest.param("full", {}, id="full"),
        pytest.param("full", BF16, id="full, bf16"),
        pytest.param("lora", {}, id="lora"),
        pytest.param("lora", BF16, id="lora, bf16"),
        pytest.param("lora", {**BF16, "adapter": {"dropout": 0.1}}, id="lora, bf16, dropout"),
        pytest.param("qlora", BF16, id="qlora, bf16"),
    ],
)
def test_layer_keeps_what_plan_predicts(
    tmp_path: Path, family: str, method: str, blocks: dict[str, dict[str, Any]]
) -> None:
    counted, planned = of_one_layer(run(method, **blocks), tmp_path, family)
    assert planned == pytest.approx(counted, rel=0.02)
