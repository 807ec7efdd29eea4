"""Pod, Service and Secret of a reader."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

from cryptography import x509

from tests.unit.operator.artifact_reader.api import claim
from trainyard_crds.pod_options import ObjectName
from trainyard_crds.serving import reader_name, reader_url
from trainyard_operator.artifact_reader import bodies
from trainyard_operator.certificates import is_good_serving, new_authority, new_serving
from trainyard_operator.pod_template.defaults import PodDefaults

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = claim()
NAME = reader_name("runs")


def test_objects_are_deleted_with_the_claim_and_found_by_label() -> None:
    pair = new_authority(NOW)
    made = (
        bodies.pod(RUNS, "operator", "IfNotPresent", PodDefaults()),
        bodies.service(RUNS),
        bodies.secret(RUNS, pair, {"keys": []}, "issuer", ()),
    )
    for body in made:
        metadata = body["metadata"]
        assert (metadata["name"], metadata["namespace"]) == (NAME, "team")
        assert metadata["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "runs", "uid": "uid-runs"}
        ]
        assert metadata["annotations"][bodies.CLAIM_ANNOTATION] == "runs"
        assert {f"{key}={value}" for key, value in metadata["labels"].items()} >= set(bodies.SELECTOR.split(","))


def test_service_selects_the_pod_of_this_claim_only() -> None:
    selector = bodies.service(RUNS)["spec"]["selector"]
    labels = bodies.pod(RUNS, "operator", "Always", PodDefaults())["metadata"]["labels"]
    other = bodies.pod(claim("other"), "operator", "Always", PodDefaults())["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert not selector.items() <= other.items()


def test_pod_is_restricted_and_cannot_write() -> None:
    spec = bodies.pod(RUNS, "operator", "Never", PodDefaults())["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {"/tmp"}
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == "run"]
    assert volume["persistentVolumeClaim"] == {"claimName": "runs", "readOnly": True}
    assert "affinity" not in spec
    assert spec["restartPolicy"] == "OnFailure"


def test_pod_follows_the_chart_and_prefers_nodes() -> None:
    defaults = PodDefaults(
        service_account_name="runs",
        image_pull_secrets=(ObjectName(name="registry"),),
        priority_class_name="low",
        labels={"cost-center": "ml"},
        annotations={"sidecar.istio.io/inject": "false"},
    )
    body = bodies.pod(claim("runs", "ReadWriteOnce"), "operator", "Always", defaults, ("node-1",))
    spec = body["spec"]
    assert spec["serviceAccountName"] == "runs"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "low"
    assert body["metadata"]["labels"]["cost-center"] == "ml"
    assert body["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    [term] = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]
    assert body["metadata"]["annotations"][bodies.ACCESS_ANNOTATION] == "ReadWriteOnce"


def test_secret_has_the_certificate_and_what_verifies_tokens() -> None:
    authority = new_authority(NOW)
    names = bodies.dns_names("team", "runs")
    pair = new_serving(authority, names, NOW)
    keys = {"keys": [{"kid": "one"}]}
    data = bodies.secret(RUNS, pair, keys, "https://issuer", ("trainyard/gateway",))["data"]
    found = {name: base64.b64decode(value) for name, value in data.items()}
    assert is_good_serving(pair, authority, names, NOW)
    assert found["tls.key"] == pair.key
    extension = x509.load_pem_x509_certificate(found["tls.crt"]).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    host = reader_url("team", "runs").removeprefix("https://").partition(":")[0]
    assert host in extension.value.get_values_for_type(x509.DNSName)
    assert json.loads(found["access.json"]) == {
        "keys": keys,
        "issuer": "https://issuer",
        "namespace": "team",
        "others": ["trainyard/gateway"],
    }
