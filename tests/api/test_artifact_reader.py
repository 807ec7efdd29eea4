"""Artifact readers with a real API server: started by the operator, with real keys, certificates and tokens.

The tests act as the kubelet: they run the reader's real program with the contents of its Secret.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import NODE, USER, Operator, Team, TrainingJob, requests_by, team_namespace, termination
from tests.unit.serving.reader_process import Reader, serving
from tests.unit.serving.runs import ADAPTER, write, write_checkpoint
from trainyard_crds.constants import CA_CONFIG_MAP, CA_KEY, child_name
from trainyard_crds.serving import (
    FILES_PATH,
    LISTING_PATH,
    READER_AUDIENCE,
    READER_CA_ENV,
    READER_TOKEN_ENV,
    Artifact,
    reader_name,
)
from trainyard_kube.errors import NotFoundError
from trainyard_serving.fetch.selection import adapter_files
from trainyard_serving.fetch.sources import Sources

pytestmark = pytest.mark.api
Object = dict[str, Any]
CHECKPOINT, GATEWAY = "step-100-e1", "trainyard-gateway"
WEIGHTS = "weights/adapter_model.safetensors"


@dataclass
class Run:
    """A finished run, its claim, and a ModelDeployment that serves its checkpoint.

    Attributes:
        team: The namespace.
        claim: Name of the claim.
        directory: Directory that stands for the claim's volume.
        path: Path of the checkpoint on the claim.
        digest: Digest of the checkpoint.
    """

    team: Team
    claim: str
    directory: Path
    path: str
    digest: str

    def read(self, plural: str) -> Object | None:
        """Return an object of the reader; None if there is none."""
        try:
            return self.team.client.get(f"/api/v1/namespaces/{self.team.namespace}/{plural}/{reader_name(self.claim)}")
        except NotFoundError:
            return None

    def started(self, *, after: str = "") -> Object:
        """Wait for the reader's pod and return it; `after` is the UID of an earlier one."""
        return until(lambda: (pod := self.read("pods")) and pod["metadata"]["uid"] != after and pod)

    def set_status(self, **status: Any) -> None:
        """Write the status of the reader's pod as the kubelet does."""
        path = f"/api/v1/namespaces/{self.team.namespace}/pods/{reader_name(self.claim)}/status"
        self.team.client.patch(path, {"status": status})

    @property
    def deployment(self) -> str:
        return f"/apis/trainyard.dev/v1alpha1/namespaces/{self.team.namespace}/modeldeployments/served"

    def is_stopped(self) -> bool:
        """Return whether the ModelDeployment has ended its replicas."""
        conditions = self.team.client.get(self.deployment)["status"].get("conditions") or []
        return any((entry["type"], entry["status"]) == ("Stopped", "True") for entry in conditions)

    def message(self) -> str:
        """Return the message of the ModelDeployment."""
        return str((self.team.client.get(self.deployment).get("status") or {}).get("message", ""))


def finish(job: TrainingJob, digest: str) -> None:
    """End the run with one checkpoint."""
    document = json.loads(termination("Finished", step=100, message="Training finished."))
    document["checkpoints"][0]["digest"] = digest
    job.run().end(0, json.dumps(document))
    job.wait("Succeeded")


@pytest.fixture
def run(operator: Operator, team: Team, tmp_path: Path) -> Run:
    job = team.create("tune")
    path = f"trainyard/{child_name('tune', job.uid)}/checkpoints/{CHECKPOINT}"
    digest = write_checkpoint(tmp_path / "claim", ADAPTER, path)
    finish(job, digest)
    [claim] = team.names("persistentvolumeclaims")
    found = Run(team, claim, tmp_path / "claim", path, digest)
    spec = {
        "model": {"from": {"trainingJob": "tune"}},
        "volumes": [{"claimName": "models"}],
        "resources": {"gpus": 0, "cpu": "1", "memory": "2Gi"},
    }
    body = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "served", "namespace": team.namespace},
        "spec": spec,
    }
    team.client.apply(found.deployment, body)
    return found


def secret_of(run: Run) -> dict[str, bytes]:
    """Return the contents of the reader's Secret."""
    secret = until(lambda: run.read("secrets"))
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


