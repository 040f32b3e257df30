"""Calls to the outside: what is known of them, the breaker, the janitor."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text

from servers.kernel.clock import ManualClock, SystemClock
from servers.runtime.db import Database
from servers.runtime.janitor import Janitor, Resolver
from servers.runtime.outbound import POLLS, Answered, Failure, NotSent, Outbound, OutboundCall, Outcome, Unknown
from servers.runtime.sending import LEARNT, send, send_again
from tests.support.postgres import MakeDatabase


class Scripted(Exception):
    """A failure that says what it means."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


def classify(error: Exception) -> tuple[Failure, float | None] | None:
    """Read what a scripted failure says; anything else is our own bug."""
    return (error.failure, 0.0) if isinstance(error, Scripted) else None


N, U, R, X = Failure.NOT_SENT, Failure.UNKNOWN, Failure.RATE_LIMITED, Failure.ANSWERED_5XX


@pytest.mark.parametrize(
    ("script", "expected", "sent"),
    [
        ([], Answered("ok"), 1),
        ([N], Answered("ok"), 2),
        ([U], Answered("ok"), 2),
        ([N, N, N], NotSent, 3),
        ([U, N, N], Unknown, 3),
        ([R, R], Answered("ok"), 3),
        ([R, R, R], NotSent, 3),
        ([X], Unknown, 1),
        ([N, X], Unknown, 2),
    ],
)
async def test_an_outcome_says_what_is_known(script: list[Failure], expected: object, sent: int) -> None:
    outbound = Outbound(target="t", classify=classify, clock=SystemClock(), wait_seconds=0)
    left, calls = list(script), 0

    async def send() -> str:
        nonlocal calls
        calls += 1
        if left:
            raise Scripted(left.pop(0))
        return "ok"

    outcome = await outbound.execute("v", send)
    assert outcome == expected or type(outcome) is expected
    assert calls == sent


async def test_an_open_breaker_sends_nothing_and_says_so() -> None:
    outbound = Outbound(target="t", classify=classify, clock=SystemClock(), tries=1)

    async def fail() -> str:
        raise Scripted(U)

    for _ in range(5):
        assert isinstance(await outbound.execute("v", fail), Unknown)
    assert isinstance(await outbound.execute("v", fail), NotSent)


async def test_our_own_bug_is_not_the_providers_silence() -> None:
    async def fail() -> str:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await Outbound(target="t", classify=classify, clock=SystemClock()).execute("v", fail)


@pytest.mark.parametrize(
    ("sendings", "outcome", "known"),
    [
        (1, NotSent("refused"), NotSent),
        (2, NotSent("refused"), Unknown),  # the other one may have arrived
        (0, NotSent("refused"), Unknown),  # whose sending it was is not known
        (1, Unknown("lost"), Unknown),
        (2, Answered("ok"), Answered),
    ],
)
async def test_only_the_one_and_only_sending_proves_that_a_call_never_arrived(
    make_database: MakeDatabase, sendings: int, outcome: Outcome[str], known: type
) -> None:
    db = await make_database("payments")
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
    for _ in range(sendings):
        assert isinstance(await send(db, "x", partial(_done, outcome)), type(outcome))
    async with db.uow() as uow:
        assert isinstance(await uow.outbound.known("x", outcome), known)


async def _done(outcome: Outcome[str]) -> Outcome[str]:
    return outcome


async def test_a_settled_call_is_not_sent_and_one_that_was_not_sent_is_taken_up_again(
    make_database: MakeDatabase,
) -> None:
    db = await make_database("payments")
    for outcome in (NotSent("refused"), Answered("ok")):
        async with db.uow() as uow:
            await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        await send(db, "x", partial(_done, outcome))
        async with db.uow() as uow:
            call = await uow.outbound.open_for("x")
            assert call is not None
            assert call.sends == 1
            uow.outbound.settle("x", await uow.outbound.known("x", outcome))
        assert await send(db, "x", partial(_done, outcome)) is LEARNT
    async with db.uow() as uow:
        assert (await uow.outbound.record(verb="v", target="x", key="x", request_digest="")).state == "DONE"


