"""Messages of kubectl and the API server, without an operator, for each manifest of the error corpus."""

from __future__ import annotations

import subprocess

import pytest

from error_corpus import ManifestCase, manifests
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Team

pytestmark = pytest.mark.api
CASES = manifests()
# The API server adds this line when it skips CEL rules because of type errors; its exact text is not asserted.
_SKIPPED_RULES = "some validation rules were not checked"


def apply(kubernetes: Kubernetes, team: Team, text: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(kubernetes.cluster.kubectl),
        "--kubeconfig",
        str(kubernetes.cluster.kubeconfig),
        "-n",
        team.namespace,
    ]
    arguments = ["apply", "--validate=strict", "-f", "-"]
    return subprocess.run([*command, *arguments], input=text, capture_output=True, text=True, check=False)


def error_of(case: ManifestCase, kubernetes: Kubernetes, team: Team) -> str:
    """Return the error of kubectl for the last document; the ones before it must be accepted."""
    *before, last = case.documents
    for document in before:
        assert apply(kubernetes, team, document).returncode == 0
    done = apply(kubernetes, team, last)
    assert done.returncode == 1, done.stdout
    lines = [line for line in done.stderr.splitlines() if _SKIPPED_RULES not in line]
    return "\n".join(line.rstrip() for line in lines)


@pytest.mark.parametrize("name", CASES)
def test_invalid_manifest_is_refused_with_its_message(
    name: str, control_plane: Kubernetes, team: Team, request: pytest.FixtureRequest
) -> None:
    case = CASES[name]
    message = error_of(case, control_plane, team)
    if request.config.getoption("--update-goldens"):
        case.expected_path.write_text(f"{message}\n")
    assert message == case.message


def test_every_expected_message_belongs_to_a_manifest() -> None:
    folder = next(iter(CASES.values())).path.parent
    assert {path.stem for path in folder.glob("*.txt")} == CASES.keys()
