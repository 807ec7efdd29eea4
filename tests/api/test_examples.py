"""The API server accepts every example unchanged; its first line describes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.manifest import load_all
from tests.api.chart_support import ROOT
from tests.api.gateway_support import Kubernetes, until
from tests.api.operator_support import Team

pytestmark = pytest.mark.api
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COVERED = {"method: lora", "method: qlora", "method: full", "source: hf://", "source: s3://", "source: pvc://"}
COVERED |= {"format: merged", "format: gguf", "suspend: true", "pod:"}
COVERED |= {
    "kind: ModelDeployment",
    "trainingJob:",
    "adapters:",
    "export: merged",
    "scaleToZero:",
    "route:",
    "rollout:",
}
COVERED |= {"kind: HorizontalPodAutoscaler", "kind: ScaledObject"}
SCALED_OBJECTS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "listKind": "ScaledObjectList", "plural": "scaledobjects"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                },
            }
        ],
    },
}
"""The name of KEDA's kind without its schema: KEDA is not installed here."""


@pytest.fixture(scope="module", autouse=True)
def keda(control_plane: Kubernetes) -> None:
    control_plane.apply(SCALED_OBJECTS)
    until(lambda: control_plane.serves("scaledobjects", "keda.sh/v1alpha1"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_accepted(control_plane: Kubernetes, team: Team, path: Path) -> None:
    arguments = ("apply", "--validate=strict", "-n", team.namespace, "-f", str(path))
    printed = control_plane.kubectl(*arguments).splitlines()
    assert len(printed) == len(load_all(path))
    assert all(line.endswith("created") for line in printed), printed
    assert path.read_text().startswith("# ")


def test_examples_cover_the_main_features() -> None:
    text = "\n".join(path.read_text() for path in EXAMPLES)
    assert {feature for feature in COVERED if feature not in text} == set()
