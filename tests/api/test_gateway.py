"""The intake of a gateway process with the permissions of the chart, a real API server and real tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.chart_support import NAMESPACE as SYSTEM
from tests.api.chart_support import named, render
from tests.api.gateway_support import (
    FOREIGN,
    NAMESPACE,
    TIMEOUT,
    Gateway,
    Job,
    Kubernetes,
    Pod,
    control_plane,
    report,
    until,
)
from trainyard_crds.constants import kubeflow_path, progress_audience, progress_path

pytestmark = pytest.mark.api
USER = f"system:serviceaccount:{SYSTEM}:trainyard-gateway"


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    with control_plane(f"test-gateway-{os.getpid()}") as kubernetes:
        yield kubernetes


@pytest.fixture(scope="module")
def gateway(kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    gateway = Gateway(kubernetes, tmp_path_factory.mktemp("gateway")).wait_until_ready()
    try:
        yield gateway
        text = gateway.log_text()
        assert '"exception"' not in text, text
    finally:
        assert gateway.stop() == 0


@pytest.fixture
def stoppable_gateway(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that the test stops: it writes all accepted reports before it exits, regardless of intervals."""
    gateway = Gateway(kubernetes, tmp_path).wait_until_ready()
    yield gateway
    if gateway.process.poll() is None:
        gateway.stop()


@pytest.fixture
def job(kubernetes: Kubernetes, request: pytest.FixtureRequest) -> Job:
    return kubernetes.job(f"tune-{zlib.crc32(request.node.name.encode())}")


def report_until_accepted(gateway: Gateway, job: Job, pod: Pod, sequence: int, step: int) -> None:
    """Post until the gateway's watch has received the attempts that the test wrote."""
    until(lambda: gateway.report(job, pod, sequence, step).code == 200)


def test_report_of_the_current_pod_is_written_to_the_status(gateway: Gateway, job: Job) -> None:
    pod = job.pod()
    early = until(lambda: (response := gateway.report(job, pod, 0, 0)).code == 503 and response)
    assert early.reason == "AttemptUnknown"
    assert early.headers["retry-after"] == "2"
    job.record(pod, phase="Running")
    report_until_accepted(gateway, job, pod, 1, 120)
    status = until(lambda: (found := job.status()).get("progress") and found)
    assert status["progress"] | {"updatedAt": ""} == {
        "stage": "Training", "step": 120, "totalSteps": 320, "percent": 37.5, "remainingSeconds": 4320, "updatedAt": "",
    }  # fmt: skip
    assert status["metrics"] == {"loss": 0.0123}
    assert status["summary"] == {"progress": "37%", "step": "120/320", "loss": "0.0123", "eta": "1h12m"}
    assert status["phase"] == "Running"
    row = job.kubernetes.kubectl("get", "tj", job.name, "-n", NAMESPACE, "--no-headers").split()
    assert row[:6] == [job.name, "Running", "37%", "120/320", "0.0123", "1h12m"]


def test_skipped_rows_of_a_report_are_in_the_status(gateway: Gateway, job: Job) -> None:
    pod = job.pod()
    job.record(pod, phase="Running")
    report_until_accepted(gateway, job, pod, 1, 1)
    skipped = {"count": 3, "first": [{"row": "train.jsonl, row 17", "message": "Field 'text' is missing."}]}
    body = report(2, 2) | {"invalidRows": skipped}
    assert gateway.post(progress_path(job.namespace, job.name), body, pod.token).code == 200
    assert until(lambda: job.status().get("invalidRows")) == skipped


def test_newest_report_is_written_at_most_every_ten_seconds(gateway: Gateway, job: Job) -> None:
    pod = job.pod()
    job.record(pod)
    began = time.monotonic()  # before the first write
    report_until_accepted(gateway, job, pod, 1, 1)
    until(lambda: job.status().get("progress"))
    for sequence in range(2, 30):
        assert gateway.report(job, pod, sequence, sequence, stage="Saving").code == 200

    def written_beside_operator_writes() -> bool:
        job.patch_status(message=f"the operator writes at {time.monotonic()}")
        return bool(job.status()["progress"]["step"] == 29)

    until(written_beside_operator_writes)
    seconds = time.monotonic() - began
    assert (status := job.status())["progress"]["stage"] == "Saving"
    assert status["message"].startswith("the operator")
    written = [entry for entry in writes(job) if entry["responseStatus"]["code"] == 200]
    assert 2 <= len(written) <= 1 + seconds / 10


def writes(job: Job) -> list[dict[str, Any]]:
    """Return the gateway's writes to a job from the audit log."""
    made = [entry for entry in job.kubernetes.audit() if entry["verb"] == "patch" and entry["user"]["username"] == USER]
    return [entry for entry in made if entry["objectRef"]["name"] == job.name]


