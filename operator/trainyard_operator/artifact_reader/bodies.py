"""Bodies of an artifact reader's pod, Service and Secret. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainyard_crds.constants import MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from trainyard_crds.pod_options import PodOptions
from trainyard_crds.serving import (
    READER_ACCESS_FILE,
    READER_PORT,
    READER_ROLE,
    READER_SECRETS,
    READER_VOLUME,
    ReaderAccess,
    reader_name,
)
from trainyard_crds.trainingjob_resources import Resources
from trainyard_kube.paths import Object
from trainyard_operator.artifact_reader.access import access_modes
from trainyard_operator.certificates import Pair
from trainyard_operator.pod_template import blocks, nodes, options
from trainyard_operator.pod_template.defaults import PodDefaults

SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY},{ROLE_LABEL}={READER_ROLE}"
CLAIM_ANNOTATION, ACCESS_ANNOTATION = "trainyard.dev/claim", "trainyard.dev/access-modes"
"""Annotations: the claim; how it may be mounted."""
_NAME_LABEL = "trainyard.dev/artifact-reader"
_RESOURCES = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


@dataclass(frozen=True)
class _Spec:
    """A spec of a pod."""

    pod: PodOptions
    resources: Resources


_NO_OPTIONS = _Spec(PodOptions(), Resources(gpus=0))
"""No options of its own: those of the chart apply."""
_GPU_NODES = {"key": _NO_OPTIONS.resources.gpu_resource, "operator": "Exists"}
"""Toleration: the claim's volume may be on a node that is kept for pods with GPUs."""


def dns_names(namespace: str, claim: str) -> tuple[str, ...]:
    """Return the DNS names of a claim's artifact reader."""
    name = reader_name(claim)
    return f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"


def secret(claim: Object, certificate: Pair, keys: dict[str, Any], issuer: str, others: Iterable[str]) -> Object:
    """Return the Secret with the serving certificate, and with what verifies tokens.

    Args:
        claim: The claim.
        certificate: Serving certificate for `dns_names`.
        keys: JSON Web Key Set of the API server.
        issuer: Issuer of its tokens.
        others: Service accounts of other namespaces that may read, as `namespace/name`.
    """
    namespace = claim["metadata"]["namespace"]
    access = ReaderAccess(keys=keys, issuer=issuer, namespace=namespace, others=sorted(others))
    contents = {
        "tls.crt": certificate.certificate,
        "tls.key": certificate.key,
        READER_ACCESS_FILE: access.model_dump_json(by_alias=True).encode(),
    }
    data = {key: base64.b64encode(value).decode() for key, value in contents.items()}
    return _child(claim, "Secret", type="Opaque", data=data)


def service(claim: Object) -> Object:
    """Return the Service."""
    ports = [{"name": "https", "port": READER_PORT, "targetPort": READER_PORT}]
    return _child(claim, "Service", spec={"selector": _selector(claim), "ports": ports})


def pod(claim: Object, image: str, pull_policy: str, defaults: PodDefaults, prefer: tuple[str, ...] = ()) -> Object:
    """Return the pod, which ends by itself when nothing is read any more.

    Args:
        claim: The claim.
        image: Image of the container.
        pull_policy: Its `imagePullPolicy`.
        defaults: Options of pods.
        prefer: Nodes that it prefers: those that mount a claim which only one node can mount.
    """
    name = reader_name(claim["metadata"]["name"])
    container = {
        "name": "artifacts",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["python", "-m", "trainyard_serving", "artifacts"],
        "ports": [{"name": "https", "containerPort": READER_PORT}],
        "readinessProbe": {"tcpSocket": {"port": READER_PORT}, "periodSeconds": 1},
        "resources": _RESOURCES,
        "securityContext": blocks.RESTRICTED,
        "volumeMounts": [
            blocks.mount("run", READER_VOLUME, read_only=True),
            blocks.mount("secrets", READER_SECRETS, read_only=True),
            blocks.mount("tmp", "/tmp"),  # noqa: S108 - a volume of the pod
        ],
    }
    volumes = [
        {"name": "run", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"], "readOnly": True}},
        {"name": "secrets", "secret": {"secretName": name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "10Mi"}},
    ]
    body = _child(
        claim,
        "Pod",
        spec={
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 10,
            **options.identity(_NO_OPTIONS, defaults),
            **nodes.node_choice(_NO_OPTIONS.resources, prefer),
            "tolerations": [_GPU_NODES],
            "containers": [container],
            "volumes": volumes,
        },
    )
    metadata = body["metadata"]
    access = {ACCESS_ANNOTATION: ",".join(access_modes(claim))}
    metadata["labels"] = {**defaults.labels, **metadata["labels"]}
    metadata["annotations"] = {**defaults.annotations, **metadata["annotations"], **access}
    return body


def _selector(claim: Object) -> dict[str, str]:
    return {_NAME_LABEL: reader_name(claim["metadata"]["name"]), ROLE_LABEL: READER_ROLE}


def _child(claim: Object, kind: str, **body: Any) -> Object:
    """Return a body that is deleted with the claim."""
    metadata = claim["metadata"]
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": reader_name(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, **_selector(claim)},
            "annotations": {CLAIM_ANNOTATION: metadata["name"]},
            "ownerReferences": [owner],
        },
        **body,
    }
