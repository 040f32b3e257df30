"""The audit's statements about wallets hold after everything that a wallet goes through, and each finds what it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from servers.audit.invariants import SETTLEMENT, USERS_WALLETS, WALLETS, Check
from servers.wallets.domain import wallet_id
from servers.wallets.facts import Fact
from tests.support.charging import P, Till
from tests.support.postgres import TestPostgres
from tests.support.wallet_books import capture_of, hold_of, refund_of, usd, void_of

CHECKS = (*WALLETS, *SETTLEMENT, *USERS_WALLETS)


async def live(till: Till) -> None:
    """Have everything happen to wallets that can: top-ups of every kind, holds, captures, a void, a refund, a refusal."""
    for state in (P.SUCCEEDED, P.CANCELED, P.PROCESSING, P.REQUIRES_ACTION):
        till.payments.state = state
        await till.top_up(f"k{state}", 10_000)
    owner = till.wallet.owner_id
    whose = {
        "customer_id": owner,
        "wallet_id": wallet_id(owner, "USD"),
        "expire_time": till.db.clock.now().replace(year=2100),
    }
    hold, gone, never, poor = (hold_of(name, 4000, **whose) for name in ("a", "b", "c", "d"))
    capture = capture_of(hold, "a1", 1500, 50)
    refund = replace(refund_of("r", 700, capture), wallet_customer_id=owner)
    story: list[Fact] = [
        hold,
        gone,
        capture,
        void_of(gone),
        void_of(never),
        never,
        replace(poor, amount=usd(99_999)),
        refund,
    ]
    verdicts = [(await till.ledger.tell(fact, writer=number)).name for number, fact in enumerate(story)]
    assert verdicts == ["CREATED"] * 5 + ["BURNT", "INSUFFICIENT_FUNDS", "CREATED"]


def broken(till: Till, check: Check) -> list[str]:
    """Return what a check finds, as who may read."""
    url = till.db.engine.url.render_as_string(hide_password=False)
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as conn:
            assert conn.execute(text(check.count)).scalar_one() >= 0
            return [str(row[0]) for row in conn.execute(text(check.broken))]
    finally:
        engine.dispose()


async def test_every_check_holds_after_all_that_can_happen(till: Till) -> None:
    await live(till)
    assert {check.title: broken(till, check) for check in CHECKS} == {check.title: [] for check in CHECKS}


SABOTAGE = {
    "each wallet has its account": "UPDATE accounts SET currency = 'EUR' WHERE kind = 'CUSTOMER_WALLET'",
    "a top-up that succeeded put": "UPDATE top_ups SET amount_minor = amount_minor + 1 WHERE state = 'SUCCEEDED'",
    "no id of the ledger": "INSERT INTO burnt SELECT bucket, id, record_time FROM transfers LIMIT 1",
    "no top-up is open": "UPDATE outbound_calls SET state = 'DONE', next_poll_time = NULL",
    "every version of every one of wallets": "UPDATE wallets SET version = version + 1",
    "every version of every one of top_ups": "DELETE FROM outbox WHERE type = 'top_up.succeeded'",
}


@pytest.mark.parametrize("check", USERS_WALLETS, ids=lambda check: check.title)
async def test_each_check_finds_what_was_changed_by_hand(till: Till, postgres: TestPostgres, check: Check) -> None:
    await live(till)
    statement = next(sql for title, sql in SABOTAGE.items() if check.title.startswith(title))
    postgres.execute(statement, str(till.db.engine.url.database))
    assert broken(till, check)


async def test_a_failed_top_up_with_money_is_found(till: Till, postgres: TestPostgres) -> None:
    await live(till)
    jump = "UPDATE top_ups SET state = 'FAILED', failure_reason = 'canceled' WHERE state = 'SUCCEEDED'"
    postgres.execute(f"ALTER TABLE top_ups DISABLE TRIGGER ALL; {jump}", str(till.db.engine.url.database))
    check = next(check for check in USERS_WALLETS if check.title.startswith("a top-up that succeeded"))
    assert len(broken(till, check)) == 1
