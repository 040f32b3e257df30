"""The janitor: drives every call without a certain outcome to one, by resolvers that read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from servers.runtime.alerts import alert
from servers.runtime.db import Database, UnitOfWork
from servers.runtime.outbound import POLLS, OutboundCall, call_of
from servers.runtime.sql import text


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """What is done with an open call of one verb."""

    look: Callable[[OutboundCall], Awaitable[None]]
    """Reads the provider, applies what it finds and settles the call. Leaves the call as it is where nothing can be learnt."""
    give_up: Callable[[UnitOfWork, OutboundCall], Awaitable[None]] | None = None
    """Notes, in the transaction that spends the last look of the plan, that a person must decide."""


ROUND_SECONDS: Final = 1.0
BATCH: Final = 20
LEASE: Final = timedelta(minutes=1)

_log = structlog.get_logger("janitor")
_polled = Counter("paymesh_janitor_polls_total", "Uncertain calls looked into", ["verb", "outcome"])

_DUE = text(
    """
    UPDATE outbound_calls SET polls = polls + 1, next_poll_time = :lease
    WHERE id IN (SELECT id FROM outbound_calls
                 WHERE state IN ('CREATED', 'UNKNOWN', 'PENDING') AND next_poll_time <= :now
                 ORDER BY next_poll_time LIMIT :batch FOR UPDATE SKIP LOCKED)
    RETURNING *
    """
)
_AGAIN = text(
    """
    UPDATE outbound_calls SET next_poll_time = :next, change_time = :now, state = :state,
                              polls = CASE WHEN state = :state THEN polls ELSE 0 END
    WHERE id = :id AND state = :before
    """
)


class Janitor:
    """Looks into one domain's uncertain calls."""

    def __init__(self, db: Database, resolvers: Mapping[str, Resolver]) -> None:
        self._db = db
        self._resolvers = resolvers

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                if not await self.round():
                    await asyncio.sleep(ROUND_SECONDS)
            except SQLAlchemyError as error:
                _log.warning("janitor.interrupted", error=type(error).__name__)
                await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> int:
        """Look into the calls that are due. Returns how many.

        The due rows are leased by moving their next look, so that two processes never look into the same call and a crash
        only delays it by the lease.
        """
        now = self._db.clock.now()
        async with self._db.uow() as uow:
            rows = (await uow.conn.execute(_DUE, {"now": now, "lease": now + LEASE, "batch": BATCH})).all()
        for row in rows:
            await self._look(call_of(row))
        return len(rows)

    async def _look(self, call: OutboundCall) -> None:
        resolver = self._resolvers[call.verb]
        try:
            await resolver.look(call)
        except Exception as error:
            # The loop is the last line: a resolver that fails leaves its call to the next look.
            _log.warning(
                "janitor.look_failed", call_id=call.id, verb=call.verb, error=type(error).__name__, exc_info=True
            )
        state, next_look = _after(call, self._db.clock.now())
        async with self._db.uow() as uow:
            # The resource is locked before the call's record, as whoever applies an answer does it.
            if state == "NEEDS_OPERATOR" and resolver.give_up is not None:
                await resolver.give_up(uow, call)
            # A look that changed the call's state has begun another plan, which stays as it is.
            still_open = await uow.conn.execute(
                _AGAIN,
                {"id": call.id, "next": next_look, "now": self._db.clock.now(), "state": state, "before": call.state},
            )
        _polled.labels(call.verb, "open" if still_open.rowcount else "resolved").inc()
        if still_open.rowcount and state == "NEEDS_OPERATOR":
            alert("outbound.needs_operator", call_id=call.id, verb=call.verb, target=call.target)


def _after(call: OutboundCall, now: datetime) -> tuple[str, datetime | None]:
    """Return what a call is after a look that learnt nothing, and when the next one is: a crashed call is an unknown one from now
    on, and its plan begins."""
    if call.state == "CREATED":
        return "UNKNOWN", now + POLLS["UNKNOWN"][0]
    plan = POLLS[call.state]
    if call.polls < len(plan):
        return call.state, now + plan[call.polls]
    return ("NEEDS_OPERATOR" if call.state == "UNKNOWN" else call.state), None