async def test_a_call_is_sent_again_only_while_its_key_is_good(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    clock = ManualClock(SystemClock().now())
    db.clock = clock
    for number, (outcome, hours, goes) in enumerate(
        [(Unknown("lost"), 22, True), (Unknown("lost"), 24, False), (Unknown("500", resendable=False), 1, False)]
    ):
        target = f"x{number}"
        async with db.uow() as uow:
            await uow.outbound.record(verb="v", target=target, key=target, request_digest="")
            uow.outbound.settle(target, outcome)
        clock.advance(timedelta(hours=hours))
        assert isinstance(await send_again(db, target, partial(_done, Answered("ok"))), Answered) is goes


async def test_the_janitor_looks_by_plan_and_hands_over_to_a_person(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    clock = ManualClock(SystemClock().now())
    db.clock = clock
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        uow.outbound.settle("x", Unknown("lost"))
    looks: list[OutboundCall] = []

    async def look(found: OutboundCall) -> None:
        looks.append(found)

    janitor = Janitor(db, {"v": Resolver(look=look)})
    assert await janitor.round() == 0
    for wait in POLLS["UNKNOWN"]:
        clock.advance(wait + timedelta(seconds=1))
        assert await janitor.round() == 1
    clock.advance(timedelta(days=30))
    assert await janitor.round() == 0
    async with db.read() as conn:
        assert await conn.scalar(text("SELECT state FROM outbound_calls")) == "NEEDS_OPERATOR"


async def test_a_call_that_a_crash_left_behind_is_looked_into(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    clock = ManualClock(SystemClock().now())
    db.clock = clock
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")

    async def resolve(found: OutboundCall) -> None:
        async with db.uow() as uow:
            uow.outbound.settle(found.target, Answered("done"))

    clock.advance(timedelta(minutes=1))
    assert await Janitor(db, {"v": Resolver(look=resolve)}).round() == 1
    async with db.read() as conn:
        assert await conn.scalar(text("SELECT state FROM outbound_calls")) == "DONE"


async def plan_of(db: Database) -> tuple[str, int, datetime | None]:
    """Return a call's state, how often it was looked into under its plan, and when the next look is."""
    async with db.read() as conn:
        row = (await conn.execute(text("SELECT state, polls, next_poll_time FROM outbound_calls"))).one()
    return row.state, row.polls, row.next_poll_time


async def test_what_a_provider_is_not_done_with_is_looked_into_twice_and_then_left_to_its_news(
    make_database: MakeDatabase,
) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        uow.outbound.settle("x", Answered("not yet"), pending=True)
    looks: list[datetime] = []

    async def look(_: OutboundCall) -> None:
        looks.append(clock.now())

    began, janitor = clock.now(), Janitor(db, {"v": Resolver(look=look)})
    for _ in range(24 * 40):
        clock.advance(timedelta(hours=1, seconds=1))
        await janitor.round()
    assert [round((at - began) / timedelta(hours=1)) for at in looks] == [1, 25]
    assert await plan_of(db) == ("PENDING", 2, None)
    async with db.uow() as uow:
        assert await uow.outbound.may_read("x")
        uow.outbound.settle("x", Answered("done"))
    assert (await plan_of(db))[0] == "DONE"


async def test_reads_between_the_looks_do_not_shift_the_plan(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        uow.outbound.settle("x", Unknown("lost"))
    planned = await plan_of(db)
    for _ in range(20):
        clock.advance(timedelta(seconds=10))
        async with db.uow() as uow:
            uow.outbound.settle("x", Unknown("still lost"))
    assert await plan_of(db) == planned


async def test_another_state_begins_another_plan_also_in_the_middle_of_a_look(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        uow.outbound.settle("x", Unknown("lost"))

    async def tell(found: OutboundCall) -> None:
        async with db.uow() as uow:
            uow.outbound.settle(found.target, Answered("not yet"), pending=True)

    janitor = Janitor(db, {"v": Resolver(look=tell)})
    clock.advance(timedelta(minutes=6))
    await janitor.round()
    assert await plan_of(db) == ("PENDING", 0, clock.now() + POLLS["PENDING"][0])


async def test_a_crashed_call_has_the_whole_plan_before_it(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    db.clock = clock = ManualClock(SystemClock().now())
    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="")

    async def learn_nothing(_: OutboundCall) -> None:
        raise ConnectionError

    janitor = Janitor(db, {"v": Resolver(look=learn_nothing)})
    clock.advance(timedelta(minutes=1))
    await janitor.round()
    assert await plan_of(db) == ("UNKNOWN", 0, clock.now() + POLLS["UNKNOWN"][0])


async def test_a_call_that_nobody_sends_is_the_janitors_at_once(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    looks: list[OutboundCall] = []

    async def look(found: OutboundCall) -> None:
        looks.append(found)

    async with db.uow() as uow:
        await uow.outbound.record(verb="v", target="x", key="x", request_digest="", at_once=True)
    await Janitor(db, {"v": Resolver(look=look)}).round()
    assert [found.target for found in looks] == ["x"]


async def test_what_is_handed_over_to_a_person_is_looked_into_no_more(make_database: MakeDatabase) -> None:
    db = await make_database("payments")
    async with db.uow() as uow:
        call = await uow.outbound.record(verb="v", target="x", key="x", request_digest="")
        uow.outbound.hand_over(call.id)
        uow.outbound.settle("x", Unknown("still lost"))
    assert await plan_of(db) == ("NEEDS_OPERATOR", 0, None)
