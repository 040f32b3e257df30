"""Events and their delivery: signed as Stripe signs, retried until the endpoint answers 2xx."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from typing import Final

import aiohttp

from sandbox.stripe.clock import Clock
from sandbox.stripe.mishaps import Kind, Mishap, Mishaps
from sandbox.stripe.settings import API_VERSION, Settings
from sandbox.stripe.store import Store, new_id
from sandbox.stripe.weather import Weather
from sandbox.stripe.wire import Json

RETRY_SECONDS: Final = (1, 2, 5, 10, 30, 60, 300, 3600)
TRIES_MAX: Final = 80
"""After about three days Stripe gives up (https://docs.stripe.com/webhooks#retries)."""
PARALLEL: Final = 8
ANSWER_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
TAKEN: Final = 1
GIVEN_UP: Final = 2
"""What became of a delivery; 0 is still due."""
OVERTAKEN_SECONDS: Final = 15
"""How long an event waits for another one to overtake it."""
STALE_SECONDS: Final = 600
"""Older than the five minutes that Stripe's libraries allow (https://docs.stripe.com/webhooks#replay-attacks)."""
FORGED_SECRET: Final = "whsec_of_somebody_else"  # noqa: S105  # nobody's


class Events:
    """Writes events and posts them."""

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._wake = asyncio.Event()
        self.paused = False
        self.copies = 1
        self.delay_seconds = 0.0
        self.is_reordered = False
        self.mishaps = Mishaps()
        self.weather = Weather()
        self._put_off: set[str] = set()
        self._overtaken: set[str] = set()
        self.cause: tuple[str, str] | None = None
        """The id and the key of the request at work; None for what the sandbox does by itself."""

    def emit(self, kind: str, subject: Json, *, before: Json | None = None) -> None:
        """Write an event with a snapshot of `subject`, in the caller's transaction. `before`: what an update changed."""
        event = self._store.put(self._event(kind, subject, {} if before is None else {"previous_attributes": before}))
        self._store.db.execute(
            "INSERT INTO deliveries VALUES (?, 0, ?, 0)", (event["id"], time.time() + self.delay_seconds)
        )
        self._wake.set()

    def _event(self, kind: str, subject: Json, previous: Json) -> Json:
        request_id, key = self.cause or (None, None)
        return {
            "id": new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self._clock.now(),
            "data": {"object": subject, **previous},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": request_id, "idempotency_key": key or None},
            "type": kind,
        }

    def resend(self, event_id: str) -> None:
        """Deliver an event once more."""
        self._store.db.execute("UPDATE deliveries SET done = 0, next_at = 0 WHERE event_id = ?", (event_id,))
        self._wake.set()

    def current(self, event: Json) -> Json:
        """Return an event with the number of endpoints that have not taken it."""
        row = self._store.db.execute("SELECT done FROM deliveries WHERE event_id = ?", (event["id"],)).fetchone()
        event["pending_webhooks"] = int(bool(self._settings.webhook_url) and row is not None and row[0] != TAKEN)
        return event

    def delivered(self, is_wanted: bool) -> str:
        """Return the condition of the events that every endpoint has taken, or of the others. Where there is no endpoint, every
        one has."""
        if not self._settings.webhook_url:
            return "1" if is_wanted else "0"
        taken = "EXISTS (SELECT 1 FROM deliveries WHERE event_id = objects.id AND done = 1)"
        return taken if is_wanted else f"NOT {taken}"

    def wake(self) -> None:
        """Look at the deliveries now."""
        self._wake.set()

    async def deliver(self) -> None:
        """Post due events until cancelled. What was not delivered before a restart is delivered after it."""
        async with self._client() as client:
            while True:
                self._wake.clear()
                due = [] if self.paused or not self._settings.webhook_url else self._due()
                if due:
                    await asyncio.gather(*(self._post(client, event_id, tries) for event_id, tries in due))
                    continue
                try:
                    async with asyncio.timeout(0.5):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _due(self) -> list[tuple[str, int]]:
        # Newest first is the worst order for a receiver that trusts the order of arrival.
        order = "rowid DESC" if self.is_reordered else "next_at"
        rows = self._store.db.execute(
            f"SELECT event_id, tries FROM deliveries WHERE done = 0 AND next_at <= ? ORDER BY {order} LIMIT ?",  # noqa: S608  # fixed words
            (time.time(), PARALLEL),
        )
        return rows.fetchall()

    async def _post(self, client: aiohttp.ClientSession, event_id: str, tries: int) -> None:
        event = self._store.get("event", event_id) or {}
        # A delayed event was put off once already: its place in time is its only mark.
        mishap = None
        if tries == 0 and event_id not in self._put_off:
            mishap = self.mishaps.take(event["type"]) or self.weather.webhook(event["type"])
        self._put_off.discard(event_id)
        self._overtaken.discard(event_id)
        kind = mishap.kind if mishap is not None else None
        if mishap is not None and kind is Kind.DELAY:
            self._put_off.add(event_id)
            self._put_back(event_id, mishap.delay_seconds)
            return
        if mishap is not None and kind is Kind.OVERTAKE:
            self._put_off.add(event_id)
            self._overtaken.add(event_id)
            self._put_back(event_id, OVERTAKEN_SECONDS)
            return
        copies = max(self.copies, mishap.copies) if mishap is not None and kind is Kind.DUPLICATE else self.copies
        delivered = kind is Kind.SWALLOW
        for _ in range(0 if kind in (Kind.DROP, Kind.SWALLOW) else copies):
            delivered = await self._send(client, json.dumps(self._told(event, mishap), indent=2).encode(), kind)
        gives_up = tries + 1 >= TRIES_MAX or kind is Kind.DROP
        pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
        self._store.db.execute(
            "UPDATE deliveries SET tries = tries + 1, done = ?, next_at = ? WHERE event_id = ?",
            (TAKEN if delivered else GIVEN_UP if gives_up else 0, time.time() + pause, event_id),
        )
        if delivered:
            # Whoever waited for this one to overtake is next.
            while self._overtaken:
                self._put_back(self._overtaken.pop(), 0)
            self._wake.set()

    def _put_back(self, event_id: str, seconds: float) -> None:
        self._store.db.execute(
            "UPDATE deliveries SET next_at = ? WHERE event_id = ?", (time.time() + seconds, event_id)
        )

    async def invent(self, kind: str, subject: Json, signature: Kind | None) -> Json:
        """Post an event that never happened, once, and keep it nowhere. Returns it, and whether the endpoint took it. `signature`:
        how it is false; None for a true one, as of somebody who has the secret."""
        if not self._settings.webhook_url:
            raise ValueError("there is no webhook endpoint")
        event = self._event(kind, subject, {})
        async with self._client() as client:
            taken = await self._send(client, json.dumps(event, indent=2).encode(), signature)
        return {"event": event, "taken": taken}

    def _client(self) -> aiohttp.ClientSession:
        tls = ssl.create_default_context(cafile=self._settings.webhook_ca)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=ANSWER_TIMEOUT)

    def _told(self, event: Json, mishap: Mishap | None) -> Json:
        """Return what is said of an event: the truth, mostly."""
        if mishap is None or mishap.kind is not Kind.LIE:
            return event
        return {**event, "data": {**event["data"], "object": mishap.lie.tell(event["data"]["object"])}}

    async def _send(self, client: aiohttp.ClientSession, body: bytes, kind: Kind | None) -> bool:
        """Post a body, once. Returns whether the endpoint took it."""
        secret = FORGED_SECRET if kind is Kind.FORGE else self._settings.webhook_secret.get_secret_value()
        # Stripe signs with real time, whatever the business clock says: receivers refuse old signatures.
        at = int(time.time()) - (STALE_SECONDS if kind is Kind.STALE else 0)
        headers = {"stripe-signature": signed(body, secret, at), "content-type": "application/json; charset=utf-8"}
        try:
            async with client.post(
                self._settings.webhook_url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False


def signed(body: bytes, secret: str, at: int) -> str:
    """Return the `Stripe-Signature` header, scheme v1 (https://docs.stripe.com/webhooks#verify-manually)."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
