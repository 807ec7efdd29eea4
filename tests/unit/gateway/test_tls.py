from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.unit.certificates import write_pair
from trainyard_gateway.errors import SettingsError
from trainyard_gateway.tls import ServingCertificate


def served_name(context: ssl.SSLContext) -> str:
    """Return the common name of the certificate that a new connection gets."""
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


def test_renewed_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    certificate = ServingCertificate(*write_pair(tmp_path, "first"))
    assert served_name(certificate.context) == "first"
    assert not certificate.refresh()
    write_pair(tmp_path, "second")
    assert certificate.refresh()
    assert served_name(certificate.context) == "second"
    assert not certificate.refresh()


def test_half_written_renewal_keeps_the_old_certificate(tmp_path: Path) -> None:
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
def test_unusable_certificate_is_explained(tmp_path: Path, content: bytes | None) -> None:
    paths = write_pair(tmp_path, "first")
    if content is None:
        paths[0].unlink()
    else:
        paths[0].write_bytes(content)
    with pytest.raises(SettingsError, match=r"tls\.crt cannot be used: .*operator creates the Secret"):
        ServingCertificate(*paths)
