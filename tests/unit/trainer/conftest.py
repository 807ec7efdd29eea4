from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.trainer import tiny
from tests.unit.trainer.sources import s3_server


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only directory of a tiny random Llama model with a chat template that marks answers."""
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def storage() -> Iterator[s3_server.Storage]:
    """Object storage shared by all tests, each in its own folder."""
    with s3_server.serve() as server:
        yield server
