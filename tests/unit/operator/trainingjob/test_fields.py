"""Every field of a TrainingJob's spec has a tested effect; fields of the trainer reach its run config."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.fields import leaves, values
from tests.unit.operator.trainingjob.state_model import ADMITTED, SETTINGS, SPEC, new_job, observed_of
from trainyard_crds.runconfig import RunConfig
from trainyard_crds.trainingjob import TrainingJobSpec
from trainyard_operator.trainingjob.children.render import children

GOLDEN = Path(__file__).parent / "golden"
FIRST: dict[str, Any] = {
    "task": "llm",
    "method": "qlora",
    "model": {"source": "hf://org/model", "revision": "v1"},
    "dataset": {
        "source": "https://files.example/train.jsonl",
        "sha256": "a" * 64,
        "format": "messages",
        "maxRows": 7,
        "onInvalidRow": "skip",
        "maxInvalidFraction": 0.25,
        "validation": {"source": "s3://rows/held.jsonl", "sha256": "b" * 64},
    },
    "resumeFrom": {"runUri": "pvc://old/trainyard/old-1", "checkpoint": "step-3-e1", "mode": "weights"},
    "optimization": {
        "epochs": 2.5,
        "maxSteps": 9,
        "batchSize": 3,
        "gradientAccumulation": 2,
        "learningRate": 0.002,
        "scheduler": "linear",
        "warmupRatio": 0.25,
        "weightDecay": 0.5,
        "maxGradNorm": 0.5,
        "optimizer": "paged_adamw8bit",
        "precision": "fp32",
        "recompute": "full",
        "seed": 7,
        "loggingSteps": 2,
    },
    "adapter": {
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.5,
        "useRslora": True,
        "modulesToSave": ["lm_head"],
        "targets": ["q_proj"],
    },
    "quantization": {"type": "nf4", "doubleQuant": False},
    "llm": {"maxLength": 64, "packing": False, "overlong": "truncate", "trainOn": "all"},
    "evaluation": {
        "everySteps": 3,
        "baseline": True,
        "metric": "evalLoss",
        "goal": "maximize",
        "earlyStopping": {"patience": 2},
    },
    "checkpoints": {"everySteps": 7, "everyMinutes": 5.0, "keep": 3, "gracePeriodSeconds": 77},
    "exports": [
        {"format": "merged", "base": "dequantized", "destination": "s3://models/out"},
        {"format": "gguf", "type": "q8_0"},
    ],
    "s3": {"endpoint": "https://minio.storage:9000", "region": "eu-west-1"},
}
"""Every field that the trainer reads, with another value than its default where there is one."""
SECOND = {"dataset": {"source": "s3://rows/train.jsonl", "validation": {"fraction": 0.25}}}
ONE_VALUE = {"task", "quantization.type"}


def rendered(changes: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    job = new_job()
    job["spec"] = {**SPEC, **changes}
    return children(observed_of(job), SETTINGS, ADMITTED)


def run_config(changes: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(rendered(changes)[0]["data"]["run.json"])
    return document


FOR_THE_TRAINER = sorted(set(leaves(TrainingJobSpec)) & set(leaves(RunConfig)))


@pytest.mark.parametrize("field", FOR_THE_TRAINER)
def test_trainer_field_reaches_the_run_config(field: str) -> None:
    spec = next(spec for spec in (FIRST, SECOND) if values(spec, field))
    plain = run_config({})
    assert values(run_config(spec), field) == values(spec, field)
    assert field in ONE_VALUE or values(spec, field) != values(plain, field)


Check = Callable[[dict[str, Any]], Any]


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def limits(job: dict[str, Any]) -> Any:
    return pod(job)["containers"][0]["resources"]["limits"]


def secret(variable: str) -> Check:
    """Return a check of the Secret key that a variable is read from."""

    def read(job: dict[str, Any]) -> Any:
        env = pod(job)["containers"][0]["env"]
        return next(one["valueFrom"]["secretKeyRef"] for one in env if one["name"] == variable)

    return read


def claims(job: dict[str, Any]) -> Any:
    return {one["persistentVolumeClaim"]["claimName"] for one in pod(job)["volumes"] if "persistentVolumeClaim" in one}


def variables(job: dict[str, Any]) -> Any:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in pod(job)["containers"][0]["env"]}


def variable(name: str) -> Check:
    """Return a check of a variable's value or source."""
    return lambda job: variables(job)[name]


