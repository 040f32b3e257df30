"""Idempotency on real Postgres: one winner, replays to the byte, resumption, refusals."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from servers.kernel.clock import ManualClock, SystemClock
from servers.kernel.errors import ConcurrentUpdate, ResourceNotFound
from servers.runtime.db import Database
from servers.runtime.grpc_errors import status_bytes
from servers.runtime.idempotency import (
    IdempotencyAnswerGone,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    IdempotentRequest,
    Replayed,
)
from tests.integration.runtime.test_events import event
from tests.support.postgres import MakeDatabase


def request_of(key: str = "k", **more: Any) -> IdempotentRequest:
    """Return a request whose result is rendered as its text."""
    base = IdempotentRequest(
        tenant="t", method="m", key=key, fingerprint=b"f", render=lambda value: str(value).encode()
    )
    return replace(base, **more)


async def claim(db: Database, request: IdempotentRequest) -> Any:
    """Claim in a transaction of its own."""
    async with db.uow() as uow:
        return await uow.idempotency.claim(request)


async def test_of_64_duplicates_one_wins(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    results = await asyncio.gather(*(claim(db, request_of()) for _ in range(64)), return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert sum(isinstance(result, IdempotencyInProgress) for result in results) == 63


async def test_a_completed_key_replays_its_bytes_and_refuses_another_request(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    async with db.uow() as uow:
        await uow.idempotency.claim(request_of())
        uow.idempotency.complete(request_of(), "answer")
    with pytest.raises(Replayed) as replayed:
        await claim(db, request_of())
    assert (replayed.value.answer, replayed.value.refused) == (b"answer", False)
    with pytest.raises(IdempotencyKeyReused):
        await claim(db, request_of(fingerprint=b"other"))


async def test_a_secret_answer_is_sealed_at_rest_and_replays_in_clear(make_database: MakeDatabase) -> None:
    db = await make_database("identity")
    request = request_of(secret=True)
    async with db.uow() as uow:
        await uow.idempotency.claim(request)
        uow.idempotency.complete(request, "token-in-clear")
    async with db.read() as conn:
        stored = await conn.scalar(text("SELECT answer FROM idempotency_keys"))
    assert stored is not None
    assert b"token-in-clear" not in bytes(stored)
    with pytest.raises(Replayed) as replayed:
        await claim(db, request)
    assert replayed.value.answer == b"token-in-clear"


async def test_the_key_of_a_dead_process_is_resumed_at_once(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    async with db.uow() as uow:
        first = request_of()
        await uow.idempotency.claim(first)
        await uow.idempotency.advance(first, "sent", "att_1")
    with pytest.raises(IdempotencyInProgress):
        await claim(db, request_of(token="another call"))
    # The process dies: its connection, and with it its advisory lock, are gone.
    assert db._presence is not None
    await db._presence.close()
    await db.engine.dispose()
    resumed = await claim(db, request_of(token="another call"))
    assert (resumed.fresh, resumed.recovery_point, resumed.resource_id) == (False, "sent", "att_1")


async def test_a_refusal_undoes_the_body_and_is_kept(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    request = request_of()
    with pytest.raises(ResourceNotFound):
        async with db.uow() as uow:
            await uow.idempotency.claim(request)
            uow.outbox.append(event("before", 1))
            async with uow.refusals(request):
                await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
                uow.outbox.append(event("undone", 1))
                raise ResourceNotFound("x")
    with pytest.raises(Replayed) as replayed:
        await claim(db, request)
    assert replayed.value.refused
    assert replayed.value.answer == status_bytes(ResourceNotFound("x"))
    async with db.read() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM outbound_calls")) == 0
        assert (await conn.execute(text("SELECT subject FROM outbox"))).scalars() == ["before"]


async def test_a_passing_refusal_leaves_the_key_free(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    with pytest.raises(ConcurrentUpdate):
        async with db.uow() as uow:
            await uow.idempotency.claim(request_of())
            async with uow.refusals(request_of()):
                raise ConcurrentUpdate("x")
    assert (await claim(db, request_of())).fresh


async def test_a_released_key_is_resumed_by_the_next_call(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    first = request_of()
    async with db.uow() as uow:
        await uow.idempotency.claim(first)
        await uow.idempotency.advance(first, "sent", "att_1")
    async with db.uow() as uow:
        uow.idempotency.release(first)
    resumed = await claim(db, request_of(token="second"))
    assert (resumed.recovery_point, resumed.resource_id) == ("sent", "att_1")


async def test_presence_that_was_lost_with_its_connection_is_held_again(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    keeping = asyncio.create_task(db.keep_announced())
    held = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = :instance AND granted")

    async def holder() -> int | None:
        async with db.read() as conn:
            pid: int | None = await conn.scalar(held, {"instance": db.instance})
            return pid

    lost = await holder()
    async with db.read() as conn:
        await conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": lost})
    async with asyncio.timeout(10):
        while await holder() in (lost, None):
            await asyncio.sleep(0.05)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.parametrize(("money", "keep"), [(False, timedelta(hours=24)), (True, timedelta(days=30))])
async def test_a_key_is_kept_for_as_long_as_it_was_promised_and_then_forgotten(
    make_database: MakeDatabase, money: bool, keep: timedelta
) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    request = request_of(money=money)
    async with db.uow() as uow:
        await uow.idempotency.claim(request)
        uow.idempotency.complete(request, "answer")
        await uow.conn.execute(text("UPDATE idempotency_keys SET lease_until = clock_timestamp()"))
    clock.advance(keep - timedelta(seconds=1))
    async with db.uow() as uow:
        assert await uow.idempotency.expire() == 0
    with pytest.raises(Replayed):
        await claim(db, request)
    clock.advance(timedelta(seconds=2))
    async with db.uow() as uow:
        assert await uow.idempotency.expire() == 1
    assert (await claim(db, request)).fresh


async def test_a_key_whose_call_still_runs_is_not_forgotten(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    await claim(db, request_of())
    clock.advance(timedelta(days=31))
    async with db.uow() as uow:
        assert await uow.idempotency.expire() == 0


async def test_an_answer_with_a_secret_is_erased_after_a_day_and_its_key_still_does_nothing_twice(
    make_database: MakeDatabase,
) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    request = request_of(money=True, secret=True)
    async with db.uow() as uow:
        await uow.idempotency.claim(request)
        await uow.idempotency.advance(request, "confirming", "att_1")
        uow.idempotency.complete(request, "client secret")
    clock.advance(timedelta(hours=23, minutes=59))
    with pytest.raises(Replayed) as replayed:
        await claim(db, request)
    assert replayed.value.answer == b"client secret"
    clock.advance(timedelta(minutes=2))
    with pytest.raises(IdempotencyAnswerGone) as gone:
        await claim(db, request)
    assert gone.value.metadata == {"key": "k", "resource_id": "att_1"}
    async with db.uow() as uow:
        assert (await uow.idempotency.expire(), await uow.idempotency.expire()) == (1, 0)
        assert await uow.conn.scalar(text("SELECT length(answer) FROM idempotency_keys")) == 0
    with pytest.raises(IdempotencyAnswerGone):
        await claim(db, request)
    with pytest.raises(IdempotencyKeyReused):
        await claim(db, request_of(money=True, secret=True, fingerprint=b"other"))


async def test_a_refusal_holds_no_secret_and_is_kept_as_long_as_its_key(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    request = request_of(money=True, secret=True)
    async with db.uow() as uow:
        await uow.idempotency.claim(request)
        uow.idempotency.refuse(request, ResourceNotFound("x"))
    clock.advance(timedelta(days=29))
    with pytest.raises(Replayed) as replayed:
        await claim(db, request)
    assert replayed.value.refused
