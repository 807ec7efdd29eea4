"""Validating webhooks that deny."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.pki import Authority
from tests.api.gateway_support import Kubernetes, free_port

Object = dict[str, Any]


class Webhook:
    """Validating webhooks of one namespace: down until started, then denying.

    Args:
        kubernetes: The control plane.
        namespace: Namespace in which it is called.
        folder: Where its certificates go.
        seen: Group, version and resource of what each webhook sees, by its name.
    """

    def __init__(
        self, kubernetes: Kubernetes, namespace: str, folder: Path, seen: Mapping[str, tuple[str, str, str]]
    ) -> None:
        self._kubernetes, self._namespace, self._seen, self._port = kubernetes, namespace, seen, free_port()
        self._authority = Authority(folder / "webhook")
        self._name = f"denying-{namespace}"

    def register(self) -> None:
        """Let the API server ask it for each object that it sees."""
        bundle = b64encode(self._authority.certificate.read_bytes()).decode()
        webhooks = [self._webhook(bundle, name, _rule(*rule)) for name, rule in self._seen.items()]
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
    def denying(self, deny: Callable[[Object], Object]) -> Iterator[None]:
        """Answer, and deny every object with the Status that `deny` returns for it."""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = review["request"]
                response = {"uid": request["uid"], "allowed": False, "status": deny(request["object"])}
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
