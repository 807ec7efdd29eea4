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
    """Directory of a random tiny llama with a chat template that marks answers; not to be written to."""
    return tiny.save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def storage() -> Iterator[s3_server.Storage]:
    """Object storage, of all tests: each has a folder of its own there."""
    with s3_server.serve() as server:
        yield server
