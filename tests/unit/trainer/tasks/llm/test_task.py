import dataclasses
import json
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tests.unit.trainer import tiny
from tests.unit.trainer.tasks.llm.task_support import logits, run_context, train
from trainyard_crds.report import Stage
from trainyard_trainer.errors import ConfigurationError, StopRequested
from trainyard_trainer.tasks.llm.task import LlmLoaded, LlmTask
from trainyard_trainer.tasks.text.models.full import save_model


def save(task: LlmTask, loaded: LlmLoaded, directory: Path) -> None:
    task.save_weights(loaded, task.weights(loaded), directory)


def language_model(loaded: LlmLoaded) -> PreTrainedModel:
    """The model as what it is: of a mere module, any attribute may be a tensor."""
    return cast("PreTrainedModel", loaded.model)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_loss_falls(tmp_path: Path, tiny_model: Path, method: str) -> None:
    stages: list[Stage] = []
    lines: list[tuple[str, str]] = []
    context = dataclasses.replace(
        run_context(tmp_path, tiny_model, method=method),
        stage=stages.append,
        log=lambda kind, sentence: lines.append((kind, sentence)),
    )
    task = LlmTask()
    loaded = task.load(context)
    before = task.evaluate(loaded, context)["evalLoss"]
    losses = train(task, loaded, 20)
    assert losses[-1] < 0.6 * losses[0]
    assert task.evaluate(loaded, context)["evalLoss"] < before
    assert stages == [Stage.DOWNLOADING, Stage.PREPARING_DATA, Stage.LOADING_MODEL]
    assert context.metrics["trainRows"] + context.metrics["evalRows"] == 24
    assert ("DatasetFormat", f"The rows of file://{tmp_path}/rows.jsonl (JSON Lines) are written as messages.") in lines


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_saved_weights_load_bit_for_bit(tmp_path: Path, tiny_model: Path, method: str) -> None:
    context = run_context(tmp_path, tiny_model, method=method)
    task = LlmTask()
    loaded = task.load(context)
    train(task, loaded, 3)
    saved = tmp_path / "saved"
    saved.mkdir()
    save(task, loaded, saved)
    assert any(saved.glob("*.safetensors"))
    wanted = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    fresh = task.load(context)
    assert any(not torch.equal(wanted[name], tensor) for name, tensor in fresh.model.state_dict().items())
    task.load_weights(fresh, saved)
    assert all(torch.equal(wanted[name], tensor) for name, tensor in fresh.model.state_dict().items())
    assert train(task, loaded, 2) == train(task, fresh, 2)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_plain_peft_gives_same_logits(tmp_path: Path, tiny_model: Path, method: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    context = run_context(tmp_path, tiny_model, method=method)
    task = LlmTask()
    loaded = task.load(context)
    train(task, loaded, 3)
    saved, exported = tmp_path / "saved", tmp_path / "exported"
    saved.mkdir()
    exported.mkdir()
    save(task, loaded, saved)
    assert context.config.exports[0].format == "adapter"
    task.export(loaded, context, context.config.exports[0], saved, exported)
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    extra = {"quantization_config": quantized} if method == "qlora" else {}
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32, **extra)
    if method == "qlora":  # in training mode the weights of the plain base stay as loaded too
        base.train()
    plain = PeftModel.from_pretrained(base, exported, is_trainable=method == "qlora")
    with torch.enable_grad() if method == "qlora" else torch.no_grad():
        theirs = plain(input_ids=torch.arange(40).reshape(2, 20), use_cache=False).logits
    assert torch.allclose(theirs, logits(loaded.model), atol=1e-6, rtol=0)
    assert not torch.allclose(theirs, logits(tiny.make_model()), atol=1e-2)
    assert AutoTokenizer.from_pretrained(exported).chat_template == tiny.MARKED_TEMPLATE
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert f"`{tiny_model}`" in (exported / "README.md").read_text()


