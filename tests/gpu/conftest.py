"""What needs an NVIDIA GPU; a machine without one says so for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.trainer import tiny


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "this machine has no NVIDIA GPU that torch can use"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random tiny llama with a chat template."""
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny-model"))
