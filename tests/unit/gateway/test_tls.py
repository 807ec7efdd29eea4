from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trainyard_gateway.errors import SettingsError
from trainyard_gateway.tls import ServingCertificate


def write_pair(directory: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    certificate = (
        builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, hashes.SHA256())
    )
    paths = directory / "tls.crt", directory / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return paths


def served_name(context: ssl.SSLContext) -> str:
    """Common name of the certificate a new connection gets."""
    ours, theirs = socket.socketpair()
    server = threading.Thread(target=lambda: context.wrap_socket(theirs, server_side=True).close())
    server.start()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with trusting.wrap_socket(ours) as connection:
        der = connection.getpeercert(binary_form=True)
    server.join()
    assert der is not None
    attribute = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0]
    return str(attribute.value)


def test_a_renewed_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    certificate = ServingCertificate(*write_pair(tmp_path, "first"))
    assert served_name(certificate.context) == "first"
    assert not certificate.refresh()
    write_pair(tmp_path, "second")
    assert certificate.refresh()
    assert served_name(certificate.context) == "second"
    assert not certificate.refresh()


def test_half_a_renewal_leaves_the_old_one(tmp_path: Path) -> None:
    certificate = ServingCertificate(*write_pair(tmp_path, "first"))
    other = tmp_path / "other"
    other.mkdir()
    write_pair(other, "second")
    (tmp_path / "tls.crt").write_bytes((other / "tls.crt").read_bytes())
    assert not certificate.refresh()
    assert served_name(certificate.context) == "first"
    (tmp_path / "tls.key").write_bytes((other / "tls.key").read_bytes())
    assert certificate.refresh()
    assert served_name(certificate.context) == "second"


@pytest.mark.parametrize("content", [None, b"not a certificate"])
def test_a_certificate_that_cannot_be_used_is_explained(tmp_path: Path, content: bytes | None) -> None:
    paths = write_pair(tmp_path, "first")
    if content is None:
        paths[0].unlink()
    else:
        paths[0].write_bytes(content)
    with pytest.raises(SettingsError, match=r"tls\.crt cannot be used: .*operator makes the Secret"):
        ServingCertificate(*paths)
