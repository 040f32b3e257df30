"""Money that stays in suspense for more than a day is an alert, until somebody decides."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from sqlalchemy import text

from servers.payments.jobs import SUSPENSE_MAX, watch_suspense
from servers.payments.usecases import Deps
from tests.integration.payments.test_polling import alerts
from tests.support.postgres import MakeDatabase
from tests.support.stripe_feed import intake_on

PAYMENT = """
    INSERT INTO payments (owner_id, id, customer_id, amount_minor, currency, state, capture_method, description,
                          metadata, version, create_time, update_time)
    VALUES ('mer_1', 'pay_1', 'usr_1', 500, 'USD', 'REQUIRES_PAYMENT_METHOD', 'AUTOMATIC', '', '{}', 1, now(), now())
"""
ITEM = "INSERT INTO suspense_items VALUES ('mer_1', 'pay_1', 'sus_1', 500, 'USD', 'CONFLICT', :now)"
REFUND = """
    INSERT INTO refunds (owner_id, payment_id, id, amount_minor, currency, reason, state, metadata, version, create_time,
                         update_time, suspense_item_id)
    VALUES ('mer_1', 'pay_1', 'ref_1', 500, 'USD', 'OTHER', 'PENDING', '{}', 1, now(), now(), 'sus_1')
"""


async def test_it_is_told_until_it_moves_and_again_when_it_comes_back(make_database: MakeDatabase) -> None:
    intake = intake_on(await make_database("payments"))
    db, clock = intake.db, intake.feed.clock
    deps = cast(Deps, intake.webhooks._deps)
    before = alerts("suspense.old")

    async def run(statement: str) -> None:
        async with db.uow() as uow:
            await uow.conn.execute(text(statement), {"now": clock.now()})

    await run(PAYMENT)
    await run(ITEM)
    await watch_suspense(deps)
    clock.advance(SUSPENSE_MAX + timedelta(seconds=1))
    await watch_suspense(deps)
    assert alerts("suspense.old") == before + 1
    await run(REFUND)
    await watch_suspense(deps)
    assert alerts("suspense.old") == before + 1
    await run("UPDATE refunds SET state = 'FAILED'")
    await watch_suspense(deps)
    assert alerts("suspense.old") == before + 2
