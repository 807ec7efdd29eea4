"""Every field of a run config has an effect that a test checks: here, or where the table points to."""

import ast
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.unit.fields import leaves
from tests.unit.trainer import tiny
from tests.unit.trainer.sources import web_server
from tests.unit.trainer.sources.web_server import Web
from tests.unit.trainer.toy import metric_lines
from trainyard_crds.report import Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.stop import StopFlag

HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Seen:
    """A finished run."""

    directory: Path
    termination: Termination

    @cached_property
    def lines(self) -> list[dict[str, float]]:
        return [line for line in metric_lines(self.directory) if "loss" in line]

    def every(self, name: str) -> list[float]:
        return [line[name] for line in self.lines]

    @cached_property
    def adapter(self) -> dict[str, Tensor]:
        return load_file(self.directory / "exports/adapter/adapter_model.safetensors")

    @cached_property
    def peft(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.directory / "exports/adapter/adapter_config.json").read_text())
        return document

    @cached_property
    def optimizer_bytes(self) -> int:
        checkpoint = self.directory / "checkpoints" / self.termination.checkpoints[-1].name
        state = load_file(checkpoint / "state/tensors.safetensors")
        return sum(tensor.nbytes for name, tensor in state.items() if name.startswith("optimizer."))

    @property
    def log(self) -> str:
        return (self.directory / "log.jsonl").read_text()


def run(directory: Path, model: Path, changes: dict[str, Any]) -> Seen:
    data = tiny.write_rows(directory.parent / f"{directory.name}.jsonl", tiny.questions(16))
    document: dict[str, Any] = {
        "runDirectory": str(directory),
        "task": "llm",
        "method": "lora",
        "model": {"source": f"file://{model}"},
        "dataset": {"source": f"file://{data}", "validation": {"fraction": 0.2}},
        "optimization": {"precision": "fp32", "learningRate": 0.01, "maxSteps": 3, "batchSize": 2, "loggingSteps": 1},
        "adapter": {"rank": 16, "alpha": 32},
        "llm": {"maxLength": 64, "packing": False},
    }
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    if document["method"] == "full":
        del document["adapter"]
    config = RunConfig.model_validate(document)
    seen = Seen(directory, bootstrap.train(config, stop=StopFlag(), environ={}))
    assert seen.termination.exit_code == 0, seen.termination
    return seen


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Seen:
    return run(tmp_path_factory.mktemp("plain") / "run", tiny_model, {})


Check = Callable[[Seen, Seen], bool]


def optimization(check: Check, /, **fields: Any) -> tuple[dict[str, Any], Check]:
    return {"optimization": fields}, check


def adapter(check: Check, /, **fields: Any) -> tuple[dict[str, Any], Check]:
    return {"adapter": fields}, check


def llm(check: Check, /, **fields: Any) -> tuple[dict[str, Any], Check]:
    return {"llm": fields}, check


EFFECTS: dict[str, tuple[dict[str, Any], Check]] = {
    "optimization.maxSteps": optimization(lambda _, now: now.termination.step == 2, maxSteps=2),
    "optimization.epochs": optimization(lambda _, now: now.termination.epoch == 1.0, epochs=1, maxSteps=None),
    "optimization.batchSize": optimization(
        lambda old, now: (
            old.termination.step == 3 and now.termination.epoch == 3.0 and (old.termination.epoch or 9) < 3
        ),
        batchSize=16,
    ),
    "optimization.gradientAccumulation": optimization(
        lambda old, now: (now.termination.epoch or 9) < (old.termination.epoch or 0), gradientAccumulation=1
    ),
    "optimization.learningRate": optimization(
        lambda old, now: now.every("learningRate") == pytest.approx([rate / 2 for rate in old.every("learningRate")]),
        learningRate=0.005,
    ),
    "optimization.scheduler": optimization(
        lambda old, now: old.every("learningRate")[2] < now.every("learningRate")[2] == 0.01, scheduler="constant"
    ),
    "optimization.warmupRatio": optimization(
        lambda old, now: old.every("learningRate")[0] > now.every("learningRate")[0] == 0.0025, warmupRatio=1
    ),
    "optimization.weightDecay": optimization(lambda old, now: norm(now) < norm(old), weightDecay=1.0),
    "optimization.maxGradNorm": optimization(
        # AdamW's first step does not depend on the gradient's scale, its second does.
        lambda old, now: (
            now.every("gradNorm")[0] == old.every("gradNorm")[0] and now.every("loss") != old.every("loss")
        ),
        maxGradNorm=0.05,
    ),
    "optimization.optimizer": (  # smaller matrices stay in 32 bits
        {"optimization": {"optimizer": "adamw8bit"}, "adapter": {"rank": 64}},
        lambda _, now: now.optimizer_bytes < 3 * sum(one.numel() for one in now.adapter.values()),
    ),
    "optimization.recompute": optimization(
        lambda old, now: "recompute none" in old.log and "recompute full" in now.log and same_adapters(old, now),
        recompute="full",
    ),
    "optimization.precision": optimization(
        lambda old, now: (
            now.every("loss")[0] != old.every("loss")[0]
            and now.every("loss")[0] == pytest.approx(old.every("loss")[0], rel=0.05)
        ),
        precision="bf16",
    ),
    "optimization.seed": optimization(lambda old, now: now.every("loss")[0] != old.every("loss")[0], seed=7),
    "optimization.loggingSteps": optimization(
        lambda _, now: [line["step"] for line in now.lines] == [2, 3], loggingSteps=2
    ),
    "adapter.rank": adapter(lambda _, now: {min(one.shape) for one in now.adapter.values()} == {4}, rank=4),
    "adapter.alpha": adapter(
        lambda old, now: now.every("gradNorm")[0] == pytest.approx(2 * old.every("gradNorm")[0]), alpha=64
    ),
    "adapter.dropout": adapter(lambda old, now: now.every("loss")[2] != old.every("loss")[2], dropout=0.5),
    "adapter.targets": adapter(
        lambda _, now: {name.split(".")[-3] for name in now.adapter} == {"q_proj", "v_proj"},
        targets=["q_proj", "v_proj"],
    ),
    "adapter.useRslora": adapter(  # alpha / sqrt(16) instead of alpha / 16
        lambda old, now: (
            now.every("gradNorm")[0] == pytest.approx(4 * old.every("gradNorm")[0], rel=1e-4) and now.peft["use_rslora"]
        ),
        useRslora=True,
    ),
    "adapter.modulesToSave": adapter(
        lambda _, now: (
            now.adapter["base_model.model.lm_head.weight"].shape == (346, 128)
            and now.peft["modules_to_save"] == ["lm_head"]
        ),
        modulesToSave=["lm_head"],
    ),
    "llm.maxLength": llm(lambda _, now: '"RowsDropped"' in now.log, maxLength=24),
    "llm.packing": llm(lambda old, now: (now.termination.epoch or 0) > (old.termination.epoch or 9), packing=True),
    "llm.trainOn": llm(lambda old, now: now.every("loss")[0] != old.every("loss")[0], trainOn="all"),
    "method": ({"method": "full"}, lambda _, now: now.termination.exports[0].format == "model"),
}


