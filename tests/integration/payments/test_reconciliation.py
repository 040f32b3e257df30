"""Reconciliation on real Postgres: what Stripe's balance shows, against what our rows say, whatever comes late, twice or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from servers.audit.processor import refunds_in_transit
from servers.kernel.clock import ManualClock, SystemClock
from servers.kernel.errors import FieldInvalid
from servers.kernel.ids import derive_id
from servers.kernel.money import Money
from servers.payments import store
from servers.payments.client_secrets import ClientSecrets
from servers.payments.domain import (
    BalanceTransaction,
    Break,
    ItemState,
    ItemStateInvalid,
    LinesPage,
    MatchMode,
    ReconciliationItem,
)
from servers.payments.events import Events
from servers.payments.gateway_stripe import classify
from servers.payments.render import Renderer
from servers.payments.usecases import (
    Decider,
    Deps,
    ItemDecision,
    ResolveItem,
    Timing,
    reconcile,
    resolve_item,
    rounds,
)
from servers.payments.usecases.reconciliation import FAR
from servers.runtime.db import Database
from servers.runtime.idempotency import IdempotentRequest
from servers.runtime.outbound import Outbound
from tests.support.postgres import MakeDatabase, TestPostgres

SHOP = derive_id("mer", "shop", bucket=5)
TIMING = Timing(lag=timedelta(0), missing_after=timedelta(days=3))
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class FakeStripe:
    """Stripe's balance, as its list shows it."""

    lines: list[BalanceTransaction] = field(default_factory=list)
    broken: bool = False
    meanwhile: list[Callable[[], object]] = field(default_factory=list)
    """What happens before each answer of the list."""

    async def balance(self) -> dict[str, int]:
        """Return the sum of the lines."""
        sums: dict[str, int] = {}
        for line in self.lines:
            net = line.amount - line.fee
            sums[net.currency] = sums.get(net.currency, 0) + net.amount_minor
        return sums

    async def balance_transactions(self, start: datetime, end: datetime | None, *, after: str) -> LinesPage:
        """Return two lines a page, newest first."""
        if self.broken:
            raise ConnectionError
        if self.meanwhile:
            self.meanwhile.pop(0)()
        fitting = [x for x in self.lines if start <= x.create_time and (end is None or x.create_time < end)]
        found = sorted(fitting, key=lambda x: (x.create_time, x.id))
        found.reverse()
        ids = [line.id for line in found]
        place = ids.index(after) + 1 if after else 0
        return LinesPage(lines=tuple(found[place : place + 2]), more=len(found) > place + 2)

    def move(self, kind: str, source: str, amount: int, fee: int = 0, currency: str = "USD",
             rate: str | None = None, intent: str = "") -> BalanceTransaction:  # fmt: skip
        """Move the balance."""
        line = BalanceTransaction(
            id=f"txn_{len(self.lines)}", type=kind, source_id=source, payment_intent_id=intent,
            amount=Money(amount_minor=amount, currency=currency),
            fee=Money(amount_minor=fee, currency=currency), exchange_rate=Decimal(rate) if rate else None,
            create_time=NOW - timedelta(minutes=10) + timedelta(seconds=len(self.lines)),
        )  # fmt: skip
        self.lines.append(line)
        return line


@dataclass
class FakeLedger:
    """Remembers what is booked; a repeat is the same fact."""

    booked: dict[str, tuple[int, str]] = field(default_factory=dict)
    written_off: dict[str, Money] = field(default_factory=dict)

    async def book_balance_transaction(
        self, line: BalanceTransaction, *, matched: Money, counterpart: str, explained: bool
    ) -> None:
        """Book a line."""
        key = f"{line.id}:explained" if explained else line.id
        assert self.booked.setdefault(key, (matched.amount_minor, counterpart)) == (matched.amount_minor, counterpart)

    async def book_write_off(self, item: ReconciliationItem) -> None:
        """Book a write-off."""
        assert item.write_off is not None
        self.written_off[item.id] = item.write_off