@contextmanager
def kubelet(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Run the reader as its pod would, reachable by its DNS name."""
    run.started()
    contents = secret_of(run)
    reader = Reader(run.directory, folder)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    ca = run.team.client.get(f"/api/v1/namespaces/{run.team.namespace}/configmaps/{CA_CONFIG_MAP}")
    (folder / "ca.crt").write_text(ca["data"][CA_KEY])
    reader.authorities = folder / "ca.crt"
    reader.host = f"{reader_name(run.claim)}.{run.team.namespace}.svc"
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in (reader.host, reader.host.encode()) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving(reader):
        assert reader.process is not None
        assert reader.process.poll() is None, (folder / "log").read_text()
        yield reader


def test_reader_follows_the_need_for_it(run: Run, control_plane: Kubernetes) -> None:
    before = len(control_plane.audit())
    pod = run.started()
    assert pod["metadata"]["ownerReferences"][0]["name"] == run.claim
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": run.claim, "readOnly": True}
    assert until(lambda: run.read("services"))["spec"]["selector"].items() <= pod["metadata"]["labels"].items()

    # The claim has no volume: the scheduler says so, and the ModelDeployment repeats it.
    until(lambda: f"The files of claim {run.claim} cannot be read yet: " in run.message())
    assert "unbound immediate PersistentVolumeClaims" in run.message() or "nodes are available" in run.message()

    # It ended while its files are still needed: another one, with another certificate.
    old = secret_of(run)["tls.key"]
    run.set_status(phase="Succeeded")
    second = run.started(after=pod["metadata"]["uid"])
    assert secret_of(run)["tls.key"] != old

    # Nothing is needed any more: what ended is removed.
    run.team.client.patch(run.deployment, {"spec": {"stopped": True}})
    until(run.is_stopped)
    run.set_status(phase="Succeeded")
    until(lambda: run.read("pods") is None and run.read("secrets") is None and run.read("services") is None)
    assert second["metadata"]["uid"] != pod["metadata"]["uid"]
    refused = [entry["requestURI"] for entry in requests_by(control_plane, USER, before) if status(entry) == 403]
    assert refused == []


def status(entry: Object) -> int:
    return int(entry["responseStatus"]["code"])


def test_volume_that_cannot_be_mounted_is_reported(run: Run, control_plane: Kubernetes) -> None:
    pod = run.started()
    name, namespace = pod["metadata"]["name"], run.team.namespace
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.1", "namespace": namespace},
        "type": "Warning",
        "reason": "FailedAttachVolume",
        "note": "Multi-Attach error for volume pv-1: the volume is used by pod train-x on another node.",
        "action": "Attaching",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "attachdetach-controller",
        "reportingInstance": "test",
        "regarding": {"kind": "Pod", "name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
    }
    control_plane.apply(event)
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"kind": "Node", "name": NODE},
    }
    url = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
    control_plane.kubectl("create", "--raw", url, "-f", "-", text=json.dumps(binding))
    run.set_status(
        conditions=[{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    )
    until(lambda: "cannot be read yet: Multi-Attach error for volume pv-1" in run.message())


def test_pod_of_the_namespace_fetches_what_was_recorded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control_plane: Kubernetes
) -> None:
    write(run.directory, {"models/other.safetensors": b"foreign"})
    with kubelet(run, tmp_path / "reader", monkeypatch) as reader:
        token = tmp_path / "token"
        token.write_text(control_plane.token(run.team.namespace, READER_AUDIENCE))
        sources = Sources(
            namespace=run.team.namespace,
            cache=tmp_path / "cache",
            environ={READER_CA_ENV: str(reader.authorities), READER_TOKEN_ENV: str(token)},
            reader_timeout=0,
            address=lambda _namespace, _claim: reader.address,
        )
        source = f"run://{run.claim}/{run.path}"
        artifact = Artifact(source=source, digest=run.digest, files="weights", display=source)
        found = sources.fetch(artifact, adapter_files)
        assert (found / "adapter_model.safetensors").read_bytes() == ADAPTER[WEIGHTS]


def test_only_pods_of_the_namespace_and_the_gateway_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control_plane: Kubernetes, operator: Operator
) -> None:
    write(tmp_path, {"outside": b"secret", "claim/foreign": b"secret"})
    (run.directory / "link").symlink_to(tmp_path / "outside")
    (run.directory / run.path / "weights/tokenizer.json").unlink()
    (run.directory / run.path / "weights/tokenizer.json").symlink_to(tmp_path / "outside")
    file, listing = f"{FILES_PATH}{run.path}/{WEIGHTS}", f"{LISTING_PATH}{run.path}"
    with kubelet(run, tmp_path / "reader", monkeypatch) as reader, team_namespace(control_plane, "other") as other:
        pod = run.started()["metadata"]
        good = control_plane.token(run.team.namespace, READER_AUDIENCE, (pod["name"], pod["uid"]))

        def get(path: str, token: str = good, **headers: str) -> httpx2.Response:
            return reader.get(path, token, headers)

        assert get(listing).json()["digest"] == run.digest
        gateway = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": GATEWAY, "namespace": SYSTEM}}
        control_plane.apply(gateway)
        words = ("create", "token", GATEWAY, "-n", SYSTEM, "--audience", READER_AUDIENCE)
        assert get(listing, control_plane.kubectl(*words)).json()["digest"] == run.digest
        ranged = get(file, Range="bytes=7-13")
        assert (ranged.status_code, ranged.content) == (206, ADAPTER[WEIGHTS][7:14])
        refusals: list[tuple[Callable[[], str], int, str]] = [
            (lambda: "", 401, "Send a service account token"),
            (lambda: control_plane.token(run.team.namespace, "trainyard.dev/other"), 401, "Audience doesn't match"),
            (lambda: control_plane.token(run.team.namespace, "https://kubernetes.default.svc"), 401, "Audience"),
            (lambda: good[:-8] + "AAAAAAAA", 401, "Signature verification failed"),
            (lambda: control_plane.token(SYSTEM, READER_AUDIENCE), 403, f"namespace {SYSTEM} does not permit"),
            (lambda: control_plane.token(other.namespace, READER_AUDIENCE), 403, f"namespace {other.namespace} does"),
        ]
        for token, code, message in refusals:
            for path in (listing, file):
                response = get(path, token())
                assert (response.status_code, message in response.json()["message"]) == (code, True), response.text
        for path in (
            f"{FILES_PATH}foreign",
            f"{FILES_PATH}link",
            f"{FILES_PATH}{run.path}/weights/tokenizer.json",
            f"{FILES_PATH}{run.path}/..%2f..%2f..%2f..%2foutside",
            f"{FILES_PATH}%2e%2e/outside",
            f"{LISTING_PATH}trainyard",
        ):
            assert get(path).status_code == 404, path
