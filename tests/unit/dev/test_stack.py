"""The local stack's own rules: file modes, certificates, ports, one stack per folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography import x509

from dev import pki
from dev.paths import Ports, StackRefused
from dev.secrets import SecretFolder
from dev.stack import check_ports, make_stack
from dev.up import Lock


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    folder = SecretFolder(tmp_path / "made")
    first = folder.password("a")
    assert SecretFolder(tmp_path / "made").password("a") == first
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "made" / "a").stat().st_mode & 0o777 == 0o600


def test_a_mesh_certificate_carries_its_spiffe_id_and_a_dns_name(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path, "mesh")
    authority.issue(tmp_path / "leaf", names=pki.mesh_names("payments"), common_name="payments")
    certificate = x509.load_pem_x509_certificate((tmp_path / "leaf" / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://paymesh/payments"]
    assert names.get_values_for_type(x509.DNSName) == ["payments.paymesh.internal"]
    assert not pki.due(tmp_path / "leaf")
    assert (tmp_path / "leaf" / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_busy_port_is_refused_by_name_and_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        monkeypatch.setenv("PAYMESH_PORT_EDGE", str(port))
        with pytest.raises(StackRefused, match=f"port {port} .edge. is in use.*PAYMESH_PORT_EDGE"):
            check_ports(make_stack(tmp_path, Ports.load()))


@pytest.mark.parametrize(
    ("name", "value"), [("PAYMESH_PORT_EGDE", "1"), ("PAYMESH_PORT_EDGE", "x"), ("PAYMESH_PORT_EDGE", "0")]
)
def test_a_setting_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StackRefused, match=name):
        Ports.load()


def test_a_second_stack_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = Lock(tmp_path)
    with pytest.raises(StackRefused, match="is running"):
        Lock(tmp_path)
    del first
