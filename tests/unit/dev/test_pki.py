"""The dev certificates: names, chains, two authorities apart, and files that change all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dev import pki


def leaf(folder: Path) -> x509.Certificate:
    """Return the certificate in a folder."""
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())


def test_a_mesh_certificate_carries_its_spiffe_id_and_its_names(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path, "mesh")
    authority.issue(tmp_path / "leaf", names=pki.mesh_names("payments"), common_name="payments")
    names = leaf(tmp_path / "leaf").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://paymesh/payments"]
    assert names.get_values_for_type(x509.DNSName) == ["payments.paymesh.internal", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not pki.due(tmp_path / "leaf")


def test_a_leaf_is_signed_by_its_authority_and_by_no_other(tmp_path: Path) -> None:
    mesh, edge = pki.Authority(tmp_path, "mesh"), pki.Authority(tmp_path, "edge")
    mesh.issue(tmp_path / "leaf", names=pki.mesh_names("payments"), common_name="payments")
    made_by = {
        name: x509.load_pem_x509_certificate(a.certificate_file.read_bytes())
        for name, a in (("mesh", mesh), ("edge", edge))
    }
    leaf(tmp_path / "leaf").verify_directly_issued_by(made_by["mesh"])
    with pytest.raises((ValueError, InvalidSignature)):
        leaf(tmp_path / "leaf").verify_directly_issued_by(made_by["edge"])


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = pki.Authority(tmp_path, "mesh").certificate_file.read_bytes()
    assert pki.Authority(tmp_path, "mesh").certificate_file.read_bytes() == first
    assert (tmp_path / "mesh-ca.key").stat().st_mode & 0o777 == 0o600


def test_key_and_certificate_change_together(tmp_path: Path) -> None:
    folder = tmp_path / "leaf"
    authority = pki.Authority(tmp_path, "mesh")
    authority.issue(folder, names=pki.mesh_names("payments"), common_name="payments")
    before = (folder / "..data").readlink()
    authority.issue(folder, names=pki.mesh_names("payments"), common_name="payments")
    assert (folder / "..data").readlink() != before
    assert not (folder / before).exists(), "an old private key stays nowhere"
    for name in ("ca.crt", "tls.crt", "tls.key"):
        assert (folder / name).readlink() == Path("..data", name)
    key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
    assert key.public_key() == leaf(folder).public_key()
    assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_leaf_past_half_of_its_life_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = pki.Authority(tmp_path, "mesh")
    authority.issue(tmp_path / "leaf", names=pki.mesh_names("payments"), common_name="payments")
    monkeypatch.setattr(pki, "LEAF", pki.SKEW)
    assert pki.due(tmp_path / "leaf")
    assert pki.due(tmp_path / "nowhere")