def security(name: str) -> Check:
    """Return a check of a field of the pod's security context."""
    return lambda job: pod(job)["securityContext"][name]


def scratch(name: str) -> Check:
    """Return a check of the size limit of a scratch volume."""
    return lambda job: next(one["emptyDir"]["sizeLimit"] for one in pod(job)["volumes"] if one["name"] == name)


def option(field: str, value: Any) -> tuple[dict[str, Any], Check, Any]:
    """Return the case of an option that a pod has under the same name."""
    return {"pod": {field: value}}, lambda job: pod(job)[field], value


SECRET_KEY, CONFIG_KEY = {"name": "proxy", "key": "url"}, {"name": "settings", "key": "level"}
ENV = [
    {"name": "PROXY", "valueFrom": {"secretKeyRef": SECRET_KEY}},
    {"name": "LEVEL", "valueFrom": {"configMapKeyRef": CONFIG_KEY}},
    {"name": "PLAIN", "value": "yes"},
]
SOURCES = [{"secretRef": {"name": "more"}}, {"configMapRef": {"name": "others"}}]
BUNDLE = {"pod": {"caBundle": {"name": "company", "key": "all.pem"}}}
USER = {"runAsUser": 2000, "runAsGroup": 2001, "fsGroup": 2002}
POD_OPTIONS: dict[str, tuple[dict[str, Any], Check, Any]] = {
    "pod.labels": (
        {"pod": {"labels": {"team": "nlp"}}},
        lambda job: job["spec"]["template"]["metadata"]["labels"]["team"],
        "nlp",
    ),
    "pod.annotations": (
        {"pod": {"annotations": {"mesh/inject": "false"}}},
        lambda job: job["spec"]["template"]["metadata"]["annotations"],
        {"mesh/inject": "false"},
    ),
    "pod.image": ({"pod": {"image": "own:1"}}, lambda job: pod(job)["containers"][0]["image"], "own:1"),
    "pod.imagePullSecrets.name": option("imagePullSecrets", [{"name": "registry"}]),
    "pod.serviceAccountName": option("serviceAccountName", "reader"),
    "pod.runtimeClassName": option("runtimeClassName", "nvidia"),
    "pod.priorityClassName": option("priorityClassName", "low"),
    "pod.schedulerName": option("schedulerName", "volcano"),
    "pod.env.name": ({"pod": {"env": ENV}}, lambda job: {"PROXY", "LEVEL", "PLAIN"} <= variables(job).keys(), True),
    "pod.env.value": ({"pod": {"env": ENV}}, lambda job: variables(job)["PLAIN"], "yes"),
    **{
        f"pod.env.valueFrom.{source}.{part}": (
            {"pod": {"env": ENV}},
            variable(name),
            {source: reference},
        )
        for name, source, reference in (
            ("PROXY", "secretKeyRef", SECRET_KEY),
            ("LEVEL", "configMapKeyRef", CONFIG_KEY),
        )
        for part in ("name", "key")
    },
    **{
        f"pod.envFrom.{source}.name": (
            {"pod": {"envFrom": SOURCES}},
            lambda job: pod(job)["containers"][0]["envFrom"],
            SOURCES,
        )
        for source in ("secretRef", "configMapRef")
    },
    "pod.caBundle.name": (
        BUNDLE,
        lambda job: [one["configMap"]["name"] for one in pod(job)["volumes"] if one["name"] == "ca-bundle"],
        ["company"],
    ),
    "pod.caBundle.key": (BUNDLE, lambda job: variables(job)["SSL_CERT_FILE"], "/etc/trainyard/ca-bundle/all.pem"),
    **{
        f"pod.securityContext.{name}": (
            {"pod": {"securityContext": USER}},
            security(name),
            value,
        )
        for name, value in USER.items()
    },
}
AFFINITY = [{"key": "zone", "operator": "In", "values": ["a", "b"]}]
SPREAD = [{"topologyKey": "rack", "maxSkew": 2}]
CLAIMS = [
    {"name": "shared", "resourceClaimName": "switch"},
    {"name": "own", "resourceClaimTemplateName": "nic"},
]


