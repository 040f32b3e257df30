"""Authenticated encryption for the few secrets that must be stored: AES-256-GCM with a random 96-bit nonce.

The associated data binds a ciphertext to its place (table, column, row), so that swapping two of them is noticed.
"""

from __future__ import annotations

import base64
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class SealBroken(Exception):
    """The text was not sealed with this key for this place."""


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key_base64: str) -> None:
        key = base64.b64decode(key_base64)
        if len(key) != 32:
            raise ValueError("a seal key is 32 bytes in base64")
        self._aead = AESGCM(key)

    def seal(self, plain: bytes, *, place: str) -> bytes:
        """Return nonce and ciphertext of `plain`, bound to `place`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Return the plain text. Raises SealBroken."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except InvalidTag as broken:
            raise SealBroken(place) from broken
