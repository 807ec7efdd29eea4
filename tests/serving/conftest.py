"""One engine for all tests of the tier, which therefore runs in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.engine import Engine, running
from tests.serving.models import Files, save_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return save_files(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def shared_engine(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(files.model, tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The shared engine; adapters that a test loads are unloaded after it."""
    yield shared_engine
    shared_engine.unload_all()
