"""Between the contract's common messages and the records that every domain uses."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.type.v1 import money_pb2

from servers.kernel.errors import FieldInvalid
from servers.kernel.money import Money

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ETAG: Final = re.compile('"([0-9]{1,18})"')


def stamp(time: datetime) -> Timestamp:
    """Return an instant as a message."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def instant(message: Timestamp) -> datetime:
    """Return the instant of a message, aware, in UTC."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def money(amount: Money) -> money_pb2.Money:
    """Return an amount as a message."""
    return money_pb2.Money(amount_minor=amount.amount_minor, currency=amount.currency)


def parse_money(message: money_pb2.Money) -> Money:
    """Return the amount of a message."""
    return Money(amount_minor=message.amount_minor, currency=message.currency)


def expected_version(given: str) -> int | None:
    """Return the version that an etag names, None where none is given. Raises FieldInvalid for what was never an etag of ours."""
    if not given:
        return None
    found = _ETAG.fullmatch(given)
    if found is None:
        raise FieldInvalid.of("etag", "must be the etag of a resource, as it was answered")
    return int(found[1])


def etag(version: int) -> str:
    """Return the etag of a resource's version (RFC 9110 section 8.8.3)."""
    return f'"{version}"'
