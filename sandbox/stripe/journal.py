"""What the sandbox was asked, newest last: so that a test can say what a server sent."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sandbox.stripe.wire import Json

ENTRIES_MAX: Final = 1_000
_SECRET: Final = ("number", "cvc")


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request."""

    id: str
    """The `Request-Id` that it was answered with."""
    method: str
    path: str
    idempotency_key: str = ""
    params: Json = field(default_factory=dict)
    """As they came on the wire: every value is text. A card's number and security code are left out."""
    status: int | None = None
    """None where no answer was given, or not yet."""
    replayed: bool = False
    """Whether the answer is that of an earlier request under the same key."""
    fault: str = ""
    """The kind of the fault that it met."""


class Journal:
    """The latest requests."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)

    def add(self, entry: Entry) -> None:
        """Remember a request; the oldest is forgotten."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def read(self, *, method: str, path: str) -> list[Json]:
        """Return what came by a method (any, if empty) to a path that the pattern is found in."""
        pattern = re.compile(path)
        return [
            asdict(entry)
            for entry in self._entries
            if method.lower() in ("", entry.method) and pattern.search(entry.path)
        ]


def without_card_data(value: Any) -> Any:
    """Return parameters without what must not be kept of a card."""
    if isinstance(value, dict):
        return {key: "(left out)" if key in _SECRET else without_card_data(child) for key, child in value.items()}
    return [without_card_data(child) for child in value] if isinstance(value, list) else value