def test_invalid_tokens_are_rejected_and_nothing_is_written(stoppable_gateway: Gateway, job: Job) -> None:
    gateway, kubernetes = stoppable_gateway, job.kubernetes
    other = kubernetes.job(f"{job.name}-b")
    good, old = job.pod(), job.pod("aaaaa")
    job.record(old, good, ended=1)
    audience = progress_audience(job.uid)
    tokens = {
        ("", 401, "TokenMissing"),
        ("garbage", 401, "Unauthorized"),
        (good.token[:-8] + "AAAAAAAA", 401, "Unauthorized"),
        (job.pod("bbbbb", audience="https://kubernetes.default.svc").token, 401, "Unauthorized"),
        (other.pod().token, 401, "Unauthorized"),  # a pod of another job, with that job's audience
        (other.pod("ccccc", audience=audience).token, 403, "ForeignPod"),  # the same with this job's audience
        (job.pod(namespace=FOREIGN).token, 403, "ForeignNamespace"),
        (kubernetes.token(NAMESPACE, audience), 401, "NotAPodToken"),
        (old.token, 403, "AttemptEnded"),
        (job.pod("ddddd").token, 503, "AttemptUnknown"),
    }
    path = progress_path(NAMESPACE, job.name)
    assert gateway.post(path, report(0, 0), None).code == 401
    until(lambda: gateway.post(path, b"", good.token).reason == "EmptyBody")  # the watch has received the attempts
    before = job.read()["metadata"]["resourceVersion"]
    for token, code, reason in tokens:
        response = gateway.post(path, report(1, 1), token)
        assert (response.code, response.reason) == (code, reason), response.body
        assert response.body["kind"] == "Status"
    ghost = gateway.post(progress_path(NAMESPACE, "ghost"), report(1, 1), good.token)
    assert (ghost.code, ghost.reason) == (401, "Unauthorized")
    assert gateway.stop() == 0
    assert job.read()["metadata"]["resourceVersion"] == before
    assert good.token not in gateway.log_text()


