"""Settings of the operator from environment variables."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from trainyard_operator.errors import SettingsError
from trainyard_operator.main import main
from trainyard_operator.settings import Settings, load

REQUIRED = {
    "TRAINYARD_NAMESPACE": "system",
    "TRAINYARD_TRAINER_IMAGE": "trainer:1",
    "TRAINYARD_OPERATOR_IMAGE": "operator:1",
    "TRAINYARD_SERVING_GPU_IMAGE": "vllm:1",
    "TRAINYARD_SERVING_CPU_IMAGE": "server:1",
}
Load = Callable[[dict[str, str]], Settings]


@pytest.fixture
def load_with(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the settings with the required variables and others."""
    for variable in os.environ:
        if variable.startswith("TRAINYARD_") or variable == "KUBECONFIG":
            monkeypatch.delenv(variable)

    def read(variables: dict[str, str]) -> Settings:
        for variable, value in {**REQUIRED, **variables}.items():
            monkeypatch.setenv(variable, value)
        return load()

    return read


def test_defaults(load_with: Load) -> None:
    settings = load_with({"TRAINYARD_LOG_LEVEL": "", "TRAINYARD_IDENTITY": "pod-1"})
    assert settings.render.gateway_url == "https://trainyard-gateway.system.svc:8443"
    assert (settings.identity, settings.log_level, settings.kubeconfig) == ("pod-1", "INFO", None)
    assert settings.render.environment == {}
    assert "trainyard-gateway.system.svc" in settings.gateway_names
    assert load_with({"TRAINYARD_IDENTITY": ""}).identity


def test_values(load_with: Load) -> None:
    settings = load_with(
        {
            "TRAINYARD_TRAINING_ENV": '{"NCCL_DEBUG": "INFO"}',
            "TRAINYARD_HEALTH_PORT": "9090",
            "TRAINYARD_QUEUE_POLICY": "/etc/policy.json",
            "KUBECONFIG": "/root/config",
        }
    )
    assert settings.render.environment == {"NCCL_DEBUG": "INFO"}
    assert (settings.health_port, settings.kubeconfig) == (9090, "/root/config")
    assert str(settings.queue_policy_file) == "/etc/policy.json"


def test_finished_jobs_are_kept_unless_the_chart_sets_a_time(load_with: Load) -> None:
    assert load_with({"TRAINYARD_RETENTION_SECONDS": ""}).render.retention_seconds is None
    assert load_with({"TRAINYARD_RETENTION_SECONDS": "604800"}).render.retention_seconds == 604800
    with pytest.raises(SettingsError, match="TRAINYARD_RETENTION_SECONDS is '5'; set a number of seconds from 60"):
        load_with({"TRAINYARD_RETENTION_SECONDS": "5"})


def test_namespaces_are_separated_by_commas(load_with: Load) -> None:
    assert load_with({"TRAINYARD_WATCH_NAMESPACES": ""}).watch_namespaces == ()
    assert load_with({"TRAINYARD_WATCH_NAMESPACES": "team-a, team-b"}).watch_namespaces == ("team-a", "team-b")
    with pytest.raises(SettingsError, match="TRAINYARD_WATCH_NAMESPACES is 'Team'; set names of namespaces"):
        load_with({"TRAINYARD_WATCH_NAMESPACES": "Team"})


def test_empty_pod_defaults_count_as_unset(load_with: Load) -> None:
    assert load_with({}).render.pod_defaults.security_context.run_as_user == 1000
    chart = '{"labels": {}, "schedulerName": "", "caBundle": {}, "imagePullSecrets": [], "securityContext": {}}'
    defaults = load_with({"TRAINYARD_POD_DEFAULTS": chart, "TRAINYARD_EPHEMERAL_STORAGE": ""}).render.pod_defaults
    assert (defaults.scheduler_name, defaults.ca_bundle, defaults.labels) == (None, None, {})
    assert defaults.security_context.run_as_user is None, "the cluster chooses the user"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"runtimeClass": "nvidia"}', '{"labels": {"a b": "c"}}', '{"labels": {"job-name": "x"}}']
)
def test_pod_defaults_that_cannot_be_used_end_the_process(load_with: Load, text: str) -> None:
    with pytest.raises(SettingsError, match=r"TRAINYARD_POD_DEFAULTS is '.*'; set a JSON object with the pod options"):
        load_with({"TRAINYARD_POD_DEFAULTS": text})