@dataclass(frozen=True)
class Desk:
    """The use cases over a database of their own."""

    db: Database
    deps: Deps
    stripe: FakeStripe
    ledger: FakeLedger

    async def round(self) -> None:
        """Do one round."""
        await reconcile(self.deps, TIMING)

    async def captured(self, name: str, amount: int, currency: str = "USD", *, ago: timedelta = timedelta()) -> str:
        """Write down a payment with one capture from a card. Returns the capture's id."""
        ids = {kind: derive_id(kind, name, bucket=5) for kind in ("pay", "att", "cap")}
        values = {
            "shop": SHOP,
            "amount": amount,
            "currency": currency,
            "time": NOW - ago,
            "charge": f"ch_{name}",
            **ids,
        }
        async with self.db.engine.begin() as conn:
            for statement in (
                """INSERT INTO payments (owner_id, id, customer_id, amount_minor, currency, state, capture_method, description,
                   metadata, version, create_time, update_time) VALUES (:shop, :pay, '', :amount, :currency,
                   'REQUIRES_PAYMENT_METHOD', 'AUTOMATIC', '', '{}', 1, :time, :time)""",
                "UPDATE payments SET state = 'REQUIRES_CONFIRMATION' WHERE id = :pay",
                "UPDATE payments SET state = 'PROCESSING' WHERE id = :pay",
                "UPDATE payments SET state = 'SUCCEEDED', captured_minor = :amount WHERE id = :pay",
                """INSERT INTO attempts (owner_id, payment_id, id, payment_method_id, stripe_payment_method_id, state,
                   create_time, update_time) VALUES (:shop, :pay, :att, '', 'pm_x', 'CREATED', :time, :time)""",
                "UPDATE attempts SET state = 'SENT' WHERE id = :att",
                "UPDATE attempts SET state = 'SUCCEEDED', charge_id = :charge WHERE id = :att",
                """INSERT INTO captures (owner_id, payment_id, id, amount_minor, currency, fee_minor, fee_plan_version,
                   capture_time) VALUES (:shop, :pay, :cap, :amount, :currency, 0, 'v1', :time)""",
            ):
                await conn.execute(text(statement), values)
        return ids["cap"]

    async def refunded(self, name: str, amount: int) -> str:
        """Write down a refund of a captured payment, known at Stripe. Returns its id."""
        ids = {"pay": derive_id("pay", name, bucket=5), "ref": derive_id("ref", name, bucket=5)}
        values = {"shop": SHOP, "amount": amount, "time": NOW, "stripe": f"re_{name}", **ids}
        async with self.db.engine.begin() as conn:
            for statement in (
                """INSERT INTO refunds (owner_id, payment_id, id, amount_minor, currency, reason, state, metadata, version,
                   create_time, update_time) VALUES (:shop, :pay, :ref, :amount, 'USD', 'OTHER', 'PENDING', '{}', 1, :time,
                   :time)""",
                "UPDATE refunds SET state = 'SUCCEEDED', stripe_refund_id = :stripe WHERE id = :ref",
            ):
                await conn.execute(text(statement), values)
        return ids["ref"]

    async def items(self) -> dict[str, ReconciliationItem]:
        """Return the items by what they are about."""
        async with self.db.read() as conn:
            found = await store.reconciliation_items(conn, state="", kind="", payment_id="", before="~", limit=100)
        return {item.source_id or item.stripe_source_id: item for item in found}

    async def only(self) -> ReconciliationItem:
        """Return the one item that there is."""
        (found,) = (await self.items()).values()
        return found

    async def told(self) -> dict[str, list[str]]:
        """Return the events of each item, in order."""
        async with self.db.read() as conn:
            rows = await conn.execute(text("SELECT subject, type FROM outbox ORDER BY position"))
        told: dict[str, list[str]] = {}
        for row in rows:
            told.setdefault(row.subject, []).append(row.type.removeprefix("reconciliation_item."))
        return told

    async def resolve(
        self,
        item: ReconciliationItem,
        key: str = "k",
        *,
        decision: ItemDecision = ItemDecision.ACCEPT,
        write_off: bool = False,
    ) -> ReconciliationItem:
        """End a break as staff."""
        command = ResolveItem(item_id=item.id, decision=decision, write_off=write_off)
        decider = Decider(actor_id="usr_1", actor_role="finance", reason="seen", request_id="req")
        request = IdempotentRequest(
            tenant="t", method="m", key=key, fingerprint=b"f", render=lambda one: one.id.encode()
        )
        return await resolve_item(self.deps, request, command, decider)


