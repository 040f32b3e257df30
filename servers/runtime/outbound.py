"""Calls to the outside, once for all providers: record, classify, resolve. Knows nothing of payments.

The record is written with the intent. Whatever happens to the call afterwards, the record says that there was one, under
which key, how often it was sent, and when it is to be looked into: a call without a certain outcome is resolved by reading, never
by guessing.

    CREATED -> DONE | NOT_SENT | UNKNOWN | PENDING;  UNKNOWN -> PENDING | DONE | NEEDS_OPERATOR;  PENDING -> UNKNOWN | DONE;
    NEEDS_OPERATOR -> DONE
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Generic, TypeVar

import structlog
from prometheus_client import Counter

from servers.kernel.clock import Clock
from servers.kernel.ids import new_id
from servers.runtime.connection import Connection
from servers.runtime.sql import Row, text

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_log = structlog.get_logger("outbound")
_calls = Counter("paymesh_outbound_calls_total", "Calls to the outside", ["target", "verb", "outcome"])

GRACE: Final = timedelta(seconds=30)
"""How long a call may stay CREATED before the janitor takes it for crashed: longer than any call's own time-out."""
POLLS: Final = {
    "UNKNOWN": (timedelta(minutes=5), timedelta(hours=1), *(timedelta(days=1),) * 5),
    "PENDING": (timedelta(hours=1), timedelta(days=1)),
}
"""When to look, each after the look before (Kill Bill's values). After the last, UNKNOWN needs a person; what is PENDING is known
to the provider, whose news come by webhook, by polling its events, and to whoever reads."""
READ_AFTER: Final = timedelta(seconds=60)
"""A read of the resource looks into a call that has been uncertain for longer than this."""
RESEND_WITHIN: Final = timedelta(hours=23)
"""Providers may drop idempotency keys after 24 hours: later, a call is only read, never sent again."""


class Failure(Enum):
    """What an exception of a provider's client says about the call."""

    NOT_SENT = "not_sent"
    """The provider provably never saw it."""
    RATE_LIMITED = "rate_limited"
    """The provider saw it and provably did nothing."""
    UNKNOWN = "unknown"
    """It may have taken effect."""
    ANSWERED_5XX = "answered_5xx"
    """It may have taken effect, and the same key would replay the same answer."""


Classify = Callable[[Exception], "tuple[Failure, float | None] | None"]
"""Exception -> (failure, seconds to wait if told), or None where it is not the provider's doing and shall be raised."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[T_co]):
    """The provider's answer."""

    value: T_co


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing happened outside; the same key may be sent again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened outside."""

    reason: str
    resendable: bool = True
    """False after an answered 5xx: the provider would give the same answer for the same key again."""


Outcome = Answered[T] | NotSent | Unknown
_OPEN: Final = """
    FROM outbound_calls WHERE target = :target AND state IN ('CREATED', 'UNKNOWN', 'PENDING', 'NEEDS_OPERATOR')
    ORDER BY create_time DESC LIMIT 1
"""
_NOTE_SEND: Final = f"UPDATE outbound_calls SET sends = sends + 1 WHERE id IN (SELECT id {_OPEN} FOR UPDATE)"
_SETTLE: Final = f"""
    UPDATE outbound_calls SET state = :state, change_time = :now, resendable = resendable AND NOT :final,
           polls = CASE WHEN state = :state THEN polls ELSE 0 END,
           next_poll_time = CASE WHEN state = :state THEN next_poll_time ELSE :next END
    WHERE id = (SELECT id {_OPEN})
          -- Looked at once more, after a wait for the row.
          AND state <> 'DONE' AND NOT (state = 'NEEDS_OPERATOR' AND :state <> 'DONE')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundCall:
    """The record of one call."""

    id: str
    verb: str
    target: str
    key: str
    state: str
    polls: int
    sends: int
    """How often it may have gone out."""
    resendable: bool
    create_time: datetime
    change_time: datetime