def requirements(job: dict[str, Any]) -> Any:
    required = pod(job)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return required["nodeSelectorTerms"]


def spread(name: str) -> Check:
    """Return a check of a field of the topology spread."""
    return lambda job: [one[name] for one in pod(job)["topologySpreadConstraints"]]


PLACEMENT: dict[str, tuple[dict[str, Any], Check, Any]] = {
    **{
        f"resources.nodeAffinity.{part}": (
            {"resources": {"nodeAffinity": AFFINITY}},
            requirements,
            [{"matchExpressions": AFFINITY}],
        )
        for part in ("key", "operator", "values")
    },
    **{
        f"resources.topologySpread.{part}": (
            {"resources": {"nodes": 2, "topologySpread": SPREAD}},
            spread(part),
            [value],
        )
        for part, value in (("topologyKey", "rack"), ("maxSkew", 2))
    },
    **{
        f"resources.extended.{part}": (
            {"resources": {"extended": [{"name": "rdma/hca", "quantity": "2"}]}},
            lambda job: limits(job)["rdma/hca"],
            "2",
        )
        for part in ("name", "quantity")
    },
    **{
        f"resources.claims.{part}": ({"resources": {"claims": CLAIMS}}, lambda job: pod(job)["resourceClaims"], CLAIMS)
        for part in ("name", "resourceClaimName", "resourceClaimTemplateName")
    },
}
HUB = {"model": {"source": "hf://org/model", "credentialsSecret": {"name": "hub", "key": "token"}}}
TOLERATION = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 5}
S3 = {"model": {"source": "s3://models/tiny"}, "s3": {"credentialsSecret": {"name": "storage"}}}
IN_THE_JOB: dict[str, tuple[dict[str, Any], Check, Any]] = {
    "model.credentialsSecret.name": (HUB, secret("HF_TOKEN"), {"name": "hub", "key": "token"}),
    "model.credentialsSecret.key": (HUB, secret("HF_TOKEN"), {"name": "hub", "key": "token"}),
    "s3.credentialsSecret.name": (
        S3,
        secret("AWS_SECRET_ACCESS_KEY"),
        {"name": "storage", "key": "AWS_SECRET_ACCESS_KEY"},
    ),
    "resources.gpus": ({"resources": {"gpus": 3}}, lambda job: limits(job)["nvidia.com/gpu"], "3"),
    "resources.nodes": ({"resources": {"nodes": 3}}, lambda job: job["spec"].get("parallelism"), 3),
    "resources.gpuResource": (
        {"resources": {"gpuResource": "amd.com/gpu"}},
        lambda job: limits(job)["amd.com/gpu"],
        "1",
    ),
    "resources.cpu": ({"resources": {"cpu": "7"}}, lambda job: limits(job)["cpu"], "7"),
    "resources.memory": ({"resources": {"memory": "9Gi"}}, lambda job: limits(job)["memory"], "9Gi"),
    "resources.ephemeralStorage": (
        {"resources": {"ephemeralStorage": "20Gi"}},
        lambda job: limits(job)["ephemeral-storage"],
        "20Gi",
    ),
    "resources.scratchSize": ({"resources": {"scratchSize": "7Gi"}}, scratch("home"), "7Gi"),
    "resources.tmpSize": ({"resources": {"tmpSize": "8Gi"}}, scratch("tmp"), "8Gi"),
    "resources.nodeSelector": (
        {"resources": {"nodeSelector": {"pool": "a100"}}},
        lambda job: pod(job)["nodeSelector"],
        {"pool": "a100"},
    ),
    **{
        f"resources.tolerations.{name}": (
            {"resources": {"tolerations": [TOLERATION]}},
            lambda job: pod(job)["tolerations"][:1],
            [TOLERATION],
        )
        for name in TOLERATION
    },
    **POD_OPTIONS,
    **PLACEMENT,
    "retry.limit": ({"retry": {"limit": 7}}, lambda job: job["spec"]["backoffLimit"], 7),
    "checkpoints.gracePeriodSeconds": (
        {"checkpoints": {"gracePeriodSeconds": 77}},
        lambda job: pod(job)["terminationGracePeriodSeconds"],
        77,
    ),
    "storage.claimName": ({"storage": {"claimName": "mine"}}, claims, {"mine", "models"}),
    "storage.cache.claimName": (
        {"storage": {"claimName": "mine", "cache": {"claimName": "shared"}}},
        claims,
        {"mine", "models", "shared"},
    ),
}


