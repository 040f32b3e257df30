"""The sandbox's business time: the machine's, moved by a durable offset."""

from __future__ import annotations

import time

from sandbox.stripe.store import Store


class Clock:
    """Seconds since the epoch, as Stripe's objects carry them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        row = store.db.execute("SELECT offset_seconds FROM clock").fetchone()
        self._offset = row[0] if row else 0

    def now(self) -> int:
        """Return the present second."""
        return int(time.time()) + self._offset

    def advance(self, seconds: int) -> int:
        """Move time forward, durably. Returns the present second."""
        if seconds < 0:
            raise ValueError("the clock only moves forward: objects must not be younger than what they refer to")
        self._offset += seconds
        self._store.db.execute(
            "INSERT INTO clock VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET offset_seconds = excluded.offset_seconds",
            (self._offset,),
        )
        return self.now()
