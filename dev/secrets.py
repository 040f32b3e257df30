"""The dev secrets: made on first start, one file each, mode 0600, in the form that a Kubernetes secret mounts them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

from dev.pki import write_private


class SecretFolder:
    """Secrets that are made once and then stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)

    def password(self, name: str) -> str:
        """Return a password of 256 random bits."""
        return self._kept(name, lambda: secrets.token_urlsafe(32))

    def key(self, name: str) -> str:
        """Return 32 random bytes in base64."""
        return self._kept(name, lambda: base64.b64encode(secrets.token_bytes(32)).decode())

    def prefixed(self, name: str, prefix: str) -> str:
        """Return a random secret that looks like its kind."""
        return self._kept(name, lambda: prefix + secrets.token_hex(24))

    def put(self, name: str, value: str) -> None:
        """Write a secret that follows from others."""
        file = self._folder / name
        if not file.exists() or file.read_text() != value:
            write_private(file, value.encode())

    @property
    def path(self) -> Path:
        """Where they are."""
        return self._folder

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        file = self._folder / name
        if not file.exists():
            write_private(file, make().encode())
        return file.read_text()
