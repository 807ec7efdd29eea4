"""kopf's settings, and what reaches the informers."""

from __future__ import annotations

from typing import Any

from tests.unit.kube.objects import CHILD_SPEC, NAMES, OWNER_SPEC, child, event
from trainyard_kube.cache import Cache
from trainyard_kube.informer import Informer
from trainyard_kube.kopf_storage import NoDiffBase, NoProgress
from trainyard_kube.kopf_transport import KopfTransport, _handler
from trainyard_kube.resource import ResourceSpec

ALL_CHILDREN = ResourceSpec[Any](kind="children", collection=CHILD_SPEC.collection, trim=CHILD_SPEC.trim)


def informer_of(spec: ResourceSpec[Any]) -> Informer[Any]:
    return Informer(None, spec, Cache(spec.trim), lambda: 0.0)  # type: ignore[arg-type]


def transport(*informers: Informer[Any], relisted: list[Informer[Any]] | None = None) -> KopfTransport:
    on_relist = ([] if relisted is None else relisted).append
    return KopfTransport(informers, on_relist=on_relist, clock=lambda: 0.0, finalizer="example.com/kopf")


def test_every_informer_of_a_listed_resource_is_reported() -> None:
    relisted: list[Informer[Any]] = []
    children, every, owners = informer_of(CHILD_SPEC), informer_of(ALL_CHILDREN), informer_of(OWNER_SPEC)
    kopf = transport(children, every, owners, relisted=relisted)
    kopf.listed("/api/v1/children")
    assert relisted == [children, every]
    kopf.listed("/apis/example.com/v1")
    assert relisted == [children, every]


def test_watch_uses_the_selector_unless_informers_differ() -> None:
    alone = transport(informer_of(CHILD_SPEC), informer_of(NAMES)).settings()
    shared = transport(informer_of(CHILD_SPEC), informer_of(ALL_CHILDREN)).settings()
    assert list(alone.watching.label_selectors.values()) == ["managed=yes"]
    assert not shared.watching.label_selectors


async def test_event_reaches_each_informer_that_selects_it() -> None:
    children, every = informer_of(CHILD_SPEC), informer_of(ALL_CHILDREN)
    await _handler([children, every])(event=event("ADDED", child(1, managed="no")))
    assert (len(children.cache), len(every.cache)) == (0, 1)


def test_kopf_stores_nothing() -> None:
    persistence = transport().settings().persistence
    assert isinstance(persistence.diffbase_storage, NoDiffBase)
    assert isinstance(persistence.progress_storage, NoProgress)
    assert persistence.finalizer == "example.com/kopf"