@pytest.fixture
async def desk(make_database: MakeDatabase) -> Desk:
    """Return the use cases with nothing expected and nothing arrived."""
    db, clock, stripe, ledger = await make_database("payments"), SystemClock(), FakeStripe(), FakeLedger()
    renderer = Renderer(
        livemode=False, secrets=ClientSecrets("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), sealer=db.sealer
    )
    parts = {
        "db": db, "clock": clock, "gateway": stripe, "ledger": ledger, "events": Events(renderer),
        "balance_outbound": Outbound(target="stripe", classify=_away, clock=clock, tries=1),
    }  # fmt: skip
    rest = {name: None for name in Deps.__dataclass_fields__ if name not in parts}
    return Desk(db, cast(Any, Deps)(**parts, **rest), stripe, ledger)


def _away(error: Exception) -> Any:
    from servers.runtime.outbound import Failure

    return (Failure.NOT_SENT, None) if isinstance(error, ConnectionError) else classify(error)


async def test_what_agrees_is_matched_by_itself_and_booked_once(desk: Desk) -> None:
    captures = [await desk.captured(f"p{number}", 1000 + number) for number in range(5)]
    refund = await desk.refunded("p1", 400)
    for number in range(5):
        desk.stripe.move("charge", f"ch_p{number}", 1000 + number, 59)
    desk.stripe.move("refund", "re_p1", -400)
    for _ in range(2):
        await desk.round()
    items = await desk.items()
    assert {item.state for item in items.values()} == {ItemState.MATCHED}
    assert set(items) == {*captures, refund}
    assert desk.ledger.booked == {
        **{f"txn_{number}": (1000 + number, "") for number in range(5)},
        "txn_5": (-400, "REFUNDS_IN_TRANSIT"),
    }
    assert set(map(tuple, (await desk.told()).values())) == {("expected", "matched")}


async def test_two_rounds_at_once_say_everything_once(desk: Desk) -> None:
    for number in range(12):
        await desk.captured(f"p{number}", 500)
        desk.stripe.move("charge", f"ch_p{number}", 500)
    outcomes = await asyncio.gather(*(desk.round() for _ in range(4)), return_exceptions=True)
    assert all(outcome is None or "reconciliation_items_once" in str(outcome) for outcome in outcomes)
    await desk.round()
    assert {tuple(types) for types in (await desk.told()).values()} == {("expected", "matched")}
    assert len(await desk.items()) == len(desk.ledger.booked) == 12


async def test_a_line_without_a_record_is_unexpected_until_the_record_comes(desk: Desk) -> None:
    desk.stripe.move("charge", "ch_late", 900, 56)
    await desk.round()
    found = await desk.only()
    assert (found.state, found.actual, found.owner_id) == (
        ItemState.UNEXPECTED,
        Money(amount_minor=900, currency="USD"),
        "platform",
    )
    assert desk.ledger.booked == {"txn_0": (0, "")}
    capture = await desk.captured("late", 900)
    await desk.round()
    item = await desk.only()
    assert (item.state, item.match_mode, item.source_id) == (ItemState.MATCHED, MatchMode.AUTO, capture)
    assert desk.ledger.booked == {"txn_0": (0, ""), "txn_0:explained": (900, "")}


async def test_a_line_waits_while_it_is_not_known_what_became_of_its_payment(desk: Desk) -> None:
    capture = await desk.captured("p", 900)
    async with desk.db.engine.begin() as conn:
        for statement in (
            "UPDATE payments SET stripe_payment_intent_id = 'pi_p'",
            f"""INSERT INTO operations (owner_id, payment_id, id, kind, amount_minor, final, captured_before_minor, reason, state,
                create_time, update_time) SELECT owner_id, id, 'op_1', 'CAPTURE', 100, true, 900, '', 'CREATED', now(), now()
                FROM payments WHERE owner_id = '{SHOP}'""",
        ):
            await conn.execute(text(statement))
    desk.stripe.move("charge", "ch_p", 900, intent="pi_p")
    desk.stripe.move("charge", "ch_p", 100, intent="pi_p")
    await desk.round()
    assert {item.source_id: item.state for item in (await desk.items()).values()} == {capture: ItemState.MATCHED}
    async with desk.db.engine.begin() as conn:
        await conn.execute(text("UPDATE operations SET state = 'FAILED'"))
    await desk.round()
    assert sorted(item.state.value for item in (await desk.items()).values()) == ["MATCHED", "UNEXPECTED"]
    owners = {item.owner_id for item in (await desk.items()).values()}
    assert owners == {SHOP}


async def test_what_comes_in_pieces_is_partial_then_a_split_that_a_person_accepts(desk: Desk) -> None:
    await desk.captured("p", 1000)
    desk.stripe.move("charge", "ch_p", 600)
    await desk.round()
    item = await desk.only()
    assert (item.state, item.break_type) == (ItemState.PARTIAL, Break.AMOUNT_UNDER)
    desk.stripe.move("charge", "ch_p", 400)
    await desk.round()
    item = await desk.only()
    assert (item.state, item.break_type, item.actual) == (
        ItemState.MISMATCH,
        Break.SPLIT,
        Money(amount_minor=1000, currency="USD"),
    )
    assert desk.ledger.booked == {"txn_0": (1000, ""), "txn_1": (0, "")}
    with pytest.raises(FieldInvalid):
        await desk.resolve(item, "w", write_off=True)
    item = await desk.resolve(item)
    assert (item.state, item.match_mode, item.reason, item.resolved_by) == (
        ItemState.MATCHED,
        MatchMode.MANUAL,
        "seen",
        "usr_1",
    )
    assert (await desk.told())[item.id] == ["expected", "partial", "mismatch", "matched"]
    rows = await _rows(desk, "SELECT version, state FROM reconciliation_item_versions ORDER BY version")
    assert rows == [(1, "EXPECTED"), (2, "PARTIAL"), (3, "MISMATCH")]


async def test_a_difference_is_written_off_once_and_only_by_a_person(desk: Desk) -> None:
    await desk.captured("p", 1000)
    desk.stripe.move("charge", "ch_p", 1007)
    for _ in range(3):
        await desk.round()
    item = await desk.only()
    assert (item.state, item.break_type) == (ItemState.MISMATCH, Break.AMOUNT_OVER)
    assert desk.ledger.written_off == {}
    item = await desk.resolve(item, write_off=True)
    assert (item.state, item.match_mode) == (ItemState.MATCHED, MatchMode.FORCED)
    assert desk.ledger.written_off == {item.id: Money(amount_minor=7, currency="USD")}
    with pytest.raises(ItemStateInvalid):
        await desk.resolve(item, "again", write_off=True)
    assert await _rows(desk, "SELECT write_off_booked FROM reconciliation_items") == [(True,)]


async def test_two_people_at_once_decide_once(desk: Desk) -> None:
    desk.stripe.move("adjustment", "whatever", -300)
    await desk.round()
    item = await desk.only()
    outcomes = await asyncio.gather(
        desk.resolve(item, "a", write_off=True),
        desk.resolve(item, "b", decision=ItemDecision.DISMISS, write_off=True),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, ReconciliationItem) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ItemStateInvalid) for outcome in outcomes) == 1
    assert desk.ledger.written_off == {item.id: Money(amount_minor=-300, currency="USD")}


