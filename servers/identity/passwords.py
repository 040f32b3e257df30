"""Passwords: NFC, a keyed pre-hash, bcrypt in a bounded pool.

bcrypt reads 72 bytes at the most, so the password is hashed first (HMAC-SHA-384 with the pepper, 64 characters in base64 without
NULs). At cost 12 a check takes a quarter of a second of one core: one worker and a short queue keep a flood of logins from
stopping payments.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from servers.identity.domain import LoginsBusy

WAITING_MAX: Final = 24
T = TypeVar("T")


class Passwords:
    """Hashes and checks."""

    def __init__(self, pepper_base64: str, *, cost: int) -> None:
        self._pepper = base64.b64decode(pepper_base64)
        self._cost = cost
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bcrypt")
        self._waiting = 0
        self._nobody = bcrypt.hashpw(self._prepared(secrets.token_hex(16)), bcrypt.gensalt(cost))

    async def hash(self, password: str) -> bytes:
        """Return the hash to store. Raises LoginsBusy."""
        return await self._run(lambda: bcrypt.hashpw(self._prepared(password), bcrypt.gensalt(self._cost)))

    async def matches(self, password: str, stored: bytes | None) -> bool:
        """Check a password; against nobody's hash where there is no account, so that both take the same time."""
        target = stored if stored is not None else self._nobody
        matched = await self._run(lambda: bcrypt.checkpw(self._prepared(password), target))
        return matched and stored is not None

    def _prepared(self, password: str) -> bytes:
        text = unicodedata.normalize("NFC", password).encode()
        return base64.b64encode(hmac.new(self._pepper, text, hashlib.sha384).digest())

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise LoginsBusy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1
