from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path

import pytest

from trainyard_crds.logs import JsonFormatter
from trainyard_gateway import settings
from trainyard_gateway.errors import SettingsError


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment without the variables of the gateway."""
    for name in [name for name in os.environ if name.startswith("TRAINYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return monkeypatch


def test_defaults() -> None:
    chosen = settings.load()
    assert (chosen.port, chosen.api_port, chosen.health_port, chosen.kubeconfig) == (8443, 8444, 8080, None)
    assert chosen.certificate == Path("/etc/trainyard/tls/tls.crt")
    assert chosen.key == Path("/etc/trainyard/tls/tls.key")


def test_empty_variables_count_as_unset(environment: pytest.MonkeyPatch) -> None:
    for name in ("TRAINYARD_PORT", "TRAINYARD_LOG_LEVEL", "KUBECONFIG"):
        environment.setenv(name, "")
    assert settings.load().port == 8443
    assert settings.load().kubeconfig is None


def test_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    variables = {
        "TRAINYARD_PORT": "9443",
        "TRAINYARD_API_PORT": "9444",
        "TRAINYARD_HOST": "127.0.0.1",
        "KUBECONFIG": "/k",
        "TRAINYARD_LOG_LEVEL": "DEBUG",
    }
    for name, value in variables.items():
        environment.setenv(name, value)
    chosen = settings.load()
    assert (chosen.port, chosen.api_port, chosen.host) == (9443, 9444, "127.0.0.1")
    assert (chosen.kubeconfig, chosen.log_level) == ("/k", "DEBUG")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TRAINYARD_PORT", "0", "a TCP port from 1 to 65535"),
        ("TRAINYARD_API_PORT", "65536", "a TCP port from 1 to 65535"),
        ("TRAINYARD_HEALTH_PORT", "http", "a TCP port from 1 to 65535"),
        ("TRAINYARD_LOG_LEVEL", "LOUD", "one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_invalid_value_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, expected: str) -> None:
    environment.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'; set {expected}"):
        settings.load()


def test_every_invalid_value_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRAINYARD_PORT", "https")
    environment.setenv("TRAINYARD_LOG_LEVEL", "LOUD")
    with pytest.raises(SettingsError, match=r"TRAINYARD_PORT is .*\. TRAINYARD_LOG_LEVEL is"):
        settings.load()


def test_log_line_is_json_with_the_job_name() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("refused: %s\n", "no", extra={"namespace": "team", "job": "tune", "token": "secret"})
    line = json.loads(stream.getvalue())
    assert (line["level"], line["message"], line["namespace"], line["job"]) == (
        "WARNING",
        "refused: no\n",
        "team",
        "tune",
    )
    assert "secret" not in stream.getvalue()
