"""Certificates, kubeconfigs and command lines of a control plane."""

import base64
import ipaddress
import json
import subprocess
from pathlib import Path

from cluster.controlplane import PORTS, Address, ControlPlane
from cluster.pki import Authority


def _plane(tmp_path: Path, gateway: str | None = None) -> ControlPlane:
    ports = {name: 20000 + index for index, name in enumerate(PORTS)}
    address = Address("10.215.0.0/16", ipaddress.IPv4Address(gateway) if gateway else None)
    return ControlPlane(tmp_path, Path("/bin"), ports, address)


def test_kubeconfig_is_complete_and_private(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    path = authority.kubeconfig(tmp_path / "admin.kubeconfig", "https://127.0.0.1:1", "admin", "/O=system:masters/CN=a")
    document = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    data = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
    assert data == authority.certificate.read_bytes()


def test_certificates_are_reissued_only_when_names_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.issue("server", "/CN=server", ["IP:10.0.0.1"])[0].read_bytes()
    assert authority.issue("server", "/CN=server", ["IP:10.0.0.1"])[0].read_bytes() == first
    certificate, _ = authority.issue("server", "/CN=server", ["IP:10.0.0.2"])
    assert certificate.read_bytes() != first
    verify = ["openssl", "verify", "-CAfile", str(authority.certificate), str(certificate)]
    assert subprocess.run(verify, capture_output=True).returncode == 0


def test_control_plane_without_node_listens_on_loopback(tmp_path: Path) -> None:
    command = _plane(tmp_path).apiserver()
    assert "--bind-address=127.0.0.1" in command
    assert "--endpoint-reconciler-type=none" in command
    assert "--authorization-mode=Node,RBAC" in command
    assert "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement" in command


def test_request_header_authentication_has_a_separate_authority(tmp_path: Path) -> None:
    plane = _plane(tmp_path)
    flags = dict(word.split("=", 1) for word in plane.apiserver()[1:] if "=" in word)
    front = flags["--requestheader-client-ca-file"]
    assert Path(front).read_bytes() != plane.authority.certificate.read_bytes()
    verify = ["openssl", "verify", "-CAfile", front, flags["--proxy-client-cert-file"]]
    assert subprocess.run(verify, capture_output=True).returncode == 0


def test_node_listens_on_its_bridge_only(tmp_path: Path) -> None:
    plane = _plane(tmp_path, "10.214.0.1")
    command = plane.apiserver()
    assert plane.server == "https://10.214.0.1:20002"
    assert "--bind-address=10.214.0.1" in command
    assert "--kubelet-preferred-address-types=InternalIP" in command


def test_etcd_runs_without_fsync(tmp_path: Path) -> None:
    for plane in (_plane(tmp_path), _plane(tmp_path, "10.214.0.1")):
        assert "--unsafe-no-fsync" in plane.etcd()


def test_server_certificate_has_service_name_and_address() -> None:
    names = Address("10.215.0.0/16", None).names
    assert {"DNS:kubernetes.default.svc.cluster.local", "DNS:kubernetes.default.svc", "IP:10.215.0.1"} <= set(names)
