"""A cluster's certificate authority and the certificates signed by it, made with openssl."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from cluster.shell import run, write_atomically

_DAYS = "3650"
_EC = ["-pkeyopt", "ec_paramgen_curve:P-256"]


class Authority:
    """A certificate authority in a folder; files that exist are kept.

    Args:
        folder: Where keys and certificates are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate = folder / "ca.crt"
        self.key = folder / "ca.key"
        self._make_authority()

    def issue(self, name: str, subject: str, names: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return certificate and key for a subject, for clients and servers alike.

        Args:
            name: File name without ending.
            subject: Distinguished name as openssl writes it, such as `/O=system:masters/CN=admin`.
            names: Subject alternative names, such as `DNS:localhost` or `IP:127.0.0.1`.
        """
        certificate, key, wanted = (self.folder / f"{name}{end}" for end in (".crt", ".key", ".json"))
        facts = json.dumps([subject, *names])
        if certificate.exists() and key.exists() and wanted.exists() and wanted.read_text() == facts:
            return certificate, key
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        run(["openssl", "req", "-newkey", "ec", *_EC, "-nodes", "-keyout", key, "-out", request, "-subj", subject])
        extensions.write_text(f"subjectAltName={','.join(names or ['DNS:' + name])}\n" + _USAGE)
        signer = ["-CA", str(self.certificate), "-CAkey", str(self.key), "-CAcreateserial", "-days", _DAYS]
        run(["openssl", "x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate])
        write_atomically(wanted, facts)
        return certificate, key

    def signing_pair(self, name: str) -> tuple[Path, Path]:
        """Return the private and the public key that service account tokens are signed and verified with."""
        private, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        if not public.exists():
            run(["openssl", "genpkey", "-algorithm", "EC", *_EC, "-out", private])
            run(["openssl", "pkey", "-in", private, "-pubout", "-out", public])
        return private, public

    def kubeconfig(self, path: Path, server: str, name: str, subject: str) -> Path:
        """Write a kubeconfig with everything in it, for the user that `subject` names, and return its path."""
        certificate, key = self.issue(name, subject)
        write_atomically(path, kubeconfig(server, name, *map(_data, (self.certificate, certificate, key))), 0o600)
        return path

    def _make_authority(self) -> None:
        if self.certificate.exists():
            return
        part = self.certificate.with_suffix(".part")
        new = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            *_EC,
            "-nodes",
            "-days",
            _DAYS,
            "-subj",
            "/CN=trainyard-local",
        ]
        run([*new, "-keyout", self.key, "-out", part])
        part.replace(self.certificate)


_USAGE = "extendedKeyUsage=serverAuth,clientAuth\n"


def kubeconfig(server: str, user: str, ca: str, certificate: str, key: str) -> str:
    """Return a kubeconfig as JSON, which is YAML too.

    Args:
        server: URL of the API server.
        user: Name of the user entry.
        ca: The authority's certificate, base64.
        certificate: The user's certificate, base64.
        key: The user's private key, base64.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
        "current-context": "local",
    }
    return json.dumps(document, indent=1)


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
