"""The dev certificates, made on first start and never committed.

Two authorities: one for the mesh, whose leafs carry SPIFFE ids, and one for the edge's HTTPS certificate, so that whoever trusts
the edge for curl cannot make a certificate of the mesh. Leafs live a day and are renewed at half of it. A leaf's three files
change at once, as in a mounted Kubernetes secret: they are links through `..data`, and a rename turns that to a new folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF: Final = timedelta(hours=24)
CA: Final = timedelta(days=3650)
SKEW: Final = timedelta(minutes=5)
Key = ec.EllipticCurvePrivateKey


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 at once: a reader sees the old content or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.rename(path)


class Authority:
    """One certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key_file, self.certificate_file = folder / f"{name}-ca.key", folder / f"{name}-ca.crt"
        if self._key_file.exists() and self.certificate_file.exists():
            loaded = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{self._key_file} is not an EC key")
            self._key = loaded
            self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Paymesh dev {name} CA")])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + CA)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        write_private(self._key_file, _pem(self._key))
        write_private(self.certificate_file, self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, folder: Path, *, names: list[x509.GeneralName], common_name: str) -> None:
        """Write `tls.key`, `tls.crt` and `ca.crt` of a new leaf."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LEAF)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        publish(
            folder,
            {
                "ca.crt": self._certificate.public_bytes(serialization.Encoding.PEM),
                "tls.crt": certificate.public_bytes(serialization.Encoding.PEM),
                "tls.key": _pem(key),
            },
        )


def publish(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace a folder's files all at once: no reader ever pairs a new key with an old certificate."""
    current = folder / "..data"
    before = current.readlink().name if current.is_symlink() else None
    version = folder / f"..{secrets.token_hex(8)}"
    version.mkdir(mode=0o700)
    for name, content in files.items():
        write_private(version / name, content)
    _turn(current, version.name)
    for name in files:
        if not (folder / name).is_symlink():
            _turn(folder / name, f"..data/{name}")
    if before is not None:
        shutil.rmtree(folder / before, ignore_errors=True)


def _turn(link: Path, target: str) -> None:
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)


def mesh_names(name: str) -> list[x509.GeneralName]:
    """Return the names of a mesh leaf: the SPIFFE id by which peers know it, a DNS name because Python clients refuse a URI
    alone, and those under which a developer calls it directly (`buf curl https://localhost:9002`)."""
    return [
        x509.UniformResourceIdentifier(f"spiffe://paymesh/{name}"),
        x509.DNSName(f"{name}.paymesh.internal"),
        *edge_names(),
    ]


def edge_names() -> list[x509.GeneralName]:
    """Return the names of the HTTPS certificate."""
    return [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]


def signing_key(folder: Path) -> None:
    """Make the first ES256 key for access tokens."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not list(folder.glob("*.pem")):
        kid = datetime.now(UTC).strftime("k%Y%m%d%H%M%S")
        write_private(folder / f"{kid}.pem", _pem(ec.generate_private_key(ec.SECP256R1())))


def due(folder: Path) -> bool:
    """Tell whether a leaf is missing or past half of its life."""
    file = folder / "tls.crt"
    if not file.is_symlink() or not file.exists() or not (folder / "tls.key").exists():
        return True
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    return datetime.now(UTC) > certificate.not_valid_before_utc + LEAF / 2


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
