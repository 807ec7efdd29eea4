"""The CustomResourceDefinition on a real API server: accepted and refused objects, and the messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import rule_cases
from tests.api.crd_support import fields, kubectl
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import SPEC, Team

pytestmark = pytest.mark.api
Object = dict[str, Any]

REFUSED: dict[str, tuple[Object, str]] = rule_cases.REFUSED | {
    "a misspelt field": ({"imagee": "x"}, 'unknown field "spec.imagee"'),
    "no task": ({"task": None}, "spec.task: Required value"),
    "an unknown task": ({"task": "chess"}, 'spec.task: Unsupported value: "chess"'),
    "no model": ({"model": None}, "spec.model: Required value"),
    "a model by its name only": (
        {"model": {"source": "Qwen/Qwen3-0.6B"}},
        "spec.model.source must be hf://org/name, pvc://claim/path or s3://bucket/path, for example hf://Qwen/Qwen3-0.6B",
    ),
    "a model path that leaves its claim": (
        {"model": {"source": "pvc://models/../secret"}},
        "must not contain '.', '..', '//' or control characters in its path",
    ),
    "an absolute path on a claim": ({"model": {"source": "pvc://models//etc"}}, "'//' or control characters"),
    "a revision of a claim": (
        {"model": {"source": "pvc://models/tiny", "revision": "main"}},
        "spec.model.revision is only used for hf:// sources; remove it",
    ),
    "credentials for a claim": (
        {"model": {"source": "pvc://models/tiny", "credentialsSecret": {"name": "a", "key": "b"}}},
        "spec.model.credentialsSecret is only used for hf:// sources; remove it",
    ),
    "a dataset without a file": (
        {"dataset": {"source": "hf://org/name"}},
        "spec.dataset.source must be pvc://claim/file.jsonl, hf://org/name/file.jsonl, s3://bucket/file.jsonl",
    ),
    "an evaluation without held-out rows": (
        {"evaluation": {}},
        "spec.evaluation needs held-out rows: set spec.dataset.validation.source or .fraction",
    ),
    "every linear layer saved": (
        {"adapter": {"modulesToSave": ["all-linear"]}},
        "must be the name of a module, for example embed_tokens or lm_head",
    ),
    "a format twice": (
        {"exports": [{"format": "gguf", "type": "f16"}, {"format": "gguf", "type": "f32"}]},
        "spec.exports[1]: Duplicate value",
    ),
    "a destination that is no bucket": (
        {"exports": [{"format": "adapter", "destination": "/data"}]},
        "must be s3://bucket/folder, for example s3://models/support-bot",
    ),
    "a destination with a key": (
        {"exports": [{"format": "adapter", "destination": "s3://key:hunter2@bucket/folder"}]},
        "spec.exports[].destination must not hold a user name, password or token",
    ),
    "object storage without a use": (
        {"s3": {"region": "eu-west-1"}},
        "spec.s3 has no effect without an s3:// source or destination; remove it",
    ),
    "an endpoint with a bucket": (
        {"model": {"source": "s3://models/tiny"}, "s3": {"endpoint": "https://minio:9000/models"}},
        "spec.s3.endpoint must be http:// or https://, a host and an optional port",
    ),
    "a digest of a file on a claim": (
        {"dataset": {"source": "pvc://d/t.jsonl", "sha256": "0" * 64}},
        "spec.dataset.sha256 is only used for s3:// and https:// sources; remove it",
    ),
    "a negative learning rate": ({"optimization": {"learningRate": -1}}, "spec.optimization.learningRate"),
    "a learning rate as text": ({"optimization": {"learningRate": "1e-4"}}, "must be of type number"),
    "too many GPUs": ({"resources": {"gpus": 65}}, "spec.resources.gpus"),
    "memory that is no quantity": (
        {"resources": {"memory": "8 gigs"}},
        "must be a size above 0 with its unit, for example 500Mi or 16Gi",
    ),
    "a GPU resource without a domain": (
        {"resources": {"gpuResource": "gpu"}},
        "must be a resource name with a domain, for example nvidia.com/gpu",
    ),
    "a size for a claim that exists": (
        {"storage": {"claimName": "mine", "size": "1Gi"}},
        "spec.storage.claimName names an existing claim; remove size",
    ),
    "all-linear beside another target": (
        {"adapter": {"targets": ["all-linear", "q_proj"]}},
        "all-linear already includes every linear layer; remove the other names",
    ),
    "a label of Trainyard": (
        {"pod": {"labels": {"trainyard.dev/role": "check"}}},
        "spec.pod.labels may not have the keys trainyard.dev/*, batch.kubernetes.io/*, kueue.x-k8s.io/*",
    ),
    "the queue of Kueue as a label": ({"pod": {"labels": {"kueue.x-k8s.io/queue-name": "q"}}}, "may not have the keys"),
    "the manager as a label": ({"pod": {"labels": {"app.kubernetes.io/managed-by": "me"}}}, "may not have the keys"),
    "a label's value with a blank": ({"pod": {"labels": {"team": "a b"}}}, "must be a label value: letters, digits"),
    "an annotation of the Job controller": (
        {"pod": {"annotations": {"batch.kubernetes.io/job-completion-index": "0"}}},
        "spec.pod.annotations may not have the keys trainyard.dev/*, batch.kubernetes.io/*",
    ),
    "a variable of Trainyard": (
        {"pod": {"env": [{"name": "HOME", "value": "/root"}]}},
        "is a variable that Trainyard sets itself; remove it",
    ),
    "all GPUs of the node": (
        {"pod": {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}},
        "is a variable that Trainyard sets itself",
    ),
    "a variable's name with a dash": (
        {"pod": {"env": [{"name": "MY-NAME", "value": "x"}]}},
        "must be a variable's name: letters, digits and '_'",
    ),
    "a variable without a value": ({"pod": {"env": [{"name": "A"}]}}, "spec.pod.env[] needs either value or valueFrom"),
    "a variable with two sources": (
        {
            "pod": {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {
                            "secretKeyRef": {"name": "s", "key": "k"},
                            "configMapKeyRef": {"name": "c", "key": "k"},
                        },
                    }
                ]
            }
        },
        "spec.pod.env[].valueFrom needs either secretKeyRef or configMapKeyRef",
    ),
    "a variable twice": (
        {"pod": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        "spec.pod.env[1]: Duplicate value",
    ),
    "variables from nowhere": ({"pod": {"envFrom": [{}]}}, "spec.pod.envFrom[] needs either secretRef or configMapRef"),
    "a hub token twice": (
        {
            "model": {"source": "hf://org/model", "credentialsSecret": {"name": "hub", "key": "token"}},
            "pod": {"env": [{"name": "HF_TOKEN", "value": "x"}]},
        },
        "spec.pod.env: HF_TOKEN is read from spec.model.credentialsSecret; remove one of them",
    ),
    "AWS credentials twice": (
        {
            "model": {"source": "s3://models/tiny"},
            "s3": {"credentialsSecret": {"name": "storage"}},
            "pod": {"env": [{"name": "AWS_ACCESS_KEY_ID", "value": "x"}]},
        },
        "spec.pod.env: the AWS credentials are read from spec.s3.credentialsSecret; remove one of them",
    ),
    "root as the user": ({"pod": {"securityContext": {"runAsUser": 0}}}, "spec.pod.securityContext.runAsUser"),
    "an image with a blank": ({"pod": {"image": "a b"}}, "spec.pod.image must be an image reference, for example"),
    "a requirement without values": (
        {"resources": {"nodeAffinity": [{"key": "zone", "operator": "In"}]}},
        "spec.resources.nodeAffinity[]: In and NotIn need values, Exists and DoesNotExist have none",
    ),
    "values of a label that exists": (
        {"resources": {"nodeAffinity": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}},
        "In and NotIn need values, Exists and DoesNotExist have none",
    ),
    "a requirement on no label": (
        {"resources": {"nodeAffinity": [{"key": "a b", "operator": "Exists"}]}},
        "must be the key of a label, for example topology.kubernetes.io/zone",
    ),
    "a spread of one pod": (
        {"resources": {"topologySpread": [{"topologyKey": "rack"}]}},
        "spec.resources.topologySpread has no effect with a single pod; remove it, or set nodes above 1",
    ),
    "the GPU resource once more": (
        {"resources": {"gpuResource": "example.com/card", "extended": [{"name": "example.com/card", "quantity": "1"}]}},
        "spec.resources.extended: GPUs are counted by spec.resources.gpus; remove the entry of gpuResource",
    ),
    "GPUs that the queue would not count": (
        {"resources": {"extended": [{"name": "nvidia.com/gpu", "quantity": "1"}]}},
        "must not be a GPU: the queue counts GPUs by spec.resources.gpus and gpuResource",
    ),
    "memory as a further resource": (
        {"resources": {"extended": [{"name": "memory", "quantity": "1Gi"}]}},
        "must be a resource name with a domain, for example rdma/hca, or hugepages-2Mi",
    ),
    "half a device": (
        {"resources": {"extended": [{"name": "rdma/hca", "quantity": "500m"}]}},
        "must be a whole number above 0, for hugepages with a unit, for example 4Gi",
    ),
    "a claim of nothing": (
        {"resources": {"claims": [{"name": "nic"}]}},
        "spec.resources.claims[] needs either resourceClaimName or resourceClaimTemplateName",
    ),
    "a host path": ({"pod": {"volumes": [{"hostPath": {"path": "/"}}]}}, 'unknown field "spec.pod.volumes"'),
    "a negative limit of retries": ({"retry": {"limit": -1}}, "spec.retry.limit"),
    "an unknown way to stop": ({"stop": "Now"}, 'spec.stop: Unsupported value: "Now"'),
}
CHANGES: dict[str, tuple[Object, str]] = {
    "another model": ({"model": {"source": "pvc://models/other"}}, "spec.model is immutable; create a new TrainingJob"),
    "a block added": ({"llm": {"maxLength": 64}}, "spec.llm is immutable; create a new TrainingJob"),
    "a block removed": ({"resources": None}, "spec.resources is immutable; create a new TrainingJob"),
    "a label of the pods added": (
        {"pod": {"labels": {"team": "nlp"}}},
        "spec.pod is immutable; create a new TrainingJob",
    ),
    "a deadline added": ({"activeDeadlineSeconds": 5}, "spec.activeDeadlineSeconds is immutable"),
    "an export changed": (
        {"exports": [{"format": "gguf", "type": "f32"}]},
        "spec.exports: entries may be added to a TrainingJob that exists, but not changed or removed",
    ),
    "an export exchanged": ({"exports": [{"format": "adapter"}]}, "spec.exports: entries may be added"),
    "all exports removed": ({"exports": None, "s3": None}, "spec.exports: entries may be added"),
    "another object storage": ({"s3": {"region": "eu-1"}}, "spec.s3 cannot be changed once it is set"),
    "a stop taken back": ({"stop": None}, "spec.stop cannot be taken back: a stopped job never runs again"),
}


def manifest(team: Team, name: str, spec: Object) -> str:
    body = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": team.namespace},
        "spec": {key: value for key, value in {**SPEC, **spec}.items() if value is not None},
    }
    return json.dumps(body)


@pytest.mark.parametrize("case", REFUSED)
def test_kubectl_apply_refuses_an_invalid_spec_with_a_sentence(
    case: str, control_plane: Kubernetes, team: Team
) -> None:
    spec, sentence = REFUSED[case]
    done = kubectl(control_plane, "apply", "--dry-run=server", "-f", "-", text=manifest(team, "bad", spec))
    assert done.returncode == 1
    assert sentence in done.stderr


@pytest.mark.parametrize("spec", rule_cases.ACCEPTED.values(), ids=rule_cases.ACCEPTED)
def test_rules_accept_other_specs(spec: Object, control_plane: Kubernetes, team: Team) -> None:
    done = kubectl(control_plane, "apply", "--dry-run=server", "-f", "-", text=manifest(team, "good", spec))
    assert done.returncode == 0, done.stderr


def test_long_name_is_refused(control_plane: Kubernetes, team: Team) -> None:
    done = kubectl(control_plane, "apply", "--dry-run=server", "-f", "-", text=manifest(team, "x" * 49, {}))
    assert "metadata.name may have at most 48 characters" in done.stderr


@pytest.fixture
def existing(team: Team) -> Team:
    exports = [{"format": "gguf", "type": "f16", "destination": "s3://models/out"}]
    team.create("fixed", suspend=True, stop="Graceful", exports=exports, s3={})
    return team


@pytest.mark.parametrize("change", CHANGES)
def test_immutable_field_is_refused_with_a_sentence(change: str, control_plane: Kubernetes, existing: Team) -> None:
    patch, sentence = CHANGES[change]
    words = ["patch", "tj", "fixed", "-n", existing.namespace, "--type=merge", "-p", json.dumps({"spec": patch})]
    done = kubectl(control_plane, *words)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_suspend_and_stop_may_change(control_plane: Kubernetes, existing: Team) -> None:
    for spec in ({"suspend": False}, {"suspend": True}, {"stop": "Force"}):
        words = ["patch", "tj", "fixed", "-n", existing.namespace, "--type=merge", "-p", json.dumps({"spec": spec})]
        assert kubectl(control_plane, *words).returncode == 0


def test_exports_and_object_storage_may_be_added(control_plane: Kubernetes, team: Team) -> None:
    team.create("growing", suspend=True)
    copied = {"format": "gguf", "destination": "s3://models/out"}
    for spec in (
        {"exports": [{"format": "adapter"}]},
        {"exports": [copied, {"format": "adapter"}], "s3": {"region": "eu-1"}},
        {"exports": [{"format": "merged", "base": "dequantized"}, {"format": "adapter"}, copied]},
    ):
        words = ["patch", "tj", "growing", "-n", team.namespace, "--type=merge", "-p", json.dumps({"spec": spec})]
        assert kubectl(control_plane, *words).returncode == 0


def test_every_field_has_an_explanation(control_plane: Kubernetes) -> None:
    served = control_plane.client.get(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trainingjobs.trainyard.dev"
    )
    schema = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    undescribed = [path for path, node in fields(schema, "") if not node.get("description") and path != ".metadata"]
    assert undescribed == []
    done = kubectl(control_plane, "explain", "tj.spec.optimization.learningRate")
    assert "Peak learning rate" in done.stdout
    assert kubectl(control_plane, "explain", "tj.spec", "--recursive").returncode == 0
