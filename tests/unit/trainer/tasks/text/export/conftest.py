"""Fixtures of the export tests."""

from collections.abc import Iterator

import pytest

from tests.unit.trainer.tasks.text.export.llama_cpp import LlamaCpp, running


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[LlamaCpp]:
    """llama.cpp itself, started once."""
    with running() as process:
        yield process
