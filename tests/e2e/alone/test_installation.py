"""An installation with a mistake in it."""

from __future__ import annotations

from tests.e2e.support import Site, condition, training_job

NAME = "no-image"
DEADLINE = 60
"""Seconds to start in; conftest.py lets others run meanwhile."""


def missing(site: Site) -> str:
    return site.images["trainer"] + "-missing"


def test_an_image_that_does_not_exist_is_named(site: Site) -> None:
    site.upgrade(trainer=missing(site))
    try:
        site.kubectl.apply(training_job(NAME, cpu="20m", startDeadlineSeconds=DEADLINE))
        site.wait_status(NAME, "told of its image", lambda status: missing(site) in status.get("message", ""))
    finally:
        site.upgrade(trainer=site.images["trainer"])


def test_it_fails_after_its_deadline(site: Site) -> None:
    status = site.wait_phase(NAME, "Failed")
    assert condition(status, "Failed")["reason"] == "ImagePullBackOff"
    assert missing(site) in status["message"]