class CircuitBreaker:
    """Stops calling a provider that keeps failing, and lets one probe through after a pause."""

    def __init__(self, *, clock: Clock, failures: int = 5, pause_seconds: float = 5.0) -> None:
        self._clock = clock
        self._limit = failures
        self._pause = pause_seconds
        self._failed = 0
        self._open_until = 0.0

    def admits(self) -> bool:
        """Tell whether a call may go out now; where the pause is over, only the caller that is told so may probe."""
        if self._failed < self._limit:
            return True
        if self._clock.monotonic() < self._open_until:
            return False
        self._open_until = self._clock.monotonic() + self._pause
        return True

    def succeeded(self) -> None:
        """Note an answer, whatever it says."""
        self._failed = 0

    def failed(self) -> None:
        """Note a call without an answer."""
        self._failed += 1
        self._open_until = self._clock.monotonic() + self._pause


def digest(*parts: str) -> str:
    """Return what tells one outside request from another, for its record."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Outbound:
    """Sends calls to one provider."""

    def __init__(
        self, *, target: str, classify: Classify, clock: Clock, tries: int = 3, wait_seconds: float = 0.2
    ) -> None:
        self._target = target
        self._classify = classify
        self._breaker = CircuitBreaker(clock=clock)
        self._tries = tries
        self._wait = wait_seconds

    async def execute(self, verb: str, send: Callable[[], Awaitable[T]]) -> Outcome[T]:
        """Send, again with the same key where that is safe, and say what is known.

        A rate limit is waited out and never counted as a failure. Once a try may have reached the provider, the outcome is
        UNKNOWN unless a later try is answered: a refused connection after a time-out proves nothing about the first.
        """
        maybe_sent, answered_5xx = False, False
        reason = "circuit open"
        for attempt in range(self._tries):
            if not self._breaker.admits():
                break
            try:
                value = await send()
            except Exception as error:
                verdict = self._classify(error)
                if verdict is None:
                    raise
                failure, wait = verdict
                reason = f"{failure.value}: {type(error).__name__}"
                self._breaker.succeeded() if failure is Failure.RATE_LIMITED else self._breaker.failed()
                maybe_sent = maybe_sent or failure in (Failure.UNKNOWN, Failure.ANSWERED_5XX)
                if failure is Failure.ANSWERED_5XX:
                    answered_5xx = True
                    break
                if attempt + 1 < self._tries:
                    pause = wait if wait is not None else self._wait * 2**attempt
                    await asyncio.sleep(min(pause, 5.0) * random.uniform(0.8, 1.2))
            else:
                self._breaker.succeeded()
                _calls.labels(self._target, verb, "answered").inc()
                return Answered(value)
        _calls.labels(self._target, verb, "unknown" if maybe_sent else "not_sent").inc()
        _log.warning("outbound.uncertain" if maybe_sent else "outbound.not_sent", verb=verb, reason=reason)
        return Unknown(reason, resendable=not answered_5xx) if maybe_sent else NotSent(reason)


class OutboundStore:
    """The records of one domain, inside one transaction."""

    def __init__(self, conn: Connection, *, clock: Clock) -> None:
        self._conn = conn
        self._clock = clock

    async def record(
        self, *, verb: str, target: str, key: str, request_digest: str, at_once: bool = False
    ) -> OutboundCall:
        """Write down that a call is about to be made for `target`, one of our ids, under the provider key `key`. One that was not
        sent is so taken up again; any other stays as it is. `at_once`: by the janitor, because whoever writes it down does not."""
        now = self._clock.now()
        row = (
            await self._conn.execute(
                text(
                    """
                    INSERT INTO outbound_calls AS o (id, verb, target, key, request_digest, state, polls, next_poll_time,
                                                create_time, change_time)
                    VALUES (:id, :verb, :target, :key, :request_digest, 'CREATED', 0, :next, :now, :now)
                    ON CONFLICT (verb, key) DO UPDATE SET
                        state = CASE WHEN o.state = 'NOT_SENT' THEN 'CREATED' ELSE o.state END,
                        polls = CASE WHEN o.state = 'NOT_SENT' THEN 0 ELSE o.polls END,
                        next_poll_time = CASE WHEN o.state = 'NOT_SENT' THEN excluded.next_poll_time ELSE o.next_poll_time END
                    RETURNING *
                    """
                ),
                {
                    "id": new_id("out", clock=self._clock),
                    "verb": verb,
                    "target": target,
                    "key": key,
                    "request_digest": request_digest,
                    "next": now if at_once else now + GRACE,
                    "now": now,
                },
            )
        ).one()
        return call_of(row)

    async def open_for(self, target: str, *, lock: bool = False) -> OutboundCall | None:
        """Return the call for `target` whose outcome is open, if any; one that waits for a person is."""
        statement = text(f"SELECT * {_OPEN}{' FOR UPDATE' if lock else ''}")
        row = (await self._conn.execute(statement, {"target": target})).one_or_none()
        return call_of(row) if row is not None else None

    async def note_send(self, target: str) -> bool:
        """Note that the open call for `target` goes out now. False where somebody else has learnt its outcome by now: nothing is
        to be sent any more."""
        return bool((await self._conn.execute(text(_NOTE_SEND), {"target": target})).rowcount)

    async def known(self, target: str, outcome: Outcome[T], *, sends: int = 1) -> Outcome[T]:
        """Return what is known of the call for `target` after a sending with this outcome: that it did not arrive proves something
        only where nobody, in this process or in one that died, has sent it besides. `sends` is 0 where it did not come to that."""
        if not isinstance(outcome, NotSent):
            return outcome
        # Locked: whoever wants to send it now waits, and finds it settled.
        call = await self.open_for(target, lock=True)
        if call is None or call.sends != sends:
            return Unknown(outcome.reason)
        self._conn.write(text("UPDATE outbound_calls SET sends = 0 WHERE id = :id"), {"id": call.id})
        return outcome

    async def may_read(self, target: str) -> bool:
        """Tell whether the provider may be asked about `target` now for somebody who reads it, and note that it is: everybody who
        reads the same resource within a minute shares one question."""
        done = await self._conn.execute(
            text(
                """
                UPDATE outbound_calls SET read_time = :now
                WHERE target = :target AND coalesce(read_time, change_time) <= :earlier
                """
            ),
            {"target": target, "now": self._clock.now(), "earlier": self._clock.now() - READ_AFTER},
        )
        return bool(done.rowcount)

    def settle(self, target: str, outcome: Outcome[T], *, pending: bool = False) -> None:
        """Note what became of the open call for `target`, if there is one. `pending`: answered, but the provider itself is not done
        yet. A call that stays what it was goes on with its plan, however often it is looked into; another state begins another
        plan."""
        match outcome:
            case Answered():
                state = "PENDING" if pending else "DONE"
            case NotSent():
                state = "NOT_SENT"
            case Unknown():
                state = "UNKNOWN"
        now = self._clock.now()
        next_poll = now + POLLS[state][0] if state in POLLS else None
        final = isinstance(outcome, Unknown) and not outcome.resendable
        self._conn.write(
            text(_SETTLE),
            {"target": target, "state": state, "next": next_poll, "now": now, "final": final},
        )

    def hand_over(self, call_id: str) -> None:
        """Leave a call to a person: no look will tell more than the last one."""
        self._conn.write(
            text(
                """
                UPDATE outbound_calls SET state = 'NEEDS_OPERATOR', next_poll_time = NULL, change_time = :now
                WHERE id = :id AND state IN ('CREATED', 'UNKNOWN', 'PENDING')
                """
            ),
            {"id": call_id, "now": self._clock.now()},
        )


def call_of(row: Row) -> OutboundCall:
    return OutboundCall(
        id=row.id,
        verb=row.verb,
        target=row.target,
        key=row.key,
        state=row.state,
        polls=row.polls,
        sends=row.sends,
        resendable=row.resendable,
        create_time=row.create_time,
        change_time=row.change_time,
    )
