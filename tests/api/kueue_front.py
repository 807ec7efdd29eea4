"""Endpoints of Kueue that the API server calls, for tests without Kueue: the visibility API and the webhooks."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from cluster.pki import Authority
from tests.api.gateway_support import Kubernetes
from tests.api.kueue_writes import Recorder

Object = dict[str, Any]


class Front(Recorder):
    """The API server with the visibility API beside it.

    Attributes:
        positions: Answers for a LocalQueue; None while the API is not installed.
        polls: Requested LocalQueues, with the API version and the time.
    """

    def __init__(self, kubernetes: Kubernetes, folder: Path) -> None:
        super().__init__(kubernetes, folder)
        self.positions: Callable[[str, str], list[Object]] | None = None
        self.version = "v1beta2"
        self.polls: list[tuple[str, str, float]] = []

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        parts = incoming.path.strip("/").split("/")
        if parts[:2] == ["apis", "visibility.kueue.x-k8s.io"]:
            return await self._visible(parts[2], parts[4], parts[6])
        return await super()._handle(incoming)

    async def _visible(self, version: str, namespace: str, queue: str) -> web.Response:
        self.polls.append((version, f"{namespace}/{queue}", time.monotonic()))
        if self.positions is None or version != self.version:
            return web.Response(status=404, text="404 page not found\n")
        items = await self._loop.run_in_executor(None, self.positions, namespace, queue)
        document = {"kind": "PendingWorkloadsSummary", "apiVersion": f"visibility.kueue.x-k8s.io/{version}"}
        return web.json_response({**document, "metadata": {}, "items": items})


class Webhook:
    """Kueue's webhooks for Jobs and Workloads of one namespace: down until started, then denying with a sentence.

    Args:
        kubernetes: The control plane.
        namespace: Namespace in which it is called.
        folder: Where its certificates go.
    """

    def __init__(self, kubernetes: Kubernetes, namespace: str, folder: Path, port: int) -> None:
        self._kubernetes, self._namespace, self._port = kubernetes, namespace, port
        self._authority = Authority(folder / "webhook")
        self._name = f"kueue-{namespace}"

    def register(self) -> None:
        """Let the API server ask it for each Job and each Workload."""
        bundle = b64encode(self._authority.certificate.read_bytes()).decode()
        seen = (
            ("vjob.kb.io", "batch", "v1", "jobs"),
            ("vworkload.kb.io", "kueue.x-k8s.io", "v1beta2", "workloads"),
        )
        webhooks = [self._webhook(bundle, name, _rule(*rule)) for name, *rule in seen]
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        self._kubernetes.apply({**body, "metadata": {"name": self._name}, "webhooks": webhooks})

    def _webhook(self, bundle: str, name: str, rule: Object) -> Object:
        return {
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
            "clientConfig": {"url": f"https://127.0.0.1:{self._port}/validate-{name}", "caBundle": bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}},
            "rules": [rule],
        }

    def unregister(self) -> None:
        self._kubernetes.kubectl("delete", "validatingwebhookconfiguration", self._name)

    @contextmanager
    def denying(self, message: str) -> Iterator[None]:
        """Answer, and deny every Job."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = {"code": 403, "reason": "Forbidden", "message": message}
                response = {"uid": review["request"]["uid"], "allowed": False, "status": status}
                answer = json.dumps({**review, "request": None, "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._authority.issue("webhook", "/CN=webhook", ["IP:127.0.0.1"]))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


def _rule(group: str, version: str, plural: str) -> Object:
    operations = ["CREATE", "UPDATE"]
    return {"apiGroups": [group], "apiVersions": [version], "operations": operations, "resources": [plural]}
