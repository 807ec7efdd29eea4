"""What the tests that run alone have from the beginning."""

from __future__ import annotations

import pytest

from tests.e2e.alone import canary
from tests.e2e.support import Site


@pytest.fixture(scope="session", autouse=True)
def leak(site: Site) -> None:
    """A job with a token that must be seen nowhere in the end; it fails while the others run."""
    canary.begin(site)
