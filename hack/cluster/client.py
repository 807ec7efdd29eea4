"""A blocking API client for the cluster command.

It uses the standard library only, because the command runs before the virtual environment exists; `trainyard_kube` has
the asynchronous client of the programs. Both raise the errors of `trainyard_kube.errors`.
"""

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from trainyard_kube.errors import ApiError, ApiUnreachableError, NotFoundError, answer_error

Object = dict[str, Any]


class Client:
    """Requests to one API server.

    Args:
        server: URL of the API server.
        ca: Certificate of its authority.
        pair: Client certificate and key.
    """

    def __init__(self, server: str, ca: Path, pair: tuple[Path, Path]) -> None:
        self._server = server
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(*map(str, pair))
        # No proxy from the environment: the server is on this machine.
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        self._open = urllib.request.build_opener(*handlers).open

    def ready(self) -> bool:
        """Return whether the server answers `ok` on /readyz."""
        try:
            return self._request("GET", "/readyz", timeout=10) == "ok"
        except ApiError:
            return False

    def get(self, path: str) -> Object:
        """Return an object or a list.

        Raises:
            ApiError: the server refused or did not answer; NotFoundError if there is no such object.
        """
        return _object(self._request("GET", path))

    def text(self, path: str) -> str:
        """Return what is no object, a log for example, as it is.

        Raises:
            ApiError: the server refused or did not answer.
        """
        return self._request("GET", path)

    def exists(self, path: str) -> bool:
        """Return whether an object exists.

        Raises:
            ApiError: the server refused or did not answer.
        """
        try:
            self.get(path)
        except NotFoundError:
            return False
        return True

    def apply(self, path: str, body: Object) -> Object:
        """Create or update one object by server-side apply.

        Raises:
            ApiError: the server refused or did not answer.
        """
        query = "?fieldManager=local-cluster&force=true"
        return _object(self._request("PATCH", path + query, body, "application/apply-patch+yaml"))

    def patch(self, path: str, body: Object) -> Object:
        """Change an object by a JSON merge patch.

        Raises:
            ApiError: the server refused or did not answer.
        """
        return _object(self._request("PATCH", path, body, "application/merge-patch+json"))

    def delete(self, path: str, body: Object | None = None) -> None:
        """Delete an object or a collection; nothing happens when it does not exist.

        Raises:
            ApiError: the server refused or did not answer.
        """
        with contextlib.suppress(NotFoundError):
            self._request("DELETE", path, body)

    def _request(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json", timeout: float = 60
    ) -> str:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, "Accept": "application/json"}
        request = urllib.request.Request(self._server + path, data, headers, method=method)
        try:
            with self._open(request, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as refused:
            with refused:
                raise answer_error(refused.code, refused.read()) from None
        except OSError as failure:
            text = f"the API server {self._server} did not answer {method} {path}: {failure}"
            raise ApiUnreachableError(text) from failure


def _object(text: str) -> Object:
    document: Object = json.loads(text)
    return document
