"""Writes the certificates to Secrets, and the CA certificate to a ConfigMap in each namespace with objects of ours."""

from __future__ import annotations

import asyncio
import base64
import logging

from trainyard_crds.constants import CA_CONFIG_MAP, CA_KEY, MANAGED_BY, MANAGED_BY_LABEL, ROLE_LABEL
from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiError, ApiRefusedError, ConflictError, NotFoundError
from trainyard_kube.paths import CONFIG_MAPS, SECRETS, Object, path
from trainyard_kube.store import Store
from trainyard_operator.certificates import Pair, is_good_authority, is_good_serving, new_authority, new_serving
from trainyard_operator.settings import Settings

logger = logging.getLogger(__name__)

AUTHORITY_SECRET, SERVING_SECRET = "trainyard-ca", "trainyard-gateway-tls"
_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_CA_ROLE = "ca"
_LABELS = {MANAGED_BY_LABEL: MANAGED_BY, ROLE_LABEL: _CA_ROLE}
_PERIOD, _RETRY = 600.0, 5.0


class CaDistributor:
    """Maintains the certificates and their copies; only the leader runs it.

    Args:
        kube: The API server.
        store: The cache, for the namespaces with TrainingJobs.
        clock: The time.
        settings: The operator's settings.
    """

    def __init__(self, kube: KubeClient, store: Store, clock: ServerClock, settings: Settings) -> None:
        self._kube, self._store, self._clock, self._settings = kube, store, clock, settings
        self._authority: Pair | None = None
        self._published: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def authority(self) -> Pair | None:
        """The certificate authority; None until it was read or made."""
        return self._authority

    def namespace_changed(self, namespace: str) -> None:
        """Update the certificate of a namespace if it got its first TrainingJob or lost its last one."""
        if self._store.has_namespace(namespace) != (namespace in self._published):
            self._wake.set()

    async def run(self) -> None:
        """Check everything at the start and periodically, and changed namespaces at once, until cancelled."""
        complete = True
        while True:
            failed = False
            try:
                await self._check(complete)
            except ApiError as error:
                failed = True
                logger.warning("certificates could not be written, next try in %.0f s: %s", _RETRY, error)
            woken = await self._wait(_RETRY if failed else _PERIOD)
            complete = failed or not woken

    async def _check(self, complete: bool) -> None:
        if complete:
            await self._certificates()
            await self._find_published()
        await self._namespaces()

    async def _wait(self, seconds: float) -> bool:
        """Wait for a changed namespace, at most that long, and return whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _certificates(self) -> None:
        now = self._clock.now()
        stored, authority = await self._read(AUTHORITY_SECRET)
        if authority is None or not is_good_authority(authority, now):
            authority = new_authority(now)
            await self._write(AUTHORITY_SECRET, stored, authority, {})
        stored, serving = await self._read(SERVING_SECRET)
        names = self._settings.gateway_names
        if serving is None or not is_good_serving(serving, authority, names, now):
            made = new_serving(authority, names, now)
            await self._write(SERVING_SECRET, stored, made, {CA_KEY: authority.certificate})
        if self._authority != authority:
            self._authority, self._published = authority, set()

    async def _read(self, name: str) -> tuple[Object | None, Pair | None]:
        try:
            secret = await self._kube.get(path(SECRETS, self._settings.namespace, name))
        except NotFoundError:
            return None, None
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        if _CERTIFICATE not in data or _KEY not in data:
            return secret, None
        return secret, Pair(data[_CERTIFICATE], data[_KEY])

    async def _write(self, name: str, stored: Object | None, pair: Pair, more: dict[str, bytes]) -> None:
        """Create or patch a Secret; raises ConflictError if another process changed it meanwhile."""
        contents = {_CERTIFICATE: pair.certificate, _KEY: pair.key, **more}
        data = {key: base64.b64encode(value).decode() for key, value in contents.items()}
        namespace = self._settings.namespace
        logger.info("writing the certificate in Secret %s/%s", namespace, name)
        if stored is not None:
            version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
            await self._kube.merge(path(SECRETS, namespace, name), {"metadata": version, "data": data})
            return
        metadata = {"name": name, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGED_BY}}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
        await self._kube.create(path(SECRETS, namespace), secret)

    async def _find_published(self) -> None:
        """List the namespaces that have the current certificate, and remove it where no TrainingJob is left."""
        selector = f"{MANAGED_BY_LABEL}={MANAGED_BY},{ROLE_LABEL}={_CA_ROLE}"
        items: list[Object] = []
        for namespace in self._settings.watch_namespaces or (None,):
            found, _ = await self._kube.list_all(path(CONFIG_MAPS, namespace), [("labelSelector", selector)])
            items += found
        present = [item for item in items if item["metadata"]["name"] == CA_CONFIG_MAP]
        self._published = {item["metadata"]["namespace"] for item in present if item.get("data") == self._data()}
        wanted = self._store.namespaces()
        for item in present:
            if item["metadata"]["namespace"] not in wanted:
                await self._remove(item["metadata"]["namespace"])

    async def _namespaces(self) -> None:
        wanted = self._store.namespaces()
        for namespace in sorted(self._published - wanted):
            await self._remove(namespace)
        for namespace in sorted(wanted - self._published):
            await self._publish(namespace)
        if self._store.namespaces() != wanted:
            self._wake.set()  # a namespace got its first job, or lost its last one, meanwhile

    async def _publish(self, namespace: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_CONFIG_MAP, "namespace": namespace, "labels": _LABELS},
            "data": self._data(),
        }
        try:
            await self._kube.apply(path(CONFIG_MAPS, namespace, CA_CONFIG_MAP), body)
        except ApiRefusedError as error:
            # A namespace that is being deleted refuses it, which must not delay the others.
            logger.warning("the certificate was not written to namespace %s: %s", namespace, error)
            return
        self._published.add(namespace)

    async def _remove(self, namespace: str) -> None:
        try:
            await self._kube.delete(path(CONFIG_MAPS, namespace, CA_CONFIG_MAP))
        except (NotFoundError, ConflictError) as error:
            logger.debug("namespace %s: %s", namespace, error)
        self._published.discard(namespace)

    def _data(self) -> dict[str, str]:
        assert self._authority is not None
        return {CA_KEY: self._authority.certificate.decode()}
