"""Client of the local registry: publishes the pause image and lists images."""

import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cluster.errors import ImageError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Registry:
    """The registry at a host and port of this machine, without TLS.

    Args:
        host: Host and port.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def has(self, repository: str, tag: str) -> bool:
        """Return whether an image is there.

        Raises:
            ImageError: the registry does not answer.
        """
        try:
            self._request("HEAD", f"/v2/{repository}/manifests/{tag}", kind=_MANIFEST)
        except urllib.error.HTTPError as refused:
            refused.close()
            if refused.code == 404:
                return False
            raise ImageError(
                f"the registry {self.host} answered status {refused.code} for {repository}:{tag}."
            ) from None
        return True

    def images(self) -> list[str]:
        """Return all images as `repository:tag`.

        Raises:
            ImageError: the registry does not answer.
        """
        names = json.loads(self._request("GET", "/v2/_catalog")[0])["repositories"]
        found = []
        for name in names:
            try:
                tags = json.loads(self._request("GET", f"/v2/{name}/tags/list")[0])["tags"] or []
            except urllib.error.HTTPError as refused:
                refused.close()
                tags = []
            found += [f"{name}:{tag}" for tag in sorted(tags)]
        return found

    def publish_program(self, program: Path, repository: str, tag: str) -> None:
        """Store an image that holds one static program and runs it.

        Raises:
            ImageError: the registry refused.
        """
        try:
            layer = self._blob(repository, tar_of(program), _LAYER)
            config = self._blob(repository, json.dumps(config_of(program.name, layer["digest"])).encode(), _CONFIG)
            manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
            self._request("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), _MANIFEST)
        except urllib.error.HTTPError as refused:
            with refused:
                detail = refused.read().decode(errors="replace")
            raise ImageError(f"the registry {self.host} refused {repository}:{tag}: {detail}") from None

    def _blob(self, repository: str, data: bytes, kind: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        _, headers = self._request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        place = headers["Location"].removeprefix(f"http://{self.host}")
        joint = "&" if "?" in place else "?"
        self._request("PUT", f"{place}{joint}digest={digest}", data, "application/octet-stream")
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def _request(self, method: str, path: str, data: bytes | None = None, kind: str = "") -> tuple[bytes, Any]:
        headers = {"Accept": kind or "*/*", **({"Content-Type": kind} if kind and data is not None else {})}
        request = urllib.request.Request(f"http://{self.host}{path}", data, headers, method=method)
        try:
            with self._open(request, timeout=20) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError:
            raise
        except OSError as failure:
            raise ImageError(f"the registry {self.host} does not answer; 'up' starts it. ({failure})") from failure


def tar_of(program: Path) -> bytes:
    """Return a tar archive with a program at its root; the same program gives the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(program.name)
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as content:
            archive.addfile(entry, content)
    return buffer.getvalue()


def config_of(program: str, layer: str) -> dict[str, Any]:
    """Return the configuration of an image of one program.

    Args:
        program: Its name at the root of the image.
        layer: Digest of the uncompressed layer.
    """
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }
