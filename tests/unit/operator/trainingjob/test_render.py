"""Bodies of children, compared with checked-in ones (--update-goldens rewrites them), and rules they must keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.trainingjob.world import SETTINGS, SPEC, merged, new_job
from trainyard_crds.exitcodes import OnExit, codes_for
from trainyard_crds.runconfig import RunConfig
from trainyard_operator.trainingjob.quantity import whole_units
from trainyard_operator.trainingjob.render import check_job, children, failure_rules
from trainyard_operator.trainingjob.runconfig import InvalidSpecError

GOLDEN = Path(__file__).parent / "rendered"
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "gpu": {
        "method": "qlora",
        "model": {"source": "hf://org/model", "revision": "main", "credentialsSecret": {"name": "hub", "key": "token"}},
        "resources": {
            "gpus": 1,
            "gpuResource": "amd.com/gpu",
            "cpu": "8",
            "memory": "64Gi",
            "nodeSelector": {"pool": "a100"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "storage": {"size": "50Gi", "storageClassName": "fast", "retain": False, "accessMode": "ReadWriteMany"},
        "checkpoints": {"gracePeriodSeconds": 600},
        "retry": {"limit": 7},
    },
    "one-claim": {
        "resources": {"gpus": 0},
        "storage": {"claimName": "models"},
        "dataset": {"source": "pvc://rows/train.jsonl", "validation": {"source": "pvc://rows/held.jsonl"}},
        "evaluation": {"everySteps": 10},
    },
    "object-storage": {
        "method": "qlora",
        "model": {"source": "s3://models/tiny"},
        "dataset": {
            "source": "https://files.example/train.jsonl",
            "sha256": "a" * 64,
            "validation": {"source": "s3://rows/held.jsonl", "sha256": "b" * 64},
        },
        "exports": [{"format": "merged", "base": "dequantized", "destination": "s3://models/out"}, {"format": "gguf"}],
        "s3": {"endpoint": "https://minio.storage:9000", "credentialsSecret": {"name": "storage"}},
    },
}


def rendered(case: str) -> tuple[dict[str, Any], ...]:
    job = new_job()
    job["spec"] = {**SPEC, **CASES[case]}
    return children(job, SETTINGS)


@pytest.mark.parametrize("case", CASES)
def test_children_are_what_was_checked_in(case: str, request: pytest.FixtureRequest) -> None:
    text = yaml.safe_dump_all(rendered(case), sort_keys=False, width=120)
    path = GOLDEN / f"{case}.yaml"
    if request.config.getoption("--update-goldens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text))


@pytest.mark.parametrize("case", CASES)
def test_the_run_config_is_one_the_trainer_takes_and_the_pod_mounts_what_it_names(case: str) -> None:
    config_map, *_, job = rendered(case)
    config = RunConfig.model_validate_json(config_map["data"]["run.json"])
    container = job["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    validation = config.dataset.validation
    sources = [config.model.source, config.dataset.source, (validation.source if validation else None) or ""]
    for source in sources:
        path = source.removeprefix("file://")
        assert (
            source == ""
            or source.startswith(("hf://", "s3://", "https://"))
            or any(path.startswith(f"{mount}/") for mount in mounts)
        )
    assert config.run_directory.startswith("/volumes/run/trainyard/")
    assert config.progress is not None
    assert config.progress.url.startswith(SETTINGS.gateway_url)


@pytest.mark.parametrize("case", CASES)
def test_shared_memory_fits_into_the_memory_limit(case: str) -> None:
    pod = rendered(case)[-1]["spec"]["template"]["spec"]
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")["emptyDir"]
    limit = pod["containers"][0]["resources"]["limits"]["memory"]
    assert shm["medium"] == "Memory"
    assert 0 < int(shm["sizeLimit"]) < whole_units(limit)


def test_the_name_of_the_config_map_follows_its_content() -> None:
    assert rendered("defaults")[0]["metadata"]["name"] == rendered("defaults")[0]["metadata"]["name"]
    assert rendered("defaults")[0]["metadata"]["name"] != rendered("gpu")[0]["metadata"]["name"]


def test_a_retained_claim_has_no_owner_and_the_other_has() -> None:
    assert "ownerReferences" not in rendered("defaults")[1]["metadata"]
    assert rendered("gpu")[1]["metadata"]["ownerReferences"][0]["kind"] == "TrainingJob"


def test_the_rules_of_failure_come_in_the_order_of_the_contract() -> None:
    first, second, third = failure_rules()
    assert (first["action"], first["onExitCodes"]["values"]) == ("Ignore", codes_for(OnExit.IGNORE))
    assert (second["action"], second["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (third["action"], third["onExitCodes"]["values"]) == ("FailJob", codes_for(OnExit.FAIL))


def test_the_check_reads_the_frozen_image_and_cannot_write_the_volume() -> None:
    job = check_job(new_job(), SETTINGS, image="frozen:1")
    pod = job["spec"]["template"]["spec"]
    run = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "run")
    assert (pod["containers"][0]["image"], run["readOnly"]) == ("frozen:1", True)
    assert "activeDeadlineSeconds" in job["spec"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimization": {"epochs": "many"}}, "spec.optimization.epochs: Input should be a valid number"),
        ({"colour": "red"}, "spec.colour: Extra inputs are not permitted"),
        ({"method": "full", "adapter": {}}, "adapter has no effect with method: full"),
    ],
)
def test_a_spec_that_is_not_understood_gets_a_sentence(change: dict[str, Any], sentence: str) -> None:
    job = merged(new_job(), {"spec": change})
    with pytest.raises(InvalidSpecError, match=sentence):
        children(job, SETTINGS)


def test_no_secret_value_is_rendered() -> None:
    assert "secretKeyRef" in json.dumps(rendered("gpu")[-1])
