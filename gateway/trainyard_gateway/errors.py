"""Errors of the gateway; those of its requests to the API server are in `trainyard_kube.errors`.

GatewayError
    SettingsError          an environment variable is missing or wrong; the process does not start
    ReportRejectedError    a report is rejected, with HTTP status, reason and sentence (intake.errors)
    TokenMissingError      a request to the REST API has no bearer token (api.errors)
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of all errors of the gateway."""


class SettingsError(GatewayError):
    """An environment variable is missing or has a value that cannot be used."""
