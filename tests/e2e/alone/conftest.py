"""Setup of the tests that run alone."""

from __future__ import annotations

import pytest

from tests.e2e.alone import canary
from tests.e2e.support import Site


@pytest.fixture(scope="session", autouse=True)
def leak(site: Site) -> None:
    """Apply a job with a token that must not leak; it fails while the other tests run."""
    canary.begin(site)
