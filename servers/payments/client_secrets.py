"""Client secrets: what lets a shopper without a login confirm one payment or setup intent.

A secret is the keyed hash of its object's id, so that nothing is stored and nothing that leaks from the database opens a payment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

_BYTES: Final = 20


class ClientSecrets:
    """Makes and checks client secrets with one key."""

    def __init__(self, key_base64: str) -> None:
        self._key = base64.b64decode(key_base64)
        if len(self._key) < 32:
            raise ValueError("a client secret key is at least 32 bytes in base64")

    def of(self, identifier: str) -> str:
        """Return the secret of an object: its id, "_secret_", and 160 bits."""
        digest = hmac.digest(self._key, identifier.encode(), hashlib.sha256)[:_BYTES]
        return f"{identifier}_secret_{base64.b32encode(digest).decode().lower()}"

    def opens(self, identifier: str, given: str) -> bool:
        """Tell, in constant time, whether `given` is the object's secret."""
        return hmac.compare_digest(self.of(identifier).encode(), given.encode())
