"""What the API server accepts of ModelDeployments; what it refuses is in the error corpus."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.crd_support import fields, kubectl
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Team
from trainyard_crds.constants import MAX_ADAPTERS, NAME_LIMIT
from trainyard_crds.modeldeployment_serving import ENGINE_FLAGS

pytestmark = pytest.mark.api
Object = dict[str, Any]
HUB: Object = {"source": "hf://Qwen/Qwen3-0.6B"}
JOB: Object = {"from": {"trainingJob": "a-run"}}
LONG = "x" * 400
"""A part of a path, so long that rules over many entries become expensive for the API server."""

ACCEPTED: dict[str, Object] = {
    "a model": {"model": HUB},
    "a checkpoint by its name": {"model": {"from": {"trainingJob": "a-run", "checkpoint": "step-300-e1"}}},
    "an export": {"model": {"from": {"trainingJob": "a-run", "export": "merged"}}},
    "object storage for the base model of a job": {"model": JOB, "s3": {"region": "eu-west-1"}},
    "object storage for an adapter": {
        "model": HUB,
        "adapters": [{"name": "support", "source": "s3://models/support"}],
        "s3": {},
    },
    "a hub token for the base model of a job": {
        "model": {**JOB, "credentialsSecret": {"name": "hub", "key": "token"}},
    },
    "a hub token for an adapter": {
        "model": {"source": "pvc://models/tiny", "credentialsSecret": {"name": "hub", "key": "token"}},
        "adapters": [{"name": "support", "source": "hf://org/support", "revision": "v2"}],
    },
    "an adapter on the claim of the model": {
        "model": {"source": "pvc://models/tiny"},
        "adapters": [{"name": "support", "source": "pvc://models/support"}],
    },
    "an adapter on another claim": {
        "model": HUB,
        "adapters": [{"name": "support", "source": "pvc://adapters/support"}],
        "volumes": [{"claimName": "adapters"}],
    },
    "an adapter with the name of the deployment": {
        "model": {**HUB, "servedName": "qwen3"},
        "adapters": [{"name": "chat", **JOB}],
    },
    "every flag without a value": {"model": HUB, "args": [f"--{flag}" for flag in ENGINE_FLAGS][:32]},
    "a flag with an equals sign in its value": {"model": HUB, "args": ['--limit-mm-per-prompt={"image":2}']},
    "scale to zero without a replica": {"model": HUB, "replicas": 0, "scaleToZero": {}},
    "a host name with a wildcard": {
        "model": HUB,
        "route": {"gateway": {"name": "public", "namespace": "gateways"}, "hostnames": ["*.example.com"]},
    },
    "a rollout with one of two numbers": {"model": HUB, "rollout": {"maxSurge": 0}},
    "the largest spec": {
        "model": {"source": f"pvc://models/{LONG}"},
        "adapters": [
            {"name": f"adapter-{number}", "source": f"pvc://claim-7/{LONG}/{number}"} for number in range(MAX_ADAPTERS)
        ],
        "volumes": [{"claimName": f"claim-{number}"} for number in range(8)],
    },
}


def manifest(team: Team, spec: Object, name: str = "chat") -> str:
    metadata = {"name": name, "namespace": team.namespace}
    head = {"apiVersion": "trainyard.dev/v1alpha1", "kind": "ModelDeployment"}
    return json.dumps({**head, "metadata": metadata, "spec": spec})


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_rules_accept_other_specs(spec: Object, control_plane: Kubernetes, team: Team) -> None:
    done = kubectl(control_plane, "apply", "--dry-run=server", "-f", "-", text=manifest(team, spec))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "spec"), [("c" * NAME_LIMIT, HUB), ("base", {**HUB, "servedName": "chat"})])
def test_other_names_are_accepted(name: str, spec: Object, control_plane: Kubernetes, team: Team) -> None:
    done = kubectl(control_plane, "apply", "--dry-run=server", "-f", "-", text=manifest(team, {"model": spec}, name))
    assert done.returncode == 0, done.stderr


def test_every_field_of_the_spec_may_change(control_plane: Kubernetes, team: Team) -> None:
    for name in ("a model", "an adapter on another claim", "an export", "scale to zero without a replica"):
        done = kubectl(control_plane, "apply", "-f", "-", text=manifest(team, ACCEPTED[name]))
        assert done.returncode == 0, done.stderr


def test_kubectl_scales_a_modeldeployment(control_plane: Kubernetes, team: Team) -> None:
    assert kubectl(control_plane, "apply", "-f", "-", text=manifest(team, {"model": HUB})).returncode == 0
    for replicas in ("3", "0"):
        done = kubectl(control_plane, "scale", "md", "chat", "-n", team.namespace, f"--replicas={replicas}")
        assert done.returncode == 0, done.stderr
        words = ("get", "md", "chat", "-n", team.namespace, "-o", "jsonpath={.spec.replicas}")
        assert kubectl(control_plane, *words).stdout == replicas


def test_every_field_has_an_explanation(control_plane: Kubernetes) -> None:
    served = control_plane.client.get(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modeldeployments.trainyard.dev"
    )
    schema = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert [path for path, node in fields(schema, "") if not node.get("description") and path != ".metadata"] == []
    assert "max-model-len" in kubectl(control_plane, "explain", "md.spec.args").stdout
    assert kubectl(control_plane, "explain", "md.spec", "--recursive").returncode == 0
