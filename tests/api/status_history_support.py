"""Every version of the status of TrainingJobs, from a watch: short-lived states are not missed."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tests.api.gateway_support import Kubernetes, until
from trainyard_kube.errors import ApiError

Object = dict[str, Any]


class StatusHistory:
    """All statuses of a namespace's TrainingJobs, in order."""

    def __init__(self, kubernetes: Kubernetes, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._path = f"/apis/trainyard.dev/v1alpha1/namespaces/{namespace}/trainingjobs"
        self._statuses: defaultdict[str, list[Object]] = defaultdict(list)
        self._reached: defaultdict[str, int] = defaultdict(int)
        self._over = threading.Event()
        listed = kubernetes.client.get(self._path)
        for item in listed["items"]:
            self._take(item)
        threading.Thread(target=self._follow, args=(listed["metadata"]["resourceVersion"],), daemon=True).start()

    def wait(self, name: str, wanted: Callable[[Object], bool]) -> Object:
        """Wait for a status, starting at the one that ended the previous wait.

        Raises:
            AssertionError: it did not occur; the text has all statuses since the previous wait.
        """

        def found() -> Object | None:
            for number, status in enumerate(self._statuses[name][self._reached[name] :], self._reached[name]):
                if wanted(status):
                    self._reached[name] = number
                    return status
            return None

        with contextlib.suppress(AssertionError):
            return until(found)
        raise AssertionError(f"{name}: {json.dumps(self._statuses[name][self._reached[name] :], indent=1)}")

    def stop(self) -> None:
        """Stop the watch."""
        self._over.set()

    def _follow(self, version: str) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError, ApiError):  # the watch resumes from the same version: nothing is lost
                for item in self._watch(version):
                    version = item["metadata"]["resourceVersion"]

    def _watch(self, version: str) -> Iterator[Object]:
        query = f"?watch=true&allowWatchBookmarks=true&timeoutSeconds=600&resourceVersion={version}"
        request = urllib.request.Request(self._kubernetes.cluster.server + self._path + query)
        with self._kubernetes.client._open(request, timeout=900) as answer:
            for line in answer:
                event = json.loads(line)
                if event["type"] not in ("BOOKMARK", "DELETED"):
                    self._take(event["object"])
                yield event["object"]
                if self._over.is_set():
                    return

    def _take(self, item: Object) -> None:
        self._statuses[item["metadata"]["name"]].append(item.get("status") or {})
