"""The administrator's settings file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainyard_operator.admission.policy_file import PolicyFile
from trainyard_operator.queue.elastic import ElasticPool
from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue.pool import Taint


def test_missing_settings_have_defaults(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    assert PolicyFile(path).current() == Policy()


def test_settings_are_reloaded(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"held": true, "backfill": true, "preemption": true, "startSeconds": 7}')
    file = PolicyFile(path)
    assert file.current() == Policy(held=True, backfill=True, preemption=True, start_seconds=7)
    path.write_text('{"namespaceGpus": {"a": 1}, "defaultNamespaceGpus": 2, "startSeconds": null}')
    assert file.current() == Policy(namespace_gpus={"a": 1}, default_namespace_gpus=2, start_seconds=None)


POOL = {"name": "a100", "maxNodes": 4, "gpusPerNode": 8}


def test_elastic_pools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    taint = {"key": "gpu", "effect": "NoSchedule"}
    full = {"gpuResource": "amd.com/gpu", "labels": {"gpu": "mi300"}, "taints": [taint], "startSeconds": 60}
    path.write_text(json.dumps({"elasticPools": [POOL, POOL | {"name": "mi300"} | full]}))
    found = PolicyFile(path).current().elastic_pools
    assert found == (
        ElasticPool(name="a100", gpu_resource="nvidia.com/gpu", max_nodes=4, gpus_per_node=8, start_seconds=1200),
        ElasticPool(
            name="mi300",
            gpu_resource="amd.com/gpu",
            max_nodes=4,
            gpus_per_node=8,
            labels={"gpu": "mi300"},
            taints=(Taint("gpu", "", "NoSchedule"),),
            start_seconds=60,
        ),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"elasticPools": [{"name": "a"}]}', "elasticPools.0.maxNodes is "),
        (json.dumps({"elasticPools": [POOL, POOL]}), "each entry must have a name of its own."),
        (
            json.dumps({"elasticPools": [POOL | {"minNodes": 1}]}),
            "There is no setting elasticPools.0.minNodes; there are name, gpuResource, maxNodes, gpusPerNode, labels,",
        ),
        (
            json.dumps({"elasticPools": [POOL | {"taints": [{"key": "a", "effect": "Never"}]}]}),
            "elasticPools.0.taints.0.effect is \"Never\": it should be 'NoSchedule', 'PreferNoSchedule' or",
        ),
        ('{"startSeconds": 0}', "startSeconds is 0: it should be greater than or equal to 1."),
        ('{"startSeconds": "5m"}', 'startSeconds is "5m": it should be a valid integer.'),
        ('{"namespaceGpus": {"a": -1}}', "namespaceGpus.a is -1: it should be greater than or equal to 0."),
        ('{"start": 1}', "There is no setting start; there are held, backfill, preemption, namespaceGpus, "),
        ('{"held": true', "Invalid JSON: EOF"),
    ],
)
def test_invalid_file_is_reported_and_keeps_the_settings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, fault: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"startSeconds": 9}')
    file = PolicyFile(path)
    assert file.current() == Policy(start_seconds=9)
    path.write_text(text)
    for _ in range(3):
        assert file.current() == Policy(start_seconds=9)
    assert caplog.text.count(fault) == 1
    assert fault in file.describe()["fault"]
    assert file.describe()["startSeconds"] == 9
    path.write_text('{"startSeconds": 11}')
    assert "fault" not in file.describe()
    assert file.current() == Policy(start_seconds=11)


def test_missing_file_is_reported_and_keeps_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"held": true}')
    file = PolicyFile(path)
    file.current()
    path.unlink()
    assert file.current() == Policy(held=True)
    assert "cannot be read" in str(file.fault)
    path.write_text('{"held": true}')
    assert file.current() == Policy(held=True)
    assert file.fault is None
