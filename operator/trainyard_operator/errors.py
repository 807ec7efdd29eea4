"""Errors of the operator; those of its requests to the API server are in `trainyard_kube.errors`.

OperatorError
  SettingsError          the environment configures something that cannot work
  ClusterNotReadyError   the cluster lacks what the operator needs (the CRD)
  ForeignObjectError     an object of the name that a child needs does not belong to this TrainingJob
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of all errors of the operator."""


class SettingsError(OperatorError):
    """Names the variable, its value and what is expected."""


class ClusterNotReadyError(OperatorError):
    """Names what is missing and how to install it."""


class ForeignObjectError(OperatorError):
    """Names the object that has the name of a child."""
