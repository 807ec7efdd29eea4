from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest

from trainyard_crds.logs import JsonFormatter
from trainyard_gateway import settings
from trainyard_gateway.errors import SettingsError


def test_everything_has_a_default_that_fits_the_chart() -> None:
    chosen = settings.from_environment({})
    assert (chosen.port, chosen.health_port, chosen.kubeconfig) == (8443, 8080, None)
    assert chosen.certificate == Path("/etc/trainyard/tls/tls.crt")
    assert chosen.key == Path("/etc/trainyard/tls/tls.key")


def test_the_environment_is_read() -> None:
    chosen = settings.from_environment(
        {"TRAINYARD_PORT": "9443", "TRAINYARD_HOST": "127.0.0.1", "KUBECONFIG": "/k", "TRAINYARD_LOG_LEVEL": "DEBUG"}
    )
    assert (chosen.port, chosen.host, chosen.kubeconfig, chosen.log_level) == (9443, "127.0.0.1", "/k", "DEBUG")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRAINYARD_PORT", "0"),
        ("TRAINYARD_PORT", "65536"),
        ("TRAINYARD_HEALTH_PORT", "http"),
        ("TRAINYARD_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'; set"):
        settings.from_environment({variable: value})


def test_a_log_line_is_json_with_the_jobs_name() -> None:
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
