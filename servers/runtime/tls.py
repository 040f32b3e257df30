"""mTLS with renewal while running: certificates are read again when their files change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One generation of this server's certificate."""

    key: bytes
    certificate: bytes
    ca: bytes
    stamp: tuple[int, ...]


class Certificates:
    """The files `tls.key`, `tls.crt` and `ca.crt` of a folder, which somebody else renews by atomic rename."""

    def __init__(self, folder: Path) -> None:
        self._files = (folder / "tls.key", folder / "tls.crt", folder / "ca.crt")
        self._material = self._read()

    def current(self) -> Material:
        """Return what the files hold now."""
        if self._stamp() != self._material.stamp:
            self._material = self._read()
        return self._material

    def _stamp(self) -> tuple[int, ...]:
        return tuple(file.stat().st_mtime_ns for file in self._files)

    def _read(self) -> Material:
        stamp = self._stamp()
        key, certificate, ca = (file.read_bytes() for file in self._files)
        return Material(key=key, certificate=certificate, ca=ca, stamp=stamp)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate of the mesh and follow the files at each handshake."""
        served = self._material.stamp

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            material = self.current()
            if material.stamp == served:
                return None
            served = material.stamp
            return _configuration(material)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._material),
            fetch,  # type: ignore[arg-type]  # None means "unchanged" (grpcio's documentation), which its stubs do not know
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials with the present files; a channel keeps the ones it was made with."""
        material = self.current()
        return grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.ca)
