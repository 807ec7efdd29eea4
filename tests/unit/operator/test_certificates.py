"""Validity and renewal of certificates."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from trainyard_operator.certificates import Pair, is_good_authority, is_good_serving, new_authority, new_serving

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("trainyard-gateway", "trainyard-gateway.system.svc")


@pytest.fixture(scope="module")
def authority() -> Pair:
    return new_authority(NOW)


def test_new_certificates_are_valid(authority: Pair) -> None:
    assert is_good_authority(authority, NOW)
    assert is_good_serving(new_serving(authority, NAMES, NOW), authority, NAMES, NOW)


@pytest.mark.parametrize(("days", "good"), [(300, True), (334, True), (336, False), (400, False)])
def test_serving_certificate_is_renewed_a_month_before_it_expires(authority: Pair, days: int, good: bool) -> None:
    serving = new_serving(authority, NAMES, NOW)
    assert is_good_serving(serving, authority, NAMES, NOW + timedelta(days=days)) is good


def test_authority_is_renewed_before_its_certificates_could_outlive_it(authority: Pair) -> None:
    assert is_good_authority(authority, NOW + timedelta(days=3000))
    assert not is_good_authority(authority, NOW + timedelta(days=3300))


def test_certificate_for_other_names_or_of_another_authority_is_invalid(authority: Pair) -> None:
    serving = new_serving(authority, NAMES, NOW)
    assert not is_good_serving(serving, authority, (*NAMES, "other"), NOW)
    assert not is_good_serving(serving, new_authority(NOW), NAMES, NOW)


def test_damaged_secret_is_invalid(authority: Pair) -> None:
    other = new_authority(NOW)
    assert not is_good_authority(Pair(b"", b""), NOW)
    assert not is_good_authority(Pair(authority.certificate, other.key), NOW)
    assert not is_good_serving(Pair(b"x", b"y"), authority, NAMES, NOW)


def test_openssl_accepts_the_chain(authority: Pair) -> None:
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    assert context.get_ca_certs()
    serving = x509.load_pem_x509_certificate(new_serving(authority, NAMES, NOW).certificate)
    usage = serving.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [entry.dotted_string for entry in usage] == ["1.3.6.1.5.5.7.3.1"]
