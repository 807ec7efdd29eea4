"""An API server in memory, for what the tests of readers need of one."""

from __future__ import annotations

from typing import Any

from trainyard_kube.errors import ApiError, ConflictError, ForbiddenError, NotFoundError, ServerError

Object = dict[str, Any]
TEAM = "/api/v1/namespaces/team"
EVENTS = "/apis/events.k8s.io/v1/namespaces/team/events"


class Killed(BaseException):
    """The process was killed before a request."""


class Api:
    """Objects by URL path.

    Attributes:
        writes: Method and path of every write that was carried out.
        calls: Number of requests.
        broken: Error of every request.
        refuses: Collection whose creates are refused.
        lives: Writes after which the process is killed; None: never.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {
            "/openid/v1/jwks": {"keys": []},
            "/.well-known/openid-configuration": {"issuer": "https://issuer"},
        }
        self.writes: list[str] = []
        self.calls = 0
        self.broken: ApiError | None = None
        self.refuses = ""
        self.lives: int | None = None

    async def get(self, url: str) -> Object:
        self._call()
        if url not in self.objects:
            raise NotFoundError(404, "NotFound", f"{url} not found")
        return self.objects[url]

    async def list_all(self, url: str, query: list[tuple[str, str]]) -> tuple[list[Object], str]:
        self._call()
        collection = url.rpartition("/")[2]
        found = [body for path, body in self.objects.items() if path.split("/")[-2] == collection]
        for _name, selector in query:
            for field, _, value in (part.partition("=") for part in selector.split(",")):
                found = [body for body in found if selected(body, field, value)]
        return found, "1"

    async def create(self, url: str, body: Object) -> Object:
        self._write()
        if url.endswith(f"/{self.refuses}"):
            raise ForbiddenError(403, "Forbidden", "exceeded quota")
        path = f"{url}/{body['metadata']['name']}"
        if path in self.objects:
            raise ConflictError(409, "AlreadyExists", f"{path} exists")
        body["metadata"].setdefault("uid", f"uid-{len(self.writes)}")
        self.objects[path] = body
        self.writes.append(f"create {url.rpartition('/')[2]}")
        return body

    async def delete(self, url: str) -> None:
        self._write()
        if self.objects.pop(url, None) is None:
            raise NotFoundError(404, "NotFound", f"{url} not found")
        self.writes.append(f"delete {url.split('/')[-2]}")

    def _call(self) -> None:
        self.calls += 1
        if self.broken is not None:
            raise self.broken

    def _write(self) -> None:
        if self.lives == len(self.writes):
            raise Killed
        self._call()


def selected(body: Object, field: str, value: str) -> bool:
    """Return whether an object matches one part of a field or label selector."""
    fields: dict[str, Any] = {
        "status.phase": body.get("status", {}).get("phase"),
        "regarding.kind": body.get("regarding", {}).get("kind"),
        "regarding.name": body.get("regarding", {}).get("name"),
    }
    return bool(fields.get(field, body["metadata"].get("labels", {}).get(field)) == value)


def claim(name: str = "runs", *modes: str) -> Object:
    """Return a bound claim."""
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"},
        "spec": {"accessModes": list(modes or ("ReadWriteMany",))},
        "status": {"phase": "Bound"},
    }


def unavailable() -> ApiError:
    """Return the error of an API server that fails."""
    return ServerError(503, "ServiceUnavailable", "etcd is down")
