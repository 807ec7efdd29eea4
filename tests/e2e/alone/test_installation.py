"""An installation with a missing trainer image."""

from __future__ import annotations

from tests.e2e.support import Site, condition, training_job

NAME = "no-image"
DEADLINE = 60
"""Start deadline in seconds; conftest.py runs other tests meanwhile."""


def missing(site: Site) -> str:
    return site.images["trainer"] + "-missing"


def test_missing_image_is_reported(site: Site) -> None:
    site.upgrade(trainer=missing(site))
    try:
        site.kubectl.apply(training_job(NAME, cpu="20m", startDeadlineSeconds=DEADLINE))
        site.wait_status(
            NAME, "with the image in its message", lambda status: missing(site) in status.get("message", "")
        )
    finally:
        site.upgrade(trainer=site.images["trainer"])


def test_missing_image_fails_after_the_deadline(site: Site) -> None:
    status = site.wait_phase(NAME, "Failed")
    assert condition(status, "Failed")["reason"] == "ImagePullBackOff"
    assert missing(site) in status["message"]
