"""An installation with a mistake in it."""

from __future__ import annotations

from tests.e2e.support import Site, condition, training_job


def test_an_image_that_does_not_exist_is_named(site: Site) -> None:
    good = site.images["trainer"]
    site.upgrade(trainer=good + "-missing")
    try:
        site.kubectl.apply(training_job("no-image", startDeadlineSeconds=12))
        status = site.wait_phase("no-image", "Failed")
    finally:
        site.upgrade(trainer=good)
    assert condition(status, "Failed")["reason"] == "ImagePullBackOff"
    assert good + "-missing" in status["message"]