def test_queue_mode(load_with: Load) -> None:
    assert load_with({}).queue_mode == "Builtin"
    assert load_with({"TRAINYARD_QUEUE_MODE": "Kueue"}).local_queue is None
    assert load_with({"TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_LOCAL_QUEUE": "gpus"}).local_queue == "gpus"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"TRAINYARD_NAMESPACE": ""}, "TRAINYARD_NAMESPACE is not set; set it to a Kubernetes name: lower-case"),
        ({"TRAINYARD_TRAINER_IMAGE": ""}, "TRAINYARD_TRAINER_IMAGE is not set; set it to the image of the trainer."),
        (
            {"TRAINYARD_IMAGE_PULL_POLICY": "Maybe"},
            "TRAINYARD_IMAGE_PULL_POLICY is 'Maybe'; set one of Always, IfNotPresent, Never.",
        ),
        (
            {"TRAINYARD_HEALTH_PORT": "70000"},
            "TRAINYARD_HEALTH_PORT is '70000'; set a TCP port from 1 to 65535.",
        ),
        ({"TRAINYARD_GATEWAY_PORT": "https"}, "TRAINYARD_GATEWAY_PORT is 'https'; set a TCP port from 1 to 65535."),
        ({"TRAINYARD_GATEWAY_SERVICE": "A_B"}, "TRAINYARD_GATEWAY_SERVICE is 'A_B'; set a Kubernetes name"),
        (
            {"TRAINYARD_SCRATCH_SIZE": "big"},
            "TRAINYARD_SCRATCH_SIZE is 'big'; set a Kubernetes quantity, for example 100Gi.",
        ),
        ({"TRAINYARD_LOG_LEVEL": "LOUD"}, "TRAINYARD_LOG_LEVEL is 'LOUD'; set one of DEBUG, INFO, WARNING, ERROR."),
        (
            {"TRAINYARD_TRAINING_ENV": "NCCL_DEBUG=INFO"},
            "TRAINYARD_TRAINING_ENV is 'NCCL_DEBUG=INFO'; set a JSON object of texts, for example",
        ),
        ({"TRAINYARD_TRAINING_ENV": "[]"}, "TRAINYARD_TRAINING_ENV is '[]'; set a JSON object of texts"),
        ({"TRAINYARD_TRAINING_ENV": '{"A": 1}'}, "TRAINYARD_TRAINING_ENV is '{\"A\": 1}'; set a JSON object of texts"),
        ({"TRAINYARD_QUEUE_MODE": "kueue"}, "TRAINYARD_QUEUE_MODE is 'kueue'; set one of Builtin, Kueue."),
        (
            {"TRAINYARD_LOCAL_QUEUE": "gpus"},
            "TRAINYARD_LOCAL_QUEUE is 'gpus' and has no effect while TRAINYARD_QUEUE_MODE is Builtin; unset it.",
        ),
        (
            {"TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_QUEUE_POLICY": "/p"},
            "TRAINYARD_QUEUE_POLICY is '/p' and has no effect while TRAINYARD_QUEUE_MODE is Kueue; unset it.",
        ),
        (
            {"TRAINYARD_QUEUE_MODE": "Kueue", "TRAINYARD_LOCAL_QUEUE": "GPUs"},
            "TRAINYARD_LOCAL_QUEUE is 'GPUs'; set a Kubernetes name",
        ),
    ],
)
def test_unusable_value_is_named(load_with: Load, variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(variables)
    assert str(caught.value).startswith(sentence)


def test_misconfiguration_exits_78(load_with: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError):
        load_with({"TRAINYARD_NAMESPACE": "A_B"})
    assert main() == 78
    assert capsys.readouterr().err.startswith("trainyard-operator: TRAINYARD_NAMESPACE is 'A_B'; set")
