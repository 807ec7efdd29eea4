"""Contracts of serving: what the operator gives a replica of a ModelDeployment, and what the replica answers.

A pod has an init container that fetches the model, the engine, and the proxy. The proxy is the only way to the engine;
it owns the adapters. Two ConfigMaps are mounted: `ServingConfig` (immutable; another one means other pods) and
`AdapterSet` (changes without a restart). The operator reads `ReplicaState` from the proxy.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any

from pydantic import Field

from trainyard_crds.common import GROUP, SpecModel, StatusModel, Timestamp
from trainyard_crds.modeldeployment_status import AdapterState
from trainyard_crds.runconfig import RunS3

# Labels of the pods and other children of a ModelDeployment.
DEPLOYMENT_NAME_LABEL = f"{GROUP}/modeldeployment"
DEPLOYMENT_UID_LABEL = f"{GROUP}/modeldeployment-uid"
VERSION_LABEL = f"{GROUP}/version"
SERVE_ROLE, READER_ROLE = "serve", "artifacts"
"""Values of the role label: replicas; artifact readers."""

# Annotations of the pods.
SERVING_CONFIG_ANNOTATION = f"{GROUP}/serving-config"
"""Name of the immutable ConfigMap with the ServingConfig; in the pod template."""
ADAPTER_SET_ANNOTATION = f"{GROUP}/adapter-set"
"""`AdapterSet.version`, patched on running pods: the change makes the kubelet refresh the mounted ConfigMap at once."""

FETCH_CONTAINER, ENGINE_CONTAINER, PROXY_CONTAINER = "fetch", "engine", "proxy"

# Ports. The engine listens on 127.0.0.1 only.
PROXY_PORT, STATUS_PORT, ENGINE_PORT = 8000, 8002, 8001
"""Inference, for clients; probes, state and metrics, read-only and not in the Service; the engine."""

# Paths on STATUS_PORT.
STARTED_PATH, LIVE_PATH, READY_PATH = "/started", "/live", "/ready"
STATE_PATH, METRICS_PATH = "/state", "/metrics"

# Paths inside the pod.
SERVING_CONFIG_FILE = "/etc/trainyard/serving/serving.json"
ADAPTER_SET_FILE = "/etc/trainyard/adapters/adapters.json"
MODEL_DIRECTORY = "/models/model"
"""Where the engine finds the model, unless a claim holds it (pvc://)."""
ADAPTERS_DIRECTORY = "/adapters"
"""Adapters by digest: `<digest>/`; written by the proxy, read by the engine."""
DRAINED_FILE = "/run/trainyard/drained"
"""Written by the proxy when no request is in flight after SIGTERM; the engine's preStop hook waits for it."""

BASE_NAME = "base"
"""Name of the base model where the model is a base model with the adapter of a TrainingJob."""
ADAPTER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Maximum ranks that vLLM accepts for --max-lora-rank; a rank needs the next one up."""

# Artifact reader.
READER_AUDIENCE = f"{GROUP}/artifacts"
"""Audience of the service account tokens that an artifact reader accepts, from its own namespace only."""
READER_PORT = 8443
READER_TOKEN_FILE = "/var/run/secrets/trainyard/artifacts/token"  # noqa: S105 - a path
READER_CA_ENV, READER_TOKEN_ENV = "TRAINYARD_READER_CA", "TRAINYARD_READER_TOKEN"
"""Variables of its clients: files with the CA of its certificate and with the token for it."""
READER_SECRETS, READER_ACCESS_FILE = "/etc/trainyard/artifacts", "access.json"
"""Mount point of the reader's Secret: tls.crt, tls.key, and a file with its `ReaderAccess`."""
READER_IDLE_SECONDS = 600
READER_VOLUME = "/volumes/run"
"""Mount point of the claim in the reader's pod, read-only."""
LISTING_PATH, FILES_PATH = "/v1/artifacts/", "/v1/files/"
"""Followed by a path on the claim: a checkpoint's or an export's directory; a file in one."""


def reader_name(claim: str) -> str:
    """Return the name of the pod, Service and Secret of a claim's artifact reader."""
    return f"artifacts-{hashlib.sha256(claim.encode()).hexdigest()[:12]}"


def reader_url(namespace: str, claim: str) -> str:
    """Return the URL of a claim's artifact reader."""
    return f"https://{reader_name(claim)}.{namespace}.svc:{READER_PORT}"


class ReaderAccess(StatusModel):
    """Which tokens an artifact reader accepts.

    Attributes:
        keys: JSON Web Key Set of the API server.
        issuer: Issuer of its tokens.
        namespace: Namespace of the claim: its service accounts may read.
        others: Further service accounts that may read, as `namespace/name`.
    """

    keys: dict[str, Any]
    issuer: str
    namespace: str
    others: list[str] = []


class ArtifactFile(StatusModel):
    """One file of an artifact."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ArtifactListing(StatusModel):
    """A checkpoint or an export, as its artifact reader lists it.

    Attributes:
        digest: `sha256:` digest as in the status of the TrainingJob: of a checkpoint's manifest, or of the names and
            digests of an export's files.
        files: Its files by their path relative to the directory that was asked for.
    """

    digest: str
    files: dict[str, ArtifactFile]


class Artifact(SpecModel):
    """A directory with a model or an adapter, and where a pod gets it.

    Attributes:
        source: hf://org/name, s3://bucket/path, file:///directory (a mounted claim), or run://claim/path: a directory
            of a run's volume, from its artifact reader.
        revision: Of an hf:// source.
        digest: Expected digest of a run:// source: that of the checkpoint or export.
        files: Sub-directory of a run:// source with the files to load: `weights` of a checkpoint; empty for an export.
        display: The source as users know it, for messages.
    """

    source: str = Field(pattern=r"^(hf|s3|file|run)://[^\x00]+$", max_length=1024)
    revision: str | None = None
    digest: str | None = Field(default=None, pattern="^sha256:[0-9a-f]{64}$")
    files: str = ""
    display: str = Field(max_length=1024)

    @property
    def identity(self) -> str:
        """`sha256:` of where it comes from and what it is; of a run, its digest. Names the adapter's directory."""
        if self.digest is not None:
            return self.digest
        place = f"{self.source}@{self.revision or 'main'}"
        return f"sha256:{hashlib.sha256(place.encode()).hexdigest()}"


class DesiredAdapter(SpecModel):
    """An adapter that a replica has to serve.

    Attributes:
        name: Its name in requests.
        artifact: Its files.
        base: The base model that its TrainingJob trained it on, as users know it; None if unknown.
    """

    name: str
    artifact: Artifact
    base: str | None = None


class AdapterSet(SpecModel):
    """The adapters that a replica has to serve.

    Attributes:
        version: Names this set: 12 hexadecimal digits of its content.
        adapters: The adapters, in the order of the spec.
    """

    version: str
    adapters: list[DesiredAdapter] = []

    @classmethod
    def of(cls, adapters: list[DesiredAdapter]) -> AdapterSet:
        """Return the set with its version."""
        content = "\n".join(adapter.model_dump_json(by_alias=True) for adapter in adapters)
        return cls(version=hashlib.sha256(content.encode()).hexdigest()[:12], adapters=adapters)


class ServingConfig(SpecModel):
    """What a replica needs to know beside the adapters.

    Attributes:
        namespace, name: Of the ModelDeployment.
        model: The model that the engine loads.
        model_path: Directory of the model in the pod.
        base_name: Name of that model in requests.
        max_adapter_rank: The engine's --max-lora-rank.
        drain_seconds: Longest drain.
        s3: Object storage of s3:// sources; credentials are in the environment.
    """

    namespace: str
    name: str
    model: Artifact
    model_path: str = MODEL_DIRECTORY
    base_name: str
    max_adapter_rank: int
    drain_seconds: int
    s3: RunS3 | None = None


class ReplicaPhase(StrEnum):
    """What a replica is doing."""

    STARTING = "Starting"
    SERVING = "Serving"
    UNRESPONSIVE = "Unresponsive"
    DRAINING = "Draining"


class ReplicaAdapter(StatusModel):
    """An adapter in one replica.

    Attributes:
        identity: `Artifact.identity` of what is served under the name, or is to be.
        served: Identity that answers now, also while a replacement is loading; None if none does.
        reason, message: Why it is not loaded.
        rank: Its rank, once known.
    """

    name: str
    identity: str
    state: AdapterState
    served: str | None = None
    reason: str | None = None
    message: str | None = None
    rank: int | None = None


class ReplicaState(StatusModel):
    """What a replica answers on STATE_PATH.

    Attributes:
        phase: What it is doing.
        message: Detail, a sentence; the engine's fault while it is unresponsive.
        adapter_set: `AdapterSet.version` that `adapters` refers to.
        ready: Whether READY_PATH answers 200: the model and every adapter that is not Failed answer.
        in_flight: Requests being answered.
        last_request_at: When the last request arrived; None without any.
    """

    phase: ReplicaPhase
    message: str = ""
    adapter_set: str
    adapters: list[ReplicaAdapter] = []
    ready: bool = False
    in_flight: int = 0
    last_request_at: Timestamp | None = None


class FetchFailure(StatusModel):
    """Termination message of the init container that fetches the model.

    Attributes:
        reason: CamelCase reason.
        message: Cause and remedy.
        final: Whether another try cannot succeed.
    """

    reason: str
    message: str
    final: bool = False
