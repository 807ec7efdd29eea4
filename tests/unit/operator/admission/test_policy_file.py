"""The administrator's settings file."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainyard_operator.admission.policy_file import PolicyFile
from trainyard_operator.queue.policy import Policy


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


@pytest.mark.parametrize(
    ("text", "fault"),
    [
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
