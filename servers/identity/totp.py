"""Codes of an authenticator app (RFC 6238: HMAC-SHA-1, six digits, 30 seconds), which is what every app can do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from datetime import datetime
from typing import Final
from urllib.parse import quote

STEP_SECONDS: Final = 30
DRIFT_STEPS: Final = 1
"""How far the app's clock may be off, each way."""
SECRET_BYTES: Final = 20
DIGITS: Final = 6


def new_secret() -> bytes:
    """Return a fresh secret."""
    return secrets.token_bytes(SECRET_BYTES)


def uri(secret: bytes, *, account: str) -> str:
    """Return the address that an app reads the secret from."""
    text = base64.b32encode(secret).decode()
    return f"otpauth://totp/Paymesh:{quote(account)}?secret={text}&issuer=Paymesh"


def code_of(secret: bytes, step: int) -> str:
    """Return the code of a step."""
    digest = hmac.new(secret, step.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def step_of(secret: bytes, code: str, *, now: datetime, after: int) -> int | None:
    """Return the step whose code was given, or None for a wrong one and for one up to the step `after`: each code works once."""
    present = int(now.timestamp()) // STEP_SECONDS
    found = None
    # All are compared, whichever fits: the time it takes tells nothing.
    for step in range(present - DRIFT_STEPS, present + DRIFT_STEPS + 1):
        if hmac.compare_digest(code_of(secret, step), code) and step > after:
            found = step
    return found
