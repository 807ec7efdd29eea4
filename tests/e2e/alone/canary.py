"""Search for a secret in everything on the cluster and the node that is not a Secret."""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cluster import node
from demo.install import NAMESPACE
from demo.kubectl import Object
from tests.e2e.support import TIMEOUT, Site, condition, training_job
from trainyard_crds.constants import progress_path

# Matches no redaction pattern, and is new in each run, since old logs contain older ones.
TOKEN, PASSWORD = f"canaryToken{secrets.token_hex(12)}", f"canaryWord{secrets.token_hex(12)}"
JOB = "unreachable"
_PAGE = 500
_LARGEST_FILE = 5_000_000
_SECRETS = b"/registry/secrets/"


def begin(site: Site) -> None:
    """Apply a job with a hub token that fails while using it, since no hub is reachable."""
    data = {"token": base64.b64encode(TOKEN.encode()).decode()}
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "data": data}
    model = {"source": "hf://org/name", "credentialsSecret": {"name": "hub", "key": "token"}}
    site.kubectl.apply(secret, training_job(JOB, model=model, retry={"limit": 0}))
    site.kubectl.wait("it has a pod", lambda: site.pods(JOB), bool, TIMEOUT)


def places(site: Site) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each place: objects, Events, metrics, logs of pods and node, volumes, etcd."""
    yield "objects", objects(site).encode()
    for name, path in metrics(site).items():
        yield name, site.kubectl.run("get", "--raw", path).encode()
    state = node.find()[0].state
    yield from _files((path for path in _below(Path("/var/log/pods")) if ".log" in path.name), limit=None)
    yield from _files((state / "logs").iterdir(), limit=None)
    yield from _files(_below(state / "volumes"), limit=_LARGEST_FILE)
    for key, value in etcd():
        if not key.startswith(_SECRETS):
            yield f"etcd {key.decode(errors='replace')}", key + value


def spellings(secret: str) -> list[bytes]:
    """Return the secret, and its base64 forms at each of the three possible offsets."""
    cut = [base64.b64encode(b" " * shift + secret.encode())[4 if shift else 0 : -4] for shift in range(3)]
    return [secret.encode(), *cut]


def objects(site: Site) -> str:
    """Return every object of every kind but Secrets, Events included."""
    listed = site.kubectl.run("api-resources", "--verbs=list", "-o", "name").split()
    kinds = [kind for kind in listed if kind != "secrets" and not kind.startswith("componentstatuses")]
    return site.kubectl.run("get", ",".join(kinds), "-A", "-o", "json", "--show-managed-fields", timeout=TIMEOUT)


def metrics(site: Site) -> dict[str, str]:
    """Return the metrics of operator, gateway, kubelet and API server by path."""
    pods = site.kubectl.items("pods", "-n", NAMESPACE)
    names = [pod["metadata"]["name"] for pod in pods if condition(pod["status"], "Ready").get("status") == "True"]
    ours = {f"metrics of {name}": f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/metrics" for name in names}
    return ours | {"metrics of the kubelet": "/api/v1/nodes/trainyard/proxy/metrics", "metrics of the API": "/metrics"}


def etcd() -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value in etcd, as stored."""
    url, start = f"{node.find()[0].plane.etcd_url}/v3/kv/range", b"\0"
    while True:
        query = {"key": _text(start), "range_end": _text(b"\0"), "limit": _PAGE}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(query).encode()), timeout=300) as answer:
            page = json.load(answer)
        for entry in page["kvs"]:
            yield base64.b64decode(entry["key"]), base64.b64decode(entry.get("value", ""))
        if not page.get("more"):
            return
        start = base64.b64decode(page["kvs"][-1]["key"]) + b"\0"


def answers(site: Site, secret: str) -> dict[str, str]:
    """Return the gateway's responses to requests with the secret where clients put credentials."""
    pods = site.kubectl.items("pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=trainyard-gateway")
    address = f"https://{pods[0]['status']['podIP']}:8443"
    path = address + progress_path(site.kubectl.namespace, JOB)
    basic = base64.b64encode(f"user:{secret}".encode()).decode()
    requests = {
        "bearer": urllib.request.Request(path, b"{}", {"Authorization": f"Bearer {secret}"}),
        "basic": urllib.request.Request(path, b"{}", {"Authorization": f"Basic {basic}"}),
        "query": urllib.request.Request(f"{path}?token={secret}", b"{}"),
        "cookie": urllib.request.Request(address, None, {"Cookie": f"token={secret}"}),
        "body": urllib.request.Request(path, json.dumps({"token": secret}).encode()),
    }
    return {name: _ask(request) for name, request in requests.items()}


def _ask(request: urllib.request.Request) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=120) as answer:
            return f"{answer.headers}{answer.read().decode()}"
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{refused.headers}{refused.read().decode()}"


def _files(paths: Iterable[Path], limit: int | None) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with suppress(FileNotFoundError):  # rotated, or on a volume that is being recycled
            if path.is_file() and (limit is None or path.stat().st_size <= limit):
                yield str(path), path.read_bytes()


def _below(folder: Path) -> Iterator[Path]:
    """Yield all files of a folder; some may be deleted meanwhile."""
    for parent, _, names in os.walk(folder):  # skips deleted folders
        yield from (Path(parent) / name for name in names)


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
