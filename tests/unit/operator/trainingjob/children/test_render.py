"""Bodies of children, compared with checked-in files (--update-goldens rewrites them), and their invariants."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from tests.unit.operator.trainingjob.state_model import (
    ADMITTED,
    NAME,
    NAMESPACE,
    SETTINGS,
    SPEC,
    UID,
    merged,
    new_job,
    observed_of,
)
from trainyard_crds.constants import NAME_LIMIT
from trainyard_crds.exitcodes import OnExit, codes_for
from trainyard_crds.exports import ExportFormat
from trainyard_crds.runconfig import RunConfig
from trainyard_operator.quantity import whole_units
from trainyard_operator.trainingjob.children.render import (
    check_job,
    check_name,
    children,
    export_job,
    export_name,
    failure_rules,
)
from trainyard_operator.trainingjob.spec import InvalidSpecError

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
    "two-gpus": {"method": "full", "resources": {"gpus": 2}},
    "two-nodes": {"resources": {"gpus": 4, "nodes": 2}, "retry": {"limit": 5}},
    "one-claim": {
        "resources": {"gpus": 0},
        "storage": {"claimName": "models"},
        "dataset": {"source": "pvc://rows/train.jsonl", "validation": {"source": "pvc://rows/held.jsonl"}},
        "evaluation": {"everySteps": 10},
    },
    "shared-cache": {"storage": {"size": "20Gi", "cache": {"claimName": "cache"}}},
    "one-claim-for-all": {
        "model": {"source": "pvc://models/tiny"},
        "dataset": {"source": "pvc://models/train.jsonl"},
        "storage": {"claimName": "models", "cache": {"claimName": "models"}},
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
    return children(observed_of(job), SETTINGS, ADMITTED)


@pytest.mark.parametrize("case", CASES)
def test_children_match_the_checked_in_files(case: str, request: pytest.FixtureRequest) -> None:
    text = yaml.safe_dump_all(rendered(case), sort_keys=False, width=120)
    path = GOLDEN / f"{case}.yaml"
    if request.config.getoption("--update-goldens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text))


@pytest.mark.parametrize("case", CASES)
def test_run_config_is_valid_and_its_paths_are_mounted(case: str) -> None:
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
def test_every_mount_has_a_volume_and_every_claim_one_volume(case: str) -> None:
    pod = rendered(case)[-1]["spec"]["template"]["spec"]
    names = [volume["name"] for volume in pod["volumes"]]
    claims = [found["claimName"] for volume in pod["volumes"] if (found := volume.get("persistentVolumeClaim"))]
    assert sorted({mount["name"] for mount in pod["containers"][0]["volumeMounts"]}) == sorted(names)
    assert len(set(claims)) == len(claims)


@pytest.mark.parametrize("case", ["shared-cache", "one-claim-for-all"])
def test_shared_cache_is_writable_at_the_path_of_the_run_config(case: str) -> None:
    config_map, *_, job = rendered(case)
    directory = RunConfig.model_validate_json(config_map["data"]["run.json"]).cache_directory
    container = job["spec"]["template"]["spec"]["containers"][0]
    mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == "/volumes/cache")
    assert directory == "/volumes/cache/trainyard-cache"
    assert "readOnly" not in mount
    assert {"name": "HF_HUB_CACHE", "value": "/volumes/cache/huggingface/hub"} in container["env"]


@pytest.mark.parametrize("case", CASES)
def test_shared_memory_fits_into_the_memory_limit(case: str) -> None:
    pod = rendered(case)[-1]["spec"]["template"]["spec"]
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")["emptyDir"]
    limit = pod["containers"][0]["resources"]["limits"]["memory"]
    assert shm["medium"] == "Memory"
    assert 0 < int(shm["sizeLimit"]) < whole_units(limit)


def test_each_gpu_adds_a_process_with_its_cpu_and_memory() -> None:
    config_map, *_claim, job = rendered("two-gpus")
    config = RunConfig.model_validate_json(config_map["data"]["run.json"])
    assert (config.gpus, config.processes) == (2, 2)
    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    config_map, *_ = rendered("one-claim")
    config = RunConfig.model_validate_json(config_map["data"]["run.json"])
    assert (config.gpus, config.processes) == (0, 1)


def gang(name: str = NAME, **spec: Any) -> dict[str, dict[str, Any]]:
    """Children of a job on two nodes, by their kind."""
    job = merged(new_job(), {"metadata": {"name": name}, "spec": {"resources": {"gpus": 4, "nodes": 2}, **spec}})
    return {body["kind"]: body for body in children(observed_of(job), SETTINGS, ADMITTED)}


def test_gang_is_an_indexed_job_that_pod_0_completes() -> None:
    job = gang()["Job"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 2, 2)
    assert job["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert (job["backoffLimitPerIndex"], job["maxFailedIndexes"]) == (3, 0)
    assert "backoffLimit" not in job
    assert job["podFailurePolicy"]["rules"] == failure_rules()


def test_gang_reaches_pod_0_through_a_headless_service() -> None:
    bodies = gang()
    service, pod = bodies["Service"], bodies["Job"]["spec"]["template"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["metadata"]["ownerReferences"][0]["kind"] == "TrainingJob"
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    env = {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}
    child = bodies["Job"]["metadata"]["name"]
    assert env["MASTER_ADDR"]["value"] == f"{child}-0.{service['metadata']['name']}.{NAMESPACE}.svc"
    assert (env["NNODES"]["value"], env["MASTER_PORT"]["value"]) == ("2", "29400")
    rank = env["NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert rank == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    config = RunConfig.model_validate_json(bodies["ConfigMap"]["data"]["run.json"])
    assert (config.gpus, config.nodes, config.processes, config.processes_per_node) == (4, 2, 8, 4)


def test_gang_prefers_each_of_its_nodes() -> None:
    job = merged(new_job(), {"spec": {"resources": {"gpus": 4, "nodes": 3}}})
    *_others, child = children(observed_of(job), SETTINGS, ADMITTED._replace(nodes=("n1", "n2", "n1")))
    node_affinity = child["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = node_affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    names = [field["values"] for term in terms for field in term["preference"]["matchFields"]]
    assert names == [["n1"], ["n2"]], "the API server refuses two values for a node's name"


def test_names_of_a_gang_are_dns_labels() -> None:
    bodies = gang("7" * NAME_LIMIT)
    service, job = bodies["Service"]["metadata"]["name"], bodies["Job"]["metadata"]["name"]
    assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service)
    assert len(f"{job}-63") <= 63, "the host name of the last pod there can be"


def test_claim_of_a_gang_is_shared() -> None:
    assert gang()["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "PersistentVolumeClaim" not in gang(storage={"claimName": "models"})


def test_job_on_one_node_has_no_gang_fields() -> None:
    bodies = rendered("gpu")
    text = json.dumps(bodies)
    assert "Service" not in {body["kind"] for body in bodies}
    assert not [word for word in ("NNODES", "MASTER_ADDR", "subdomain", "Indexed", '\\"nodes') if word in text]


def test_chart_variables_reach_the_trainer_but_never_replace_the_operators() -> None:
    job, environment = new_job(), {"NCCL_DEBUG": "INFO", "POD_UID": "mine", "HOME": "/root"}
    *_others, child = children(observed_of(job), replace(SETTINGS, environment=environment), ADMITTED)
    env = child["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in env
    assert len({entry["name"] for entry in env}) == len(env)
    assert not [entry for entry in env if entry.get("value") in {"mine", "/root"}]


def test_config_map_name_contains_the_hash_of_its_content() -> None:
    assert rendered("defaults")[0]["metadata"]["name"] == rendered("defaults")[0]["metadata"]["name"]
    assert rendered("defaults")[0]["metadata"]["name"] != rendered("gpu")[0]["metadata"]["name"]


def test_only_a_claim_that_is_not_retained_has_an_owner() -> None:
    assert "ownerReferences" not in rendered("defaults")[1]["metadata"]
    assert rendered("gpu")[1]["metadata"]["ownerReferences"][0]["kind"] == "TrainingJob"


def test_failure_rules_are_in_order() -> None:
    first, second, third = failure_rules()
    assert (first["action"], first["onExitCodes"]["values"]) == ("Ignore", codes_for(OnExit.IGNORE))
    assert (second["action"], second["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (third["action"], third["onExitCodes"]["values"]) == ("FailJob", codes_for(OnExit.FAIL))


def test_check_job_uses_the_nodes_of_the_run() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists"}]
    job = merged(new_job(), {"spec": {"resources": {"nodeSelector": {"zone": "a"}, "tolerations": tolerations}}})
    spec = check_job(observed_of(job), SETTINGS, image=None)["spec"]["template"]["spec"]
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    assert (spec["nodeSelector"], spec["tolerations"]) == ({"zone": "a"}, [*tolerations, gpu])
    assert "nodeSelector" not in check_job(observed_of(new_job()), SETTINGS, image=None)["spec"]["template"]["spec"]


def test_pods_of_a_gpu_job_tolerate_the_taint_that_the_queue_takes_as_tolerated() -> None:
    for gpus, expected in ((1, [{"key": "amd.com/gpu", "operator": "Exists"}]), (0, None)):
        job = merged(new_job(), {"spec": {"resources": {"gpus": gpus, "gpuResource": "amd.com/gpu"}}})
        train = children(observed_of(job), SETTINGS, ADMITTED)[-1]
        assert train["spec"]["template"]["spec"].get("tolerations") == expected


def test_check_job_uses_the_image_of_the_run_and_a_read_only_volume() -> None:
    job = check_job(observed_of(new_job()), SETTINGS, image="frozen:1")
    pod = job["spec"]["template"]["spec"]
    run = next(mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "run")
    assert (pod["containers"][0]["image"], run["readOnly"]) == ("frozen:1", True)
    assert "activeDeadlineSeconds" in job["spec"]


@pytest.mark.parametrize("case", ["gpu", "object-storage"])
def test_export_children_match_the_checked_in_files(case: str, request: pytest.FixtureRequest) -> None:
    text = yaml.safe_dump_all(exported(case), sort_keys=False, width=120)
    path = GOLDEN / f"export-{case}.yaml"
    if request.config.getoption("--update-goldens"):
        path.write_text(text)
    assert list(yaml.safe_load_all(path.read_text())) == list(yaml.safe_load_all(text))


def exported(case: str, **spec: Any) -> tuple[dict[str, Any], ...]:
    job = new_job()
    exports = [{"format": "gguf", "type": "q8_0"}, {"format": "merged"}]
    job["spec"] = {**SPEC, "exports": exports, **CASES[case], **spec}
    seen = observed_of(job)
    return export_job(seen, (seen.spec.exports or [])[0], SETTINGS)


@pytest.mark.parametrize("case", CASES)
def test_export_has_no_gpu_and_no_token_but_nodes_and_retries_of_the_run(case: str) -> None:
    config_map, job = exported(case)
    training = rendered(case)[-1]["spec"]
    pod, trained = job["spec"]["template"]["spec"], training["template"]["spec"]
    container = pod["containers"][0]
    limits = trained["containers"][0]["resources"]["limits"]
    assert container["resources"]["limits"] == {"cpu": limits["cpu"], "memory": limits["memory"]}
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]
    assert {volume["name"] for volume in pod["volumes"]} == {volume["name"] for volume in trained["volumes"]} - {
        "ca",
        "token",
        "shm",
    }
    assert job["spec"]["podFailurePolicy"] == training["podFailurePolicy"]
    assert job["spec"]["backoffLimit"] == training.get("backoffLimit", training.get("backoffLimitPerIndex"))
    for key in ("nodeSelector", "tolerations", "securityContext", "terminationGracePeriodSeconds"):
        assert pod.get(key) == trained.get(key)
    config = RunConfig.model_validate_json(config_map["data"]["run.json"])
    assert (len(config.exports), config.progress) == (1, None)


def test_export_of_a_run_with_a_gpu_optimizer_is_valid() -> None:
    """The run config has the GPUs of the run; the pod has none."""
    config_map, job = exported("defaults", optimization={"optimizer": "paged_adamw8bit"}, resources={"gpus": 1})
    assert RunConfig.model_validate_json(config_map["data"]["run.json"]).gpus == 1
    assert "nvidia.com/gpu" not in job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_names_of_export_jobs_differ_and_are_label_values() -> None:
    names = {export_name("x" * NAME_LIMIT, UID, format_) for format_ in get_args(ExportFormat)}
    names |= {check_name("x" * NAME_LIMIT, UID)}
    assert len(names) == len(get_args(ExportFormat)) + 1
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimization": {"epochs": "many"}}, "spec.optimization.epochs: Input should be a valid number"),
        ({"colour": "red"}, "spec.colour: Extra inputs are not permitted"),
        ({"method": "full", "adapter": {}}, "adapter has no effect with method: full"),
    ],
)
def test_invalid_spec_is_explained(change: dict[str, Any], sentence: str) -> None:
    job = merged(new_job(), {"spec": change})
    with pytest.raises(InvalidSpecError, match=sentence):
        children(observed_of(job), SETTINGS, ADMITTED)


def test_no_secret_value_is_rendered() -> None:
    assert "secretKeyRef" in json.dumps(rendered("gpu")[-1])
