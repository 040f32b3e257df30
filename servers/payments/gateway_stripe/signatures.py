"""Stripe's signature of a webhook (https://docs.stripe.com/webhooks#verify-manually), checked on the bytes as they came.

Not by the SDK, which says in words only what is wrong, compares text instead of bytes, and lets timestamps of the future pass.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

TOLERANCE: Final = timedelta(minutes=5)
SIGNATURES_MAX: Final = 8
"""Stripe sends one for each live secret; more than a few are somebody's guesses."""


class Fault(Enum):
    """What is wrong with a webhook."""

    MISSING = "missing"
    """No signature at all."""
    MALFORMED = "malformed"
    """A header or a body that Stripe does not send."""
    FORGED = "forged"
    """No live secret signed these bytes: forged, or modified on the way."""
    STALE = "stale"
    """Signed by Stripe, but too long ago: a replay."""
    EARLY = "early"
    """Signed by Stripe, but for a time that has not come."""


class SignatureInvalid(Exception):
    """A webhook that Stripe did not sign, or not lately."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def verify(body: bytes, header: str, secrets: Sequence[str], *, now: datetime) -> None:
    """Check that one of the live secrets signed `body` just now. Raises SignatureInvalid."""
    if not header:
        raise SignatureInvalid(Fault.MISSING)
    timestamp, given = _parsed(header)
    signed = str(timestamp).encode() + b"." + body
    expected = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    # Each with each, and none left out: how long it takes does not tell how much of a guess was right.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in given]
    if not any(matches):
        raise SignatureInvalid(Fault.FORGED)
    age = timedelta(seconds=now.timestamp() - timestamp)
    if age > TOLERANCE:
        raise SignatureInvalid(Fault.STALE)
    if age < -TOLERANCE:
        raise SignatureInvalid(Fault.EARLY)


def _parsed(header: str) -> tuple[int, list[str]]:
    """Return the one timestamp and the signatures of scheme v1. Raises SignatureInvalid."""
    pairs = [item.partition("=") for item in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == "v1"]
    fits = len(times) == 1 and times[0].isascii() and times[0].isdigit() and len(times[0]) <= 12
    if not fits or not 0 < len(given) <= SIGNATURES_MAX or not header.isascii():
        raise SignatureInvalid(Fault.MALFORMED)
    return int(times[0]), given
