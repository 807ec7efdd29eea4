"""The Deployment on CPUs and GPUs, as checked in (--update-goldens rewrites the files), and its invariants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.operator.modeldeployment.support import SETTINGS, observed, training_job
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.children import config_maps, engine
from trainyard_operator.modeldeployment.children.deployment import deployment, rollout
from trainyard_operator.modeldeployment.resolve import Resolved, resolve

GOLDEN = Path(__file__).parent / "golden"
TRAINED = {"model": {"from": {"trainingJob": "tune"}}}
SPECS: dict[str, Object] = {
    "cpu": {
        **TRAINED,
        "resources": {"gpus": 0, "cpu": "2", "memory": "16Gi"},
        "args": ["--max-model-len=4096", "--dtype=float32"],
    },
    "gpu": TRAINED,
    "tensor-parallel": {
        "model": {"source": "hf://org/big"},
        "resources": {"gpus": 4, "memory": "200Gi", "tolerations": [{"key": "gpu"}]},
    },
    "claim-and-cache": {
        "model": {"source": "pvc://models/base"},
        "adapters": [{"name": "a", "source": "pvc://adapters/a"}],
        "volumes": [{"claimName": "adapters"}],
        "cache": {"claimName": "shared"},
        "resources": {"gpus": 0},
    },
    "secrets": {
        "model": {"source": "hf://org/base", "credentialsSecret": {"name": "hub", "key": "token"}},
        "adapters": [{"name": "a", "source": "s3://bucket/a"}],
        "s3": {"endpoint": "https://minio:9000", "credentialsSecret": {"name": "minio"}},
        "pod": {"image": "own:1", "labels": {"team": "a"}, "env": [{"name": "A", "value": "b"}]},
    },
}


def rendered(spec: Object, serves: bool = True) -> Object:
    found = observed(spec, jobs={"tune": training_job()})
    resolved = resolve(found)
    assert isinstance(resolved, Resolved)
    config = config_maps.serving_config(found.obj, found.spec, resolved, 16)
    return deployment(found.obj, found.spec, SETTINGS, config, config_map="config", replicas=1, serves=serves)


@pytest.mark.parametrize("name", SPECS)
def test_deployment_is_as_checked_in(name: str, request: pytest.FixtureRequest) -> None:
    body, path = rendered(SPECS[name]), GOLDEN / f"{name}.yaml"
    if request.config.getoption("--update-goldens"):
        path.write_text(yaml.safe_dump(body, sort_keys=False, width=120))
    assert yaml.safe_load(path.read_text()) == body


@pytest.mark.parametrize("name", SPECS)
def test_pods_are_restricted(name: str) -> None:
    pod = rendered(SPECS[name])["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", SPECS)
def test_every_mount_has_a_volume_and_tenants_reach_no_engine(name: str) -> None:
    pod = rendered(SPECS[name])["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
    engine_container = pod["containers"][0]
    assert "--host=127.0.0.1" in engine_container["command"]
    assert "ports" not in engine_container


def test_own_flags_replace_those_of_trainyard() -> None:
    spec = {**SPECS["cpu"], "args": ["--max-loras=1", "--enforce-eager"]}
    command = rendered(spec)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--max-loras=1" in command
    assert "--enforce-eager" in command
    assert sum(flag.startswith("--max-loras") for flag in command) == 1


@pytest.mark.parametrize(
    ("wanted", "known", "ranks", "expected"),
    [
        (None, None, [], 16),
        (None, None, [8], 16),
        (None, None, [17], 32),
        (None, None, [64, 8], 64),
        (None, 16, [64], 16),
        (64, 16, [], 64),
        (100, None, [], 128),
        (512, None, [], 512),
    ],
)
def test_largest_rank(wanted: int | None, known: int | None, ranks: list[int], expected: int) -> None:
    assert engine.max_adapter_rank(wanted, known, ranks) == expected


@pytest.mark.parametrize(
    ("spec", "serves", "surge", "unavailable"),
    [
        ({"resources": {"gpus": 0}}, True, 1, 0),
        ({"resources": {"gpus": 0}}, False, 0, 1),
        ({"resources": {"gpus": 1}}, True, 0, 1),
        ({"resources": {"gpus": 1}, "rollout": {"maxSurge": 1}}, True, 1, 0),
        ({"resources": {"gpus": 0}, "rollout": {"maxUnavailable": 2}}, True, 0, 2),
        ({"resources": {"gpus": 1}, "rollout": {"maxUnavailable": 0}}, True, 1, 0),
        ({"resources": {"gpus": 0}, "rollout": {"maxUnavailable": 0}}, False, 1, 0),
        ({"resources": {"gpus": 0}, "rollout": {"maxSurge": 2, "maxUnavailable": 1}}, True, 2, 1),
    ],
)
def test_rollout_cannot_deadlock_on_full_nodes(spec: Any, serves: bool, surge: int, unavailable: int) -> None:
    found = rollout(observed({"model": {"source": "hf://o/m"}, **spec}).spec, serves=serves)
    assert (found.max_surge, found.max_unavailable) == (surge, unavailable)
    assert found.message
