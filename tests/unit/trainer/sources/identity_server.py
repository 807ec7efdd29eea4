"""Services that exchange a pod's identity for temporary credentials: AWS's STS, and the agent of EKS Pod Identity."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.unit.trainer.sources.loopback import Handler, Site, serve_site

TOKEN, ROLE = "token-of-the-pod", "arn:aws:iam::123456789012:role/trainer"


class Identities(Site):
    """Grants temporary credentials for `TOKEN`.

    Args:
        granted: The credentials, by the names of AWS.
    """

    def __init__(self, granted: Mapping[str, str]) -> None:
        super().__init__()
        self.granted = granted


class _IdentityHandler(Handler[Identities]):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path.startswith("/credentials"):
            self._of_the_agent()
        else:
            self._of_sts(parse_qs(urlsplit(self.path).query) | parse_qs(body))

    def _of_the_agent(self) -> None:
        if self.headers.get("Authorization") != TOKEN:
            self.send(401)
            return
        key, secret, token = self.site.granted.values()
        keys = {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": _expiry()}
        self.send(200, json.dumps(keys).encode(), {"Content-Type": "application/json"})

    def _of_sts(self, form: Mapping[str, list[str]]) -> None:
        wanted = {"Action": ["AssumeRoleWithWebIdentity"], "WebIdentityToken": [TOKEN], "RoleArn": [ROLE]}
        if not wanted.items() <= form.items():
            self.send(403)
            return
        fields = {**self.site.granted, "Expiration": _expiry()}
        keys = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
        result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        text = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"
        self.send(200, text.encode(), {"Content-Type": "text/xml"})


def _expiry() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def serve(granted: Mapping[str, str], certificate: tuple[Path, Path]) -> Iterator[tuple[Identities, Identities]]:
    """Serve the STS, which clients use over TLS only, and the agent of EKS Pod Identity, which has no TLS."""
    sts, agent = Identities(granted), Identities(granted)
    with serve_site(sts, _IdentityHandler, certificate), serve_site(agent, _IdentityHandler):
        yield sts, agent
