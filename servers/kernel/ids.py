"""Ids: a type prefix and 128 bits in Crockford base32, sortable by time, the same text in SQL, logs and Spark.

`new_id` makes UUIDv7 values (RFC 9562 section 5.7); `derive_id` hashes a fact, so that everybody who knows the fact arrives at
the same id. The lowest six bits are the id's bucket (0 to 63): children are made in their owner's bucket, so that a later map
of buckets to databases keeps them together.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from functools import lru_cache
from typing import Final

from servers.kernel.clock import Clock
from servers.kernel.invariant import invariant

BUCKETS: Final = 64
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH: Final = 26  # 128 bits at 5 a character, the first of which carries only 3
_PAIRS: Final = tuple(high + low for high in ALPHABET for low in ALPHABET)
_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_SHAPE: Final = re.compile(rf"[a-z]{{2,4}}_[{ALPHABET}]{{{LENGTH}}}")


def new_id(prefix: str, *, clock: Clock, bucket: int | None = None) -> str:
    """Return a fresh id, in `bucket` where given."""
    milliseconds = int(clock.now().timestamp() * 1000)
    random = secrets.randbits(74)
    value = (milliseconds << 80) | (0x7 << 76) | ((random >> 62) << 64) | (0b10 << 62) | (random & ((1 << 62) - 1))
    return _text(prefix, value, bucket)


def derive_id(prefix: str, *parts: str, bucket: int) -> str:
    """Return the id that belongs to the fact `parts`: SHA-256 over the parts, each with its length in front."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return _text(prefix, int.from_bytes(digest.digest()[:16], "big"), bucket)


@lru_cache(maxsize=4096)  # one transfer asks six times, and half of that for accounts which the next one asks for again
def bucket_of(identifier: str) -> int:
    """Return the bucket, 0 to 63, that an id carries."""
    invariant(_SHAPE.fullmatch(identifier) is not None, "not an id", identifier=identifier)
    return (_VALUES[identifier[-2]] << 5 | _VALUES[identifier[-1]]) % BUCKETS


def is_id(prefix: str, text: str) -> bool:
    """Tell whether `text` has the shape of an id with this prefix."""
    return text.startswith(f"{prefix}_") and _SHAPE.fullmatch(text) is not None


def _text(prefix: str, value: int, bucket: int | None) -> str:
    if bucket is not None:
        invariant(0 <= bucket < BUCKETS, "bucket out of range", bucket=bucket)
        value = value >> 6 << 6 | bucket
    # Two characters at a time: ids are made for every row.
    pairs = []
    for _ in range(LENGTH // 2):
        pairs.append(_PAIRS[value & 1023])
        value >>= 10
    pairs.reverse()
    return f"{prefix}_{''.join(pairs)}"
