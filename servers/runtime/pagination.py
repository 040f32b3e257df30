"""Pages by keyset (AIP-158). A token is encrypted, bound to method, filter and caller, and grants no access by itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from google.protobuf.message import Message

from servers.kernel.clock import Clock
from servers.kernel.errors import FieldInvalid
from servers.runtime.call import current_call
from servers.runtime.sealed import SealBroken, Sealer

SIZE: Final = 50
SIZE_MAX: Final = 1000
KEEP: Final = timedelta(days=3)
START: Final = "~"  # sorts after every id: the newest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which rows to return: at most `size`, with ids below `before`. Ids are sortable by time, so this is newest first."""

    size: int
    before: str


class Pages:
    """Makes and reads page tokens."""

    def __init__(self, sealer: Sealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock

    def read(self, message: Message) -> Page:
        """Return the page that a list request asks for. Raises FieldInvalid for a token of another list, filter or caller."""
        asked: int = message.page_size  # type: ignore[attr-defined]  # every list request has it
        size = min(asked or SIZE, SIZE_MAX)
        token: str = message.page_token  # type: ignore[attr-defined]  # as above
        if not token:
            return Page(size=size, before=START)
        try:
            sealed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            position = json.loads(self._sealer.open(sealed, place=_place(message)))
        except (SealBroken, binascii.Error, ValueError) as error:
            raise FieldInvalid.of(
                "page_token", "give the next_page_token of the same list with all other fields unchanged"
            ) from error
        if self._clock.now().timestamp() > position["expires"]:
            raise FieldInvalid.of("page_token", "is older than 3 days; start again without it")
        return Page(size=size, before=position["before"])

    def token(self, message: Message, ids: list[str], size: int) -> str:
        """Return the token of the page after `ids`, or "" where `ids` (up to size + 1 were asked for) is the last page."""
        if len(ids) <= size:
            return ""
        expires = (self._clock.now() + KEEP).timestamp()
        plain = json.dumps({"before": ids[size - 1], "expires": expires}).encode()
        return base64.urlsafe_b64encode(self._sealer.seal(plain, place=_place(message))).rstrip(b"=").decode()


def _place(message: Message) -> str:
    call = current_call()
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("page_token")
    copy.ClearField("page_size")
    digest = hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()
    return f"page|{call.method}|{call.principal.tenant}|{digest}"
