"""Builds that are broken on purpose, each in one place, and the tests that must catch it. `PAYMESH_BREAK` names the one that a run
of pytest is made with; without it nothing here does anything."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import pytest
from sqlalchemy import text

from servers.kernel.ids import derive_id, new_id
from servers.payments import gateway_stripe, store
from servers.payments.domain import Payment
from servers.payments.usecases import confirm
from servers.runtime import consumer, idempotency, outbox
from servers.runtime.connection import Connection
from servers.runtime.db import UnitOfWork
from servers.runtime.eventlog import LogConsumer
from servers.runtime.idempotency import Claim, IdempotencyStore, IdempotentRequest
from servers.runtime.outbound import Failure
from tests.support import payment_desk

_key: contextvars.ContextVar[str] = contextvars.ContextVar("client_key", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One break."""

    apply: Callable[[pytest.MonkeyPatch], None]
    caught_by: Sequence[str]
    """The tests that must fail with it, as pytest's arguments."""
    sql: str = ""
    """What the databases lose where they would catch it first: the tests must, too."""


def no_row_lock(patch: pytest.MonkeyPatch) -> None:
    """A payment is read without its lock before it is changed."""
    whole = store.payment

    async def payment(conn: Connection, payment_id: str, *, lock: bool = False, **whose: Any) -> Payment | None:
        return await whole(conn, payment_id, **whose)

    patch.setattr(store, "payment", payment)


def no_unique_key(patch: pytest.MonkeyPatch) -> None:
    """Nothing keeps a key from being claimed twice."""
    claim = str(idempotency._CLAIM).replace("ON CONFLICT (tenant, method, key) DO NOTHING", "")
    patch.setattr(idempotency, "_CLAIM", text(claim))


def publish_before_commit(patch: pytest.MonkeyPatch) -> None:
    """An event is told in a transaction of its own, whatever becomes of the change."""

    whole = UnitOfWork.__aexit__

    async def leave(self: UnitOfWork, *error: Any) -> None:
        async with self._db.autocommit() as conn:
            await conn.send(*(told for told in self._closing if told[0] == outbox._INSERT))
        self._closing[:] = [other for other in self._closing if other[0] != outbox._INSERT]
        await whole(self, *error)

    patch.setattr(UnitOfWork, "__aexit__", leave)


def ack_before_work(patch: pytest.MonkeyPatch) -> None:
    """A consumer commits its place before it has done the work."""

    async def a_round(self: consumer.Consumer, source: LogConsumer) -> int:
        batch = await source.poll(max_records=consumer.BATCH)
        for delivered in batch:
            await source.commit(delivered)
            if (handler := self._handlers.get(delivered.record.type)) is not None:
                await self._handle(handler, delivered)
        return len(batch)

    patch.setattr(consumer.Consumer, "_round", a_round)


def no_fingerprint_check(patch: pytest.MonkeyPatch) -> None:
    """A key answers whatever is asked under it."""
    whole = IdempotencyStore.claim

    async def claim(self: IdempotencyStore, request: IdempotentRequest) -> Claim:
        known = text("SELECT fingerprint FROM idempotency_keys WHERE tenant = :t AND method = :m AND key = :k")
        found = await self._conn.scalar(known, {"t": request.tenant, "m": request.method, "k": request.key})
        return await whole(self, request if found is None else replace(request, fingerprint=bytes(found)))

    patch.setattr(IdempotencyStore, "claim", claim)


def client_key_passed_on(patch: pytest.MonkeyPatch) -> None:
    """What the provider tells repeats by follows from the client's key."""
    whole = IdempotencyStore.claim

    async def claim(self: IdempotencyStore, request: IdempotentRequest) -> Claim:
        _key.set(request.key or "")
        return await whole(self, request)

    def identifier(prefix: str, *, clock: Any, bucket: int | None = None) -> str:
        if prefix == "att" and _key.get() and bucket is not None:
            return derive_id(prefix, _key.get(), bucket=bucket)
        return new_id(prefix, clock=clock, bucket=bucket)

    patch.setattr(IdempotencyStore, "claim", claim)
    patch.setattr(confirm, "new_id", identifier)


def timeout_taken_as_failure(patch: pytest.MonkeyPatch) -> None:
    """A call without an answer counts as one that never arrived."""

    def classify(error: Exception) -> tuple[Failure, float | None] | None:
        verdict = gateway_stripe.classify(error)
        return (Failure.NOT_SENT, verdict[1]) if verdict is not None and verdict[0] is Failure.UNKNOWN else verdict

    patch.setattr(payment_desk, "classify", classify)


def headroom_read_then_write(patch: pytest.MonkeyPatch) -> None:
    """What can be refunded is read first, and taken later."""
    no_row_lock(patch)

    async def reserve_refund(conn: Connection, payment: Payment, amount_minor: int, now: datetime) -> Payment | None:
        if payment.refunded_minor + payment.refund_pending_minor + amount_minor > payment.captured_minor:
            return None
        await asyncio.sleep(0.01)
        await conn.execute(
            text(
                """
                UPDATE payments SET refund_pending_minor = refund_pending_minor + :amount, version = version + 1
                WHERE owner_id = :owner_id AND id = :id
                """
            ),
            {"amount": amount_minor, "owner_id": payment.owner_id, "id": payment.id},
        )
        found = await store.payment(conn, payment.id, owner_id=payment.owner_id)
        assert found is not None
        return found

    patch.setattr(store, "reserve_refund", reserve_refund)


_NO_HEADROOM: Final = """
    DO $$ DECLARE one record; BEGIN
        FOR one IN SELECT conname FROM pg_constraint WHERE conrelid = to_regclass('payments') AND contype = 'c'
            AND pg_get_constraintdef(oid) LIKE '%refund_pending_minor) <= captured_minor%'
        LOOP EXECUTE format('ALTER TABLE payments DROP CONSTRAINT %I', one.conname); END LOOP; END $$
"""
_RACES: Final = "tests/chaos/test_races.py"
BREAKS: Final[dict[str, Break]] = {
    "no_row_lock": Break(apply=no_row_lock, caught_by=[_RACES]),
    "no_unique_key": Break(
        apply=no_unique_key,
        caught_by=["tests/integration/runtime/test_idempotency.py"],
        sql="ALTER TABLE IF EXISTS idempotency_keys DROP CONSTRAINT IF EXISTS idempotency_keys_pkey",
    ),
    "publish_before_commit": Break(apply=publish_before_commit, caught_by=["tests/integration/runtime/test_events.py"]),
    "ack_before_work": Break(apply=ack_before_work, caught_by=["tests/integration/runtime/test_events.py"]),
    "no_fingerprint_check": Break(apply=no_fingerprint_check, caught_by=["tests/chaos/test_replays.py"]),
    "client_key_passed_on": Break(apply=client_key_passed_on, caught_by=["tests/chaos/test_replays.py"]),
    "timeout_taken_as_failure": Break(apply=timeout_taken_as_failure, caught_by=["tests/chaos/test_webhook_orders.py"]),
    "headroom_read_then_write": Break(apply=headroom_read_then_write, caught_by=[_RACES], sql=_NO_HEADROOM),
}
ASKED: Final = BREAKS.get(os.environ.get("PAYMESH_BREAK", ""))


@pytest.fixture(autouse=True, scope="session")
def broken_build() -> Any:
    """Break what `PAYMESH_BREAK` names, for the whole run."""
    if ASKED is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        ASKED.apply(patch)
        yield