@pytest.mark.parametrize("field", IN_THE_JOB)
def test_job_field_reaches_the_pod(field: str) -> None:
    changes, check, wanted = IN_THE_JOB[field]
    assert check(rendered(changes)[-1]) == wanted


STORAGE = {"size": "20Gi", "storageClassName": "fast", "accessMode": "ReadWriteMany", "retain": False}
IN_THE_CLAIM: dict[str, tuple[Check, Any]] = {
    "storage.size": (lambda claim: claim["spec"]["resources"]["requests"]["storage"], "20Gi"),
    "storage.storageClassName": (lambda claim: claim["spec"].get("storageClassName"), "fast"),
    "storage.accessMode": (lambda claim: claim["spec"]["accessModes"], ["ReadWriteMany"]),
    "storage.retain": (lambda claim: "ownerReferences" in claim["metadata"], True),
}


@pytest.mark.parametrize("field", IN_THE_CLAIM)
def test_storage_field_reaches_the_claim(field: str) -> None:
    check, wanted = IN_THE_CLAIM[field]
    assert check(rendered({"storage": STORAGE})[1]) == wanted
    assert check(rendered({})[1]) != wanted


IN_SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "suspend": ("suspend", {"spec": {"suspend": True}}),
    "stop": ("stop", {"spec": {"stop": "Graceful"}}),
    "activeDeadlineSeconds": ("deadline", {"spec": {"activeDeadlineSeconds": 100}}),
    "startDeadlineSeconds": ("starting", {}),
    "queue.priority": ("queue", {"spec": {"queue": {"priority": 3}}}),
    "queue.name": ("kueue", {"spec": {"queue": {"name": "gpus"}}}),
}
"""Field -> its scenario in golden/, and the change of the job in it."""


@pytest.mark.parametrize("field", IN_SCENARIOS)
def test_lifecycle_field_has_a_scenario(field: str) -> None:
    scenario, change = IN_SCENARIOS[field]
    text = (GOLDEN / f"{scenario}.yaml").read_text()
    assert any(change.items() <= step.get("job", {}).items() for step in yaml.safe_load(text))
    assert f"spec.{field}" in text or change


def test_every_field_has_a_table() -> None:
    # resumeFrom.trainingJob takes a look-up: policies/test_resuming.py
    tables = {*FOR_THE_TRAINER, *IN_THE_JOB, *IN_THE_CLAIM, *IN_SCENARIOS, "resumeFrom.trainingJob"}
    assert set(leaves(TrainingJobSpec)) == tables
    assert {"resources.gpus", "storage.cache.claimName", "optimization.learningRate"} <= tables
