"""One mail per event and recipient, whatever is redelivered; and none about what happened long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from google.protobuf.message import Message
from paymesh.identity.v1 import identity_events_pb2, identity_pb2
from paymesh.payments.v1 import payments_events_pb2, payments_pb2
from paymesh.type.v1 import money_pb2
from paymesh.wallets.v1 import wallets_events_pb2, wallets_pb2
from sqlalchemy import text

from servers.kernel.clock import SystemClock
from servers.kernel.ids import new_id
from servers.notifications.consumer import handlers
from servers.notifications.domain import EmailKind
from servers.notifications.letters import Letter, Writer, write
from servers.notifications.peers import Directory
from servers.notifications.usecases import Deps
from servers.runtime.channels import Channels
from servers.runtime.db import Database
from servers.runtime.eventlog import Delivered, EventRecord
from servers.runtime.render import stamp
from tests.support.postgres import MakeDatabase

CLOCK = SystemClock()


class NoMail:
    """A gateway that nothing reaches in these tests."""

    async def send(self, letter: Letter, *, email_id: str, address: str, name: str) -> None:
        """Refuse to be used."""
        raise AssertionError(letter)


def deps_of(db: Database) -> Deps:
    """Return what the handlers need; no peer is called while an event is consumed."""
    channels: Channels = None  # type: ignore[assignment]
    return Deps(db=db, clock=CLOCK, gateway=NoMail(), directory=Directory(channels), public_url="https://x.example")


def registered(occur_time: datetime) -> Delivered:
    """Return the event of a registration."""
    user_id, event_id = new_id("usr", clock=CLOCK), new_id("evt", clock=CLOCK)
    event = identity_events_pb2.IdentityEvent(
        event_id=event_id, type="user.registered", subject=user_id, version=1, user=identity_pb2.User(id=user_id)
    )
    event.occur_time.CopyFrom(stamp(occur_time))
    record = EventRecord(
        topic="paymesh.identity.v1",
        key=user_id,
        event_id=event_id,
        type=event.type,
        source="paymesh/identity",
        subject=user_id,
        version=1,
        occur_time=occur_time,
        traceparent="",
        data=event.SerializeToString(),
    )
    return Delivered(record=record, partition=0, offset=0, generation=1)


def record_of(topic: str, event: Message, kind: str) -> Delivered:
    """Return an event as it arrives."""
    event_id = new_id("evt", clock=CLOCK)
    event.event_id, event.type = event_id, kind  # type: ignore[attr-defined]  # every event has them
    event.occur_time.CopyFrom(stamp(CLOCK.now()))  # type: ignore[attr-defined]  # as above
    record = EventRecord(
        topic=topic,
        key="k",
        event_id=event_id,
        type=kind,
        source="paymesh",
        subject="s",
        version=1,
        occur_time=CLOCK.now(),
        traceparent="",
        data=event.SerializeToString(),
    )
    return Delivered(record=record, partition=0, offset=0, generation=1)


async def queued(db: Database) -> tuple[int, int]:
    """Return how many mails and how many jobs there are."""
    async with db.read() as conn:
        mails = await conn.scalar(text("SELECT count(*) FROM emails"))
        jobs = await conn.scalar(text("SELECT count(*) FROM procrastinate_jobs"))
    return int(mails or 0), int(jobs or 0)


async def test_an_event_that_comes_again_has_one_mail(make_database: MakeDatabase) -> None:
    db = await make_database("notifications")
    handle = handlers(deps_of(db))["user.registered"]
    event = registered(CLOCK.now())
    for _ in range(3):
        async with db.uow() as uow:
            await handle(uow, event)
    assert await queued(db) == (1, 1)


async def test_nobody_gets_mail_about_what_happened_long_ago(make_database: MakeDatabase) -> None:
    db = await make_database("notifications")
    handle = handlers(deps_of(db))["user.registered"]
    async with db.uow() as uow:
        await handle(uow, registered(CLOCK.now() - timedelta(days=2)))
    assert await queued(db) == (0, 0)


async def test_a_top_up_has_its_own_mail_and_no_receipt(make_database: MakeDatabase) -> None:
    db = await make_database("notifications")
    table = handlers(deps_of(db))
    user_id = new_id("usr", clock=CLOCK)
    payment = payments_pb2.Payment(purpose=payments_pb2.Payment.TOP_UP)
    paid = payments_events_pb2.PaymentEvent(customer_id=user_id, payment=payment)
    top_up = wallets_pb2.TopUp(id=new_id("top", clock=CLOCK), amount=money_pb2.Money(amount_minor=1050, currency="USD"))
    filled = wallets_events_pb2.WalletEvent(customer_id=user_id, top_up=top_up)
    for event in (
        record_of("paymesh.payments.v1", paid, "payment.succeeded"),
        record_of("paymesh.wallets.v1", filled, "top_up.succeeded"),
    ):
        async with db.uow() as uow:
            await table[event.record.type](uow, event)
    assert await queued(db) == (1, 1)
    async with db.read() as conn:
        row = (await conn.execute(text("SELECT kind, user_id, resource_id, facts FROM emails"))).one()
    assert (row.kind, row.user_id, row.resource_id) == ("top_up", user_id, top_up.id)
    letter = write(EmailKind.TOP_UP, Writer(facts=row.facts, name="Ada", merchant="", token="", public_url=""))
    assert letter.subject == "10.50 USD added to your wallet"
    assert ("Top-up", top_up.id) in letter.rows


@pytest.mark.parametrize(
    ("wallet_id", "said"),
    [("wal_1", "The money is in your wallet."), ("", "Your bank shows it within 5 to 10 business days.")],
)
async def test_a_refunds_mail_says_where_the_money_went(make_database: MakeDatabase, wallet_id: str, said: str) -> None:
    db = await make_database("notifications")
    refund = payments_pb2.Refund(
        id=new_id("ref", clock=CLOCK),
        payment_id=new_id("pay", clock=CLOCK),
        merchant_id=new_id("mer", clock=CLOCK),
        amount=money_pb2.Money(amount_minor=300, currency="USD"),
    )
    paid_back = payments_events_pb2.PaymentEvent(
        customer_id=new_id("usr", clock=CLOCK), wallet_id=wallet_id, refund=refund
    )
    event = record_of("paymesh.payments.v1", paid_back, "refund.succeeded")
    async with db.uow() as uow:
        await handlers(deps_of(db))["refund.succeeded"](uow, event)
    async with db.read() as conn:
        facts = await conn.scalar(text("SELECT facts FROM emails"))
    letter = write(EmailKind.REFUND, Writer(facts=facts, name="Ada", merchant="Books", token="", public_url=""))
    assert letter.paragraphs == (f"Books refunded 3.00 USD. {said}",)
