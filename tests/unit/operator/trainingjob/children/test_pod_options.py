"""Options of pods from the spec and the chart: which pods have them, and what takes precedence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.operator.trainingjob.state_model import ADMITTED, SETTINGS, merged, new_job, observed_of
from trainyard_crds.pod_options import RESERVED_VARIABLES, is_qualified_name
from trainyard_crds.trainingjob import TrainingJobSpec
from trainyard_operator.pod_template.defaults import PodDefaults
from trainyard_operator.trainingjob.children.render import check_job, children, export_job
from trainyard_operator.trainingjob.model import RenderSettings

Object = dict[str, Any]
DEFAULTS = PodDefaults.model_validate(
    {
        "labels": {"team": "platform", "site": "north"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "propagateLabels": ["cost-center", "app.kubernetes.io/managed-by"],
        "propagateAnnotations": ["karpenter.sh/*"],
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "trainer",
        "runtimeClassName": "nvidia",
        "priorityClassName": "training",
        "schedulerName": "bin-packing",
        "caBundle": {"name": "company"},
        "securityContext": {},
    }
)
CHART = replace(
    SETTINGS,
    pod_defaults=DEFAULTS,
    environment={"HTTPS_PROXY": "http://proxy:3128", "HF_ENDPOINT": "https://hub.example"},
    ephemeral_storage="90Gi",
    tmp_size="3Gi",
)


def jobs(settings: RenderSettings = SETTINGS, metadata: Object | None = None, **spec: Any) -> dict[str, Object]:
    """The training, export and check Jobs of a TrainingJob, by their role."""
    job = merged(new_job(), {"metadata": metadata or {}, "spec": {"exports": [{"format": "merged"}], **spec}})
    seen = observed_of(job)
    assert seen.spec_error == ""
    *_rest, train = children(seen, settings, ADMITTED)
    _config, export = export_job(seen, (seen.spec.exports or [])[0], settings)
    return {"train": train, "export": export, "check": check_job(seen, settings, image=None)}


def pod(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]
    return found


def env(job: Object) -> dict[str, Any]:
    entries = pod(job)["containers"][0]["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def test_export_pod_has_the_environment_of_the_run() -> None:
    own = [{"name": "HF_ENDPOINT", "value": "https://mirror.example"}]
    made = jobs(CHART, pod={"env": own, "envFrom": [{"secretRef": {"name": "more"}}]})
    for role in ("train", "export"):
        assert env(made[role])["HTTPS_PROXY"] == "http://proxy:3128"
        assert env(made[role])["HF_ENDPOINT"] == "https://mirror.example", "the spec takes precedence over the chart"
        assert pod(made[role])["containers"][0]["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert "HTTPS_PROXY" not in env(made["check"]), "a check pod uses no network"


@pytest.mark.parametrize("role", ["train", "export", "check"])
def test_every_pod_has_the_metadata_and_identity_of_the_chart(role: str) -> None:
    job = jobs(CHART)[role]
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["site"] == "north"
        assert metadata["annotations"]["sidecar.istio.io/inject"] == "false"
    wanted = {"serviceAccountName": "trainer", "priorityClassName": "training", "schedulerName": "bin-packing"}
    assert wanted.items() <= pod(job).items()
    assert pod(job)["imagePullSecrets"] == [{"name": "registry"}]
    assert pod(job)["automountServiceAccountToken"] is False


def test_spec_takes_precedence_over_the_chart() -> None:
    own = {
        "labels": {"team": "nlp"},
        "serviceAccountName": "reader",
        "runtimeClassName": "kata",
        "priorityClassName": "low",
        "schedulerName": "own",
        "imagePullSecrets": [{"name": "mine"}],
        "image": "own:1",
        "caBundle": {"name": "other", "key": "all.pem"},
    }
    for role, job in jobs(CHART, pod=own, resources={"ephemeralStorage": "5Gi", "tmpSize": "1Gi"}).items():
        assert job["metadata"]["labels"].items() >= {"team": "nlp", "site": "north"}.items()
        assert pod(job)["imagePullSecrets"] == [{"name": "mine"}]
        assert (pod(job)["serviceAccountName"], pod(job)["priorityClassName"]) == ("reader", "low")
        container = pod(job)["containers"][0]
        assert container["image"] == "own:1"
        if role != "check":
            assert container["resources"]["limits"]["ephemeral-storage"] == "5Gi"
            assert {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}} in pod(job)["volumes"]
            assert {"name": "ca-bundle", "configMap": {"name": "other"}} in pod(job)["volumes"]
            assert env(job)["SSL_CERT_FILE"] == "/etc/trainyard/ca-bundle/all.pem"


def test_allowed_labels_and_annotations_of_the_trainingjob_reach_the_pods() -> None:
    metadata = {
        "labels": {"cost-center": "42", "private": "x", "app.kubernetes.io/managed-by": "argocd"},
        "annotations": {"karpenter.sh/do-not-disrupt": "true", "argocd.argoproj.io/tracking-id": "x"},
    }
    for job in jobs(CHART, metadata).values():
        for made in (job["metadata"], job["spec"]["template"]["metadata"]):
            assert made["labels"]["cost-center"] == "42"
            assert made["labels"]["app.kubernetes.io/managed-by"] == "trainyard"
            assert made["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
            assert not {"private", "argocd.argoproj.io/tracking-id"} & (made["labels"] | made["annotations"]).keys()
    assert "cost-center" not in jobs(SETTINGS, metadata)["train"]["metadata"]["labels"], "the chart allows none"


def test_runtime_class_of_the_chart_is_for_pods_with_gpus() -> None:
    with_gpu, on_cpu = jobs(CHART, resources={"gpus": 1}), jobs(CHART, resources={"gpus": 0})
    assert pod(with_gpu["train"])["runtimeClassName"] == "nvidia"
    assert not [
        job for job in (with_gpu["export"], with_gpu["check"], on_cpu["train"]) if "runtimeClassName" in pod(job)
    ]
    chosen = jobs(CHART, resources={"gpus": 0}, pod={"runtimeClassName": "kata"})
    assert pod(chosen["train"])["runtimeClassName"] == "kata"


def test_cluster_chooses_the_user_where_the_chart_sets_none() -> None:
    for job in jobs(CHART).values():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & pod(job)["securityContext"].keys()
        assert pod(job)["securityContext"]["runAsNonRoot"] is True
    for job in jobs(CHART, pod={"securityContext": {"runAsUser": 2000}}).values():
        assert pod(job)["securityContext"]["runAsUser"] == 2000


def test_pods_of_a_gang_have_the_options() -> None:
    train = jobs(CHART, resources={"gpus": 1, "nodes": 2}, pod={"labels": {"team": "nlp"}})["train"]
    assert train["spec"]["template"]["metadata"]["labels"]["team"] == "nlp"
    assert pod(train)["subdomain"]
    assert pod(train)["runtimeClassName"] == "nvidia"


def test_every_variable_of_a_container_is_reserved_or_a_credential() -> None:
    """What Trainyard sets, a user is refused; a credential only beside the Secret it is read from."""
    hub = {"source": "hf://org/model", "credentialsSecret": {"name": "hub", "key": "token"}}
    cache, two = {"cache": {"claimName": "cache"}}, {"gpus": 0, "nodes": 2}
    bundle = {"caBundle": {"name": "company"}}
    for role, job in jobs(model=hub, storage=cache, resources=two, pod=bundle).items():
        assert set(env(job)) - set(RESERVED_VARIABLES) <= {"HF_TOKEN"}, role
    assert set(env(jobs(storage=cache, resources=two, pod=bundle)["train"])) == set(RESERVED_VARIABLES)


@pytest.mark.parametrize("key", ["a b", "-a", "Upper.example/x", "a/b/c", "", "x" * 64, "a/"])
def test_key_that_kubernetes_would_refuse_is_refused_with_a_sentence(key: str) -> None:
    assert not is_qualified_name(key)
    with pytest.raises(ValidationError, match="is not a key of a label or annotation, for example team"):
        TrainingJobSpec.model_validate(new_job()["spec"] | {"pod": {"labels": {key: "x"}}})


@pytest.mark.parametrize("key", ["team", "example.com/team", "a.b/C_d.e-f", "x" * 63])
def test_key_of_a_label_is_accepted(key: str) -> None:
    assert is_qualified_name(key)
