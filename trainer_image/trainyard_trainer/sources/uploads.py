"""Abort of unfinished multipart uploads, whose parts a bucket keeps and bills.

The client of `remote_files` cannot list or abort them. These are the two requests of the S3 API, signed with AWS
Signature Version 4.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from urllib.parse import quote, urlsplit

import httpx2

_ALGORITHM = "AWS4-HMAC-SHA256"
_NO_CONTENT = hashlib.sha256(b"").hexdigest()
_SECONDS = 20
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class UnfinishedUploads:
    """Unfinished uploads of one bucket."""

    endpoint: str
    """Address of the service."""
    bucket: str
    region: str
    key_id: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def find(self, key: str) -> list[str]:
        """Identifiers of the unfinished uploads of an object; empty if the service refuses the listing."""
        listing = self._send("GET", "", {"prefix": key, "uploads": ""})
        found = [(_element(upload, "Key"), _element(upload, "UploadId")) for upload in _UPLOAD.findall(listing or "")]
        return [identifier for name, identifier in found if name == key]  # the prefix matches other keys too

    def abort(self, key: str) -> None:
        """Remove the parts of the unfinished uploads of an object.

        A service without this request, or without permission for it, keeps them; this does not end the run.
        """
        for identifier in self.find(key):
            self._send("DELETE", f"/{key}", {"uploadId": identifier})

    def _send(self, method: str, path: str, query: Mapping[str, str]) -> str | None:
        """The text of the response; None for a refusal or without a response."""
        place = f"{urlsplit(self.endpoint).path.rstrip('/')}/{self.bucket}{quote(path, safe='/~')}"
        pairs = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))
        address = urlsplit(self.endpoint)
        headers = self._signed(method, address.netloc, place, pairs)
        url = f"{address.scheme}://{address.netloc}{place}?{pairs}"
        try:
            answer = httpx2.request(method, url, headers=headers, timeout=_SECONDS)
        except httpx2.HTTPError:
            return None
        return answer.text if answer.is_success else None

    def _signed(self, method: str, host: str, path: str, query: str) -> dict[str, str]:
        """Headers with a signature over the request (AWS General Reference, "Signature Version 4")."""
        time = self.now().strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": _NO_CONTENT, "x-amz-date": time}
        if self.session_token is not None:
            headers["x-amz-security-token"] = self.session_token
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = "\n".join([method, path, query, lines, names, _NO_CONTENT])
        scope = f"{time[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join([_ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = _hmac(key, part)
        signature = _hmac(key, text).hex()
        credential = f"Credential={self.key_id}/{scope}"
        return {**headers, "authorization": f"{_ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _element(xml: str, name: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", xml, re.DOTALL)
    return unescape(found[1]) if found else ""
