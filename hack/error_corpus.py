"""Users' mistakes with the expected error messages, in tests/corpus.

A manifest: `manifests/NAME.yaml`, which begins with the comments `# Mistake: ...` and `# Remedy: ...`, and
`manifests/NAME.txt` with kubectl's output. If it has two documents, the first one is applied without an error.
A dataset, model or run config: `data/NAME.yaml`, see `DataCase`.
A ModelDeployment whose status explains the mistake: `status/NAME.yaml`, see `StatusCase`.

To add one, write the .yaml and run its test with --update-goldens; read the message as a user would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent.parent / "tests/corpus"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A mistake and its error message."""

    name: str
    mistake: str
    remedy: str
    path: Path

    @property
    def expected_path(self) -> Path:
        """The file with the expected message."""
        return self.path.with_suffix(".txt")

    @property
    def message(self) -> str:
        """The message that the user reads."""
        return self.expected_path.read_text().strip()


@dataclass(frozen=True, kw_only=True)
class ManifestCase(Case):
    """A manifest that the API server (or kubectl) refuses."""

    documents: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataCase(Case):
    """A run config and its files that the trainer refuses (or, with exit code 0, warns about).

    `files` are written as they are; `config` replaces fields of a valid config, where `{folder}` is the folder of the
    files. `spoil` is a way to damage the model (tests/unit/trainer/test_error_corpus.py).
    """

    exit_code: int
    files: dict[str, str | bytes]
    config: dict[str, Any]
    spoil: str


@dataclass(frozen=True, kw_only=True)
class StatusCase(Case):
    """A ModelDeployment that the API server accepts; the mistake is in the status, as `Reason: message`.

    Either the TrainingJobs that it names decide, or the files of an adapter.

    Attributes:
        spec: Its spec.
        jobs: `spec` and `status` of the TrainingJobs of its namespace, by name.
        adapter: Files of an adapter: `config` (adapter_config.json), `weights` (shape of each tensor of
            adapter_model.safetensors) and `files` (other files as they are); None for a case of TrainingJobs.
    """

    spec: dict[str, Any]
    jobs: dict[str, dict[str, Any]]
    adapter: dict[str, Any] | None


def manifests() -> dict[str, ManifestCase]:
    """Return the manifests by name."""
    return {path.stem: _manifest(path) for path in sorted((FOLDER / "manifests").glob("*.yaml"))}


def _manifest(path: Path) -> ManifestCase:
    text = path.read_text()
    mistake, remedy = text.splitlines()[:2]
    return ManifestCase(
        name=path.stem,
        mistake=mistake.removeprefix("# Mistake: "),
        remedy=remedy.removeprefix("# Remedy: "),
        documents=tuple(text.split("---\n")),
        path=path,
    )


def data() -> dict[str, DataCase]:
    """Return the datasets, models and run configs by name."""
    return {path.stem: _data(path) for path in sorted((FOLDER / "data").glob("*.yaml"))}


def _data(path: Path) -> DataCase:
    document = yaml.safe_load(path.read_text())
    return DataCase(
        name=path.stem,
        mistake=document["mistake"],
        remedy=document["remedy"],
        exit_code=document["exitCode"],
        files=document.get("files", {}),
        config=document.get("config", {}),
        spoil=document.get("spoil", ""),
        path=path,
    )


def statuses() -> dict[str, StatusCase]:
    """Return the ModelDeployments whose status explains the mistake, by name."""
    return {path.stem: _status(path) for path in sorted((FOLDER / "status").glob("*.yaml"))}


def _status(path: Path) -> StatusCase:
    document = yaml.safe_load(path.read_text())
    return StatusCase(
        name=path.stem,
        mistake=document["mistake"],
        remedy=document["remedy"],
        spec=document.get("spec", {}),
        jobs=document.get("jobs", {}),
        adapter=document.get("adapter"),
        path=path,
    )


def table() -> str:
    """Return docs/mistakes.md."""
    lines = [
        "# Error messages",
        "",
        "Search this page for the message you read. `make generate` writes it from `tests/corpus`; a test checks each",
        "line. `kubectl apply` prints the messages of the API server. Those of the trainer are in the job's status and",
        "(on a laptop) in the last line of its output. Those of a ModelDeployment are in its status:",
        "`kubectl get md NAME -o yaml` shows reason and message, in the conditions and for each adapter.",
        "",
        "## Manifests: messages of the API server",
        "",
        *_rows(manifests().values()),
        "",
        "## Datasets, models, run configs: messages of the trainer",
        "",
        *_rows(data().values()),
        "",
        "## ModelDeployments: reasons and messages in the status",
        "",
        *_rows(statuses().values()),
    ]
    return "\n".join(lines) + "\n"


def _rows(cases: Iterable[Case]) -> list[str]:
    rows = [f"| {_cell(_symptom(case.message))} | {_cell(case.mistake)} | {_cell(case.remedy)} |" for case in cases]
    return ["| message | cause | remedy |", "|---|---|---|", *rows]


def _symptom(message: str) -> str:
    """Return the message on one line, without kubectl's prefix."""
    line = " ".join(message.split())
    for prefix in ("is invalid: ", "strict decoding error: "):
        line = line.split(prefix, 1)[-1]
    return line.removeprefix("* ").removeprefix("error: ")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
