"""Every container that uses fetched files mounts the cache volume, whatever else its claim holds."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard_crds.constants import CACHE_VOLUME
from trainyard_crds.serving import Artifact, ServingConfig
from trainyard_operator.modeldeployment.children.deployment import deployment
from trainyard_operator.modeldeployment.model import ServingSettings
from trainyard_operator.modeldeployment.spec import parse_spec

SETTINGS = ServingSettings(gpu_image="vllm", cpu_image="server", proxy_image="operator")


def pod(source: str, model_path: str, cache: str | None) -> dict[str, Any]:
    """Return the pod of a deployment whose model comes from a source."""
    document = {"model": {"source": "hf://org/tiny"}, "cache": {"claimName": cache} if cache else None}
    parsed = parse_spec(document)
    assert parsed.error == ""
    config = ServingConfig(
        namespace="team",
        name="chat",
        model=Artifact(source=source, display=source),
        model_path=model_path,
        base_name="base",
        max_adapter_rank=16,
        drain_seconds=30,
    )
    obj = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat", "namespace": "team", "uid": "1"},
    }
    body = deployment(obj, parsed.spec, SETTINGS, config, config_map="serving", replicas=1, serves=False)
    found: dict[str, Any] = body["spec"]["template"]["spec"]
    return found


def cache_mounts(pod: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return claim and read-only flag of the cache's mount by container."""
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        container["name"]: (claims[mount["name"]], mount.get("readOnly", False))
        for container in (*pod["initContainers"], *pod["containers"])
        for mount in container["volumeMounts"]
        if mount["mountPath"] == CACHE_VOLUME
    }


HUB = ("hf://org/tiny", "/models/model")
MOUNTED = ("file:///volumes/claims/shared/tiny", "/volumes/claims/shared/tiny")


@pytest.mark.parametrize("model", [HUB, MOUNTED])
@pytest.mark.parametrize("cache", ["cache", "shared"])
def test_engine_reads_the_cache_and_the_others_write_to_it(model: tuple[str, str], cache: str) -> None:
    found = pod(*model, cache)
    assert cache_mounts(found) == {"fetch": (cache, False), "engine": (cache, True), "proxy": (cache, False)}
    names = [volume["name"] for volume in found["volumes"]]
    assert len(names) == len(set(names))


def test_no_cache_is_mounted_by_default() -> None:
    assert cache_mounts(pod(*HUB, None)) == {}
