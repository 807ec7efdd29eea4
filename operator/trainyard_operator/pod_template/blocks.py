"""Small building blocks of pods: variables, mounts, volumes, credentials."""

from __future__ import annotations

from trainyard_crds.common import SecretKey
from trainyard_crds.constants import HUB_TOKEN_ENV, S3_CREDENTIALS, S3_SESSION_TOKEN, SCRATCH_DIRECTORIES
from trainyard_crds.sources import S3
from trainyard_kube.paths import Object

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of every container: Pod Security `restricted`, and a read-only root file system."""


def env(name: str, value: str) -> Object:
    """Return a variable with a value."""
    return {"name": name, "value": value}


def secret_env(variable: str, secret: str, key: str, *, optional: bool = False) -> Object:
    """Return a variable with the value of a Secret's key."""
    reference: Object = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def field_env(name: str, path: str) -> Object:
    """Return a variable with the value of a field of the pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def scratch_env() -> list[Object]:
    """Return the variables that name the scratch directories."""
    return [env(name, path) for name, path in SCRATCH_DIRECTORIES.items()]


def hub_env(secret: SecretKey | None) -> list[Object]:
    """Return the variable with the hub token."""
    return [] if secret is None else [secret_env(HUB_TOKEN_ENV, secret.name, secret.key)]


def s3_env(s3: S3 | None) -> list[Object]:
    """Return the credentials by the names of the Secret's keys; only temporary ones have a session token."""
    if s3 is None or s3.credentials_secret is None:
        return []
    name = s3.credentials_secret.name
    always = [secret_env(key, name, key) for key in S3_CREDENTIALS]
    return [*always, secret_env(S3_SESSION_TOKEN, name, S3_SESSION_TOKEN, optional=True)]


def claim_volume(name: str, claim: str) -> Object:
    """Return the volume of a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def scratch_volumes(home: str, tmp: str) -> list[Object]:
    """Return the scratch volumes; HOME contains every scratch directory but /tmp."""
    return [{"name": "home", "emptyDir": {"sizeLimit": home}}, {"name": "tmp", "emptyDir": {"sizeLimit": tmp}}]


def scratch_mounts() -> list[Object]:
    """Return the mounts of the scratch volumes."""
    return [mount("home", SCRATCH_DIRECTORIES["HOME"]), mount("tmp", SCRATCH_DIRECTORIES["TMPDIR"])]


def mount(name: str, path: str, *, read_only: bool = False) -> Object:
    """Return the mount of a volume."""
    entry: Object = {"name": name, "mountPath": path}
    if read_only:
        entry["readOnly"] = True
    return entry
