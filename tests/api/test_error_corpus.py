"""Each manifest of the corpus gets its sentence from kubectl and the API server alone: no operator runs for them."""

from __future__ import annotations

import subprocess

import pytest

from error_corpus import ManifestCase, manifests
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Team

pytestmark = pytest.mark.api
CASES = manifests()
# The API server's remark that it checked no rules because of the types; it helps nobody to expect it word by word.
_REMARK = "some validation rules were not checked"


def apply(kubernetes: Kubernetes, team: Team, text: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(kubernetes.cluster.kubectl),
        "--kubeconfig",
        str(kubernetes.cluster.kubeconfig),
        "-n",
        team.namespace,
    ]
    words = ["apply", "--validate=strict", "-f", "-"]
    return subprocess.run([*command, *words], input=text, capture_output=True, text=True, check=False)


def said(case: ManifestCase, kubernetes: Kubernetes, team: Team) -> str:
    """What kubectl says to the last document; the ones before it must be taken."""
    *before, last = case.documents
    for document in before:
        assert apply(kubernetes, team, document).returncode == 0
    done = apply(kubernetes, team, last)
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stderr.splitlines() if _REMARK not in line]
    return "\n".join(line.rstrip() for line in lines)


@pytest.mark.parametrize("name", CASES)
def test_a_manifest_with_a_mistake_is_refused_with_its_sentence(
    name: str, control_plane: Kubernetes, team: Team, request: pytest.FixtureRequest
) -> None:
    case = CASES[name]
    sentence = said(case, control_plane, team)
    if request.config.getoption("--update-goldens"):
        case.expected_path.write_text(f"{sentence}\n")
    assert sentence == case.message


def test_every_sentence_is_expected_by_a_manifest() -> None:
    folder = next(iter(CASES.values())).path.parent
    assert {path.stem for path in folder.glob("*.txt")} == CASES.keys()