def same_adapters(old: Seen, now: Seen) -> bool:
    return all(bool((tensor == now.adapter[name]).all()) for name, tensor in old.adapter.items())


def norm(seen: Seen) -> float:
    return math.sqrt(sum(float(one.square().sum()) for one in seen.adapter.values()))


@pytest.mark.parametrize("field", EFFECTS)
def test_field_has_an_effect(tmp_path: Path, tiny_model: Path, plain: Seen, field: str) -> None:
    changes, check = EFFECTS[field]
    assert check(plain, run(tmp_path / "run", tiny_model, changes))


def test_modules_to_save_are_trained_and_load_in_peft(tmp_path: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    changes = {"adapter": {"modulesToSave": ["embed_tokens", "lm_head"]}}
    seen = run(tmp_path / "run", tiny_model, changes)
    before = tiny.make_model().get_output_embeddings().weight
    assert not seen.adapter["base_model.model.lm_head.weight"].equal(before)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    loaded = PeftModel.from_pretrained(base, seen.directory / "exports/adapter")
    weight = loaded.base_model.model.lm_head.modules_to_save["default"].weight
    assert weight.equal(seen.adapter["base_model.model.lm_head.weight"])


def test_double_quantization_changes_losses_slightly(tmp_path: Path, tiny_model: Path) -> None:
    once, twice = (
        run(tmp_path / str(double), tiny_model, {"method": "qlora", "quantization": {"doubleQuant": double}})
        for double in (False, True)
    )
    assert once.every("loss")[0] != twice.every("loss")[0]
    assert once.every("loss")[0] == pytest.approx(twice.every("loss")[0], rel=0.05)


def test_runs_with_shared_cache_download_and_tokenize_once(tmp_path: Path, tiny_model: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", tiny.questions(16)).read_bytes()
    with web_server.serve(Web({"/rows.jsonl": rows})) as web:
        shared = {"cacheDirectory": str(tmp_path / "cache"), "dataset": {"source": f"{web.address}/rows.jsonl"}}
        first, second = (run(tmp_path / name, tiny_model, shared) for name in ("first", "second"))
        assert len(web.ranges) == 1
    assert ('"TokensReused"' in first.log, '"TokensReused"' in second.log) == (False, True)
    assert first.every("loss") == second.every("loss")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"downloads", "tokens"}
    assert not (first.directory / "cache").exists()


WEB, MERGED = "sources/test_web.py", "tasks/text/export/test_merged.py"
TRIGGERS = "engine/test_triggers.py"
ELSEWHERE = {
    "version": "test_configuration.py::test_error_names_field_value_and_remedy",
    "runDirectory": "engine/test_loop.py::test_run_ends_with_metrics_checkpoints_and_export",
    "cacheDirectory": "tasks/llm/test_fields.py::test_runs_with_shared_cache_download_and_tokenize_once",
    "runUri": "engine/test_loop.py::test_run_ends_with_metrics_checkpoints_and_export",
    "task": "tasks/llm/test_task.py::test_loss_falls",
    "processes": "group/test_training.py::test_several_processes_train_like_one_with_the_same_batch",
    "nodes": "group/test_training.py::test_two_pods_end_with_the_bits_of_one_pod_with_as_many_processes",
    "gpus": "engine/test_loop.py::test_missing_gpu_is_refused",
    "model.source": "tasks/llm/test_task.py::test_loss_falls",
    "model.revision": "sources/test_hub.py::test_revision_is_resolved_once_per_run",
    "model.displaySource": "tasks/llm/test_task.py::test_mounted_model_keeps_display_name",
    "dataset.source": "tasks/llm/test_task.py::test_loss_falls",
    "dataset.sha256": f"{WEB}::test_content_with_another_digest_is_removed",
    "dataset.format": "tasks/text/test_example_file.py::test_formats_parse_to_the_same_example",
    "dataset.maxRows": "tasks/text/test_example_file.py::test_max_rows_counts_from_the_start",
    "dataset.onInvalidRow": "tasks/llm/test_resume.py::test_a_resumed_run_skips_the_same_rows",
    "dataset.maxInvalidFraction": "tasks/text/test_invalid_rows.py::test_validation_of_a_dataset_that_skips_says_so",
    "resumeFrom.runDirectory": "tasks/llm/test_resume_from.py::test_a_new_run_continues_with_the_same_bits",
    "resumeFrom.runUri": "tasks/llm/test_resume_from.py::test_messages_name_the_run_by_its_uri",
    "resumeFrom.checkpoint": "tasks/llm/test_resume_from.py::test_a_checkpoint_by_name_or_the_best_one",
    "resumeFrom.mode": "tasks/llm/test_resume_from.py::test_other_rows_need_the_mode_weights",
    "dataset.validation.source": "tasks/text/test_prepare.py::test_overlap_of_validation_and_training_rows_is_logged",
    "dataset.validation.sha256": f"{WEB}::test_content_with_another_digest_is_removed",
    "dataset.validation.fraction": "tasks/text/test_prepare.py::test_fraction_is_held_out_without_leaks",
    "quantization.type": "tasks/llm/test_reference_loop.py::test_losses_and_gradient_norms_equal_plain_loop",
    "quantization.doubleQuant": "tasks/llm/test_fields.py::test_double_quantization_changes_losses_slightly",
    "llm.overlong": "tasks/text/test_prepare.py::test_overlong_rows_are_dropped_or_truncated_and_counted",
    "evaluation.everySteps": f"{TRIGGERS}::test_evaluation_follows_periodic_checkpoints_by_default",
    "evaluation.baseline": "engine/test_loop.py::test_run_ends_with_metrics_checkpoints_and_export",
    "evaluation.metric": "engine/test_objective.py::test_objective_decides_best_checkpoint",
    "evaluation.goal": "engine/test_objective.py::test_objective_decides_best_checkpoint",
    "evaluation.earlyStopping.patience": "engine/test_loop.py::test_longer_early_stopping_runs_to_the_end",
    "checkpoints.everySteps": "engine/test_loop.py::test_improvement_between_periodic_checkpoints_is_saved",
    "checkpoints.everyMinutes": "engine/test_triggers.py::test_old_checkpoint_triggers_a_save_between_periodic_ones",
    "checkpoints.keep": "checkpoint/test_store.py::test_newest_and_best_checkpoints_are_kept",
    "checkpoints.gracePeriodSeconds": "engine/test_triggers.py::test_short_grace_period_warning_names_a_value",
    "exports.format": f"{MERGED}::test_merged_model_gives_logits_of_trained_model",
    "exports.base": f"{MERGED}::test_qlora_merged_into_dequantized_base_is_the_trained_model",
    "exports.type": "tasks/text/export/test_gguf.py::test_matrices_have_requested_type_and_vectors_f32",
    "exports.destination": "sources/test_s3.py::test_finished_run_uploads_and_reports_its_export",
    "s3.endpoint": "sources/test_s3.py::test_model_round_trip_fetches_model_files_only",
    "s3.region": "sources/test_s3.py::test_model_round_trip_fetches_model_files_only",
    "progress.url": "report/test_gateway_client.py",
    "progress.tokenFile": "report/test_gateway_client.py",
    "progress.caFile": "report/test_gateway_client.py",
}
"""Field -> test, from this folder; a file alone where all of it is about the field."""


def test_every_field_is_in_the_table() -> None:
    fields = {field for field in leaves(RunConfig) if not field.startswith("job.")}  # whose run it is, for people
    assert {"optimization.learningRate", "evaluation.earlyStopping.patience", "exports.format"} <= fields
    assert not EFFECTS.keys() & ELSEWHERE.keys()
    assert fields == EFFECTS.keys() | ELSEWHERE.keys()


def test_every_test_of_the_table_exists() -> None:
    for field, test in ELSEWHERE.items():
        file, _, name = test.partition("::")
        tree = ast.parse((HERE / file).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not name or name in names, f"{field}: {test}"