def test_token_of_a_deleted_pod_is_rejected(gateway: Gateway, job: Job) -> None:
    pod = job.pod()
    job.record(pod)
    until(lambda: gateway.report(job, job.pod("other"), 1, 1).reason == "AttemptUnknown")
    job.kubernetes.kubectl("delete", "pod", pod.name, "-n", NAMESPACE, "--force", "--grace-period=0")
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.name}"
    until(lambda: not job.kubernetes.client.exists(path))

    def review_fails() -> bool:
        spec = {"token": pod.token, "audiences": [progress_audience(job.uid)]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        text = json.dumps(body)
        review = json.loads(job.kubernetes.kubectl("create", "-o", "json", "-f", "-", text=text))
        return "authenticated" not in review["status"]

    until(review_fails)
    assert gateway.report(job, pod, 2, 2).code == 401
    assert "progress" not in job.status()


def test_replayed_and_invalid_reports_are_rejected(stoppable_gateway: Gateway, job: Job) -> None:
    gateway, pod = stoppable_gateway, job.pod()
    job.record(pod)
    report_until_accepted(gateway, job, pod, 5, 50)
    until(lambda: job.status().get("progress"))
    before = job.read()["metadata"]["resourceVersion"]
    path = progress_path(NAMESPACE, job.name)
    assert gateway.report(job, pod, 5, 51).code == 200  # a repeated sequence has no effect
    assert gateway.report(job, pod, 4, 40).reason == "OutOfDate"
    bodies: list[tuple[Any, int]] = [
        (b"", 400),
        (b"x" * 10_000_000, 413),
        (report(6, 60) | {"metrics": {"loss": float("nan")}}, 400),
        (report(6, 60, updatedAt="2999-01-01T00:00:00Z"), 422),
        (report(6, 60) | {"phase": "Succeeded"}, 422),
        (report(6, 60) | {"progress": {"step": "60"}}, 422),
    ]
    for body, code in bodies:
        assert gateway.post(path, body, pod.token).code == code
    assert gateway.stop() == 0
    assert job.read()["metadata"]["resourceVersion"] == before
    lines = [json.loads(line) for line in gateway.log_text().splitlines()]
    assert [line for line in lines if "exception" in line or "Traceback" in line["message"]] == []
    rejected = [line for line in lines if line["message"].startswith("report rejected")]
    assert [line["reason"] for line in rejected[-len(bodies) - 1 :]] == [
        "OutOfDate", "EmptyBody", "BodyTooLarge", "InvalidJson", "InvalidBody", "InvalidBody", "InvalidBody",
    ]  # fmt: skip
    assert {(line["namespace"], line["job"]) for line in rejected} == {(NAMESPACE, job.name)}


def test_finished_job_rejects_reports(stoppable_gateway: Gateway, job: Job) -> None:
    gateway, pod = stoppable_gateway, job.pod()
    job.record(pod)
    report_until_accepted(gateway, job, pod, 1, 1)
    until(lambda: job.status().get("progress"))
    assert gateway.report(job, pod, 2, 2).code == 200  # waits for its interval
    job.patch_status(phase="Succeeded", progress={"step": 320})
    until(lambda: gateway.report(job, pod, 3, 3).reason == "JobFinished")
    assert gateway.stop() == 0
    assert job.status()["progress"]["step"] == 320


def test_recreated_job_is_another_job(gateway: Gateway, job: Job) -> None:
    pod = job.pod()
    job.record(pod)
    report_until_accepted(gateway, job, pod, 1, 1)
    job.kubernetes.kubectl("delete", "tj", job.name, "-n", NAMESPACE)
    again = job.kubernetes.job(job.name)
    assert again.uid != job.uid
    again.record(pod)
    until(lambda: gateway.report(job, pod, 2, 2).code == 401)
    fresh = again.pod("fresh")
    again.record(fresh)
    report_until_accepted(gateway, again, fresh, 0, 7)
    assert until(lambda: again.status().get("progress"))["step"] == 7


def test_accepted_reports_are_written_before_the_process_exits(stoppable_gateway: Gateway, job: Job) -> None:
    gateway, pod = stoppable_gateway, job.pod()
    job.record(pod)
    report_until_accepted(gateway, job, pod, 1, 1)
    until(lambda: job.status().get("progress"))
    assert gateway.report(job, pod, 2, 2).code == 200
    assert gateway.stop() == 0
    assert job.status()["progress"]["step"] == 2


def test_unmodified_hugging_face_trainer_reports(gateway: Gateway, job: Job, tmp_path: Path) -> None:
    pod = job.pod()
    job.record(pod, phase="Running")
    until(lambda: gateway.post(kubeflow_path(NAMESPACE, job.name), b"", pod.token).reason == "EmptyBody")
    token = tmp_path / "token"
    token.write_text(pod.token)
    train_with_transformers(tmp_path, gateway.url(kubeflow_path(NAMESPACE, job.name)), str(token), str(gateway.ca))
    status = until(lambda: (found := job.status()).get("progress", {}).get("percent") == 100 and found)
    assert (status["progress"]["totalSteps"], status["progress"]["remainingSeconds"]) == (6, 0)
    # The final report has no step; the one before it is up to 5 s older.
    assert 4 <= status["progress"]["step"] <= 6
    assert status["progress"]["stage"] == "Training"
    assert status["phase"] == "Running"  # only the operator finishes the job
    assert {"loss", "gradNorm", "learningRate"} <= set(status["metrics"])
    assert (status["summary"]["progress"], status["summary"]["eta"]) == ("100%", "0s")
    assert 'body="kubeflow",result="Accepted"' in gateway.plain("/metrics")[1]


SCRIPT = """
import sys
import time
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

class Slow(TrainerCallback):
    def on_step_begin(self, *args, **kwargs):
        time.sleep(1.2)  # so that the run is longer than the interval of the reports

torch.set_num_threads(1)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2))
rows = [{"input_ids": torch.tensor([1, 2, 3, 4]), "labels": torch.tensor([1, 2, 3, 4])} for _ in range(8)]
arguments = TrainingArguments(sys.argv[1], max_steps=6, logging_steps=1, save_strategy="no", use_cpu=True)
Trainer(model, arguments, train_dataset=rows, callbacks=[Slow()]).train()
"""


def train_with_transformers(folder: Path, url: str, token: str, ca: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "KUBEFLOW_TRAINER_SERVER_URL": url,
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": ca,
        "KUBEFLOW_TRAINER_SERVER_TOKEN": token,
    }
    command = [sys.executable, "-c", SCRIPT, str(folder / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr


def test_health_and_metrics_are_served_over_http(gateway: Gateway) -> None:
    assert gateway.plain("/healthz") == (200, "ok")
    code, text = gateway.plain("/metrics")
    assert code == 200
    assert "trainyard_gateway_status_writes_total" in text


def test_first_request_scales_a_modeldeployment_up_and_waits(gateway: Gateway, kubernetes: Kubernetes) -> None:
    spec = {"model": {"source": "hf://org/base"}, "replicas": 0, "scaleToZero": {"timeoutSeconds": 5}}
    body = {"kind": "ModelDeployment", "metadata": {"name": "idle", "namespace": NAMESPACE}, "spec": spec}
    kubernetes.apply({"apiVersion": "trainyard.dev/v1alpha1", **body})
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.activator_port}/v1/models", headers={"Host": f"idle.{NAMESPACE}.svc:8000"}
    )

    def refused() -> urllib.error.HTTPError | None:
        try:
            urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            return error if error.code == 503 else None  # 404: the informer has not seen it yet
        return None

    answer = until(refused)
    assert answer.headers["Retry-After"]
    assert "did not start within 5 s" in answer.read().decode()
    path = f"/apis/trainyard.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/idle"
    until(lambda: kubernetes.client.get(path)["spec"]["replicas"] == 1)


def test_granted_permissions_are_used(gateway: Gateway, kubernetes: Kubernetes) -> None:
    rules = named(render(), "ClusterRole", "trainyard-gateway")["rules"]
    granted = {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    used = set()
    for event in kubernetes.audit():
        if event["user"]["username"] == USER:
            assert event["responseStatus"]["code"] != 403, event
            entry = event["objectRef"]
            used.add((event["verb"], "/".join(filter(None, (entry["resource"], entry.get("subresource"))))))
    assert used == granted
