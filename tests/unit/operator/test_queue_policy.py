"""The administrator's file, read while the operator runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard_operator.queue.policy import Policy
from trainyard_operator.queue_policy import PolicyFile


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    assert PolicyFile(path).current() == Policy()


def test_every_setting_is_read_and_changes_while_the_operator_runs(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"held": true, "backfill": true, "preemption": true, "startSeconds": 7}')
    file = PolicyFile(path)
    assert file.current() == Policy(held=True, backfill=True, preemption=True, start_seconds=7)
    path.write_text('{"namespaceGpus": {"a": 1}, "defaultNamespaceGpus": 2, "startSeconds": null}')
    assert file.current() == Policy(namespace_gpus={"a": 1}, default_namespace_gpus=2, start_seconds=None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"startSeconds": 0}', "startSeconds: Input should be greater than or equal to 1"),
        ('{"startSeconds": "5m"}', "startSeconds: Input should be a valid integer"),
        ('{"start": 1}', "start: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"startSeconds": 9}')
    file = PolicyFile(path)
    file.current()
    path.write_text(text)
    assert file.current() == Policy(start_seconds=9)
    assert told in caplog.text
