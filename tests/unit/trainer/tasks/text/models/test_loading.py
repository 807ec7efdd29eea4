"""Every mistake in a model gets a sentence that names the model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from trainyard_crds.trainingjob_training import Quantization
from trainyard_trainer.errors import ConfigurationError, NotFoundError
from trainyard_trainer.tasks.text.models.loading import load_base_model


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def load(directory: Path, quantization: Quantization | None = None) -> PreTrainedModel:
    return load_base_model(
        directory, "pvc://models/tiny", precision="fp32", device=torch.device("cpu"), quantization=quantization
    )


def change_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_precision_and_quantisation(tiny_model: Path) -> None:
    import bitsandbytes

    assert {parameter.dtype for parameter in load(tiny_model).parameters()} == {torch.float32}
    quantized = load(tiny_model, quantization=Quantization())
    layers = [module for module in quantized.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    assert all(layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested for layer in layers)
    single = load(tiny_model, quantization=Quantization(double_quant=False))
    assert not single.model.layers[0].mlp.up_proj.weight.quant_state.nested


def test_evaluation_does_not_repack_quantized_weights(tiny_model: Path) -> None:
    model = load(tiny_model, quantization=Quantization())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(40).reshape(1, 40))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_loading_prints_nothing(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(tiny_model, quantization=Quantization())
    assert capfd.readouterr() == ("", "")


def test_unknown_architecture(model: Path) -> None:
    change_config(model, model_type="tinyllama9", architectures=["TinyLlama9ForCausalLM"])
    with pytest.raises(ConfigurationError, match="pvc://models/tiny cannot be loaded as a causal language model"):
        load(model)


def test_model_is_not_a_language_model(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(ConfigurationError, match="cannot be loaded as a causal language model"):
        load(model)


def test_model_code_is_never_run(model: Path, tmp_path: Path) -> None:
    (model / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    change_config(
        model, model_type="own", auto_map={"AutoConfig": "modeling_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    )
    with pytest.raises(ConfigurationError, match="cannot be loaded") as caught:
        load(model)
    assert "never run" in caught.value.advice
    assert not (tmp_path / "ran").exists()


def test_missing_tensors_are_refused(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFoundError, match=r"1 tensors are missing, for example model.layers.1.mlp.up_proj.weight"):
        load(model)


def test_weights_of_another_shape(model: Path) -> None:
    change_config(model, intermediate_size=128)
    with pytest.raises(NotFoundError, match="weights of pvc://models/tiny do not fit its"):
        load(model)


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"x" * 100])
def test_damaged_weights(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(NotFoundError, match="weights of pvc://models/tiny"):
        load(model)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": 3}', '{"model_type": "llama", "hidden_size": "x"}'])
def test_damaged_configuration(model: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises((ConfigurationError, NotFoundError), match="pvc://models/tiny"):
        load(model)