def test_full_model_is_exported_as_transformers_directory(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    context = run_context(tmp_path, tiny_model, method="full")
    task = LlmTask()
    loaded = task.load(context)
    train(task, loaded, 2)
    saved, exported = tmp_path / "saved", tmp_path / "exported"
    saved.mkdir()
    exported.mkdir()
    save(task, loaded, saved)
    assert context.config.exports[0].format == "model"
    task.export(loaded, context, context.config.exports[0], saved, exported)
    theirs = AutoModelForCausalLM.from_pretrained(exported)
    assert torch.equal(logits(theirs), logits(loaded.model))


def test_same_seed_gives_same_adapter_and_files(tmp_path: Path, tiny_model: Path) -> None:
    context = run_context(tmp_path, tiny_model)
    task = LlmTask()
    state = torch.random.get_rng_state()
    files = []
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        save(task, task.load(context), directory)
        files.append([path.read_bytes() for path in sorted(directory.iterdir())])
    assert files[0] == files[1]
    assert torch.equal(state, torch.random.get_rng_state())
    other = run_context(tmp_path, tiny_model, optimization={"precision": "fp32", "seed": 7})
    save(task, task.load(other), directory)
    first, second = (
        load_file(tmp_path / "0" / "adapter_model.safetensors"),
        load_file(directory / "adapter_model.safetensors"),
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_evaluation_changes_nothing(tmp_path: Path, tiny_model: Path, method: str) -> None:
    context = run_context(tmp_path, tiny_model, method=method, adapter={"rank": 8, "dropout": 0.1})
    task = LlmTask()
    runs = []
    for evaluating in (False, True):
        loaded = task.load(context)
        torch.manual_seed(1)
        losses = train(task, loaded, 2)
        if evaluating:
            task.evaluate(loaded, context)
        runs.append(losses + train(task, loaded, 3))
        assert all(module.training for module in loaded.model.modules())
    assert runs[0] == runs[1]


def test_bf16_applies_to_base_weights_not_adapter(tmp_path: Path, tiny_model: Path) -> None:
    loaded = LlmTask().load(run_context(tmp_path, tiny_model, optimization={"precision": "bf16"}))
    assert language_model(loaded).get_input_embeddings().weight.dtype == torch.bfloat16
    (group,) = loaded.parameter_groups
    assert group.name == "adapter"
    assert {parameter.dtype for parameter in group.parameters} == {torch.float32}


def test_norms_have_no_weight_decay_in_full_training(tmp_path: Path, tiny_model: Path) -> None:
    context = run_context(tmp_path, tiny_model, method="full", optimization={"precision": "fp32", "weightDecay": 0.1})
    matrices, vectors = LlmTask().load(context).parameter_groups
    assert (matrices.weight_decay, vectors.weight_decay) == (0.1, 0.0)
    assert all(parameter.ndim == 1 for parameter in vectors.parameters)
    assert len(vectors.parameters) == 5


def test_unknown_target_lists_known_ones(tmp_path: Path, tiny_model: Path) -> None:
    context = run_context(tmp_path, tiny_model, adapter={"targets": ["q_proj", "query"]})
    with pytest.raises(ConfigurationError, match="'query'") as caught:
        LlmTask().load(context)
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in caught.value.advice


def test_stop_while_loading(tmp_path: Path, tiny_model: Path) -> None:
    context = run_context(tmp_path, tiny_model)
    stages = []

    def stage(value: Stage) -> None:
        stages.append(value)
        if value is Stage.PREPARING_DATA:
            context.stop.request()

    with pytest.raises(StopRequested):
        LlmTask().load(dataclasses.replace(context, stage=stage))
    assert Stage.LOADING_MODEL not in stages


def test_mounted_model_keeps_display_name(tmp_path: Path, tiny_model: Path) -> None:
    model = {"source": f"file://{tiny_model}", "displaySource": "pvc://models/tiny"}
    loaded = LlmTask().load(run_context(tmp_path, tiny_model, model=model))
    assert loaded.model_source == "pvc://models/tiny"
    assert language_model(loaded).active_peft_config.base_model_name_or_path == "pvc://models/tiny"


def test_tokenizer_beyond_embedding_is_refused(tmp_path: Path) -> None:
    small = tiny.make_config()
    small.vocab_size = 300
    save_model(type(tiny.make_model())(small), tiny.make_tokenizer(), tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"writes token \d+, but the model has embeddings for 300 tokens"):
        LlmTask().load(run_context(tmp_path, tmp_path / "model"))


def test_rows_beyond_model_positions_are_refused(tmp_path: Path) -> None:
    short = tiny.make_config()
    short.max_position_embeddings = 16
    save_model(type(tiny.make_model())(short), tiny.make_tokenizer(), tmp_path / "model")
    with pytest.raises(ConfigurationError, match="has positions for 16 only"):
        LlmTask().load(run_context(tmp_path, tmp_path / "model"))
    cut = run_context(tmp_path, tmp_path / "model", llm={"maxLength": 16, "overlong": "truncate"})
    assert LlmTask().load(cut).train.num_micro_batches(0) > 0


def test_tied_embeddings_are_loaded_tied(tmp_path: Path) -> None:
    tied = tiny.make_config()
    tied.tie_word_embeddings = True
    save_model(type(tiny.make_model())(tied), tiny.make_tokenizer(), tmp_path / "model")
    context = run_context(tmp_path, tmp_path / "model", method="full")
    task = LlmTask()
    loaded, fresh = task.load(context), task.load(context)
    train(task, loaded, 2)
    saved = tmp_path / "saved"
    saved.mkdir()
    save(task, loaded, saved)
    task.load_weights(fresh, saved)
    model = language_model(fresh)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert train(task, loaded, 2) == train(task, fresh, 2)