async def test_what_never_comes_is_missing_and_may_still_come(desk: Desk) -> None:
    await desk.captured("p", 1000, ago=timedelta(days=4))
    await desk.round()
    assert (await desk.only()).state is ItemState.MISSING
    desk.stripe.move("charge", "ch_p", 1000)
    await desk.round()
    assert (await desk.only()).state is ItemState.MATCHED


async def test_nothing_is_missing_while_stripe_cannot_be_read(desk: Desk) -> None:
    desk.stripe.broken = True
    await desk.captured("p", 1000, ago=timedelta(days=4))
    await desk.round()
    assert (await desk.only()).state is ItemState.EXPECTED


async def test_a_refund_that_failed_comes_back_in_two_lines(desk: Desk) -> None:
    await desk.captured("p", 1000)
    await desk.refunded("p", 300)
    desk.stripe.move("charge", "ch_p", 1000)
    desk.stripe.move("refund", "re_p", -300)
    desk.stripe.move("refund_failure", "re_p", 300)
    await desk.round()
    assert desk.ledger.booked == {
        "txn_0": (1000, ""),
        "txn_1": (-300, "REFUNDS_IN_TRANSIT"),
        "txn_2": (300, "REFUNDS_IN_TRANSIT"),
    }
    assert await _rows(desk, "SELECT kind, state FROM reconciliation_items ORDER BY kind") == [
        ("CAPTURE", "MATCHED"),
        ("REFUND", "MATCHED"),
        ("REFUND_FAILURE", "MATCHED"),
    ]


async def test_what_stripe_does_of_its_own_accord_needs_no_record(desk: Desk) -> None:
    desk.stripe.move("payout", "po_1", -5000)
    desk.stripe.move("stripe_fee", "", -200)
    await desk.round()
    assert desk.ledger.booked == {"txn_0": (-5000, "PLATFORM_BANK"), "txn_1": (-200, "PROCESSOR_FEES")}
    assert await desk.items() == {}


