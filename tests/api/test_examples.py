"""The API server accepts every example unchanged; its first line describes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.manifest import load_all
from tests.api.chart_support import ROOT
from tests.api.gateway_support import Kubernetes
from tests.api.operator_support import Team

pytestmark = pytest.mark.api
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
COVERED = {"method: lora", "method: qlora", "method: full", "source: hf://", "source: s3://", "source: pvc://"}
COVERED |= {"format: merged", "format: gguf", "suspend: true", "pod:"}


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