async def test_another_currency_fits_by_its_rate(desk: Desk) -> None:
    await desk.captured("p", 1000, "EUR")
    desk.stripe.move("charge", "ch_p", 1100, 62, "USD", "1.1")
    await desk.round()
    item = await desk.only()
    assert (item.state, item.expected, item.actual) == (
        ItemState.MATCHED,
        Money(amount_minor=1000, currency="EUR"),
        Money(amount_minor=1100, currency="USD"),
    )


async def test_a_balance_that_its_lines_do_not_give_is_noted(desk: Desk) -> None:
    desk.stripe.move("charge", "ch_x", 900)
    await desk.round()
    before = await _rows(desk, "SELECT stripe_balance, mirrored_balance, baseline FROM reconciliation_progress")
    assert before == [({"USD": 900}, {"USD": 900}, {"USD": 0})]
    # A line of before the first pull: Stripe's balance has it, the list that is pulled has not.
    old = desk.stripe.move("charge", "ch_y", 50)
    desk.stripe.lines[-1] = replace(old, create_time=NOW - timedelta(days=90))
    await desk.round()
    (row,) = await _rows(desk, "SELECT stripe_balance, mirrored_balance, baseline FROM reconciliation_progress")
    assert row == ({"USD": 950}, {"USD": 900}, {"USD": 0})


async def test_a_balance_is_compared_only_while_nothing_moves_it(desk: Desk) -> None:
    desk.stripe.move("charge", "ch_x", 900)
    # What comes and goes between the two looks at the balance leaves it as it was, and the list is read in the middle of it.
    move = desk.stripe.move
    desk.stripe.meanwhile = [
        *(lambda: None for _ in range(30)),
        lambda: move("charge", "ch_y", 50),
        lambda: move("refund", "re_y", -50),
    ]
    await desk.round()
    progress = "SELECT stripe_balance, mirrored_balance FROM reconciliation_progress"
    assert await _rows(desk, progress) == [(None, None)]
    await desk.round()
    assert await _rows(desk, progress) == [({"USD": 900}, {"USD": 900})]


async def test_a_line_of_a_clock_ahead_of_ours_is_pulled_at_once(desk: Desk) -> None:
    line = desk.stripe.move("charge", "ch_x", 900)
    desk.stripe.lines[-1] = replace(line, create_time=NOW + timedelta(minutes=2))
    await desk.round()
    assert await _rows(desk, "SELECT stripe_balance, mirrored_balance FROM reconciliation_progress") == [
        ({"USD": 900}, {"USD": 900})
    ]


async def test_rounds_look_back_a_minute_and_once_an_hour_far(desk: Desk) -> None:
    clock = ManualClock(datetime.now(UTC))
    one_round = rounds(replace(desk.deps, clock=clock), TIMING)
    await one_round()
    desk.stripe.move("payout", "po_late", -5000)  # made ten minutes ago, and shown only now
    clock.advance(timedelta(seconds=30))
    await one_round()
    assert desk.ledger.booked == {}
    clock.advance(FAR)
    # So long after the last round everything is near; the round after it looks far back, too.
    desk.stripe.lines[-1] = replace(desk.stripe.lines[-1], create_time=clock.now() - FAR / 2)
    await one_round()
    assert desk.ledger.booked == {"txn_0": (-5000, "PLATFORM_BANK")}


async def test_the_audit_finds_what_is_in_transit_and_should_not_be(
    desk: Desk, make_database: MakeDatabase, postgres: TestPostgres
) -> None:
    await desk.captured("p", 1000)
    await desk.refunded("p", 300)
    wallets = await make_database("wallets")
    account = """
        INSERT INTO accounts (bucket, id, owner_id, kind, currency, credits_posted, version, create_time)
        VALUES (0, 'acc_x', 'platform', 'REFUNDS_IN_TRANSIT', 'USD', 300, 1, now())
        """
    postgres.execute(account, str(wallets.engine.url.database))
    urls = {"payments": desk.db, "wallets": wallets}
    engines = {
        name: create_engine(db.engine.url.render_as_string(hide_password=False), poolclass=NullPool)
        for name, db in urls.items()
    }
    assert refunds_in_transit(engines).broken == ()
    # Stripe withdraws it, and the ledger, which is none here, does not book that.
    desk.stripe.move("refund", "re_p", -300)
    await desk.round()
    assert refunds_in_transit(engines).broken == (("USD", "300 in transit, but 0 was refunded and is not withdrawn"),)


async def _rows(desk: Desk, statement: str) -> Sequence[tuple[Any, ...]]:
    async with desk.db.read() as conn:
        return [tuple(row) for row in await conn.execute(text(statement))]
